"""Masks of faint lesions, drawn around all of the lesion.

Where a lesion hardly differs from the skin around it, an expert draws a round outline: the masks of the faintest fifth
of ISIC 2016's training pictures fill their convex hulls by .96, those of the others by .94 (docs/recipe.md). A network
follows what it sees and leaves the rest out, so what lies between the parts that it saw is taken for lesion.
"""

import cv2
import numpy as np
import torch

from isic_smp.data.resize import resize_image, resize_mask
from isic_smp.inference.bays import as_lesion
from isic_smp.inference.contrast import difference


def wrap(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The map with the convex hull of its mask raised to the threshold, so that all of it is lesion.

    Args:
        probabilities: float32 (S, S), 0 to 1; not changed.
        threshold: a pixel is lesion where its probability is above this.

    Returns:
        float32 (S, S).
    """
    points = cv2.findNonZero((probabilities > threshold).astype(np.uint8))
    if points is None:
        return probabilities
    hull = np.zeros(probabilities.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return as_lesion(probabilities, hull > 0, threshold)


def is_faint(picture: np.ndarray, lesion: np.ndarray, *, below: float, size: int) -> bool:
    """Whether a lesion differs from the skin around it by less than `below`, in RGB from 0 to 1.

    Args:
        picture: RGB, uint8 (S, S, 3).
        lesion: bool (S, S).
        below: as `isic_smp.inference.faintest` measures it; at 0 nothing is faint.
        size: side of the square, in pixels, at which both are compared: the network's, at which it was measured.

    Returns:
        False too where there is no lesion, or no skin around it.
    """
    if below <= 0:
        return False
    colours = torch.from_numpy(resize_image(picture, size)).permute(2, 0, 1)[None].float() / 255
    mask = torch.from_numpy(resize_mask(lesion.astype(np.uint8), size))[None, None].float()
    return bool(difference(colours, mask, (1.0, 1.0, 1.0)).contrast < below)
