"""How sure a network is of a mask."""

import numpy as np


def confidence(mask: np.ndarray, probability: np.ndarray) -> float:
    """Mean probability of the mask's pixels; where the mask is empty, mean of 1 - probability. 0 to 1.

    Args:
        mask: bool (H, W).
        probability: float32 (H, W), what the mask comes from.
    """
    sure = probability[mask] if mask.any() else 1 - probability
    return float(sure.mean(dtype=np.float64))
