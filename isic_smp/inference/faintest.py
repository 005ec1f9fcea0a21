"""How faint the lesions are that a network has learned from."""

import numpy as np
import torch

from isic_smp.data.cache import PixelCache
from isic_smp.data.coarser import CoarserPixels
from isic_smp.inference.contrast import difference

SHARE = 0.1
"""So many of the training pictures may be fainter than what is called least: the few faintest teach little."""
_AT_ONCE = 256
_ENOUGH = 2048
"""Of more pictures, so many are looked at, evenly spaced: a tenth of them is told well enough."""


def least_contrast(pixels: PixelCache | CoarserPixels) -> float:
    """The contrast of lesion and skin that all but the faintest tenth of pictures have.

    Args:
        pixels: pictures with their true masks, of the network's size.

    Returns:
        Distance in RGB, each from 0 to 1; 0 where no picture shows both.
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
    return round(float(np.quantile(seen, SHARE)), 4) if len(seen) else 0.0
