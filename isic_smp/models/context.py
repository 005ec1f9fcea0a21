"""A look at the whole picture before the decoder draws: what is faint or cut by the frame is told by its surroundings."""

import torch
from torch import nn


class Context(nn.Module):
    """Residual block of two dilated depthwise convolutions: each place sees eight more in every direction, for few sums.

    At stride 16 of a picture of 128 px that is all of it. Depthwise-separable and dilated as in DeepLabV3+
    (https://arxiv.org/abs/1802.02611).

    Args:
        channels: Of the encoder's coarsest map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = 2 * channels
        self.block = nn.Sequential(
            *_conv(channels, width, 1),
            *_conv(width, width, 5, groups=width, dilation=2),
            *_conv(width, width, 1),
            *_conv(width, width, 5, groups=width, dilation=2),
            nn.Conv2d(width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) to the same."""
        return x + self.block(x)


def _conv(inputs: int, outputs: int, kernel: int, *, groups: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
