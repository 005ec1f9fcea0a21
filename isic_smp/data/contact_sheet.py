"""Sheets of small pictures that show a person at a glance whether masks and data are what they should be."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

TILE = 192
"""Side of one picture, in pixels."""

_CAPTION = 18
_CONTOUR = (0, 255, 160)


def tile(image: np.ndarray, mask: np.ndarray, caption: str) -> np.ndarray:
    """One picture of a sheet: the frame squashed to a square, the lesion's contour, a line of text below.

    Args:
        image: uint8 RGB (H, W, 3).
        mask: uint8 (H, W) of 0 and 1.
        caption: plain ASCII; about 30 characters fit.

    Returns:
        uint8 RGB (TILE + 18, TILE, 3).
    """
    picture = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _CONTOUR, 1)
    text = np.full((_CAPTION, TILE, 3), 255, np.uint8)
    cv2.putText(text, caption, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([picture, text])


def sheet(rows: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Tiles in rows, the shorter rows filled up with white: uint8 RGB.

    Raises:
        ValueError: no tile at all.
    """
    filled = [list(row) for row in rows if len(row)]
    if not filled:
        raise ValueError("a sheet needs at least one tile")
    longest = max(len(row) for row in filled)
    blank = np.full_like(filled[0][0], 255)
    framed = [
        np.concatenate([np.pad(it, ((3, 3), (3, 3), (0, 0)), constant_values=255) for it in row], axis=1)
        for row in ([*row, *[blank] * (longest - len(row))] for row in filled)
    ]
    return np.concatenate(framed)
