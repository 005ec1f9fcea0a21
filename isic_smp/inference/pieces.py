"""One lesion a picture: of a probability map, the largest connected piece of the mask it gives.

A dermoscopy picture is taken of one lesion, so a second, smaller spot is more often a freckle, a hair or a
shadow than a part of it.
"""

import cv2
import numpy as np


def keep_largest_piece(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The map with all but the largest piece of its mask lowered to the threshold, so no longer lesion.

    Lowered, not emptied: that something was seen there still tells how doubtful the mask is.

    Args:
        probabilities: float32 (S, S), 0 to 1; not changed.
        threshold: a pixel is lesion where its probability is above this.

    Returns:
        float32 (S, S). Pixels that touch at a corner are of one piece; of two pieces as large as each other, one is
        kept.
    """
    count, labels, facts, _ = cv2.connectedComponentsWithStats((probabilities > threshold).astype(np.uint8))
    if count <= 2:  # the background and one piece
        return probabilities
    largest = 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))
    # A little below, so that no rounding in enlarging the map lifts a pixel above the threshold again.
    low = np.minimum(probabilities, np.float32(threshold * (1 - 1e-5)))
    return np.where((labels == 0) | (labels == largest), probabilities, low)
