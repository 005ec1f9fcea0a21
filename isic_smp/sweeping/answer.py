"""The answer of a finished study: a text, a table, pictures, on the disk and in MLflow."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from isic_smp.data.isic2016 import LesionData
from isic_smp.sweeping.pictures import draw_study
from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.queue import REASON, ended, first_number
from isic_smp.sweeping.results import Cell
from isic_smp.sweeping.study_run import StudyRun, winner

ANSWER, TRIALS, PICTURES = "answer.md", "trials.csv", "pictures"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A finished study, its chosen trials scored on the test images where it is to be tested."""

    study: optuna.Study
    plan: Plan
    cells: Sequence[Cell]
    data: LesionData
    folder: Path
    tracking_uri: str
    tested: bool
    """Whether test images were scored."""
    dividing: Mapping[str, str | bool | None] = field(default_factory=dict)
    """Options of `isic_smp.run`, beside the recipe and the data's folder, that say how the data were read and divided."""


@dataclass(frozen=True)
class Answer:
    """What a sweep says of its findings."""

    text: str
    files: Sequence[Path] = field(default_factory=tuple)
    """Further files for MLflow, written already."""


def write_answer(findings: Findings, answer: Answer, *, run: StudyRun) -> str:
    """Write `answer.md`, `trials.csv` and Optuna's pictures, log them to the study's run, and end it.

    Raises:
        UserError: MLflow does not answer; the files are written all the same.
    """
    study, plan, folder = findings.study, findings.plan, findings.folder
    trials = ended(study)
    states = [trial.state.name for trial in trials]
    counts = f"{len(trials)} trials: {states.count('COMPLETE')} complete, {states.count('PRUNED')} pruned, "
    counts += f"{states.count('FAIL')} failed"
    reasons = [
        f"- trial {first_number(trial)} failed: {trial.user_attrs[REASON]}"
        for trial in trials
        if trial.state.name == "FAIL"
    ]
    about = (
        f"{findings.data.describe()}; scores are per-image means at the images' own sizes; everything was "
        "chosen by validation scores, "
    )
    about += (
        "test scores were computed afterwards, for the trials shown."
        if findings.tested
        else "and no test image was looked at."
    )
    text = "\n".join([f"# {study.study_name}", "", counts, *reasons, "", answer.text, "", about])
    (folder / ANSWER).write_text(text + "\n", encoding="utf-8")
    _write_trials(findings, folder / TRIALS)
    files = [folder / ANSWER, folder / TRIALS, *draw_study(study, plan, folder / PICTURES), *answer.files]
    metrics = {
        "trials/complete": float(states.count("COMPLETE")),
        "trials/pruned": float(states.count("PRUNED")),
    }
    best = winner(study, plan)
    if best is not None:
        metrics |= {f"best/{name}": best.user_attrs[name] for name in ("val_iou", "val_dice", "gmacs")}
        shown = [t for cell in findings.cells for t in cell.trials if t.number == first_number(best)]
        if shown and shown[0].test_iou is not None and shown[0].test_dice is not None:
            metrics |= {"best/test_iou": shown[0].test_iou, "best/test_dice": shown[0].test_dice}
    run.finish("FINISHED", files=files, metrics=metrics, answer=text)
    return f"{text}\n\nall of it: {folder / ANSWER}"


def _write_trials(findings: Findings, path: Path) -> None:
    """A row a chosen trial, with its test scores where the study was tested."""
    rows = [
        {
            **trial.params,
            **{k: v for k, v in dataclasses.asdict(trial).items() if k not in ("params", "folder")},
        }
        for cell in findings.cells
        for trial in cell.trials
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
