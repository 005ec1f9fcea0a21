"""What lies over the skin in a dermoscopic picture: hairs, gel bubbles, ruler marks, stickers, uneven light,
the dark rim of the instrument.

Drawn into made-up pictures (`lesion_drawing.py`) and, as augmentation, into real ones (`add_artefacts`). A
picture here is RGB float32 (S, S, 3) from 0 to 1.
"""

import cv2
import numpy as np

_CHANCES = np.array([0.15, 0.15, 0.4, 0.15, 0.4, 0.15, 0.4])
"""Of stickers, bubbles, hairs, a ruler, uneven light, the dark rim, and another camera, at strength 1."""


def add_artefacts(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """A copy of a real picture with some of what may lie over it; most often little, sometimes much.

    Args:
        image: RGB uint8 (S, S, 3).
        mask: uint8 (S, S), 0 where there is no lesion. Lesion that disappears behind the dark rim is lesion no more.
        rng: all chance comes from here.
        strength: 0 to 1; how probable each artefact is.
    """
    size = len(image)
    picture = image.astype(np.float32) / 255
    x, y = coordinates(size)
    stuck, bubbly, hairy, ruled, lit, rimmed, taken = rng.random(len(_CHANCES)) < strength * _CHANCES
    if stuck:
        picture = patch(rng, picture)
    if bubbly:
        bubbles(rng, picture)
    if hairy:
        hairs(rng, picture)
    if ruled:
        ruler(rng, picture)
    if lit:
        picture *= light(rng, x, y)[..., None]
    if rimmed:
        open_ = rim(rng, x, y)
        picture *= open_[..., None]
        mask = mask * (open_ > 0.5)
    if taken:
        picture = _camera(rng, picture)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8), mask


def coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates, x and y, of each pixel's centre, float32 (S, S), from -1 to 1 over the frame."""
    axis = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth_step(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(values, 0, 1)
    return t * t * (3 - 2 * t)


def _camera(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Out of focus, or noisy, or with another gamma curve."""
    picture = np.clip(picture, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.5:
        return cv2.GaussianBlur(picture, (0, 0), len(picture) / 256 * rng.uniform(0.5, 2.5))
    return picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0.005, 0.04))


def _blend(picture: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    """Lay a colour over the picture, in place, where `cover` (S, S), 0 to 1, says."""
    picture += cover[..., None] * (colour.astype(np.float32) - picture)


def _cover(size: int) -> np.ndarray:
    return np.zeros((size, size), np.uint8)


def patch(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """A coloured sticker that reaches in from a side."""
    size, cover = len(picture), _cover(len(picture))
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.18, 0.3)
    centre = 0.5 + (0.5 + rng.uniform(0.3, 0.8) * radius) * np.array([np.cos(angle), np.sin(angle)])
    _disc(cover, centre * size, radius * size)
    colours = np.array([[0.1, 0.45, 0.8], [0.35, 0.75, 0.65], [0.8, 0.75, 0.9], [0.85, 0.55, 0.2]])
    _blend(picture, colours[rng.integers(4)] * rng.uniform(0.8, 1.1), cover / np.float32(255))
    return picture


def bubbles(rng: np.random.Generator, picture: np.ndarray) -> None:
    """Air in the gel: a bright rim, brighter on the side of the light."""
    size = len(picture)
    for _ in range(rng.integers(1, 7)):
        rim = _cover(size)
        centre, radius = rng.uniform(0, size, 2), size * rng.uniform(0.008, 0.05)
        _disc(rim, centre, radius, thickness=max(1, round(size / 180)))
        glint = _cover(size)
        _disc(glint, centre - 0.5 * radius, 0.25 * radius)
        shine = np.maximum(rim * np.float32(rng.uniform(0.2, 0.5)), glint * np.float32(0.8)) / 255
        _blend(picture, np.ones(3), shine)


def hairs(rng: np.random.Generator, picture: np.ndarray) -> None:
    """Curved strokes from thin and many to thick and few, all much the same way."""
    size, cover = len(picture), _cover(len(picture))
    way, width = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.7) * size / 256
    for _ in range(int(np.exp(rng.uniform(0.5, 3.2)))):
        angle = way + rng.normal(0, 0.5)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        t = np.linspace(-1, 1, 24)[:, None]
        bend, length = rng.normal(0, 0.25), rng.uniform(0.2, 0.9)
        points = rng.uniform(0, 1, 2) + length * (t * along + bend * t**2 * across)
        cv2.polylines(
            cover,
            [np.rint(points * size * 16).astype(np.int32)],
            isClosed=False,
            color=255,
            thickness=max(1, round(width * rng.uniform(0.7, 1.4))),
            lineType=cv2.LINE_AA,
            shift=4,
        )
    colour = np.array([0.22, 0.14, 0.1]) if rng.random() < 0.8 else np.array([0.8, 0.65, 0.5])
    _blend(picture, colour, cover * np.float32(rng.uniform(0.5, 0.9) / 255))


def ruler(rng: np.random.Generator, picture: np.ndarray) -> None:
    """A scale along one side: ticks, each fifth longer."""
    size, cover = len(picture), _cover(len(picture))
    pitch, inset = rng.uniform(0.035, 0.07) * size, rng.uniform(0.0, 0.06) * size
    for i, at in enumerate(np.arange(pitch * rng.random(), size, pitch)):
        length = (0.07 if i % 5 == 0 else 0.035) * size
        ends = np.rint(np.array([[at, inset], [at, inset + length]]) * 16).astype(np.int32)
        cv2.polylines(cover, [ends], False, 255, max(1, round(size / 200)), cv2.LINE_AA, 4)
    cover = np.ascontiguousarray(np.rot90(cover, int(rng.integers(4))))
    _blend(picture, np.full(3, 0.1), cover * np.float32(rng.uniform(0.5, 0.9) / 255))


def _disc(cover: np.ndarray, centre: np.ndarray, radius: float, thickness: int = -1) -> None:
    x, y = (round(c * 16) for c in centre.tolist())
    cv2.circle(cover, (x, y), max(8, round(radius * 16)), 255, thickness, cv2.LINE_AA, 4)


def light(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Illumination (S, S): stronger on one side, weaker in the corners."""
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    corners = rng.uniform(0, 0.3) if rng.random() < 0.6 else rng.uniform(0.3, 0.6)
    falloff = ((x**2 + y**2) / 2) ** 1.5
    return (1 + slope * (np.cos(angle) * x + np.sin(angle) * y)) * (1 - corners * falloff)


def rim(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The round opening of the instrument, (S, S): 1 inside, 0 in the black around it."""
    radius = rng.uniform(0.95, 1.3)
    distance = np.hypot(x - rng.normal(0, 0.05), y - rng.normal(0, 0.05))
    return 1 - 0.97 * smooth_step((distance - radius) / rng.uniform(0.03, 0.2) + 0.5)
