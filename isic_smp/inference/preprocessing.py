"""What stands between a picture and the network, kept with every saved model."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isic_smp.errors import UserError
from isic_smp.inference.second_look import FINER, look_twice
from isic_smp.models.normalise import normalise

RGB = 3
# Settings that a saved model may not know yet; it does as the defaults say.
_ADDED = {"largest_piece", "second_look", "close_bays", "least_contrast", "wrap_below"}
_SWITCHES = ("test_time_flips", "largest_piece", "second_look", "close_bays")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """All that must be the same when a model predicts as when it was trained.

    Raises:
        UserError: an impossible value.
    """

    size: int
    """Side of the square, in pixels, that the network sees."""
    mean: tuple[float, float, float]
    """Mean of each channel (R, G, B), for pixels from 0 to 1."""
    std: tuple[float, float, float]
    """Standard deviation of each channel, for pixels from 0 to 1."""
    threshold: float = 0.5
    """A pixel is lesion where its probability is above this."""
    test_time_flips: bool = False
    """Average the prediction over the eight flips and quarter turns."""
    largest_piece: bool = False
    """Keep the largest connected piece of a mask alone (`isic_smp.inference.pieces`)."""
    close_bays: bool = False
    """Close what is narrow in a mask's outline (`isic_smp.inference.bays`)."""
    second_look: bool = False
    """Look at the part around the lesion once more, enlarged (`isic_smp.inference.second_look`)."""
    least_contrast: float = 0.0
    """Lesions that differ less from the skin around them, in RGB from 0 to 1, are given so much contrast for the second
    look (`isic_smp.inference.contrast`); 0: none is."""
    wrap_below: float = 0.0
    """Masks of lesions that differ less from the skin around them are drawn around all of the lesion
    (`isic_smp.inference.wrapping`); 0: none is."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            if len(values) != RGB or not all(math.isfinite(v) for v in values):
                raise UserError(f"{name} must be three finite numbers, one a colour, got {list(values)}")
            object.__setattr__(self, name, values)  # a list from JSON would not compare equal
        if min(self.std) <= 0:
            raise UserError(f"std must be above 0, got {list(self.std)}")
        if self.size < 1 or not isinstance(self.size, int):
            raise UserError(f"size must be at least 1 pixel, and whole, got {self.size}")
        for name in _SWITCHES:  # the text "false" would switch it on
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("least_contrast", "wrap_below"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"{name} must lie between 0 and 1, got {value}")
        if not 0 < self.threshold < 1:
            raise UserError(f"threshold must lie between 0 and 1, got {self.threshold}")

    @property
    def input_size(self) -> int:
        """Side of the square, in pixels, that pictures are resized to, and of the maps that come of them.

        More than the network sees where there is a second look.
        """
        return self.size * FINER if self.second_look else self.size

    def of_the_network(self) -> "Preprocessing":
        """What a single pass through the network alone needs."""
        return dataclasses.replace(
            self,
            test_time_flips=False,
            largest_piece=False,
            close_bays=False,
            second_look=False,
            least_contrast=0.0,
            wrap_below=0.0,
        )

    def to_tensor(self, images: np.ndarray | Tensor, *, device: str | torch.device = "cpu") -> Tensor:
        """Normalise a batch: (pixel / 255 - mean) / std.

        Args:
            images: uint8 (B, input_size, input_size, 3), RGB.
            device: where the result lives; the bytes travel there before they become floats.

        Returns:
            float32 (B, 3, input_size, input_size), in channels_last memory order.
        """
        shape, side = tuple(images.shape), self.input_size
        if len(shape) != 4 or shape[1:] != (side, side, RGB) or "uint8" not in str(images.dtype):
            raise ValueError(f"expected uint8 images (B, {side}, {side}, {RGB}), got {images.dtype} {shape}")
        pixels = torch.as_tensor(images).to(device, non_blocking=True)
        return normalise(pixels, mean=self.mean, std=self.std)

    def look(self, network: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """What the network says in as many looks as these settings have.

        Args:
            network: gives logits, (B, 3, size, size) to (B, 1, size, size), for any B.
            batch: of `to_tensor`.

        Returns:
            Logits, float (B, 1, input_size, input_size).
        """
        if not self.second_look:
            return network(batch)
        return look_twice(
            network, batch, least_contrast=self.least_contrast, normalised_by=(self.mean, self.std)
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The reverse of `to_dict`.

        Raises:
            UserError: a missing, unknown or impossible field.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) | _ADDED != known:
            raise UserError(f"preprocessing must have the fields {sorted(known)}, got {sorted(values)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"bad preprocessing {dict(values)}: {error}") from None
