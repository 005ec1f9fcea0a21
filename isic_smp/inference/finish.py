"""What is done to a probability map, for its mask's sake, when the network has spoken."""

import numpy as np

from isic_smp.inference.bays import close_bays
from isic_smp.inference.pieces import keep_largest_piece
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.wrapping import is_faint, wrap


def finished(
    probabilities: np.ndarray, picture: np.ndarray, settings: Preprocessing, threshold: float
) -> np.ndarray:
    """The map as `settings` have it: of the largest piece alone, its bays closed, drawn around all where it is faint.

    Args:
        probabilities: float32 (S, S), 0 to 1; not changed.
        picture: RGB, uint8 (S, S, 3): what the map is of.
        settings: `largest_piece`, `close_bays` and `wrap_below` are heeded.
        threshold: a pixel is lesion where its probability is above this, which may be another than the settings' own.

    Returns:
        float32 (S, S), 0 to 1.
    """
    if settings.largest_piece:
        probabilities = keep_largest_piece(probabilities, threshold)
    if settings.close_bays:
        probabilities = close_bays(probabilities, threshold)
    if is_faint(picture, probabilities > threshold, below=settings.wrap_below, size=settings.size):
        probabilities = wrap(probabilities, threshold)
    return probabilities
