"""BatchNorm's statistics, measured anew for the weights that are kept."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from isic_smp.data.augment import Augmenter
from isic_smp.models.normalise import normalise
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.training.batches import Order, PixelBatches
from isic_smp.training.recipe import Recipe
from isic_smp.training.statistics import renew_statistics

CPU = torch.device("cpu")
RECIPE = Recipe(
    encoder="trunc-mobilenetv2_035-s2", encoder_weights="none", decoder_channels=(8, 8, 8), size=32, batch_size=10,
    precision="float32", plain_statistics=1.0,
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return UpConvNet(RECIPE.encoder, encoder_weights=None, decoder_channels=RECIPE.decoder_channels)


def renew(model, pixels, recipe):
    norm = {"mean": model.mean, "std": model.std}
    order = Order(len(pixels), recipe.batch_size, shuffle=True, seed=0)
    renew_statistics(
        model,
        recipe,
        plain=PixelBatches(pixels, order, **norm),
        augmented=PixelBatches(pixels, order, augmenter=Augmenter(flips=True, affine=1, colour=1), **norm),
        device=CPU,
    )


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_all_plain_is_the_mean_and_variance_of_the_plain_pictures(model, small_caches):
    pixels = small_caches[0]
    first = norms_of(model)[0]
    images = normalise(torch.from_numpy(pixels.read(np.arange(20))[0]), mean=model.mean, std=model.std)
    seen = []
    hook = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.eval()(images)
    hook.remove()
    renew(model, pixels, RECIPE)
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    # Two batches of ten: the mean of their variances lacks what their means differ by, which is little here.
    torch.testing.assert_close(first.running_var, seen[0].var((0, 2, 3)), rtol=0.05, atol=1e-5)


def test_a_mixture_has_the_mean_of_both_and_a_variance_of_both_and_between(model, small_caches):
    found = {}
    for share in (0.0, 1.0, 0.25):
        renew(model, small_caches[0], dataclasses.replace(RECIPE, plain_statistics=share or 1e-9))
        last = norms_of(model)[-1]
        found[share] = last.running_mean.clone(), last.running_var.clone()
    (mean_a, var_a), (mean_p, var_p) = found[0.0], found[1.0]
    assert not torch.allclose(mean_a, mean_p)
    torch.testing.assert_close(found[0.25][0], 0.75 * mean_a + 0.25 * mean_p)
    between = 0.25 * 0.75 * (mean_a - mean_p) ** 2
    torch.testing.assert_close(found[0.25][1], 0.75 * var_a + 0.25 * var_p + between)


def test_a_frozen_encoder_keeps_its_statistics(model, small_caches):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    renew(model, small_caches[0], dataclasses.replace(RECIPE, freeze=True))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)


def test_weights_stay_and_every_layer_is_in_evaluation_mode(model, small_caches):
    before = {name: value.clone() for name, value in model.named_parameters()}
    renew(model, small_caches[0], RECIPE)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert not any(module.training for module in model.modules())
    assert all(m.momentum == 0.1 for m in model.decoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_same_pictures_give_the_same_statistics(model, small_caches):
    renew(model, small_caches[0], RECIPE)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    renew(model, small_caches[0], RECIPE)
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())


def test_they_are_of_float32_as_predictions_are_whatever_training_computed_in(model, small_caches):
    renew(model, small_caches[0], RECIPE)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    renew(model, small_caches[0], dataclasses.replace(RECIPE, precision="bf16"))
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())
