"""Bays in a mask's outline, closed where they are narrow for the lesion's size.

Experts draw around a lesion; a network follows its every pale patch inwards. So gaps that a disc of a share of the
lesion's radius does not fit into are taken for lesion: a morphological closing (docs/recipe.md has what it gives).
"""

import cv2
import numpy as np

REACH = 0.3
"""Radius of the disc, in parts of that of a disc with as many pixels as the mask."""


def close_bays(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The map with bays and holes of its mask raised to the threshold, so that they are lesion.

    Raised no further: that little was seen there still tells how doubtful the mask is.

    Args:
        probabilities: float32 (S, S), 0 to 1; not changed.
        threshold: a pixel is lesion where its probability is above this.

    Returns:
        float32 (S, S). Beyond the frame the mask is taken to go on as at its edge.
    """
    mask = (probabilities > threshold).astype(np.uint8)
    reach = REACH * float(np.sqrt(np.count_nonzero(mask) / np.pi))
    if reach < 1:
        return probabilities
    box = _box(mask)
    closed = np.zeros(mask.shape, bool)
    closed[box] = _closed(mask, box, reach)
    return as_lesion(probabilities, closed, threshold)


def as_lesion(probabilities: np.ndarray, part: np.ndarray, threshold: float) -> np.ndarray:
    """The map with a part, bool (S, S), raised above the threshold, by so little that it stays as doubtful as it can."""
    # A little above, so that no rounding in enlarging the map drops a pixel to the threshold again; above in float32
    # as well, where close to 1 that little is none.
    least = np.nextafter(np.float32(threshold), np.float32(1))
    raised = np.maximum(least, np.float32(threshold + (1 - threshold) * 1e-5))
    return np.where(part, np.maximum(probabilities, raised), probabilities)


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(mask)
    return slice(y, y + height), slice(x, x + width)


def _closed(mask: np.ndarray, box: tuple[slice, slice], reach: float) -> np.ndarray:
    """The mask's morphological closing by a disc of radius `reach` pixels, within the mask's box: bool."""
    margin = int(reach) + 2
    around: list[slice] = []
    missing: list[int] = []
    for part, side in zip(box, mask.shape, strict=True):
        start, stop = part.start - margin, part.stop + margin
        around.append(slice(max(start, 0), min(stop, side)))
        missing += [max(-start, 0), max(stop - side, 0)]
    top, bottom, left, right = missing
    padded = cv2.copyMakeBorder(mask[tuple(around)], top, bottom, left, right, cv2.BORDER_REPLICATE)
    # By distances: a disc as a kernel would cost the square of its radius.
    grown = (_distance_to(padded) <= reach).astype(np.uint8)
    return (_distance_to(1 - grown) > reach)[margin:-margin, margin:-margin]


def _distance_to(mask: np.ndarray) -> np.ndarray:
    """Of each pixel, to the nearest one of the mask, in pixels to about a fiftieth; vast where there is none."""
    return cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_5)
