"""Finer pixels than a network takes, read at its own size."""

from collections.abc import Sequence

import numpy as np

from isic_smp.data.cache import PixelCache
from isic_smp.data.resize import resize_image, resize_mask


class CoarserPixels:
    """A pixel cache read with fewer pixels: each is the mean of those in its place.

    Args:
        pixels: of a side that is a multiple of `size`.
        size: side of the square, in pixels, that is read.

    Attributes:
        ids: as the cache has them.
        levels: what certain lesion counts in a mask.
    """

    levels = 1

    def __init__(self, pixels: PixelCache, size: int) -> None:
        if pixels.size % size:
            raise ValueError(f"{pixels.size} pixels are no multiple of {size}")
        self.pixels, self.size, self.ids = pixels, size, pixels.ids

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """RGB images, uint8 (B, size, size, 3), and masks, uint8 (B, size, size) of 0 and 1."""
        images, masks = self.pixels.read(indices)
        return (
            np.stack([resize_image(image, self.size) for image in images]),
            np.stack([resize_mask(mask, self.size) for mask in masks]),
        )
