"""From a recipe to its network, with the weights that it starts from."""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn

import isic_smp.plugin  # noqa: F401 - a recipe names encoders that it registers
from isic_smp.errors import UserError
from isic_smp.inference.load import load_bundle
from isic_smp.models.families import parse_encoder_name
from isic_smp.models.shipped import NAME as SHIPPED
from isic_smp.models.shipped import shipped_data
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.training.device import resolve_precision
from isic_smp.training.recipe import Recipe


class Start(NamedTuple):
    """A network as training begins with it."""

    model: UpConvNet
    weights: str
    """Where they came from: `recipe.init_from`, `recipe.encoder_weights`, or what a demo fell back to."""
    trained_on: Mapping[str, Any] | None
    """What is kept of the lesion pictures that they were learned from; None where there were none."""


def build_network(recipe: Recipe, weights: str) -> UpConvNet:
    """The recipe's network, its encoder with `weights`, its decoder as the recipe's seed has it."""
    torch.manual_seed(recipe.seed)
    return UpConvNet(
        encoder_name=recipe.encoder,
        encoder_depth=recipe.encoder_depth,
        encoder_weights=weights,
        decoder_depth=recipe.decoder_depth,
        decoder_channels=recipe.decoder_channels,
        decoder_width=recipe.decoder_width,
        decoder_norm=recipe.decoder_norm,
        skip_connections=recipe.skip_connections,
        decoder_context=recipe.decoder_context,
    )


def start_network(recipe: Recipe, *, is_demo: bool = False, tracking_uri: str | None = None) -> Start:
    """The recipe's network as training begins with it.

    Args:
        recipe: the settings.
        is_demo: drawn pictures stand in for missing data, so ImageNet weights may be done without.
        tracking_uri: MLflow store of the model that `recipe.init_from` names.

    Raises:
        UserError: weights that cannot be had or do not fit.
    """

    def build(weights: str) -> UpConvNet:
        return build_network(recipe, weights)

    if recipe.init_from is not None:
        trained = load_bundle(recipe.init_from, tracking_uri=tracking_uri)
        _check_fits(trained.model, build("none"), recipe.init_from)
        return Start(cast(UpConvNet, trained.model), recipe.init_from, trained.info.get("data") or {})
    try:
        return _start(build(recipe.encoder_weights), recipe.encoder_weights)
    except UserError as error:
        if not (is_demo and recipe.encoder_weights == "imagenet"):
            raise
        try:
            model, used, start = build(SHIPPED), SHIPPED, "the package's own, fine-tuned on lesions"
        except UserError:  # the recipe's encoder is another network, or a deeper cut
            model, used, start = build("none"), "none", "chance"
        print(
            f"!!! NO IMAGENET WEIGHTS, the encoder starts from {start} (demo only): {error}", file=sys.stderr
        )
        return _start(model, used)


def _start(model: UpConvNet, weights: str) -> Start:
    return Start(model, weights, shipped_data() if weights == SHIPPED else None)


def _check_fits(trained: nn.Module, wanted: UpConvNet, spec: str) -> None:
    """Refuse to go on from a model that is not the recipe's network.

    Raises:
        UserError: naming what differs.
    """
    if not isinstance(trained, UpConvNet):
        raise UserError(f"cannot go on from {spec}: expected an UpConvNet, got {type(trained).__name__}")
    there, here = (parse_encoder_name(m.config["encoder_name"]) for m in (trained, wanted))
    differing = []
    if (there.timm_name, there.cut) != (here.timm_name, here.cut):
        differing.append(f"encoder {there} there, {here} here")
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (trained, wanted)]
    if shapes[0] != shapes[1]:
        names = (
            "encoder_depth",
            "decoder_depth",
            "decoder_channels",
            "decoder_width",
            "decoder_norm",
            "skip_connections",
            "decoder_context",
        )
        pairs = [(name, trained.config.get(name), wanted.config.get(name)) for name in names]
        differing += [f"{name} {a} there, {b} here" for name, a, b in pairs if a != b]
    if differing or shapes[0] != shapes[1]:
        raise UserError(
            f"cannot go on from {spec}, it is another network ({'; '.join(differing) or 'other shapes'}): "
            "give the settings that it was trained with"
        )


def describe(model: UpConvNet, recipe: Recipe, device: torch.device) -> str:
    """One line: the network, what of it is trained, on what."""
    count = sum(p.numel() for p in model.parameters())
    trained = "decoder only" if recipe.freeze else "encoder and decoder"
    if recipe.freeze_epochs:
        trained = f"decoder, from epoch {recipe.freeze_epochs + 1} on encoder and decoder"
    precision = resolve_precision(recipe.precision, device)
    threads = torch.get_num_threads()
    on = f"cpu, {threads} thread{'s' * (threads > 1)}," if device.type == "cpu" else str(device)
    return f"model: {model.name}, {count / 1e6:.2f} M parameters, training {trained}, {on} {precision}"
