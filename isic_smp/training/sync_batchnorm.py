"""BatchNorm over the whole batch where several processes share it.

Each process would else normalise by the few images that it holds itself, and what is learned would
depend on the number of processes. torch.nn.SyncBatchNorm does the same, but on GPUs only.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
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
def _forward(layer: _BatchNorm, alone: partial, x: Tensor) -> Tensor:
    """As `nn.BatchNorm2d.forward`, or that of timm's subclass with `drop` and `act`: (B, C, H, W) → the same."""
    if not layer.training:
        return alone(x)
    mean, var, count = _statistics(x)
    if layer.track_running_stats:
        _follow(layer, mean.detach(), var.detach() * (count / (count - 1)))
    shape = (1, -1, *[1] * (x.ndim - 2))
    normalised = (x - mean.view(shape)) * torch.rsqrt(var + layer.eps).view(shape)
    if layer.affine:
        normalised = normalised * layer.weight.view(shape) + layer.bias.view(shape)
    normalised = normalised.to(x.dtype)
    for after in ("drop", "act"):
        if hasattr(layer, after):
            normalised = getattr(layer, after)(normalised)
    return normalised


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance a channel, (C,) float32, and the number of values a channel, over all ranks."""
    others = [0, *range(2, x.ndim)]
    var, mean = torch.var_mean(x.float(), dim=others, correction=0)
    # In double precision the difference below cancels nothing that float32 could hold.
    mean, var = mean.double(), var.double()
    count = x.numel() // x.shape[1]
    sums = all_reduce(torch.cat([mean, var + mean**2, mean.new_ones(1)]) * count)
    total = sums[-1].detach()
    mean, square = (sums[:-1] / total).chunk(2)
    return mean.float(), (square - mean**2).float(), total.float()


@torch.no_grad()
def _follow(layer: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Move the running statistics as torch does."""
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked += 1
    weight = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, weight)
    layer.running_var.lerp_(var, weight)
