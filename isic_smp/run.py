"""Train, evaluate and log one model.

    python -m isic_smp.run                                # the default recipe, fine-tuned
    python -m isic_smp.run --freeze                       # only the decoder is trained
    python -m isic_smp.run --recipe report --epochs 3     # a preset, one setting changed
    python -m isic_smp.run --recipe my.yaml --data-dir data/isic2016 --encoder-weights imagenet
    torchrun --nproc-per-node 2 -m isic_smp.run           # two processes, one run

Ctrl-C ends it with a checkpoint; --resume with the same --output-dir goes on from there.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from isic_smp import cli
from isic_smp.data.names import HELD_OUT, Data
from isic_smp.errors import UserError
from isic_smp.training.recipe import PRESETS, Recipe, recipe_of_command

if TYPE_CHECKING:
    from isic_smp.conclude import Result

PROG = "python -m isic_smp.run"


@dataclass(frozen=True)
class Options:
    """Where data come from and results go."""

    recipe: str = "default"
    """A preset (default, small, report) or a .yaml file of settings; the options below change single settings of it."""
    data: Data = "auto"
    """auto: ISIC 2016 where it is found, else drawn pictures, said loudly."""
    data_dir: Path | None = None
    """Folder that holds the four ISIC 2016 part 1 folders. Else ISIC_SMP_DATA, else ./data/isic2016."""
    binarize_masks: bool = False
    """Take grey mask values above 128 as lesion, instead of refusing the mask."""
    hold_out: Annotated[str | None, tyro.conf.arg(metavar=HELD_OUT)] = None
    """Train without this group of pictures and validate on it alone, to see how a recipe does on pictures unlike
    those it has seen: faint, small, cut by the frame, in cool light, any of these (hard), or of a diagnosis that the
    manifest.csv beside them names. No test scores."""
    fold: Annotated[str | None, tyro.conf.arg(metavar="K/N[:cameras]")] = None
    """Cross-validation: validate on the Kth of N parts of the training pictures, train on the others; compare takes the N
    runs together (--split validation). K/N:cameras keeps the pictures of each camera, told by the size of its frames, in
    one part, to see how a recipe does on pictures of cameras it does not know. No test scores."""
    output_dir: Path | None = None
    """Checkpoints, final weights and pictures of this run. Default: a new folder under ./runs."""
    resume: bool = False
    """Go on from the checkpoint in --output-dir, which must be given, or start afresh where there is none. Without it, an
    interrupted run's folder is refused."""
    cache_dir: Path | None = None
    """Decoded pixels and banked features. Default: ISIC_SMP_CACHE, else the user's cache folder."""
    experiment: str | None = None
    """MLflow experiment. Default: isic2016, or another one for drawn pictures. A resumed run stays where it is."""
    run_name: str | None = None
    """MLflow run name. Default: the output folder's name. A resumed run keeps its own."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, else SQLite under ./mlruns."""
    offline: bool = False
    """Log into --output-dir only, where MLflow cannot be reached; python -m isic_smp.sync OUTPUT_DIR sends it later."""
    register: str | None = None
    """Register the trained model under this name in MLflow's registry, as a new version."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    profile: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Trace N steps of the first epoch into --output-dir, and print where its time went."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: PRESETS["default"])


def parse(argv: Sequence[str] | None = None) -> Options:
    """Options from the command line, over the preset or file that `--recipe` names."""
    name, recipe = recipe_of_command(argv)
    default = Options(recipe=name, settings=recipe)
    return cli.parse(Options, prog=PROG, description=str(__doc__), argv=argv, default=default)


def main() -> None:
    """Run one experiment and print its table."""
    options = parse()
    cli.end_on_sigterm()
    if options.register is not None and options.offline:
        raise UserError("--register needs MLflow: leave out --offline, or register the run when it is sent")
    if options.register is not None:  # before the work, not after it
        from isic_smp.tracking.registry import check_name

        check_name(options.register)
    if options.resume and options.output_dir is None:
        raise UserError("--resume needs the --output-dir of the run to go on with")
    from isic_smp.data.folds import parse_fold
    from isic_smp.experiment import run_experiment
    from isic_smp.setup import Setup

    result = run_experiment(
        options.settings,
        Setup(
            data=options.data,
            data_dir=options.data_dir,
            binarize_masks=options.binarize_masks,
            hold_out=options.hold_out,
            fold=parse_fold(options.fold) if options.fold is not None else None,
            output_dir=options.output_dir,
            cache_dir=options.cache_dir,
            experiment=options.experiment,
            run_name=options.run_name,
            tracking_uri=options.tracking_uri,
            offline=options.offline,
            device=options.device,
            resume=options.resume,
            profile=options.profile,
        ),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if result is not None:
        print(table(result))
        if options.register is not None:
            print(register(result, options.register, tracking_uri=options.tracking_uri))


def register(result: "Result", name: str, *, tracking_uri: str | None) -> str:
    """Make the run's model a version of `name`; a line that says which.

    Raises:
        UserError: MLflow does not take it, or not yet; the run itself is complete.
    """
    from isic_smp.store import without_password
    from isic_smp.tracking.registry import Registry

    # So that both commands can be given as they are printed, but for a password.
    store = f" --tracking-uri {shlex.quote(without_password(tracking_uri))}" if tracking_uri else ""
    try:
        version = Registry(tracking_uri).register(result.run_id, name).version
    except UserError as error:
        again = f"python -m isic_smp.registry register {shlex.quote(str(result.output_dir))} --name {shlex.quote(name)}{store}"
        raise UserError(
            f"the run is complete, but not registered ({error}); try again with {again}"
        ) from None
    return (
        f"registered as {name} version {version}; to use it: python -m isic_smp.registry promote "
        f"{shlex.quote(name)} --version {version}{store}"
    )


def table(result: "Result") -> str:
    """The report's table for one run, and where to look next."""
    kept = result.fit.history[result.fit.kept_epoch]
    scores, split = (result.validation, "validation") if result.test is None else (result.test, "test")
    summary = scores.summary()
    lines = ["", f"{'':24}{'train loss':>12}{f'{split[:10]} loss':>16}{'Dice':>10}{'IoU':>10}"]
    side = scores.map_side
    for label, suffix in ((f"at {side}×{side} pixels", "net"), ("at each image's own size", "own")):
        losses = f"{kept.train_loss:>12.4f}{scores.loss:>16.4f}" if suffix == "net" else f"{'':>28}"
        dice, iou = (f"{summary[f'{name}_per_image_{suffix}']:>10.4f}" for name in ("dice", "iou"))
        lines.append(f"{label:24}{losses}{dice}{iou}")
    lines.append(f"{split}, {len(scores.ids)} images, per-image means; weights of epoch {kept.epoch + 1}")
    lines += ["", f"model and checkpoints: {result.output_dir}", result.ui_hint]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.command(main, prog=PROG)
