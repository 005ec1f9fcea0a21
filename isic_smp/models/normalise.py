"""The one place where 8-bit pixels become what a network reads."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(rgb / 255 - mean) / std.

    Args:
        images: (B, H, W, C) uint8, 0 to 255.
        mean: C channel means, on the scale 0 to 1.
        std: C channel standard deviations, on the scale 0 to 1.

    Returns:
        (B, C, H, W) float32 in channels-last memory, which is the layout `images` has already.
    """
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)
