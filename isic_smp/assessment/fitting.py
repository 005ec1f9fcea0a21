"""What is fitted on the validation images once a model is trained, and goes with it: three numbers.

The weights were chosen by these same images, so on them a model does a little better than elsewhere, and
what is fitted here promises a little too much. No test image has a part in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isic_smp.assessment.observations import Observations
from isic_smp.inference.expected_iou import FITTED, ExpectedIoU, logit_of_soft_iou
from isic_smp.inference.scores import Scores

PRIOR = 1.0
"""Pull of both numbers towards the soft IoU as it is (a normal prior of this precision): few images move it little."""


@dataclass(frozen=True)
class Fitted:
    """What goes with a model."""

    images: int
    """Validation images it was fitted on."""
    temperature: float
    """Dividing the logits by it calibrates the probabilities. Masks at threshold 0.5 stay as they are."""
    expected_iou: ExpectedIoU

    def to_facts(self) -> dict[str, Any]:
        """One entry for the facts that are saved with a model, as plain JSON values."""
        return {
            FITTED: {
                "images": self.images,
                "temperature": self.temperature,
                "expected_iou": self.expected_iou.to_dict(),
            }
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Fitted | None":
        """The reverse of `to_facts`; None where a model has none, as those saved by older versions."""
        expected = ExpectedIoU.from_facts(facts)
        if expected is None:
            return None
        return cls(int(facts[FITTED]["images"]), float(facts[FITTED]["temperature"]), expected)


def fit_on_validation(scores: Scores, observed: Observations) -> Fitted:
    """Fit temperature and expected IoU to the scores of the validation images and what was seen beside them."""
    return Fitted(
        len(scores.ids),
        observed.logits.fit_temperature(),
        fit_expected_iou(observed.soft_ious.tolist(), scores.own["iou"]),
    )


def fit_expected_iou(soft_ious: Sequence[float], iou: np.ndarray) -> ExpectedIoU:
    """Two numbers, by the quasi-likelihood of a fraction (Papke and Wooldridge, J. Appl. Econometrics 1996).

    Args:
        soft_ious: of each image, at least one.
        iou: true IoU of the same images, 0 to 1.
    """
    from scipy.optimize import minimize

    x = np.array([logit_of_soft_iou(soft) for soft in soft_ious])

    def loss(numbers: np.ndarray) -> float:
        intercept, slope = numbers
        line = intercept + slope * x
        pull = PRIOR / 2 * (intercept**2 + (slope - 1) ** 2)
        return float((np.logaddexp(0, line) - iou * line).sum() + pull)

    found = minimize(loss, x0=(0.0, 1.0), bounds=[(None, None), (0.0, None)], method="L-BFGS-B")
    intercept, slope = found.x
    return ExpectedIoU(float(intercept), float(slope))
