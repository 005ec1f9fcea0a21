"""Depthwise convolutions with a stride or a dilation, with other backward passes than oneDNN's.

One core of an EPYC with AVX-512, bf16, batch 32:

- *Stride 2*, 96 channels at 64 px: oneDNN's gradient in the input takes 104 ms, 20 times as long as without a
  stride. Spreading the output's gradient over the fine grid first makes it one without.
- *Dilation 2*, 5×5, 192 channels at 8 px: the gradients take 2.7 ms in the input and 14 ms in the weight, where
  the convolution itself takes 0.1. The one in the input is that same convolution with the kernel turned round
  (0.1 ms). The one in the weight is a matrix product a kernel row (1.7 ms).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def has_slow_gradients(conv: nn.Conv2d) -> bool:
    """Whether `depthwise` is the faster way to compute `conv` and its gradients."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
    reach = [d * (k - 1) - p for d, k, p in zip(conv.dilation, conv.kernel_size, conv.padding, strict=True)]
    is_dilated = conv.stride == (1, 1) and max(conv.dilation) > 1 and min(reach) >= 0
    is_strided = conv.stride == (2, 2) and conv.dilation == (1, 1)
    return is_depthwise and (is_dilated or is_strided)


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """As `nn.Conv2d.forward`, or that of a subclass with `static_padding`."""
    pad = getattr(conv, "static_padding", None)
    x, weight = (x if pad is None else pad(x)), conv.weight
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    return _Depthwise.apply(x, weight, conv.bias, conv.stride[0], conv.padding, conv.dilation)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 2, or of stride 1 with a dilation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        """(B, C, H, W) and (C, 1, k, l), maybe (C,) → (B, C, H', W')."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.dilation = stride, padding, dilation
        bias = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight, bias, stride, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients in the input, the weight and the bias."""
        [output] = gradients
        x, weight = ctx.saved_tensors
        wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad[:3]
        in_x = in_weight = in_bias = None
        if ctx.stride == 1:
            reach = [
                d * (k - 1) - p for d, k, p in zip(ctx.dilation, weight.shape[2:], ctx.padding, strict=True)
            ]
            if wanted_x:
                in_x = F.conv2d(output, weight.flip(2, 3), None, 1, reach, ctx.dilation, x.shape[1])
            if wanted_weight:
                in_weight = _weight_by_rows(x, output, weight, ctx.padding, ctx.dilation)
            if wanted_bias:
                in_bias = output.sum((0, 2, 3))
        else:
            if wanted_weight or wanted_bias:
                _, in_weight, in_bias = torch.ops.aten.convolution_backward(
                    output, x, weight, [x.shape[1]], [2, 2], list(ctx.padding), [1, 1], False, [0, 0],
                    x.shape[1], [False, wanted_weight, wanted_bias],
                )  # fmt: skip
            if wanted_x:
                spread = _spread(output, x, weight, ctx.padding)
                in_x = F.conv2d(spread, weight.flip(2, 3), groups=x.shape[1])
        return in_x, in_weight, in_bias, None, None, None


def _spread(output: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """A strided output's gradient on the fine grid, zeros between and round it, for a convolution without padding."""
    batch, channels, height, width = x.shape
    tall, wide = weight.shape[2:]
    top, left = tall - 1 - padding[0], wide - 1 - padding[1]
    shape = (batch, channels, height + tall - 1, width + wide - 1)
    spread = torch.empty(
        shape, dtype=output.dtype, device=output.device, memory_format=torch.channels_last
    ).zero_()
    rows, columns = output.shape[2:]
    spread[:, :, top : top + 2 * rows : 2, left : left + 2 * columns : 2] = output
    return spread


def _weight_by_rows(
    x: Tensor, output: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """The gradient in the weight of a stride of 1: (B, C, H, W) and (B, C, H', W') → (C, 1, k, l).

    For a row of the kernel, the products of every column of the input with every column of the output's gradient,
    summed over images and rows; each place in that kernel row is a diagonal of them.
    """
    inputs = x.permute(1, 2, 0, 3).contiguous()
    gradients = output.to(x.dtype).permute(1, 2, 0, 3).contiguous()
    height, width = x.shape[2:]
    rows = gradients.shape[1]
    made = torch.zeros(weight.shape, dtype=torch.promote_types(weight.dtype, torch.float32), device=x.device)
    for i in range(weight.shape[2]):
        shift = i * dilation[0] - padding[0]
        first, last = max(0, -shift), min(rows, height - shift)
        if first >= last:
            continue
        seen = inputs[:, first + shift : last + shift].flatten(1, 2)
        products = torch.bmm(seen.transpose(1, 2), gradients[:, first:last].flatten(1, 2))
        for j in range(weight.shape[3]):
            offset = padding[1] - j * dilation[1]
            if -width < offset < products.shape[2]:
                made[:, 0, i, j] = products.diagonal(offset, 1, 2).sum(-1, dtype=made.dtype)
    return made.to(weight.dtype)
