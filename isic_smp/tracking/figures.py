"""Pictures of predictions, as uint8 arrays (H, W, 3) in RGB.

All are square, with their words on top: MLflow's cards cut off what is wide, and the lowest quarter.
The two contours differ in brightness as well as in hue, so they can be told apart with any colour
vision, and the wide one under the narrow one stays visible where they run together.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

TRUTH = (0, 190, 255)
PREDICTION = (255, 225, 0)
FALSE_POSITIVE = (230, 120, 0)  # orange and blue, of the palette of Okabe and Ito
FALSE_NEGATIVE = (40, 140, 255)
PAPER, INK = (24, 24, 24), (255, 255, 255)

Colour = tuple[int, int, int]


def overlay(
    image: np.ndarray,
    truth: np.ndarray,
    probability: np.ndarray,
    caption: str = "",
    *,
    threshold: float = 0.5,
    side: int = 384,
) -> np.ndarray:
    """The image with the true outline (blue, wide) and the predicted one (yellow, narrow).

    Args:
        image: uint8 (H, W, 3), RGB.
        truth: (H, W), 0 or 1.
        probability: float (H, W), 0 to 1.
        caption: Put before the scores, above the picture.
        threshold: A pixel is predicted lesion where its probability is above this.
        side: Side of the result in pixels. The image keeps its proportions.

    Returns:
        uint8 (side, side, 3).
    """
    picture, truth_large, probability_large = _enlarge_all(image, truth, probability, side)
    thin, wide = max(1, side // 192), max(3, side // 64)
    predicted, true = _outline(probability_large > threshold), _outline(truth_large > 0.5)
    # The dark rims, which keep the lines visible on bright skin, come first: none may cover the other line.
    for lines, colour, width in (
        (predicted, PAPER, thin + 2),
        (true, PAPER, wide + 2),
        (true, TRUTH, wide),
        (predicted, PREDICTION, thin),
    ):
        cv2.drawContours(picture, lines, -1, colour, width, cv2.LINE_AA)
    words = f"{caption}  " if caption else ""
    words += _say_scores(truth > 0, probability > threshold)
    return _captioned(picture, [(words, INK), ("  truth", TRUTH), ("  prediction", PREDICTION)], side)


def panel(
    image: np.ndarray,
    truth: np.ndarray,
    probability: np.ndarray,
    caption: str = "",
    *,
    threshold: float = 0.5,
    side: int = 512,
) -> np.ndarray:
    """Image, truth, prediction and difference, two by two.

    The prediction is shown as the probability (black 0, white 1) with its outline; the difference
    has what was drawn too much in orange and what was missed in blue.

    Args and result: as of `overlay`.
    """
    tile = side // 2 - 2
    picture, truth_large, probability_large = _enlarge_all(image, truth, probability, tile)
    is_lesion, is_predicted = truth_large > 0.5, probability_large > threshold
    grey = np.repeat((probability_large * 255).astype(np.uint8)[..., None], 3, axis=2)
    cv2.drawContours(grey, _outline(is_predicted), -1, PREDICTION, max(1, tile // 192), cv2.LINE_AA)
    white = np.repeat(is_lesion.astype(np.uint8)[..., None] * 255, 3, axis=2)
    difference = (picture // 3 + 20).astype(np.uint8)
    difference[is_lesion & is_predicted] = (picture[is_lesion & is_predicted] // 2 + 110).astype(np.uint8)
    difference[is_predicted & ~is_lesion] = FALSE_POSITIVE
    difference[is_lesion & ~is_predicted] = FALSE_NEGATIVE
    tiles: list[tuple[np.ndarray, list[tuple[str, Colour]]]] = [
        (picture, [(caption or "image", INK)]),
        (white, [("truth", INK)]),
        (grey, [(f"prediction  {_say_scores(truth > 0, probability > threshold)}", INK)]),
        (difference, [("difference: ", INK), ("too much", FALSE_POSITIVE), ("  missed", FALSE_NEGATIVE)]),
    ]
    return case_grid([_captioned(square, words, tile) for square, words in tiles])


def plain(image: np.ndarray, caption: str = "image", *, side: int = 384) -> np.ndarray:
    """The image as it is, on the square and at the size that `overlay` gives it.

    Args and result: as of `overlay`.
    """
    return _captioned(_enlarge(image, side), [(caption, INK)], side)


def case_grid(pictures: Sequence[np.ndarray], *, gap: int = 4) -> np.ndarray:
    """Pictures of one size in a grid as square as possible, read like text.

    Args:
        pictures: uint8 (H, W, 3) each, all of one size.
        gap: Pixels between two of them.

    Returns:
        uint8 picture.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        grid[top : top + height, left : left + width] = picture
    return grid


def _strip_height(side: int) -> int:
    return side // 14


def _enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """The image so large that it just fits below the caption."""
    height, width = image.shape[:2]
    scale = min(side / width, (side - _strip_height(side)) / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _enlarge_all(
    image: np.ndarray, truth: np.ndarray, probability: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All three at one size: outlines drawn at the size that is shown are smooth."""
    picture = _enlarge(image, side)
    size = picture.shape[1::-1]
    mask = cv2.resize((truth > 0).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    chance = cv2.resize(probability.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return picture, mask, chance


def _outline(mask: np.ndarray) -> Sequence[np.ndarray]:
    return cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]


def _captioned(picture: np.ndarray, words: Sequence[tuple[str, Colour]], side: int) -> np.ndarray:
    """`picture` in the middle of a square, coloured words above it."""
    strip = _strip_height(side)
    square = np.full((side, side, 3), PAPER, np.uint8)
    height, width = picture.shape[:2]
    top, left = strip + (side - strip - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    text = "".join(word for word, _ in words)
    size = strip * 0.66
    while ImageFont.load_default(size).getlength(text) > side - size and size > 6:
        size -= 0.5
    font = ImageFont.load_default(size)
    canvas = Image.fromarray(square)
    draw, at = ImageDraw.Draw(canvas), size / 2
    for word, colour in words:
        draw.text((at, strip / 2), word, fill=colour, font=font, anchor="lm")
        at += font.getlength(word)
    return np.asarray(canvas)


def _say_scores(truth: np.ndarray, predicted: np.ndarray) -> str:
    """Dice and IoU of two masks; 1 where both are empty."""
    both, total = int((truth & predicted).sum()), int(truth.sum()) + int(predicted.sum())
    dice, iou = (2 * both / total, both / (total - both)) if total else (1.0, 1.0)
    return f"Dice {dice:.3f}  IoU {iou:.3f}"
