"""Test-time flips: the mean prediction over the eight symmetries of the square."""

from collections.abc import Callable

import torch
from torch import Tensor

SYMMETRIES = 8  # four quarter turns, each also mirrored


def mean_over_symmetries(probabilities: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Predict a batch in all eight orientations, bring the maps back, and average them.

    Args:
        probabilities: a network's answer, (B, 3, S, S) to (B, 1, S, S).
        batch: its input, (B, 3, S, S).

    Returns:
        (B, 1, S, S), in the orientation of `batch`.
    """
    maps = (_undo(probabilities(_view(batch, k)), k) for k in range(SYMMETRIES))
    return sum(maps, torch.zeros((), device=batch.device)) / SYMMETRIES


def _view(batch: Tensor, k: int) -> Tensor:
    """The `k`-th of the eight views of (B, C, S, S): turned k % 4 quarters, then mirrored where k > 3."""
    turned = torch.rot90(batch, k % 4, dims=(2, 3))
    return turned.flip(3) if k > 3 else turned


def _undo(batch: Tensor, k: int) -> Tensor:
    return torch.rot90(batch.flip(3) if k > 3 else batch, -(k % 4), dims=(2, 3))
