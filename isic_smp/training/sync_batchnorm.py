"""BatchNorm over the whole batch where several processes share it.

Each process would else normalise by the few images that it holds itself, and what is learned would
depend on the number of processes. torch.nn.SyncBatchNorm does the same, but on GPUs only.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from isic_smp.training.distributed import Ranks


@contextlib.contextmanager
def synced_batchnorm(network: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Within this context BatchNorm layers in training mode take their statistics over all ranks.

    Args:
        network: its modules and state dict stay as they are.
        ranks: every one of them must run the same layers in the same order, on one image or more.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)] if ranks.world > 1 else []
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@torch.compiler.disable
def _forward(layer: _BatchNorm, alone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """As `nn.BatchNorm2d.forward`, or that of timm's subclass with `drop` and `act`: (B, C, H, W) → the same."""
    if not layer.training:
        return alone(x)
    mean, var, count = _statistics(x.detach())
    if layer.track_running_stats:
        _follow(layer, mean, var * (count / (count - 1)))
    x = _Normalise.apply(x, layer.weight, layer.bias, mean, var, count, layer.eps)
    for after in ("drop", "act"):
        if hasattr(layer, after):
            x = getattr(layer, after)(x)
    return x


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance a channel, (C,) float32, and the number of values a channel, over all ranks."""
    var, mean = torch.var_mean(x.float(), dim=[0, *range(2, x.ndim)], correction=0)
    # In double precision the difference below cancels nothing that float32 could hold.
    mean, var = mean.double(), var.double()
    sums = torch.cat([mean, var + mean**2, mean.new_ones(1)]) * (x.numel() // x.shape[1])
    dist.all_reduce(sums)
    mean, square = (sums[:-1] / sums[-1]).chunk(2)
    return mean.float(), (square - mean**2).float(), sums[-1].float()


@torch.no_grad()
def _follow(layer: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Move the running statistics as torch does."""
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked += 1
    weight = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, weight)
    layer.running_var.lerp_(var, weight)


class _Normalise(torch.autograd.Function):
    """weight · (x - mean) / √(var + eps) + bias, where mean and var depend on the x of every rank."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        """(B, C, H, W) and four times (C,) → (B, C, H, W)."""
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, of all ranks' losses together, and of weight and bias, of this rank's."""
        x, weight, mean, var, count = ctx.saved_tensors
        # First as if mean and var were constants; their own part follows from the sums over all ranks.
        in_x, in_weight, in_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([in_weight, in_bias]).double()
        dist.all_reduce(sums)
        of_weight, of_bias = (sums / count).float().chunk(2)
        scale = torch.rsqrt(var + ctx.eps)
        slope = -weight * scale**2 * of_weight
        shift = -weight * scale * of_bias - slope * mean
        shape = (1, -1, *[1] * (x.ndim - 2))
        in_x = in_x + (x * slope.view(shape) + shift.view(shape)).to(in_x.dtype)
        return in_x, in_weight, in_bias, None, None, None, None
