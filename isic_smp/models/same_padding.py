"""TensorFlow's "SAME" padding as a fixed, asymmetric pad: scripting, compiling and export need no shapes.

TensorFlow pads a strided convolution by as much as the input's size calls for, and gives the odd pixel to
the bottom and right (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2). timm's
`Conv2dSame` computes that at every call. Where the input's size is a multiple of the stride, as smp's
encoders ask for, the pad is always the same, and is fixed here when the layer is made.
"""

import torch
from torch import nn


class Conv2dStaticSame(nn.Conv2d):
    """A strided convolution of an input whose height and width are multiples of its stride, padded as "SAME".

    `static_padding` is the name under which smp finds, and takes away, the pad of a convolution whose
    stride it replaces by dilation.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take over the parameters and geometry of `conv`; its own padding is dropped."""
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        pads = [
            max(dilation * (kernel - 1) + 1 - stride, 0)
            for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ]
        height, width = pads
        self.static_padding: nn.Module = nn.ZeroPad2d(
            (width // 2, width - width // 2, height // 2, height - height // 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        return self._conv_forward(self.static_padding(x), self.weight, self.bias)


def pad_statically(module: nn.Module) -> None:
    """Replace every strided convolution under `module` by its "SAME"-padded like, parameters and all.

    Stride-1 convolutions with odd kernels need the same pad on every side and stay as they are.
    """
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.stride != (1, 1):
                setattr(parent, name, Conv2dStaticSame(child))
