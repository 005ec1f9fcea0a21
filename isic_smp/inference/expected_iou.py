"""How good a mask is likely to be, told from the probabilities it comes from and nothing else.

The soft IoU of a mask is what its IoU would be on average if every pixel were lesion with just the
probability that the network gives it: the expected intersection over the expected union. It ranks masks as
the soft Dice confidence does (Borges et al., "Soft Dice Confidence: A Near-Optimal Confidence Estimator for
Selective Prediction in Semantic Segmentation", arXiv:2402.10665). Networks are surer than they should be, so
two numbers fitted on validation images (`isic_smp.assessment.fitting`) turn it into an IoU to expect.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isic_smp.errors import UserError

FAILURE_IOU = 0.65
"""A mask of a lower IoU counts as failed, as in the ISIC 2018 challenge (Codella et al., arXiv:1902.03368)."""
SURE = 0.01
"""A soft IoU nearer to 0 or 1 counts as this near: beyond it, images tell nothing of the course."""
FITTED = "fitted_on_validation"
"""What was fitted, in the facts that go with a model."""


def soft_iou(probability: np.ndarray, threshold: float) -> float:
    """Expected intersection over expected union of the mask `probability > threshold`; 0 where it is empty.

    Args:
        probability: the model's map, float (S, S), 0 to 1.
        threshold: of the mask.
    """
    inside = probability[probability > threshold]
    intersection = float(inside.sum(dtype=np.float64))
    outside = float(probability.sum(dtype=np.float64)) - intersection
    return intersection / (inside.size + outside) if inside.size else 0.0


def logit_of_soft_iou(soft: float) -> float:
    """The logit of a soft IoU, from -4.6 to 4.6."""
    kept = min(max(soft, SURE), 1 - SURE)
    return math.log(kept / (1 - kept))


@dataclass(frozen=True)
class ExpectedIoU:
    """From a soft IoU to the IoU to expect: sigmoid(intercept + slope · logit(soft IoU))."""

    intercept: float
    slope: float
    """At least 0: a surer map never gets the lower figure."""

    def of(self, probability: np.ndarray, threshold: float) -> float:
        """The IoU to expect of a mask, 0 to 1; arguments as of `soft_iou`."""
        return self.of_soft(soft_iou(probability, threshold))

    def of_soft(self, soft: float) -> float:
        """The same from the soft IoU itself."""
        return 1 / (1 + math.exp(-self.intercept - self.slope * logit_of_soft_iou(soft)))

    def to_dict(self) -> dict[str, float]:
        """The two numbers as plain JSON values."""
        return {"intercept": self.intercept, "slope": self.slope}

    def to_facts(self) -> dict[str, Any]:
        """The reverse of `from_facts`."""
        return {FITTED: {"expected_iou": self.to_dict()}}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "ExpectedIoU | None":
        """What was fitted for a model, from the facts that go with it; None where nothing was, as in old ones.

        Raises:
            UserError: something else stands there.
        """
        fitted = facts.get(FITTED)
        values = fitted.get("expected_iou") if isinstance(fitted, Mapping) else None
        if not isinstance(values, Mapping):
            return None
        try:
            return cls(intercept=float(values["intercept"]), slope=float(values["slope"]))
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"expected_iou must hold the numbers intercept and slope, got {dict(values)}"
            ) from None
