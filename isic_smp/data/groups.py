"""Groups of pictures that are harder, or unlike the rest: told from the pixels and masks alone.

`held_out.hold_out` leaves one of them out of training.
"""

from collections.abc import Callable

import cv2
import numpy as np

SIZE = 128
"""Side of the square, in pixels, at which pictures are told apart."""

_FAINT = 24.5  # of the ISIC 2016 training ids, 15 % are fainter
_SMALL = 0.07  # share of the frame; 13 % are smaller
_CUT = 0.03  # share of the frame's outermost pixels; 14 % have more
_RING = cv2.getStructuringElement(cv2.MORPH_RECT, (25, 25)), cv2.getStructuringElement(cv2.MORPH_RECT, (5, 5))
Marks = dict[str, np.ndarray]


def marks(images: np.ndarray, masks: np.ndarray) -> Marks:
    """What tells pictures apart.

    Args:
        images: RGB uint8 (B, 128, 128, 3).
        masks: uint8 (B, 128, 128) of 0 and 1.

    Returns:
        float (B,) each: `area`, the lesion's share of the frame; `cut`, its share of the frame's outermost
        pixels; `contrast`, the distance of its mean colour from that of the skin around it, in CIELAB as
        OpenCV scales it (0 to 255); `warmth`, the median b* of the brighter skin, below 0 where the
        skin looks bluish.
    """
    edge = np.concatenate([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], axis=1)
    pairs = [_contrast_and_warmth(*pair) for pair in zip(images, masks, strict=True)]
    contrast, warmth = np.array(pairs).reshape(-1, 2).T
    return {"area": masks.mean((1, 2)), "cut": edge.mean(1), "contrast": contrast, "warmth": warmth}


def _contrast_and_warmth(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float64)
    lesion = mask > 0
    wide, narrow = (cv2.dilate(mask, kernel) > 0 for kernel in _RING)
    ring = wide & ~narrow
    if not (lesion.any() and ring.any()):  # nothing to compare: as faint as can be
        contrast = 0.0
    else:
        contrast = float(np.linalg.norm(colours[lesion].mean(0) - colours[ring].mean(0)))
    skin = colours[~lesion] if not lesion.all() else colours.reshape(-1, 3)
    bright = skin[skin[:, 0] >= np.percentile(skin[:, 0], 30)]  # less hairs, rulers and the dark rim
    return contrast, float(np.median(bright[:, 2])) - 128


GROUPS: dict[str, Callable[[Marks], np.ndarray]] = {
    "faint": lambda m: m["contrast"] < _FAINT,
    "small": lambda m: m["area"] < _SMALL,
    "cut": lambda m: m["cut"] > _CUT,
    "cool": lambda m: m["warmth"] < 0,
    "hard": lambda m: np.any([GROUPS[name](m) for name in ("faint", "small", "cut", "cool")], axis=0),
}
"""Which pictures belong to each `names.Group`: faint, small, cut by the frame, in cool light; hard is any of these."""
