"""What the page says about each image, as HTML that needs no other file.

The photographs go to the browser once, as backgrounds in a style sheet; the outlines are vector graphics
over them, sharp at any size. A move of the threshold sends some ten kilobytes a figure, and the mask to be saved, which
is encoded anew: little for most images, 0.15 s and 30 kB more for one of 2848 × 4288 pixels (2 cores of an AMD EPYC).
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath

import cv2
import numpy as np

from isic_smp.demo_page.analysis import Drawing, agreement
from isic_smp.inference.expected_iou import FAILURE_IOU

PHOTO_SIDE = 1280
"""Longer side, in pixels, of the photograph that is sent to the browser."""
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Look:
    """One image as one model sees it."""

    model: str
    """The model's name."""
    score: float | None
    """Its validation Dice."""
    result: Drawing | str
    """A string says why there is none."""
    expected_iou: float | None = None
    """Of the mask, where the model has an estimate."""


def photo_css(key: str, image: np.ndarray) -> str:
    """The style rule that shows an image, uint8 (H, W, 3) RGB, wherever `case` is given the same key."""
    height, width = image.shape[:2]
    scale = min(1.0, PHOTO_SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, dsize=size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    return f'.photo-{key} {{ background-image: url("data:image/jpeg;base64,{_base64(jpeg)}"); }}'


def case(key: str, name: str, height_width: tuple[int, int], looks: Sequence[Look]) -> str:
    """One image with every model's outline side by side.

    Args:
        key: of its `photo_css`.
        name: the file's name.
        height_width: its size in pixels.
        looks: one a model.
    """
    height, width = height_width
    several = len(looks) > 1
    first = looks[0].result if looks else ""
    figures = "".join(_figure(key, name, height_width, look, several, first) for look in looks)
    return (
        f'<section class="case"><h2>{escape(name)} <small>{width:,} × {height:,} pixels</small></h2>'
        f'<div class="looks">{figures}</div></section>'
    )


def problems(messages: Sequence[str]) -> str:
    """What could not be shown, and why; nothing where there is nothing to say."""
    if not messages:
        return ""
    lines = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f'<div class="problems" role="alert"><strong>Not everything could be shown</strong><ul>{lines}</ul></div>'


def nothing_yet() -> str:
    """What stands in place of results before there are any."""
    return (
        '<div class="nothing"><strong>No image yet</strong>'
        "<p>Drop one or more dermoscopy images into the box. "
        "For each you will see the lesion's outline, its area, and how sure the model is.</p></div>"
    )


def _figure(
    key: str,
    name: str,
    height_width: tuple[int, int],
    look: Look,
    several: bool,
    first: Drawing | str,
) -> str:
    height, width = height_width
    score = "" if look.score is None else f"<small>validation Dice {look.score:.3f}</small>"
    caption = f"<figcaption><span>{escape(look.model)}</span>{score}</figcaption>"
    if isinstance(look.result, str):
        return f'<figure class="look">{caption}<p class="problems" role="alert">{escape(look.result)}</p></figure>'
    drawing = look.result
    path = " ".join(_path(line) for line in drawing.outline)
    label = escape(f"{name} with the lesion's outline", quote=True)
    picture = (
        f'<div class="photo photo-{key}" role="img" aria-label="{label}" '
        f'style="aspect-ratio: {width} / {height}; --ratio: {width / height:.4f}">'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="rim" d="{path}"/><path class="line" d="{path}"/></svg></div>'
    )
    compared = (
        _row(
            "Overlap with the first model",
            f"Dice {agreement(first.mask, drawing.mask):.3f}",
            "1: the same area",
        )
        if several and isinstance(first, Drawing) and first is not drawing
        else ""
    )
    return (
        f'<figure class="look">{caption}{picture}{_numbers(drawing, look.expected_iou, compared)}'
        f"{_remarks(drawing, look.expected_iou)}{_download(name, look.model if several else None, drawing.mask)}</figure>"
    )


def _numbers(drawing: Drawing, expected_iou: float | None, compared: str) -> str:
    percent = 100 * drawing.share
    sure = 100 * drawing.confidence
    what = (
        "mean lesion probability inside the outline"
        if drawing.pixels
        else "mean probability of skin, whole image"
    )
    bar = f'<span class="bar" aria-hidden="true"><span style="width: {sure:.1f}%"></span></span>'
    expected = (
        ""
        if expected_iou is None
        else _row(
            "Expected IoU", f"{expected_iou:.2f}", "estimated from the probabilities; 1: a perfect mask"
        )
    )
    return (
        "<dl>"
        + _row(
            "Lesion area",
            f"{percent:.1f} % of the image",
            f"{drawing.pixels:,} of {drawing.mask.size:,} pixels",
        )
        + _row("Confidence", f"{sure:.0f} %{bar}", what)
        + expected
        + compared
        + "</dl>"
    )


def _row(name: str, value: str, detail: str) -> str:
    return f'<div class="row"><dt>{name}</dt><dd><b>{value}</b><small>{detail}</small></dd></div>'


def _remarks(drawing: Drawing, expected_iou: float | None) -> str:
    remarks = []
    if expected_iou is not None and expected_iou < FAILURE_IOU:
        remarks.append(f"This mask needs a look: its expected IoU is under {FAILURE_IOU}.")
    if not drawing.pixels:
        remarks.append("No lesion found at this threshold.")
    if drawing.pieces > 1:
        remarks.append(f"The outline has {drawing.pieces} separate parts.")
    if drawing.touches_edge:
        remarks.append("The outline reaches the edge of the image: the lesion may go on outside.")
    return "".join(f'<p class="remark">{remark}</p>' for remark in remarks)


def _download(name: str, model: str | None, mask: np.ndarray) -> str:
    """A link that holds the mask itself: what is saved is what is seen, and no file stays on the server."""
    png = cv2.imencode(".png", mask.view(np.uint8) * np.uint8(255))[1]
    stem = PurePath(name).stem + "_Segmentation"  # the official scorer's name
    if model is not None:
        stem += "_" + re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-")
    return (
        f'<a class="save" download="{escape(stem, quote=True)}.png" '
        f'href="data:image/png;base64,{_base64(png)}">Save mask (PNG)</a>'
    )


def _path(line: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line) + "Z"


def _base64(data: np.ndarray) -> str:
    return base64.b64encode(data.tobytes()).decode("ascii")
