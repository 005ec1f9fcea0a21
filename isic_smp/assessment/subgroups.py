"""Kinds of images, and the scores on each: a mean hides whom a model fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isic_smp.inference.expected_iou import FAILURE_IOU

SIZES = ("small", "medium", "large")
ENOUGH = 10
"""Images that a group must have to be called the worst: the mean of fewer says too little."""


@dataclass(frozen=True)
class GroupScores:
    """One kind of images."""

    kind: str
    """What sorts them: lesion size, border or diagnosis."""
    name: str
    images: int
    dice: float
    """Mean over its images, as the next."""
    iou: float
    failures: int
    """Images of an IoU under 0.65."""


def score_groups(
    groups: Mapping[str, Mapping[str, np.ndarray]], *, dice: np.ndarray, iou: np.ndarray
) -> list[GroupScores]:
    """The scores of each group that has images.

    Args:
        groups: by kind and name, which images belong to it, bool (N,).
        dice: of each image, float (N,).
        iou: of each image.
    """
    return [
        GroupScores(
            kind,
            name,
            int(np.count_nonzero(chosen)),
            float(dice[chosen].mean()),
            float(iou[chosen].mean()),
            int(np.count_nonzero(iou[chosen] < FAILURE_IOU)),
        )
        for kind, named in groups.items()
        for name, chosen in named.items()
        if chosen.any()
    ]


def worst_group(groups: Sequence[GroupScores]) -> GroupScores | None:
    """The group of the lowest mean IoU among those with at least `ENOUGH` images; None where there is none."""
    return min((group for group in groups if group.images >= ENOUGH), key=lambda g: g.iou, default=None)


def size_class(lesion_area: np.ndarray) -> np.ndarray:
    """0, 1 or 2 an image: the lower, middle and upper third of the lesions' shares of their images."""
    rank = np.argsort(np.argsort(lesion_area, kind="stable"), kind="stable")
    return rank * len(SIZES) // len(rank)


def size_thirds(lesion_area: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (N,) of small, medium and large lesions, by names that say what that means."""
    classes = size_class(lesion_area)
    named = {}
    for k, word in enumerate(SIZES):
        if (classes == k).any():
            low, high = 100 * lesion_area[classes == k].min(), 100 * lesion_area[classes == k].max()
            named[f"{word} lesions, {_percent(low)}–{_percent(high)} % of the image"] = classes == k
    return named


def _percent(value: float) -> str:
    """Two digits, and 100 where two would say 1e+02."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def by_border(touches_border: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (N,) of lesions that reach the frame of their image, and of the others."""
    return {"lesion reaches the frame": touches_border, "lesion inside the frame": ~touches_border}


def by_diagnosis(ids: Sequence[str], diagnosis: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Masks (N,) of each diagnosis; images without one are in none."""
    known = np.array([diagnosis.get(image_id, "") for image_id in ids])
    return {f"diagnosis {name}": known == name for name in sorted(set(known.tolist()) - {""})}
