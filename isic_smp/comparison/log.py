"""A comparison in MLflow: a run of its own that holds the report, and a tag on every run it compares."""

from collections.abc import Sequence
from pathlib import Path

from isic_smp.comparison.effects import Comparison
from isic_smp.comparison.groups import Group
from isic_smp.comparison.runs import ScoredRun, Split
from isic_smp.stats import RESAMPLES
from isic_smp.store import one_line, prepare_store
from isic_smp.tracking.environment import run_tags
from isic_smp.tracking.run_log import RunLog

EXPERIMENT = "comparisons"
FIGURES = ("difference", "ci_low", "ci_high", "p_value", "better", "worse", "mean_a", "mean_b")


def log_comparison(
    comparisons: Sequence[Comparison],
    *,
    split: Split,
    folder: Path,
    files: Sequence[Path],
    tracking_uri: str | None,
) -> tuple[str, list[str]]:
    """Log the report as a run of the experiment `comparisons`, and tag the compared runs with the answer.

    Args:
        comparisons: all against the same first group.
        split: which images.
        folder: where the run's journal is kept.
        files: the report and its pictures; a PNG goes into the artifact folder `pictures`.
        tracking_uri: MLflow store.

    Returns:
        Where to look, and one line for each compared run that is not in this store.

    Raises:
        UserError: the store refuses or does not answer.
    """
    uri = prepare_store(tracking_uri)
    groups = [comparisons[0].a, *(c.b for c in comparisons)]
    answers = "\n\n".join(c.answer() for c in comparisons)
    data = comparisons[0].a.runs[0].data
    log = RunLog.start(
        experiment=EXPERIMENT,
        run_name=" vs ".join(group.label for group in groups),
        params={
            "metric": comparisons[0].metric,
            "split": split,
            "images": comparisons[0].overall.n_images,
            "resamples": RESAMPLES,
            **{_letter(n): _say(group) for n, group in enumerate(groups)},
        },
        tags={
            **run_tags(),
            "data": data.get("description", ""),
            "data_fingerprint": data.get("fingerprint", ""),
            "answer": answers,
            **_compared([run for group in groups for run in _trained(group)]),
        },
        journal=folder / "journal",
        tracking_uri=uri,
    )
    with log:
        for comparison in comparisons:
            log.log_metrics(_figures(comparison), step=0)
        for file in files:
            log.log_artifact(file, "pictures" if file.suffix == ".png" else None)
    return _hint(log), _tag_runs(comparisons, log.run_id, uri)


def _figures(comparison: Comparison) -> dict[str, float]:
    """Plain names for one comparison; behind the second group's label where there are several."""
    prefix = f"{comparison.b.slug}/" if comparison.comparisons > 1 else ""
    values = {f"{prefix}{name}": getattr(comparison.overall, name) for name in FIGURES}
    return values | ({f"{prefix}p_holm": comparison.p_holm} if prefix else {})


def _trained(group: Group) -> list[ScoredRun]:
    """The group's runs; where folds make up one, each of them."""
    return [member for run in group.runs for member in run.members]


def _compared(runs: Sequence[ScoredRun]) -> dict[str, str]:
    """A tag for each run that MLflow knows; with its id where others have its name, as trials of two studies do."""
    names = [run.name for run in runs]
    return {
        f"compared.{run.name}" + (f" {run.run_id[:8]}" if names.count(run.name) > 1 else ""): run.run_id
        for run in runs
        if run.run_id
    }


def _letter(n: int) -> str:
    return chr(ord("a") + n) if n < 26 else f"group_{n + 1}"


def _say(group: Group) -> str:
    return f"{group.label} ({', '.join(run.name for run in _trained(group))})"


def _hint(log: RunLog) -> str:
    """Where to look, straight at the report: the experiment's chart view has nothing to show of a comparison."""
    lines = [line for line in log.ui_hint().splitlines() if not line.startswith("all runs")]
    return "\n".join(line.replace(f"{log.run_id}?", f"{log.run_id}/artifacts/report.html?") for line in lines)


def _tag_runs(comparisons: Sequence[Comparison], run_id: str, uri: str) -> list[str]:
    from mlflow import MlflowClient

    client, untagged = MlflowClient(uri), []
    told = [(run, [c]) for c in comparisons for run in _trained(c.b)]
    told += [(run, list(comparisons)) for run in _trained(comparisons[0].a)]
    for run, about in told:
        answer = " ".join(comparison.answer() for comparison in about)
        try:
            if run.run_id is None:
                raise LookupError("its output folder names no MLflow run")
            client.set_tag(run.run_id, f"comparison.{run_id[:8]}", f"{answer} See run {run_id}.")
        except Exception as error:  # whatever the store raises: the comparison itself is logged
            untagged.append(f"{run.name} was not tagged with the answer: {one_line(error)}")
    return untagged
