"""What a network costs: its parameters and the multiply-adds of one picture."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Costs that do not depend on the machine."""

    parameters: int
    multiply_adds: int
    """Of the convolutions and matrix products for one picture, one multiplication and addition counted once."""


def cost(model: nn.Module, size: int, *, channels: int = 3) -> Cost:
    """Count what `model` costs for a picture of `size` × `size` pixels; its mode is kept.

    Counted by torch's own counter, whose floating-point operations are twice the multiply-adds.
    """
    was_training = model.training
    model.eval()
    picture = torch.zeros(1, channels, size, size, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(picture)
    model.train(was_training)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)
