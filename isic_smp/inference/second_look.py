"""A second look: the part of the picture that the lesion is in once more, enlarged.

A network that sees a whole frame of 128 × 128 pixels draws a small lesion on some thirty of them, so an outline that is
off by one costs much of its score. Twice as many pixels for every picture would show less of each picture's surroundings
at four times the work, and gave worse masks; one more look at the part that matters costs one more pass, and only where
it shows more than the first (docs/recipe.md has the figures).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from isic_smp.inference.contrast import Colour, Raising, raised, raising

FINER = 2
"""The picture is handed over with so many times the network's pixels along each side."""
ROOM = 1.6
"""Side of the part that is looked at again, in parts of the lesion's longer side. A closer look gains more on pictures
unlike the training ones, and less on others (docs/recipe.md)."""
_LEAST = 0.25
"""… and at least this part of the frame: beyond that nothing in the picture is new."""


def look_twice(
    network: Callable[[Tensor], Tensor],
    batch: Tensor,
    *,
    least_contrast: float = 0.0,
    normalised_by: tuple[Colour, Colour] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
) -> Tensor:
    """What the network says of each picture, and in the part around its lesion, of that part enlarged.

    Args:
        network: gives logits, (B, 3, S, S) to (B, 1, S, S), for any B.
        batch: normalised pictures, float (B, 3, 2 S, 2 S).
        least_contrast: fainter lesions have it in the second look (`isic_smp.inference.contrast`).
        normalised_by: mean and standard deviation of each channel; only contrast asks for them.

    Returns:
        Logits, float (B, 1, 2 S, 2 S): of one look, enlarged bilinearly, where that saw no lesion (no pixel above a
        probability of .5), or one that fills the frame and is not faint.
    """
    small = functional.avg_pool2d(batch, FINER)
    first = network(small)
    logits = functional.interpolate(first, scale_factor=FINER, mode="bilinear", align_corners=False)
    middle, half = _window(first)
    shows_more = half < 1
    seen = network
    if least_contrast > 0:
        mean, std = normalised_by
        by = raising(small, first, std, least_contrast)
        shows_more |= by.factor.flatten() > 1
        chosen = Raising(*(values[shows_more] for values in by))

        def seen(part: Tensor) -> Tensor:
            return network(raised(part, chosen, mean, std))

    again = torch.nonzero(shows_more).flatten()
    if len(again):
        logits[again] = _looked_at(seen, batch[again], logits[again], middle[again], half[again])
    return logits


def _window(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Where to look again: middle, (B, 2) as y and x, and half the side, (B,), in a frame from -1 to 1.

    The lesion's extent is taken from its pixels' spread, which for an ellipse is a quarter of its diameter: a stray pixel
    far off widens the part by little, where a bounding box would lose the lesion in it.
    """
    lesion = (logits > 0).float().squeeze(1)
    pixels = lesion.sum((1, 2)).clamp_min(1)
    at = _centres(lesion.shape[-1], lesion)
    rows, columns = lesion.sum(2), lesion.sum(1)
    middle = torch.stack([rows @ at, columns @ at], dim=1) / pixels[:, None]
    spread = torch.stack([rows @ at.square(), columns @ at.square()], dim=1) / pixels[:, None]
    deviation = (spread - middle.square()).clamp_min(0).sqrt().amax(1)
    half = (ROOM * 2 * deviation).clamp(_LEAST, 1)
    half = torch.where(lesion.any(2).any(1), half, torch.ones_like(half))
    inside = (1 - half)[:, None]
    return middle.clamp(-inside, inside), half


def _looked_at(
    network: Callable[[Tensor], Tensor], batch: Tensor, logits: Tensor, middle: Tensor, half: Tensor
) -> Tensor:
    """`logits` with those of a second look put into the part that it saw."""
    side = batch.shape[-1]
    # Places of the part's pixels in the frame, (B, 2, S), and of the frame's in the part, (B, 2, 2 S).
    there = middle[:, :, None] + half[:, None, None] * _centres(side // FINER, batch)
    back = (_centres(side, batch) - middle[:, :, None]) / half[:, None, None]
    part = functional.grid_sample(batch, _grid(there), padding_mode="border", align_corners=False)
    found = functional.grid_sample(
        network(part).to(batch.dtype), _grid(back), padding_mode="border", align_corners=False
    )
    rows, columns = (back.abs() <= 1).unbind(1)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], found, logits)


def _grid(at: Tensor) -> Tensor:
    """Places of rows and columns, (B, 2, N), as `grid_sample` wants them: (B, N, N, 2) of x and y."""
    rows, columns = at.unbind(1)
    count, side = rows.shape
    return torch.stack(
        [columns[:, None, :].expand(count, side, side), rows[:, :, None].expand(count, side, side)], dim=-1
    )


def _centres(side: int, like: Tensor) -> Tensor:
    """The middles of `side` pixels in a frame from -1 to 1."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) * (2 / side) - 1
