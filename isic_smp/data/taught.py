"""Training pixels whose masks are half truth, half what trained models see in the same pictures.

A mask says yes or no, also where two experts would draw differently and where a pixel lies across the outline. The
mean of several models says how sure one can be there; learning from both is distillation ("Distilling the knowledge
in a neural network", https://arxiv.org/abs/1503.02531).
"""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from isic_smp.data.cache import PixelCache
from isic_smp.errors import UserError

LEVELS = 255
"""What certain lesion counts in the shares of a `TaughtPixels`, and in a file of maps."""


class TaughtPixels:
    """A pixel cache read with other masks: for each pixel its share of lesion, 0 to 255.

    Args:
        pixels: images and true masks.
        maps: file of uint8 (N, side, side), the teachers' mean probability of lesion times 255, in the cache's order.
        side: of the maps, in pixels; where the pixels are finer, the maps are enlarged. Default: as the pixels.

    Attributes:
        ids: as the cache has them.
        levels: what certain lesion counts.
        digest: the file's name, which says whose maps of which pixels these are.

    Raises:
        UserError: the file cannot be read or is of another length.
    """

    levels = LEVELS

    def __init__(self, pixels: PixelCache, maps: Path, *, side: int | None = None) -> None:
        self.pixels, self.maps, self.ids, self.digest = pixels, maps, pixels.ids, maps.stem
        self._side = side or pixels.size
        self._record = self._side**2
        try:
            self._file = os.open(maps, os.O_RDONLY)
        except OSError as error:
            raise UserError(
                f"cannot open the teachers' maps {maps}: {error.strerror}; delete that file"
            ) from None
        weakref.finalize(self, os.close, self._file)
        length = os.fstat(self._file).st_size
        if length != len(pixels) * self._record:
            raise UserError(
                f"the teachers' maps {maps} are damaged: {length} bytes, expected {len(pixels) * self._record}; "
                "delete that file"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """RGB images, uint8 (B, size, size, 3), and shares of lesion, uint8 (B, size, size) from 0 to 255."""
        images, masks = self.pixels.read(indices)
        return images, self._shares(indices, masks)

    def read_masks(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The shares alone, as `read` returns them."""
        return self._shares(indices, self.pixels.read_masks(indices))

    def _shares(self, indices: Sequence[int] | np.ndarray, masks: np.ndarray) -> np.ndarray:
        shares = np.empty((len(masks), self._side, self._side), np.uint8)
        for row, index in zip(shares, np.asarray(indices).tolist(), strict=True):
            # pread, as of the cache: a mapping's pages would count as this process's memory.
            if os.preadv(self._file, [row.data], index * self._record) != self._record:
                raise UserError(f"the teachers' maps {self.maps} were cut short; delete that file")
        if self._side != self.pixels.size:
            shares = np.stack([cv2.resize(row, dsize=masks.shape[1:]) for row in shares])
        # The mean of both in uint8, where their sum would not fit: half of the one and the greater half of the other.
        return shares // 2 + (shares & 1) + masks * np.uint8(LEVELS // 2)
