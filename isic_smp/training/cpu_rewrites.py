"""The same sums in fewer operations, for training on a CPU: nothing here changes what is learned.

Three places where torch's own way costs several times what it must (one core of an EPYC with AVX-512,
bf16, batch 32 at 128 px):

- A decoder step is two linear maps in a row, a transposed convolution (2×2, stride 2) and a convolution
  (3×3). Together they are one transposed convolution of 4×4 and stride 2, whose kernel is small to
  compute, and which is a 2×2 convolution on the coarse map followed by a rearrangement (Shi et al. 2016,
  https://arxiv.org/abs/1609.05158). It needs down to a third of the multiply-adds, and the fine map
  between the two is never made.
- A depthwise convolution with a stride or a dilation, whose gradients oneDNN computes many times slower
  than others (`training/depthwise.py`).
- A convolution to a single channel uses one lane in 16. As a matrix product with all its taps, then
  shifted sums, it uses all.

The modules and the state dict stay as they are; `rewritten` puts other forward passes in their place
and takes them out again.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isic_smp.models.decoder import UpConvStep
from isic_smp.training.depthwise import depthwise, has_slow_gradients


@contextlib.contextmanager
def rewritten(network: nn.Module) -> Iterator[None]:
    """Within this context `network` computes the same, to rounding, in less time on a CPU."""
    changed = []
    for module in network.modules():
        forward = _forward_for(module)
        if forward is not None:
            module.forward = partial(forward, module)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _forward_for(module: nn.Module) -> Callable[..., Tensor] | None:
    if isinstance(module, UpConvStep):
        up = module.up
        # 16 · in · out multiply-adds a coarse pixel against 4 · in · out + 36 · out².
        return _up_conv_step if up.in_channels < 3 * up.out_channels else None
    if isinstance(module, nn.Conv2d) and has_slow_gradients(module):
        return depthwise
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and module.dilation == (1, 1):
        ones = (module.out_channels, module.groups, *module.stride, *module.padding)
        if module.kernel_size == (3, 3) and ones == (1,) * 6:
            return _to_one_channel
    return None


def _up_conv_step(step: UpConvStep, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """As `UpConvStep.forward`."""
    with torch.autocast(x.device.type, enabled=False):
        kernel, centre, border = _compose(step.up, step.conv)
    coarse = F.conv2d(x, kernel, centre, padding=1)
    channels = step.up.out_channels
    fine = None if skip is None else F.conv2d(skip, step.conv.weight[:, channels:], padding=1)
    return step.act(step.norm(_Interleave.apply(coarse, fine, border)))


def _compose(up: nn.ConvTranspose2d, conv: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
    """Both linear maps as one.

    Returns:
        The kernel (4 · out, in, 2, 2), whose output channels are (row parity, column parity, out); its bias
        (4 · out,); and what the bias lacks at the borders, (3, 3, out) for (top, middle, bottom) and (left,
        middle, right), since the convolution's padding knows no bias of `up`.
    """
    inner, outer = up.out_channels, conv.out_channels
    taps = conv.weight[:, :inner]
    # A pixel of the fine grid at offset a of its coarse pixel reaches the outputs at a - 1, a, a + 1.
    parts = torch.einsum("imab,omde->abiode", up.weight, taps.flip(2, 3))
    padded = [F.pad(parts[a, b], (b, 1 - b, a, 1 - a)) for a in (0, 1) for b in (0, 1)]
    whole = torch.stack(padded).sum(0)
    # Output 2p (parity 0) sees the coarse pixels p - 1 and p through rows 3 and 1, output 2p - 1 through 2 and 0.
    windows = whole.flip(2, 3).reshape(up.in_channels, outer, 2, 2, 2, 2)
    kernel = windows.permute(3, 5, 1, 0, 2, 4).reshape(4 * outer, up.in_channels, 2, 2)

    seen = torch.einsum("m,omde->deo", up.bias, taps)
    rows = torch.stack([seen[1:].sum(0), seen.sum(0), seen[:2].sum(0)])
    biases = torch.stack([rows[:, 1:].sum(1), rows.sum(1), rows[:, :2].sum(1)], dim=1)
    centre = biases[1, 1]
    bias = centre if conv.bias is None else centre + conv.bias
    return kernel.contiguous(memory_format=torch.channels_last), bias.repeat(4), biases - centre


_EDGES: dict[int, Any] = {0: 0, 1: slice(1, -1), 2: -1}


class _Interleave(torch.autograd.Function):
    """Four coarse maps, one a parity of row and column, to the fine map; plus another map, and border terms."""

    @staticmethod
    def forward(ctx: Any, coarse: Tensor, fine: Tensor | None, border: Tensor) -> Tensor:
        """(B, 4C, h + 1, w + 1), maybe (B, C, 2h, 2w), and (3, 3, C) → (B, C, 2h, 2w)."""
        batch, channels, height, width = coarse.shape
        channels, height, width = channels // 4, height - 1, width - 1
        ctx.had_fine, ctx.border_dtype = fine is not None, border.dtype
        if fine is None:
            fine = _empty((batch, channels, 2 * height, 2 * width), like=coarse)
        else:
            ctx.mark_dirty(fine)
        for a in (0, 1):
            for b in (0, 1):
                place = fine[:, :, a::2, b::2]
                part = _phase(coarse, channels, a, b)
                place.add_(part) if ctx.had_fine else place.copy_(part)
        for i, row in _EDGES.items():
            for j, column in _EDGES.items():
                if (i, j) != (1, 1):
                    pixels = fine[:, :, row, column]
                    pixels += border[i, j].to(fine.dtype).view(-1, *[1] * (pixels.ndim - 2))
        return fine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """The gradients of `forward`'s three arguments."""
        [fine] = gradients
        batch, channels, height, width = fine.shape
        coarse = _empty((batch, 4 * channels, height // 2 + 1, width // 2 + 1), like=fine)
        for outermost in (coarse[:, :, 0], coarse[:, :, -1], coarse[:, :, :, 0], coarse[:, :, :, -1]):
            outermost.zero_()
        for a in (0, 1):
            for b in (0, 1):
                _phase(coarse, channels, a, b).copy_(fine[:, :, a::2, b::2])
        border = torch.zeros(3, 3, channels, dtype=ctx.border_dtype, device=fine.device)
        for i, row in _EDGES.items():
            for j, column in _EDGES.items():
                if (i, j) != (1, 1):
                    pixels = fine[:, :, row, column].to(border.dtype)
                    border[i, j] = pixels.transpose(0, 1).flatten(1).sum(1)
        return coarse, fine if ctx.had_fine else None, border


def _phase(coarse: Tensor, channels: int, a: int, b: int) -> Tensor:
    """Of (B, 4C, h + 1, w + 1), the (B, C, h, w) that belong to row parity `a` and column parity `b`."""
    start = (2 * a + b) * channels
    return coarse[:, start : start + channels, a : coarse.shape[2] - 1 + a, b : coarse.shape[3] - 1 + b]


def _to_one_channel(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """As `nn.Conv2d.forward` with a 3×3 kernel and one output channel."""
    weight = conv.weight
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    made = _ToOneChannel.apply(x, weight)
    return made if conv.bias is None else made + conv.bias


class _ToOneChannel(torch.autograd.Function):
    """A 3×3 convolution to one channel: all nine taps by one matrix product, then their shifted sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """(B, C, H, W) and (1, C, 3, 3) → float32 (B, 1, H, W)."""
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        taps = weight[0].flatten(1)
        ctx.save_for_backward(pixels, taps)
        products = (taps.t() @ pixels.t()).view(3, 3, batch, height, width)
        made = products[1, 1].to(torch.promote_types(x.dtype, torch.float32))
        for a, b, here, there in _shifts():
            if (a, b) != (1, 1):
                made[here] += products[a, b][there]
        return made.unsqueeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        """The gradients in the input and the weight."""
        pixels, taps = ctx.saved_tensors
        made = gradients[0].squeeze(1).to(pixels.dtype)
        products = made.new_zeros(3, 3, *made.shape)
        for a, b, here, there in _shifts():
            products[a, b][there] = made[here]
        flat = products.view(9, -1)
        in_pixels = None
        if ctx.needs_input_grad[0]:
            in_pixels = (flat.t() @ taps.t()).view(*made.shape, -1).permute(0, 3, 1, 2)
        return in_pixels, (flat @ pixels).t().reshape(1, -1, 3, 3)


def _shifts() -> Iterator[tuple[int, int, tuple, tuple]]:
    """Row and column of each tap of a 3×3 kernel, where it writes in (B, H, W), and where it reads."""
    ends = [(slice(1, None), slice(None, -1)), (slice(None), slice(None)), (slice(None, -1), slice(1, None))]
    for a, (rows, from_rows) in enumerate(ends):
        for b, (columns, from_columns) in enumerate(ends):
            yield a, b, (slice(None), rows, columns), (slice(None), from_rows, from_columns)


def _empty(shape: tuple[int, int, int, int], *, like: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last memory."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
