"""How far two networks that should compute the same are apart."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

TOGETHER = 32
"""Pictures in the networks at once, however many there are."""


@dataclass(frozen=True)
class Parity:
    """Differences over all pixels of all pictures."""

    largest_difference: float
    """Of two probabilities of one pixel; not a number where a network gives none."""
    flipped: int
    """Pixels whose probabilities lie on different sides of the threshold."""
    pixels: int

    def describe(self) -> str:
        """Two lines."""
        return (
            f"  largest probability difference  {self.largest_difference:.1e}\n"
            f"  pixels that change sides        {self.flipped} of {self.pixels} "
            f"({100 * self.flipped / self.pixels:.4f} %)"
        )


def compare_networks(expected: nn.Module, found: nn.Module, batch: Tensor, threshold: float) -> Parity:
    """Run both on pictures together, on the first alone, and on two of other proportions.

    Args:
        expected: a segmentation model in evaluation mode; its labels, if it gives such, are passed over.
        found: the same in another form.
        batch: normalised pictures, float32 (B, 3, size, size).
        threshold: a pixel is lesion where its probability is above this.
    """
    tall = torch.nn.functional.interpolate(batch[:2], scale_factor=(2.0, 1.0), mode="bilinear")
    largest, flipped, pixels = 0.0, 0, 0
    with torch.inference_mode():
        for some in (*batch.split(TOGETHER), batch[:1], tall):
            there = _probabilities(expected, some)
            here = _probabilities(found, some)
            # Of Python's own max() a difference that is no number would come out as the one before it.
            largest = float(np.maximum(largest, np.abs(there - here).max()))
            flipped += int(((there > threshold) != (here > threshold)).sum())
            pixels += there.size
    return Parity(largest, flipped, pixels)


def _probabilities(network: nn.Module, batch: Tensor) -> np.ndarray:
    output = network(batch)
    return (output[0] if isinstance(output, tuple) else output).sigmoid().numpy()
