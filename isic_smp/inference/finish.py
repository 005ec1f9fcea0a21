"""What is done to a probability map, for its mask's sake, when the network has spoken."""

import numpy as np

from isic_smp.inference.bays import close_bays
from isic_smp.inference.pieces import keep_largest_piece
from isic_smp.inference.preprocessing import Preprocessing


def finished(probabilities: np.ndarray, settings: Preprocessing, threshold: float) -> np.ndarray:
    """The map as `settings` have it: of the largest piece alone, its bays closed.

    Args:
        probabilities: float32 (S, S), 0 to 1; not changed.
        settings: `largest_piece` and `close_bays` are heeded.
        threshold: a pixel is lesion where its probability is above this, which may be another than the settings' own.

    Returns:
        float32 (S, S), 0 to 1.
    """
    if settings.largest_piece:
        probabilities = keep_largest_piece(probabilities, threshold)
    if settings.close_bays:
        probabilities = close_bays(probabilities, threshold)
    return probabilities
