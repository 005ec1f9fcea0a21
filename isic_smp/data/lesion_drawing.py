"""Dermoscopy-like pictures drawn from chance, each with the exact mask of its lesion.

Pigment darkens skin as it does in the eye of a dermoscope: light is absorbed by the law of Beer and
Lambert, blue the most by melanin, green and blue by blood. What lies over the skin (hairs, gel bubbles,
ruler marks, coloured patches, the dark rim of the instrument) is in the picture and not in the mask.
"""

import cv2
import numpy as np

from isic_smp.data import artefacts
from isic_smp.data.artefacts import smooth_step

_SKIN = np.array(  # reflectance of red, green, blue
    [
        [0.93, 0.75, 0.68],
        [0.90, 0.68, 0.56],
        [0.86, 0.80, 0.73],
        [0.78, 0.80, 0.90],
        [0.88, 0.78, 0.58],
        [0.74, 0.55, 0.44],
        [0.58, 0.42, 0.33],
        [0.93, 0.62, 0.62],
    ],
    np.float32,
)
_PIGMENT = np.array(  # absorption at density 1
    [
        [0.55, 1.00, 1.45],  # melanin near the surface: brown
        [0.85, 1.10, 1.20],  # deeper: grey-brown
        [0.95, 1.00, 0.90],  # deepest: blue-black
        [0.18, 0.90, 0.85],  # blood: red
    ],
    np.float32,
)


def draw_lesion(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One picture, a pure function of its arguments.

    Some are easy; in others the lesion is faint, tiny, reaches past the frame, or hides under hairs.

    Args:
        seed: of the data set.
        index: of the picture in it.
        size: side of the square, in pixels.

    Returns:
        The picture, RGB uint8 (size, size, 3), and its mask, uint8 (size, size): 1 is lesion, 0 is not.
    """
    rng = np.random.default_rng([seed, index])
    x, y = artefacts.coordinates(size)
    field, mask = _outline(rng, x, y)
    picture = _skin(rng, size) * np.exp(-_absorbed(rng, field))
    if rng.random() < 0.12:
        picture = artefacts.patch(rng, picture)
    if rng.random() < 0.25:
        artefacts.bubbles(rng, picture)
    if rng.random() < 0.45:
        artefacts.hairs(rng, picture)
    if rng.random() < 0.2:
        artefacts.ruler(rng, picture)
    picture *= artefacts.light(rng, x, y)[..., None]
    if rng.random() < 0.25:
        open_ = artefacts.rim(rng, x, y)
        picture *= open_[..., None]
        mask &= open_ > 0.5
    picture = cv2.GaussianBlur(picture, (0, 0), size / 256 * rng.uniform(0.3, 0.9))
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0.004, 0.014))
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8), mask.astype(np.uint8)


def _noise(rng: np.random.Generator, size: int, cell: float) -> np.ndarray:
    """Smooth noise (size, size) of about unit variance; `cell` is its grain as a share of the side."""
    cells = max(2, round(1 / cell)) + 3
    grid = rng.standard_normal((cells, cells), np.float32)
    step = size / (cells - 3)
    move = np.array([[1 / step, 0, 1 + rng.random()], [0, 1 / step, 1 + rng.random()]])
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return 1.4 * cv2.warpAffine(grid, move, (size, size), flags=how, borderMode=cv2.BORDER_REFLECT)


def _rough(rng: np.random.Generator, size: int, cell: float, octaves: int = 3) -> np.ndarray:
    """Noise with detail down to cell / 2^(octaves - 1), each finer one weaker."""
    return np.sum([0.55**i * _noise(rng, size, cell / 2**i) for i in range(octaves)], axis=0) / 1.3


def _outline(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lesion as a field (S, S), -1 at its centre, 0 on its border, growing outward; and its mask."""
    size = len(x)
    radius = float(np.exp(rng.uniform(np.log(0.17), np.log(0.8))))
    wander = 0.25 if rng.random() < 0.8 else 0.7
    u, v = x - rng.normal(0, wander / 2), y - rng.normal(0, wander / 2)
    angle, aspect = rng.uniform(0, np.pi), float(np.exp(rng.uniform(0, 0.5)))
    u, v = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
    u, v = u / (radius * aspect**0.5), v / (radius / aspect**0.5)
    distance, direction = np.hypot(u, v), np.arctan2(v, u)
    irregular = rng.uniform(0.02, 0.13)
    border = np.ones_like(distance)
    for k in range(2, 7):
        border += irregular * rng.normal() * 2 / k * np.cos(k * direction + rng.uniform(0, 2 * np.pi))
    border += irregular * (_rough(rng, size, 0.3 * radius) + 0.5 * _rough(rng, size, 0.05, octaves=2))
    field = distance / np.clip(border, 0.35, 2) - 1
    _, labels, stats, _ = cv2.connectedComponentsWithStats((field < 0).astype(np.uint8), connectivity=4)
    if len(stats) > 1:
        mask = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    else:
        mask = field < np.partition(field.ravel(), 30)[30]  # it lies outside: leave the corner that shows
    field = np.where(mask, -np.abs(field), np.abs(field))  # islands become part of the skin
    return field, mask


def _skin(rng: np.random.Generator, size: int) -> np.ndarray:
    """Reflectance of bare skin with its texture, and of freckles on some, (S, S, 3)."""
    tones = rng.dirichlet(np.full(len(_SKIN), 0.3)).astype(np.float32)
    tone = tones @ _SKIN * rng.uniform(0.9, 1.03)
    texture = 0.025 * _rough(rng, size, 0.3) + 0.012 * _noise(rng, size, 0.02)
    flush = _rough(rng, size, 0.4)[..., None] * np.array([0.0, 0.02, 0.016], np.float32)
    skin = tone * (1 + texture[..., None]) - flush * rng.uniform(0, 1.5)
    if rng.random() < 0.35:
        spots = smooth_step((_noise(rng, size, rng.uniform(0.03, 0.08)) - 2) * 1.5) * rng.uniform(0.1, 0.45)
        skin *= np.exp(-spots[..., None] * _PIGMENT[0])
    return skin.astype(np.float32)


def _absorbed(rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    """Optical density of the lesion, (S, S, 3): soft at the border, structured within."""
    size = len(field)
    cover = smooth_step(0.5 - field / rng.uniform(0.06, 0.5))
    density = float(np.exp(rng.uniform(np.log(0.16), np.log(1.5)))) * (
        1 + rng.uniform(0.1, 0.45) * _rough(rng, size, rng.uniform(0.08, 0.3))
    )
    density *= 1 + rng.uniform(0, 1.2) * smooth_step(-field * rng.uniform(0.8, 2) - 0.3)  # a darker core
    if rng.random() < 0.45:  # pigment network: lines between the cells of a noise
        lines = smooth_step(1 - 1.8 * np.abs(_noise(rng, size, rng.uniform(0.012, 0.028))))
        density *= 0.75 + rng.uniform(0.3, 0.9) * lines
    if rng.random() < 0.35:  # globules
        density *= 1 + rng.uniform(0.3, 1.0) * smooth_step(0.5 * _noise(rng, size, rng.uniform(0.015, 0.03)))
    if rng.random() < 0.3:  # regression: pigment lost in patches
        density *= 1 - 0.7 * smooth_step((_rough(rng, size, 0.15) - 0.7) * 2)
    weights = rng.dirichlet([2.5, 0.8, 0.4, 0.6]).astype(np.float32)
    absorbed = (cover * np.clip(density, 0.05, 3))[..., None] * (weights @ _PIGMENT)
    if rng.random() < 0.3:  # a second colour in part of it
        part = cover * smooth_step(_rough(rng, size, 0.2)) * rng.uniform(0.2, 0.8)
        absorbed += part[..., None] * _PIGMENT[rng.integers(len(_PIGMENT))]
    return absorbed.astype(np.float32)
