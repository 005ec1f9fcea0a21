"""What is made of a predicted probability map: mask, picture files, and the figures of one image."""

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from isic_smp.inference.confidence import confidence

OVERLAY_SIDE = 1024
"""Longest side of an overlay, in pixels: a look needs no more, and a thousand of them stay small."""
_LINE, _RIM = (255, 225, 0), (24, 24, 24)


class Figures(NamedTuple):
    """What a mask says in numbers. Lengths in pixels of the image's own size."""

    lesion_pixels: int
    lesion_share: float
    left: int | None
    """Of the smallest upright box that holds the mask; None, as all four, where the mask is empty."""
    top: int | None
    box_width: int | None
    box_height: int | None
    confidence: float
    """As `confidence.confidence` has it."""


def measure(mask: np.ndarray, probability: np.ndarray) -> Figures:
    """The figures of a mask, bool (H, W), and the probabilities it comes from, float32 (H, W)."""
    pixels = int(np.count_nonzero(mask))
    if not pixels:
        return Figures(0, 0.0, None, None, None, None, confidence(mask, probability))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return Figures(
        pixels,
        pixels / mask.size,
        left,
        top,
        int(columns[-1]) - left + 1,
        int(rows[-1]) - top + 1,
        confidence(mask, probability),
    )


def overlay(image: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """The image with the outline of the mask, yellow on a dark rim.

    Args:
        image: uint8 (H, W, 3), RGB.
        probability: float32 of any size; the outline is smooth where it is of the image's own or more.
        threshold: a pixel is lesion where its probability is above this.

    Returns:
        uint8 of the image's size.
    """
    height, width = image.shape[:2]
    chance = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    lines, _ = cv2.findContours((chance > threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    picture = image.copy()
    stroke = max(1, max(height, width) // 300)
    cv2.drawContours(picture, lines, -1, _RIM, stroke + 2, cv2.LINE_AA)
    cv2.drawContours(picture, lines, -1, _LINE, stroke, cv2.LINE_AA)
    return picture


def shrink_for_overlay(image: np.ndarray) -> np.ndarray:
    """The image, uint8 (H, W, 3), at most `OVERLAY_SIDE` pixels high and wide."""
    height, width = image.shape[:2]
    scale = OVERLAY_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3), as PNG or JPEG by the path's ending: the whole file, or none.

    It is written beside the folder and moved into it, so that the folder never holds half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent.parent / f".{path.name}.{os.getpid()}.part"
    try:
        if path.suffix == ".png":
            Image.fromarray(pixels).save(partial, "PNG", compress_level=3)
        else:
            Image.fromarray(pixels).save(partial, "JPEG", quality=90)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
