"""What a ranking of masks by their expected IoU is worth to a person who looks at the worst-ranked first."""

import math
from dataclasses import dataclass

import numpy as np

from isic_smp.inference.expected_iou import FAILURE_IOU

TENTH = 0.1


@dataclass(frozen=True, eq=False)
class Review:
    """Masks ranked by expected IoU, judged by their true IoU."""

    expected: np.ndarray
    """Float (N,)."""
    iou: np.ndarray
    """True IoU of the same images, float (N,)."""

    def rank_correlation(self) -> float | None:
        """Spearman's, -1 to 1; None where all of either are equal."""
        from scipy.stats import spearmanr

        if np.ptp(self.expected) == 0 or np.ptp(self.iou) == 0:
            return None
        return float(spearmanr(self.expected, self.iou).statistic)

    def mean_error(self) -> float:
        """Mean distance of the expected from the true IoU."""
        return float(np.abs(self.expected - self.iou).mean())

    def curve(self) -> np.ndarray:
        """Risk of the most trusted 1, 2, … N masks: the mean of 1 - IoU, float (N,).

        The risk–coverage curve of El-Yaniv and Wiener ("On the Foundations of Noise-free Selective
        Classification", JMLR 2010); its mean is the AURC (Geifman et al., arXiv:1805.08206).
        """
        return _risks(self.iou[np.argsort(-self.expected, kind="stable")])

    def best_curve(self) -> np.ndarray:
        """The same for the ranking by the true IoU, which no estimate can beat."""
        return _risks(np.sort(self.iou)[::-1])

    def random_risk(self) -> float:
        """What a random ranking gives on average, at every coverage."""
        return float(1 - self.iou.mean())

    def looked_at(self, share: float = TENTH) -> int:
        """How many masks a person sees who looks at `share` of them, at least one."""
        return math.ceil(share * len(self.iou) - 1e-9)

    def failures(self) -> int:
        """Masks of an IoU under 0.65."""
        return int(np.count_nonzero(self.iou < FAILURE_IOU))

    def found(self, share: float = TENTH) -> int:
        """How many of the failures are among the worst-ranked `share` of the masks."""
        worst = np.argsort(self.expected, kind="stable")[: self.looked_at(share)]
        return int(np.count_nonzero(self.iou[worst] < FAILURE_IOU))


def _risks(iou: np.ndarray) -> np.ndarray:
    return np.cumsum(1 - iou) / np.arange(1, len(iou) + 1)
