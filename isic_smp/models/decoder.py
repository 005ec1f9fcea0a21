"""A decoder of transposed convolutions: small, and fast on a CPU."""

from collections.abc import Sequence

import torch
from torch import nn

from isic_smp.models.context import Context


class UpConvStep(nn.Module):
    """[ConvTranspose2d ×2, (concatenate the encoder's map), Conv2d 3×3, (BatchNorm), ReLU].

    Args:
        in_channels: Channels of the coarse map.
        skip_channels: Channels of the encoder's map at twice the size; 0: there is none.
        out_channels: Channels of both convolutions' outputs.
        norm: Whether BatchNorm stands between the convolution and the ReLU.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, *, norm: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = nn.Conv2d(out_channels + skip_channels, out_channels, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.act = nn.ReLU(inplace=True)
        _initialise_upsampling(self.up)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """(B, in_channels, H, W) and maybe (B, skip_channels, 2H, 2W) → (B, out_channels, 2H, 2W)."""
        x = self.up(x)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.act(self.norm(self.conv(x)))


class UpConvDecoder(nn.Module):
    """From the encoder's coarsest map upwards, one doubling a step.

    Args:
        encoder_channels: Channels of `[x, /2, /4, …]`, as the encoder's `out_channels`.
        decoder_channels: Channels of each step, coarse to fine; their number is the number of steps.
        norm: BatchNorm in each step.
        skip_connections: Hand the encoder's map at each step's resolution to it, as a U-Net does
            (https://arxiv.org/abs/1505.04597). The image itself is not handed on.
        context: Look over the encoder's coarsest map as a whole first (`models/context.py`).
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        *,
        norm: bool,
        skip_connections: bool,
        context: bool = False,
    ) -> None:
        super().__init__()
        self.context = Context(encoder_channels[-1]) if context else nn.Identity()
        finer = list(encoder_channels[1:-1][::-1]) if skip_connections else []
        skips = [finer[i] if i < len(finer) else 0 for i in range(len(decoder_channels))]
        inputs = [encoder_channels[-1], *decoder_channels[:-1]]
        self._skips = [channels > 0 for channels in skips]
        self.steps = nn.ModuleList(
            UpConvStep(i, skip, o, norm=norm)
            for i, skip, o in zip(inputs, skips, decoder_channels, strict=True)
        )

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Decode.

        Args:
            features: `[(B, C, H, W), (B, C1, H/2, W/2), …, (B, Cn, H/2ⁿ, W/2ⁿ)]`.

        Returns:
            (B, decoder_channels[-1], H·2ˢ⁻ⁿ, W·2ˢ⁻ⁿ) after s steps.
        """
        x = self.context(features[-1])
        for i, step in enumerate(self.steps):
            skip = features[len(features) - 2 - i] if self._skips[i] else None
            x = step(x, skip)
        return x


def default_channels(encoder_depth: int, decoder_depth: int, width: float = 1.0) -> tuple[int, ...]:
    """Channels of each step, coarse to fine, by the resolution that it reaches: 16 at the image's own, times `width`.

    A shallower decoder is thus the beginning of a deeper one.
    """
    channels = (256, 128, 64, 32, 16)[5 - encoder_depth :][:decoder_depth]
    return tuple(max(1, round(width * count)) for count in channels)


def _initialise_upsampling(up: nn.ConvTranspose2d) -> None:
    """Start as nearest-neighbour upsampling of a random mixture of the channels.

    Each output pixel sees one input pixel, so the variance is kept with 1 / in_channels; the same filter for
    the four output pixels of one input pixel leaves no checkerboard (https://arxiv.org/abs/1707.02937).
    torch's own default takes the fan of a forward convolution.
    """
    with torch.no_grad():
        filters = torch.empty(up.in_channels, up.out_channels, 1, 1)
        nn.init.normal_(filters, std=up.in_channels**-0.5)
        up.weight.copy_(filters.expand_as(up.weight))
        if up.bias is not None:
            up.bias.zero_()
