"""How faint the lesions are that a network has learned from."""

import numpy as np
import torch

from isic_smp.data.cache import PixelCache
from isic_smp.data.coarser import CoarserPixels
from isic_smp.inference.contrast import difference

RAISED = 0.1
"""So many of the training pictures may be fainter than what contrast is raised to: the few faintest teach little."""
WRAPPED = 0.2
"""Lesions as faint as this part of the training pictures are wrapped: of those, experts' outlines are rounder."""
_AT_ONCE = 256
_ENOUGH = 2048
"""Of more pictures, so many are looked at, evenly spaced: a tenth of them is told well enough."""


def faintest(pixels: PixelCache | CoarserPixels, *shares: float) -> list[float]:
    """The contrast of lesion and skin under which a share of the pictures lies, for each of the shares.

    Args:
        pixels: pictures with their true masks, of the network's size.
        shares: from 0 to 1.

    Returns:
        Distances in RGB, each from 0 to 1; 0 where no picture shows both.
    """
    found = np.empty(0)
    looked_at = np.linspace(0, len(pixels) - 1, min(len(pixels), _ENOUGH)).round().astype(int)
    for start in range(0, len(looked_at), _AT_ONCE):
        images, masks = pixels.read(looked_at[start : start + _AT_ONCE])
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        lesion = torch.from_numpy(masks)[:, None].float()
        found = np.append(found, difference(pictures, lesion, (1.0, 1.0, 1.0)).contrast.numpy())
    seen = found[~np.isnan(found)]
    # Rounded, since sums differ in the last digits from processor to processor.
    return [round(float(np.quantile(seen, share)), 4) if len(seen) else 0.0 for share in shares]
