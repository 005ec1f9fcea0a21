"""Whether of the pixels that are called lesion with 80 %, four in five are lesion.

All is told from counts of pixels by their logit, which take the room of one small picture however many
images there are.
"""

from typing import NamedTuple

import numpy as np

LIMIT, STEP = 20.0, 0.02
"""Logits are counted from -LIMIT to LIMIT, in cells this wide; those beyond count as the outermost."""
_CELLS = round(2 * LIMIT / STEP)
_CENTRES = -LIMIT + STEP * (np.arange(_CELLS) + 0.5)

BINS = 15
"""Of equal width in probability, as Guo et al. took them."""
LARGEST_TEMPERATURE = 20.0


class Reliability(NamedTuple):
    """The pixels of each of the `BINS` bins, float64 (BINS,) each."""

    probability: np.ndarray
    """Their mean probability; nan in an empty bin."""
    frequency: np.ndarray
    """The share of them that is lesion; nan in an empty bin."""
    share: np.ndarray
    """Their part of all pixels; adds up to 1."""


class LogitCounts:
    """Pixels of skin and of lesion, counted by their logit."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, _CELLS), np.int64)

    def add(self, logits: np.ndarray, truth: np.ndarray) -> None:
        """Count pixels: their logits, float of any shape, and whether they are lesion, bool of that shape."""
        cells = ((logits + LIMIT) / STEP).clip(0, _CELLS - 1).astype(np.int64)
        for is_lesion in (False, True):
            self.counts[int(is_lesion)] += np.bincount(cells[truth == is_lesion], minlength=_CELLS)

    def loss(self, temperature: float = 1.0) -> float:
        """Mean negative log-likelihood of a pixel, in nats, with all logits divided by `temperature`."""
        skin, lesion = self.counts
        logits = _CENTRES / temperature
        summed = skin @ np.logaddexp(0, logits) + lesion @ np.logaddexp(0, -logits)
        return float(summed / self.counts.sum())

    def reliability(self, temperature: float = 1.0) -> Reliability:
        """Probability said and frequency found, in `BINS` bins."""
        probability = 1 / (1 + np.exp(-_CENTRES / temperature))
        bins = np.minimum((probability * BINS).astype(int), BINS - 1)
        pixels = self.counts.sum(axis=0)
        of_bin = np.bincount(bins, pixels, BINS)
        with np.errstate(invalid="ignore"):
            return Reliability(
                np.bincount(bins, pixels * probability, BINS) / of_bin,
                np.bincount(bins, self.counts[1], BINS) / of_bin,
                of_bin / of_bin.sum(),
            )

    def calibration_error(self, temperature: float = 1.0) -> float:
        """Expected calibration error: the mean distance of probability and frequency over all pixels, 0 to 1.

        Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, arXiv:1706.04599), with the
        probability of lesion in place of the likelier class's. Most pixels are plain skin, which every
        network is rightly sure of, so the figure is small: the picture says more.
        """
        found = self.reliability(temperature)
        full = found.share > 0
        return float((found.share * abs(found.probability - found.frequency))[full].sum())

    def fit_temperature(self) -> float:
        """What all logits must be divided by for the least loss (Guo et al. 2017); above 1: too sure."""
        from scipy.optimize import minimize_scalar

        bound = np.log(LARGEST_TEMPERATURE)
        # In 1 / temperature the loss is convex; its logarithm keeps that one valley, and both ways alike.
        found = minimize_scalar(lambda log: self.loss(np.exp(log)), bounds=(-bound, bound), method="bounded")
        return float(np.exp(found.x))
