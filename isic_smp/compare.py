"""Compare runs on the same images: which is better, by how much, and how sure that is.

    python -m isic_smp.compare runs/frozen-s* runs/finetuned-s*     # seeds of a recipe are grouped
    python -m isic_smp.compare RUN_ID "a run's name" --metric iou --no-log
    python -m isic_smp.compare runs/a runs/b runs/c                 # b and c against a

A RUN is a run's --output-dir, an MLflow run id or an MLflow run name. Runs whose recipes differ only
in the seed make up one group; every other group is compared with the first. The folds of a cross-validation
(run --fold K/N) are taken together, with --split validation. The table, a report
(report.html, which opens without a server) and its pictures go to --out and to MLflow.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from isic_smp import cli
from isic_smp.errors import UserError

PROG = "python -m isic_smp.compare"


@dataclass(frozen=True)
class Options:
    """Which runs are compared, and how."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN [RUN …]")]
    """Two or more output folders, run ids or run names."""
    metric: Literal["dice", "iou"] = "dice"
    """Score of each image, at its own size."""
    split: Literal["test", "validation"] = "test"
    """Which images."""
    each: bool = False
    """Compare every run by itself, seeds of one recipe too."""
    any_size: bool = False
    """Compare runs whose networks see pictures of different sizes."""
    out: Path | None = None
    """Folder for the report and its pictures. Default: a new one under ./comparisons."""
    log: bool = True
    """Keep the report in MLflow, as a run of the experiment `comparisons`."""
    images: int = 3
    """How many images to show that differ most, each way; 0 for none. Needs the data and the models."""
    data_dir: Path | None = None
    """Folder of the data, for these images and the diagnoses. Else ISIC_SMP_DATA, else ./data/isic2016."""
    cache_dir: Path | None = None
    """Drawn pictures and file digests. Default: ISIC_SMP_CACHE, else the user's cache folder."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, else ./mlruns."""
    seed: int = 0
    """Of the bootstrap."""


def main(argv: Sequence[str] | None = None) -> None:
    """Compare runs, print the answer, and write and log the report."""
    options = cli.parse(Options, prog=PROG, description=str(__doc__), argv=argv)
    if len(options.runs) < 2:
        raise UserError(f"need at least two runs to compare, got {len(options.runs)}")
    if min(options.images, options.seed) < 0:
        raise UserError(f"--images and --seed must not be negative, got {options.images} and {options.seed}")
    from isic_smp.comparison.data import find_data
    from isic_smp.comparison.effects import METRIC_NAMES, compare_groups
    from isic_smp.comparison.files import REPORT, write_files
    from isic_smp.comparison.folds import join_folds
    from isic_smp.comparison.groups import group_runs
    from isic_smp.comparison.runs import check_comparable, find_runs
    from isic_smp.comparison.text import caveats, describe_setting, table
    from isic_smp.data.diagnoses import read_diagnoses
    from isic_smp.data.manifest import MANIFEST
    from isic_smp.data.source import default_cache_dir

    runs = find_runs(
        options.runs, metric=options.metric, split=options.split, tracking_uri=options.tracking_uri
    )
    runs = join_folds(runs)
    if len(runs) == 1:
        [found] = runs
        raise UserError(
            f"the {len(found.parts)} runs are the folds of one recipe and seed (mean "
            f"{METRIC_NAMES[options.metric]} {found.scores.mean():.4f} over {len(found.ids)} images): name the folds "
            "of another, to compare them with"
        )
    check_comparable(runs, any_size=options.any_size)
    groups = group_runs(runs, each=options.each)
    folder = _make_folder(options.out, "-vs-".join(group.slug for group in groups))
    data = find_data(runs[0], options.data_dir, cache_dir=options.cache_dir or default_cache_dir())
    diagnosis = None if isinstance(data, str) else read_diagnoses(data.root)
    comparisons = compare_groups(groups, metric=options.metric, diagnosis=diagnosis, seed=options.seed)
    setting = describe_setting(runs[0], split=options.split, metric_name=METRIC_NAMES[options.metric])
    notes = caveats(groups)
    if diagnosis is None:
        why = (
            data if isinstance(data, str) else f"no {MANIFEST} with columns id and diagnosis beside the data"
        )
        notes.append(f"No effect by diagnosis is given: {why}.")
    print(f"{setting}\n\n{table(comparisons)}\n")
    print("\n".join(comparison.answer() for comparison in comparisons))
    files, more = write_files(
        folder,
        comparisons,
        setting=setting,
        caveats=notes,
        data=data,
        diagnosis=diagnosis,
        images=options.images,
        tracking_uri=options.tracking_uri,
    )
    for line in [*notes, *more]:
        print(f"note: {line}")
    print(f"\nreport: {folder / REPORT}")
    if options.log:
        from isic_smp.comparison.log import log_comparison

        hint, untagged = log_comparison(
            comparisons,
            split=options.split,
            folder=folder,
            files=files,
            tracking_uri=options.tracking_uri,
        )
        for line in untagged:
            print(f"note: {line}", file=sys.stderr)
        print(hint)


def _make_folder(out: Path | None, name: str) -> Path:
    """The folder for the report, made before the work rather than after it."""
    from isic_smp.comparison.files import PICTURES

    out = out or Path("comparisons") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name[:80]}"
    try:
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    return out


if __name__ == "__main__":
    cli.command(main, prog=PROG)
