"""What is seen of each image while it is scored, beside the pixel counts that its scores come from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from isic_smp.assessment.boundary import boundary_scores
from isic_smp.assessment.calibration import LogitCounts
from isic_smp.data.pairs import Pair
from isic_smp.inference.expected_iou import soft_iou
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scores import Scores
from isic_smp.inference.scoring import score


class Observations:
    """An `isic_smp.inference.scoring.Observer` of so many images.

    Args:
        images: how many will be scored.
        threshold: of the masks.
        outlines: measure the outlines too, a millisecond for a picture of 256 × 256, a tenth of a second
            for a camera's 12 million pixels.
    """

    def __init__(self, images: int, *, threshold: float, outlines: bool = True) -> None:
        self.threshold = threshold
        self.logits = LogitCounts()
        """Of all pixels of the model's maps."""
        self.soft_ious = np.full(images, np.nan)
        """Of each image's map, float (N,)."""
        self.touches_border = np.zeros(images, bool)
        """Whether the true lesion reaches the frame of its image, (N,)."""
        self.outlines = np.full((images, 3), np.nan) if outlines else None
        """`BoundaryScores` of each image at its own size, float (N, 3)."""

    def network(self, start: int, logits: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """See a batch of the model's maps."""
        self.logits.add(logits, truth)
        for n, probability in enumerate(probabilities, start=start):
            self.soft_ious[n] = soft_iou(probability, self.threshold)

    def own(self, index: int, predicted: np.ndarray, truth: np.ndarray) -> None:
        """See an image's masks at its own size."""
        edges = (truth[0], truth[-1], truth[:, 0], truth[:, -1])
        self.touches_border[index] = any(bool(edge.any()) for edge in edges)
        if self.outlines is not None:
            self.outlines[index] = boundary_scores(predicted, truth)


def score_and_observe(
    predictor: Predictor, pairs: Sequence[Pair], *, outlines: bool = True, **settings: Any
) -> tuple[Scores, Observations]:
    """`isic_smp.inference.scoring.score`, with its settings, and what was seen on the way."""
    observed = Observations(len(pairs), threshold=predictor.preprocessing.threshold, outlines=outlines)
    return score(predictor, pairs, observer=observed, **settings), observed
