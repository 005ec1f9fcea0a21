"""Optimizers, schedules and weight averaging, all torch's own, put together from a recipe."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from isic_smp.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Two learning rates (encoder, rest); weight decay on matrices and kernels only, not on norms and biases.

    A frozen encoder's parameters are left out; one that is unfrozen later is in from the start, and
    waits there without gradients.
    """
    groups = []
    for in_encoder, lr in ((True, recipe.encoder_lr or recipe.lr), (False, recipe.lr)):
        named = [p for name, p in model.named_parameters() if name.startswith("encoder.") == in_encoder]
        if in_encoder and recipe.freeze:
            continue
        for decayed in (True, False):
            params = [p for p in named if (p.ndim > 1) == decayed]
            if params:
                groups.append(
                    {"params": params, "lr": lr, "weight_decay": recipe.weight_decay if decayed else 0.0}
                )
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)
    make = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return make(groups, lr=recipe.lr, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The recipe's course of the learning rates over `steps` steps; call `.step()` after each."""
    if recipe.schedule == "onecycle":
        # Cycling Adam's betas as well changes nothing here that is worth a setting.
        peaks = [group["lr"] for group in optimizer.param_groups]
        # With 4 steps torch divides by the length of a rise that ends at step 0.
        return OneCycleLR(optimizer, peaks, total_steps=max(steps, 5), pct_start=0.25, cycle_momentum=False)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def make_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights; BatchNorm's running statistics are taken as they are."""
    return AveragedModel(model, multi_avg_fn=_ema(decay))


def _ema(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        # A young average forgets faster, so that the random first weights do not linger in a short run.
        young = (1 + int(count)) / (10 + int(count))
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, young))

    return update
