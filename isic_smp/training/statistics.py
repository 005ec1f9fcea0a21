"""BatchNorm's statistics for the weights that are kept, in place of those that training left behind.

The running statistics follow the last few steps: they belong to the weights of those steps, not to their moving
average, and to augmented pictures, which no one will ask about. So they are measured anew when training is over, on
training images as they are and as they were augmented. A network is trained under augmentation and used without, and
its statistics are the cheapest place to make up for it ("Fixing the train-test resolution discrepancy",
https://arxiv.org/abs/1906.06423, finds the same for scale; "Rethinking 'Batch' in BatchNorm",
https://arxiv.org/abs/2105.07576, on measuring them precisely).
"""

from collections.abc import Iterator, Sequence

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isic_smp.training.batches import Batch, Batches
from isic_smp.training.recipe import Recipe

Moments = list[tuple[Tensor, Tensor]]
"""Mean and variance of each channel, (C,) each, a BatchNorm each."""


def renew_statistics(
    model: SegmentationModel,
    recipe: Recipe,
    *,
    plain: Batches,
    augmented: Batches,
    device: torch.device,
) -> None:
    """Give the model's BatchNorms the statistics of plain and of augmented training images, mixed.

    How much of the mixture is plain, `recipe.plain_statistics` says. A frozen encoder keeps the statistics that it came
    with. They are measured in float32, as predictions are made, whatever the recipe trains in.

    Args:
        model: an smp model with its trained weights; left in evaluation mode.
        recipe: how it was trained.
        plain: the training images as they are, all of them on this rank.
        augmented: the same as they are trained on.
        device: where the model is.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if recipe.freeze:
        kept = {id(module) for module in model.encoder.modules()}
        norms = [norm for norm in norms if id(norm) not in kept]
    # The views of an epoch that was not trained on.
    seen = [_measure(model, norms, batches.epoch(recipe.epochs, device)) for batches in (augmented, plain)]
    share = recipe.plain_statistics
    for norm, (mean_a, var_a), (mean_p, var_p) in zip(norms, *seen, strict=True):
        mean = torch.lerp(mean_a, mean_p, share)
        # The mixture's variance: the mean variance within the parts, and what their means differ by.
        variance = torch.lerp(var_a + (mean_a - mean) ** 2, var_p + (mean_p - mean) ** 2, share)
        _running(norm)[0].copy_(mean)
        _running(norm)[1].copy_(variance)


@torch.no_grad()
def _measure(network: nn.Module, norms: Sequence[_BatchNorm], batches: Iterator[Batch]) -> Moments:
    """The mean over the batches of each batch's own statistics, every layer seeing normalised inputs."""
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.training = True
    for batch in batches:
        network(*batch.inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum, norm.training = momentum, False
    return [(mean.clone(), variance.clone()) for mean, variance in map(_running, norms)]


def _running(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
