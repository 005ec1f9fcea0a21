"""All that is said of a set of scored images, beyond their mean scores."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isic_smp.assessment.fitting import Fitted
from isic_smp.assessment.observations import Observations
from isic_smp.assessment.review import Review
from isic_smp.assessment.subgroups import (
    GroupScores,
    by_border,
    by_diagnosis,
    score_groups,
    size_thirds,
    worst_group,
)
from isic_smp.data.isic2016 import LesionData, seen_in_training
from isic_smp.inference.expected_iou import FAILURE_IOU
from isic_smp.inference.scores import Scores


@dataclass(frozen=True, eq=False)
class Assessment:
    """The scores of images, what was seen of them, and what a model's fitted numbers say. Make one with `assess`."""

    scores: Scores
    observed: Observations
    fitted: Fitted | None
    """From validation images; None where a model has none."""
    groups: tuple[GroupScores, ...]
    seen: tuple[str, ...]
    """Ids of images whose lesion was in training too."""

    @cached_property
    def worst(self) -> GroupScores | None:
        """The group of the lowest mean IoU."""
        return worst_group(self.groups)

    @cached_property
    def expected_iou(self) -> np.ndarray | None:
        """Of each image, float (N,)."""
        if self.fitted is None:
            return None
        return np.array([self.fitted.expected_iou.of_soft(soft) for soft in self.observed.soft_ious.tolist()])

    @cached_property
    def review(self) -> Review | None:
        """What the expected IoU is worth; None where there is none."""
        return None if self.expected_iou is None else Review(self.expected_iou, self.scores.own["iou"])

    @cached_property
    def outlines(self) -> dict[str, np.ndarray] | None:
        """Of each image at its own size, by name: distances in pixels and in per cent of its diagonal; boundary IoU."""
        if self.observed.outlines is None:
            return None
        hausdorff, surface, boundary_iou = self.observed.outlines.T
        percent = 100 / np.hypot(*self.scores.sizes.T)
        return {
            "hausdorff95_px": hausdorff,
            "hausdorff95_percent": hausdorff * percent,
            "surface_distance_px": surface,
            "surface_distance_percent": surface * percent,
            "boundary_iou": boundary_iou,
        }

    @cached_property
    def failures(self) -> int:
        """Images of an IoU under 0.65."""
        return int(np.count_nonzero(self.scores.own["iou"] < FAILURE_IOU))

    def without_seen(self) -> dict[str, float] | None:
        """Mean Dice and IoU of the images whose lesion was not in training; None where none was, or all were."""
        new = ~np.isin(self.scores.ids, self.seen)
        if new.all() or not new.any():
            return None
        return {name: float(self.scores.own[name][new].mean()) for name in ("dice", "iou")}

    def summary(self) -> dict[str, float]:
        """One number each, by names fit for a metric; what is not known is left out."""
        numbers = {"failure_share_own": self.failures / len(self.scores.ids)}
        if self.outlines is not None:
            for name in ("hausdorff95_percent", "surface_distance_percent", "boundary_iou"):
                numbers[f"{name}_own"] = float(self.outlines[name].mean())
        numbers["calibration_error_net"] = self.observed.logits.calibration_error()
        if self.worst is not None:
            numbers["worst_group_iou_own"] = self.worst.iou
        if (unseen := self.without_seen()) is not None:
            numbers["iou_without_seen_lesions_own"] = unseen["iou"]
        if self.review is not None:
            if (correlation := self.review.rank_correlation()) is not None:
                numbers["expected_iou_rank_correlation"] = correlation
            numbers["expected_iou_aurc"] = float(self.review.curve().mean())
            if failures := self.review.failures():
                numbers["failures_in_worst_tenth"] = self.review.found() / failures
        return numbers

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single images, as plain JSON values."""
        calibration = {"expected_calibration_error": self.observed.logits.calibration_error()}
        if self.fitted is not None:
            temperature = self.fitted.temperature
            calibration["temperature"] = temperature
            calibration["expected_calibration_error_with_temperature"] = (
                self.observed.logits.calibration_error(temperature)
            )
        return {
            "images": len(self.scores.ids),
            "scores": self.scores.summary(),
            "images_under_iou_0.65": self.failures,
            "outlines": {name: float(v.mean()) for name, v in (self.outlines or {}).items()} or None,
            "calibration": calibration,
            "groups": [dataclasses.asdict(group) for group in self.groups],
            "worst_group": self.worst and self.worst.name,
            "lesions_seen_in_training": {"ids": list(self.seen), "scores_without": self.without_seen()},
            "expected_iou": self.review
            and {
                "fitted_on_validation_images": self.fitted.images if self.fitted else None,
                "rank_correlation": self.review.rank_correlation(),
                "mean_error": self.review.mean_error(),
                "aurc": float(self.review.curve().mean()),
                "aurc_random": self.review.random_risk(),
                "aurc_best_possible": float(self.review.best_curve().mean()),
                "looked_at": self.review.looked_at(),
                "failures": self.review.failures(),
                "failures_found": self.review.found(),
            },
        }

    def table(self) -> dict[str, list]:
        """One row an image, as columns: those of `Scores.table`, and what was seen beside them."""
        columns = {**self.scores.table(), "touches_border": self.observed.touches_border.tolist()}
        columns |= {name: values.tolist() for name, values in (self.outlines or {}).items()}
        if self.expected_iou is not None:
            columns["expected_iou"] = self.expected_iou.tolist()
        return columns


def assess(
    scores: Scores,
    observed: Observations,
    data: LesionData,
    split: str,
    *,
    fitted: Fitted | None,
    diagnosis: Mapping[str, str] | None = None,
    learned_from: Collection[str] | None = None,
) -> Assessment:
    """Put together what is known of the images of a split.

    Args:
        scores: of the split's images.
        observed: of the same images, on the way.
        data: that they belong to.
        split: train, val or test.
        fitted: what goes with the model.
        diagnosis: of each image id, where known.
        learned_from: ids of the images that the model was trained on. Default: the training images of `data`.
    """
    tp, _, fn, _ = scores.own_counts.T
    kinds = {
        "lesion size": size_thirds((tp + fn) / scores.own_counts.sum(axis=1)),
        "border": by_border(observed.touches_border),
        "diagnosis": by_diagnosis(scores.ids, diagnosis or {}),
    }
    groups = score_groups(kinds, dice=scores.own["dice"], iou=scores.own["iou"])
    seen = seen_in_training(data, split, learned_from=learned_from)
    return Assessment(scores, observed, fitted, tuple(groups), seen)
