"""Groups of pictures that are harder, or unlike the rest: told from the pixels and masks alone.

A mean over a validation split drawn like the training pictures says little of other people's pictures.
Leaving a whole group out of training and validating on it (`hold_out`) says more: its lesions are fainter,
smaller, cut by the frame, or in another light than all that the network has seen.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from isic_smp.data.cache import open_pixel_cache
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.names import Group
from isic_smp.errors import UserError

SIZE = 128
"""Side of the square, in pixels, at which pictures are told apart."""

_FAINT = 24.5  # of the ISIC 2016 training ids, 15 % are fainter
_SMALL = 0.07  # share of the frame; 13 % are smaller
_CUT = 0.03  # share of the frame's outermost pixels; 14 % have more
_RING = cv2.getStructuringElement(cv2.MORPH_RECT, (25, 25)), cv2.getStructuringElement(cv2.MORPH_RECT, (5, 5))
_AT_ONCE = 256

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


GROUPS: dict[Group, Callable[[Marks], np.ndarray]] = {
    "faint": lambda m: m["contrast"] < _FAINT,
    "small": lambda m: m["area"] < _SMALL,
    "cut": lambda m: m["cut"] > _CUT,
    "cool": lambda m: m["warmth"] < 0,
    "hard": lambda m: np.any([GROUPS[name](m) for name in ("faint", "small", "cut", "cool")], axis=0),
}
"""Which pictures belong: faint, small, cut by the frame, in cool light; hard is any of these."""


WITHOUT = "-without-"
"""Stands before the group in the fingerprint of data that were divided so."""


def hold_out(data: LesionData, group: Group, *, cache_dir: Path, binarize_masks: bool = False) -> LesionData:
    """`data` without the pictures of a group to train on, and with all of them, and no others, to validate on.

    A held-out group is for choosing, so nothing is tested. A lesion of which there are two pictures may be on both
    sides (2 of the 388 hard ones that ISIC 2016's subset has); `folds.take_fold` keeps such pairs together.

    Raises:
        UserError: no such group, or nothing left to train or to validate on.
    """
    if group not in GROUPS:
        raise UserError(f"no group {group!r} to hold out: expected one of {', '.join(GROUPS)}")
    pairs = sorted((*data.train, *data.val), key=lambda pair: pair.id)
    pixels = open_pixel_cache(pairs, SIZE, cache_dir=cache_dir, binarize_masks=binarize_masks)
    chunks = [np.arange(len(pairs))[i : i + _AT_ONCE] for i in range(0, len(pairs), _AT_ONCE)]
    belongs = np.concatenate([GROUPS[group](marks(*pixels.read(chunk))) for chunk in chunks])
    held = {pair.id for pair, within in zip(pairs, belongs, strict=True) if within}
    train = tuple(pair for pair in data.train if pair.id not in held)
    val = tuple(pair for pair in pairs if pair.id in held)
    if not train or not val:
        raise UserError(
            f"holding out {group!r} leaves {len(train)} pictures to train on and {len(val)} to validate on: "
            "expected some of both"
        )
    return dataclasses.replace(
        data,
        train=train,
        val=val,
        test=(),
        fingerprint=f"{data.fingerprint}{WITHOUT}{group}",
        official={"train": len(train), "val": len(val), "test": 0},
    )
