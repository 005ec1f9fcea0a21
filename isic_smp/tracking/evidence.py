"""What speaks for a registered version: its run's scores on each validation image, and how two of them compare."""

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isic_smp.stats import PairedComparison, compare_paired
from isic_smp.store import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TABLE = "scores/validation_scores.csv"
METRIC = "dice_own"


class MissingEvidence(Exception):
    """There are no scores, or none that can be held against each other; the message says why."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A version's scores."""

    fingerprint: str | None
    """Of the data that its run was trained and validated on."""
    images: tuple[tuple[str, ...], ...]
    """Id, height, width and lesion area of each, so that equal ids with other masks are told apart."""
    dice: np.ndarray
    """Their Dice at own size, float64 (N,)."""


def read_evidence(client: "MlflowClient", version: "ModelVersion") -> Evidence:
    """The scores that a version's run has logged.

    Raises:
        MissingEvidence: there are none.
    """
    missing = f"there are no validation scores of version {version.version}"
    if not version.run_id:
        raise MissingEvidence(f"{missing}, which belongs to no run")
    try:
        fingerprint = client.get_run(version.run_id).data.tags.get("data_fingerprint")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(client.download_artifacts(version.run_id, TABLE, folder))
            with path.open(newline="", encoding="utf-8") as file:
                rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
        images = tuple((row["id"], row["height"], row["width"], row["lesion_area"]) for row in rows)
        return Evidence(fingerprint, images, np.array([float(row[METRIC]) for row in rows]))
    except Exception as error:  # whatever the artifact store raises, or a table that is none
        raise MissingEvidence(f"{missing} ({TABLE} of run {version.run_id}: {one_line(error)})") from None


def compare_evidence(candidate: Evidence, champion: Evidence) -> PairedComparison:
    """The candidate's scores against the champion's; positive differences favour the candidate.

    Raises:
        MissingEvidence: other data, other images, or too few.
    """
    if candidate.fingerprint is None or candidate.fingerprint != champion.fingerprint:
        raise MissingEvidence(
            "the two cannot be compared: their runs were on different data "
            f"(fingerprints {candidate.fingerprint} and {champion.fingerprint})"
        )
    if candidate.images != champion.images:
        raise MissingEvidence(
            "the two cannot be compared: they were not scored on the same validation images "
            f"({len(candidate.images)} and {len(champion.images)})"
        )
    try:
        return compare_paired(champion.dice, candidate.dice)
    except ValueError as error:
        raise MissingEvidence(f"the two cannot be compared: {error}") from None


def in_words(paired: PairedComparison, champion: str) -> str:
    """The comparison in one line; `champion` is the version that the candidate was held against."""
    certain = "" if paired.ci_low > 0 or paired.ci_high < 0 else ", which holds 0: not certain"
    return (
        f"validation Dice {paired.mean_b:.4f} against {paired.mean_a:.4f} of version {champion}, "
        f"{paired.difference:+.4f} on {paired.n_images} images "
        f"(95 % interval {paired.ci_low:+.4f} to {paired.ci_high:+.4f}{certain})"
    )
