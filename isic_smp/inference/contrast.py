"""Faint lesions with their contrast raised, as the second look sees them.

Half of the masks that fail are of lesions that hardly differ from the skin around them. Once a look has said where the
lesion is, its colour and that of the skin around it are known; where they differ by less than in nearly all pictures
that the network has learned from (`isic_smp.inference.faintest`), all colours are moved away from the skin's until they
differ by as much. What a second look does for small lesions with pixels, this does for faint ones with colours.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Colour = tuple[float, float, float]

MOST = 2.0
"""Nothing is raised by more than this: what was no lesion would look like one."""
_RING = 2 / 128, 12 / 128
"""Where the skin around the lesion begins and ends, off its outline, in parts of the frame."""


class Difference(NamedTuple):
    """How lesion and skin differ in each picture of a batch."""

    contrast: Tensor
    """Distance of the mean colours in RGB, each from 0 to 1, float (B, 1, 1, 1); NaN without a lesion, or skin around it."""
    skin: Tensor
    """The skin's mean colour, in the pictures' own numbers, float (B, 3, 1, 1)."""


class Raising(NamedTuple):
    """What is to be done to each picture of a batch."""

    factor: Tensor
    """float (B, 1, 1, 1), from 1 (nothing) to `MOST`."""
    skin: Tensor
    """The colour that stays, normalised, float (B, 3, 1, 1)."""


def difference(pictures: Tensor, lesion: Tensor, std: Colour) -> Difference:
    """How the lesion differs from the skin in a ring around it.

    Args:
        pictures: float (B, 3, S, S).
        lesion: float (B, 1, S, S), 1 where it is and 0 elsewhere.
        std: of each channel, that pixels from 0 to 1 were divided by.
    """
    inner, outer = (max(1, round(part * lesion.shape[-1])) for part in _RING)
    around = _widened(lesion, outer) - _widened(lesion, inner)
    skin = _mean_colour(pictures, around)
    between = (_mean_colour(pictures, lesion) - skin) * _channels(std, pictures)
    both_seen = (lesion.amax((2, 3), keepdim=True) > 0) & (around.amax((2, 3), keepdim=True) > 0)
    contrast = between.norm(dim=1, keepdim=True)
    return Difference(contrast.where(both_seen, torch.full_like(contrast, torch.nan)), skin)


def raising(pictures: Tensor, logits: Tensor, std: Colour, least: float) -> Raising:
    """By how much the contrast of each picture is to be raised, and around which colour.

    Args:
        pictures: normalised, float (B, 3, S, S).
        logits: what the network said of them, (B, 1, S, S); lesion is what is above 0.
        std: of each channel, that the pictures were divided by.
        least: the contrast that is raised to.
    """
    contrast, skin = difference(pictures, (logits > 0).float(), std)
    return Raising((least / contrast).nan_to_num(1).clamp(1, MOST), skin)


def raised(pictures: Tensor, by: Raising, mean: Colour, std: Colour) -> Tensor:
    """The pictures, normalised, float (B, 3, S, S), with more contrast; no colour leaves black to white."""
    middle, scale = _channels(mean, pictures), _channels(std, pictures)
    moved = by.skin + by.factor * (pictures - by.skin)
    return torch.where(by.factor > 1, moved.clamp(-middle / scale, (1 - middle) / scale), pictures)


def _widened(lesion: Tensor, pixels: int) -> Tensor:
    for size, padding in (((2 * pixels + 1, 1), (pixels, 0)), ((1, 2 * pixels + 1), (0, pixels))):
        lesion = functional.max_pool2d(lesion, size, stride=1, padding=padding)
    return lesion


def _mean_colour(pictures: Tensor, weights: Tensor) -> Tensor:
    return (pictures * weights).sum((2, 3), keepdim=True) / weights.sum((2, 3), keepdim=True).clamp_min(1)


def _channels(values: Colour, like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[None, :, None, None]
