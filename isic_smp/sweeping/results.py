"""What a finished study found: its trials with their scores, and their means over seeds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.queue import complete, ended, first_number
from isic_smp.sweeping.study_run import winner
from isic_smp.sweeping.trial import SEED, say, trial_folder

TEST = "test."
"""User attributes of the study: a trial's test scores, by the trial's number."""


@dataclass(frozen=True)
class TrialResult:
    """A complete trial. Scores are per-image means at the images' own sizes."""

    number: int
    params: Mapping[str, Any]
    """Without the seed."""
    seed: int
    folder: Path
    run_id: str
    val_iou: float
    val_dice: float
    test_iou: float | None
    test_dice: float | None
    parameters: int
    gmacs: float
    seconds: float

    @property
    def model(self) -> str:
        """Its saved model as `load_bundle` takes it: here, or from MLflow where another machine trained it."""
        return str(self.folder) if (self.folder / "model").is_dir() else self.run_id


@dataclass(frozen=True)
class Cell:
    """Trials that differ in the seed alone."""

    params: Mapping[str, Any]
    trials: tuple[TrialResult, ...]

    def mean(self, name: str) -> float | None:
        """Mean over seeds of a score; None where it is not known."""
        values = [getattr(trial, name) for trial in self.trials]
        return None if None in values else statistics.fmean(values)

    def spread(self, name: str) -> float | None:
        """Standard deviation over seeds; None for one seed."""
        values = [getattr(trial, name) for trial in self.trials]
        return None if None in values or len(values) < 2 else statistics.stdev(values)


def chosen(study: optuna.Study, plan: Plan) -> list[FrozenTrial]:
    """The trials that the answer is about, chosen by validation scores alone.

    A grid's answer is about all of it; a search's about its winner, under each seed that it was
    trained with; with several objectives, about the front that none of the others beats.
    """
    done = [trial for trial in complete(ended(study)) if "val_iou" in trial.user_attrs]
    if plan.is_grid:
        return done
    best = winner(study, plan)
    if best is None:
        return []
    if len(plan.objectives) > 1:
        front = {trial.number for trial in study.best_trials}
        return [trial for trial in done if trial.number in front]
    return [t for t in done if t.number == best.number or (SEED in t.user_attrs and t.params == best.params)]


def collect(study: optuna.Study, trials: Sequence[FrozenTrial], folder: Path) -> list[TrialResult]:
    """The trials with all scores that are known of them."""
    found = []
    for trial in trials:
        number, attrs = first_number(trial), trial.user_attrs
        test = json.loads(study.user_attrs.get(f"{TEST}{number}", "{}"))
        found.append(
            TrialResult(
                number,
                {name: value for name, value in trial.params.items() if name != "seed"},
                attrs["training_seed"],
                trial_folder(folder, number),
                attrs["run_id"],
                attrs["val_iou"],
                attrs["val_dice"],
                test.get("iou_per_image_own"),
                test.get("dice_per_image_own"),
                attrs["parameters"],
                attrs["gmacs"],
                attrs["seconds"],
            )
        )
    return found


def cells(results: Sequence[TrialResult]) -> list[Cell]:
    """The results by cell, in the order in which the cells first appear."""
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        groups.setdefault(json.dumps(result.params, sort_keys=True), []).append(result)
    return [Cell(group[0].params, tuple(group)) for group in groups.values()]


def table(found: Sequence[Cell], more: Mapping[str, Sequence[str]] | None = None) -> str:
    """A Markdown table, a row a cell: parameters, scores as mean ± standard deviation over seeds, costs.

    Args:
        found: the cells.
        more: further columns, a text for each cell.
    """
    names = list(dict.fromkeys(name for cell in found for name in cell.params))
    scores = {"val IoU": "val_iou", "val Dice": "val_dice"}
    if any(trial.test_iou is not None for cell in found for trial in cell.trials):
        scores |= {"test IoU": "test_iou", "test Dice": "test_dice"}
    head = [*names, "seeds", *scores, "M parameters", "G multiply-adds", "s a trial", *(more or {})]
    rows = []
    for i, cell in enumerate(found):
        row = [say(cell.params.get(name)) for name in names] + [str(len(cell.trials))]
        row += [_score(cell, name) for name in scores.values()]
        row += [f"{cell.trials[0].parameters / 1e6:.3f}", f"{cell.trials[0].gmacs:.3f}"]
        row += [f"{cell.mean('seconds'):.0f}", *(column[i] for column in (more or {}).values())]
        rows.append(row)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _score(cell: Cell, name: str) -> str:
    mean, spread = cell.mean(name), cell.spread(name)
    if mean is None:
        return ""
    return f"{mean:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
