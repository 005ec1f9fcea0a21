"""What the page shows of one image: the network runs once, and every threshold is drawn from what it said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from isic_smp.data.resize import resize_image, upsample_probabilities
from isic_smp.inference.predictor import Predictor

OUTLINE_GRID = 1024
"""Longer side of the grid on which outlines are traced; finer than a screen shows them."""


class Answer(NamedTuple):
    """What a model said of an image."""

    probabilities: np.ndarray
    """float32 (S, S) from 0 to 1, S being the model's input size; not `finished`: that depends on the threshold."""
    picture: np.ndarray
    """What it was shown, uint8 (S, S, 3), RGB."""


@dataclass(frozen=True)
class Drawing:
    """One image's lesion at one threshold."""

    mask: np.ndarray
    """bool (H, W) at the image's own size, true where lesion."""
    outline: Sequence[np.ndarray]
    """Closed lines round the lesion and its holes: float (N, 2) each, x and y in image pixels."""
    pixels: int
    """Lesion pixels."""
    share: float
    """Lesion pixels of all pixels, 0 to 1."""
    confidence: float
    """Mean probability of the mask's pixels; where the mask is empty, of being skin over the image."""
    pieces: int
    """Separate areas."""
    touches_edge: bool
    """Whether the lesion reaches the border of the image."""


def analyse(image: np.ndarray, predictor: Predictor) -> Answer:
    """Ask a model.

    Args:
        image: uint8 (H, W, 3), RGB.
        predictor: the model.
    """
    small = resize_image(image, predictor.preprocessing.input_size)
    return Answer(predictor.logits(small[None]).sigmoid()[0, 0].cpu().numpy(), small)


def draw(probabilities: np.ndarray, height_width: tuple[int, int], *, threshold: float) -> Drawing:
    """The lesion at a threshold; the mask is what `Predictor.predict` gives there, pixel for pixel.

    Args:
        probabilities: float32 (S, S), 0 to 1: an answer's, `finished` as the model's settings say.
        height_width: the image's own size in pixels.
        threshold: a pixel is lesion where its probability is above this.
    """
    own = upsample_probabilities(probabilities, height_width)
    mask = own > threshold
    pixels = int(np.count_nonzero(mask))
    # The mean of a masked map without the copies that indexing by a mask makes: pictures can be large.
    sure = cv2.mean(own, mask.view(np.uint8))[0] if pixels else 1 - cv2.mean(own)[0]
    outline, pieces = _trace(probabilities, height_width, threshold)
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return Drawing(
        mask=mask,
        outline=outline,
        pixels=pixels,
        share=pixels / mask.size,
        confidence=sure,
        pieces=pieces,
        touches_edge=any(bool(edge.any()) for edge in edges),
    )


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two bool masks, 0 to 1; 1 where both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return float(2 * np.count_nonzero(one & other) / total) if total else 1.0


def _trace(
    probabilities: np.ndarray, height_width: tuple[int, int], threshold: float
) -> tuple[list[np.ndarray], int]:
    """Outlines in image pixels, and how many areas they enclose.

    Traced on a grid of one size for all: smooth on small images, and quick on large ones.
    """
    height, width = height_width
    scale = OUTLINE_GRID / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    lesion = upsample_probabilities(probabilities, (rows, columns)) > threshold
    lines, tree = cv2.findContours(lesion.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    to_pixels = np.array([width / columns, height / rows])
    # Half a grid cell is less than a screen pixel, and drops nine points of ten.
    outline = [(cv2.approxPolyDP(line, 0.5, True)[:, 0] + 0.5) * to_pixels for line in lines]
    areas = 0 if tree is None else sum(1 for *_, parent in tree[0] if parent < 0)
    return outline, areas
