"""From a recipe and data to everything the loop needs: the network, its batches, its preprocessing."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import nn

import isic_smp.plugin  # noqa: F401 - a recipe names encoders that it registers
from isic_smp.data.augment import Augmenter
from isic_smp.data.cache import PixelCache, open_pixel_cache
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair
from isic_smp.data.pipeline import SavedPipeline
from isic_smp.data.taught import TaughtPixels
from isic_smp.errors import UserError
from isic_smp.inference.load import load_bundle
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.models.families import parse_encoder_name
from isic_smp.models.shipped import NAME as SHIPPED
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.teaching import open_taught
from isic_smp.training.batches import Batches, Order, PixelBatches
from isic_smp.training.device import resolve_precision
from isic_smp.training.distributed import Ranks
from isic_smp.training.feature_bank import (
    BankBatches,
    FeatureBank,
    FromFeatures,
    Unbankable,
    bank_views,
    open_feature_bank,
)
from isic_smp.training.memory_need import check_memory
from isic_smp.training.recipe import Recipe

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What `training.fit.fit` is called with, and what must be kept of it."""

    model: UpConvNet
    network: nn.Module
    """What batches are given to: the model, or its decoder where features come from a bank."""
    train: Batches
    validation: Batches
    statistics: dict[str, Batches] | None
    """The training images plain and augmented, all on this rank, where the recipe measures statistics anew."""
    validation_pixels: PixelCache
    preprocessing: Preprocessing
    weights_used: str
    """`recipe.init_from` or `recipe.encoder_weights`, or what a demo fell back to."""
    pipeline_digest: str
    """sha256 of the file `recipe.pipeline`; empty without one."""
    teachers_digest: str
    """Of the training pixels and the weights of `recipe.teachers`; empty without them."""


@dataclass(frozen=True)
class Place:
    """Where the work is done."""

    ranks: Ranks
    device: torch.device
    cache_dir: Path
    say: Say


def main_first(ranks: Ranks, make: Callable[[], T]) -> T:
    """`make` on rank 0, which may download or write a cache, then on the others, which find it there."""
    if ranks.is_main:
        made = make()
        ranks.wait()
        return made
    ranks.wait()
    return make()


def prepare(
    recipe: Recipe,
    data: LesionData,
    place: Place,
    *,
    binarize_masks: bool = False,
    is_demo: bool = False,
    tracking_uri: str | None = None,
) -> Prepared:
    """Build the recipe's network, decode the pixels, bank the features where the recipe allows it.

    Args:
        recipe: the settings.
        data: images to train and to validate on.
        place: processes, device, caches.
        binarize_masks: accept masks with grey values.
        is_demo: drawn pictures stand in for missing data, so ImageNet weights may be done without.
        tracking_uri: MLflow store of the model that `recipe.init_from` names.

    Raises:
        UserError: weights that cannot be had or do not fit, broken data, no room on the disk or in memory.
    """
    model, weights_used = main_first(place.ranks, lambda: _build_model(recipe, is_demo, tracking_uri))
    model.to(
        place.device, memory_format=torch.channels_last if recipe.channels_last else torch.preserve_format
    )
    place.say(_describe(model, recipe, place.device))
    if place.ranks.is_main:
        warning = check_memory(model, recipe, place.device, place.ranks)
        if warning is not None:
            place.say(f"warning: {warning}")

    def cached(pairs: tuple[Pair, ...]) -> PixelCache:
        def make() -> PixelCache:
            return open_pixel_cache(
                pairs,
                recipe.size,
                cache_dir=place.cache_dir,
                binarize_masks=binarize_masks,
                progress=place.ranks.is_main,
            )

        return main_first(place.ranks, make)

    pixels = cached(data.train), cached(data.val)
    preprocessing = Preprocessing(
        size=recipe.size,
        mean=model.mean,  # type: ignore[arg-type]
        std=model.std,  # type: ignore[arg-type]
        threshold=recipe.threshold,
        test_time_flips=recipe.test_time_flips,
        largest_piece=recipe.largest_piece,
    )
    pipeline = SavedPipeline(Path(recipe.pipeline)) if recipe.pipeline else None
    augmenter = Augmenter(
        flips=recipe.flips,
        affine=recipe.affine,
        colour=recipe.colour,
        artefacts=recipe.artefacts,
        pipeline=pipeline,
    )
    taught = _taught(recipe, data, pixels[0], place, tracking_uri) if recipe.teachers else pixels[0]
    network, train, validation = _batches(recipe, model, pixels, taught, augmenter, place)
    return Prepared(
        model,
        network,
        train,
        validation,
        statistics=_statistics(recipe, model, pixels[0], augmenter),
        validation_pixels=pixels[1],
        preprocessing=preprocessing,
        weights_used=weights_used,
        pipeline_digest=pipeline.digest if pipeline else "",
        teachers_digest=taught.digest if isinstance(taught, TaughtPixels) else "",
    )


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


def _build_model(recipe: Recipe, is_demo: bool, tracking_uri: str | None) -> tuple[UpConvNet, str]:
    """The recipe's network, and where its weights came from."""

    def build(weights: str) -> UpConvNet:
        return build_network(recipe, weights)

    if recipe.init_from is not None:
        trained = load_bundle(recipe.init_from, tracking_uri=tracking_uri).model
        _check_fits(trained, build("none"), recipe.init_from)
        return cast(UpConvNet, trained), recipe.init_from
    try:
        return build(recipe.encoder_weights), recipe.encoder_weights
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
        return model, used


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


def _batches(
    recipe: Recipe,
    model: UpConvNet,
    pixels: tuple[PixelCache, PixelCache],
    taught: PixelCache | TaughtPixels,
    augmenter: Augmenter,
    place: Place,
) -> tuple[nn.Module, Batches, Batches]:
    """What is trained on which batches: the whole model on pixels, or its decoder on banked features.

    `taught` are the training pixels with the masks that are learned.
    """
    train, validation = pixels
    orders = (
        Order(len(train), recipe.batch_size, shuffle=True, seed=recipe.seed, ranks=place.ranks),
        Order(len(validation), recipe.batch_size, shuffle=False),
    )
    try:
        views = bank_views(recipe)
        model.freeze_encoder()
        place.say(f"feature bank: {views} view(s) of each training image")
        return (
            FromFeatures(model),
            BankBatches(_bank(recipe, model, train, views=views, place=place), taught, orders[0]),
            BankBatches(_bank(recipe, model, validation, views=1, place=place), validation, orders[1]),
        )
    except Unbankable as reason:
        if recipe.freeze and recipe.feature_bank != "off":
            place.say(f"no feature bank, every step goes through the encoder: {reason}")
    return (
        model,
        PixelBatches(taught, orders[0], mean=model.mean, std=model.std, augmenter=augmenter),
        PixelBatches(validation, orders[1], mean=model.mean, std=model.std),
    )


def _statistics(
    recipe: Recipe, model: UpConvNet, pixels: PixelCache, augmenter: Augmenter
) -> dict[str, Batches] | None:
    """What `training.statistics.renew_statistics` is given; None where there is nothing to renew."""
    augmented = recipe.affine > 0 or recipe.colour > 0 or recipe.artefacts > 0 or recipe.pipeline is not None
    if not (augmented and recipe.plain_statistics > 0):
        return None
    order = Order(len(pixels), recipe.batch_size, shuffle=True, seed=recipe.seed)
    return {
        name: PixelBatches(pixels, order, mean=model.mean, std=model.std, augmenter=views)
        for name, views in (("plain", None), ("augmented", augmenter))
    }


def _taught(
    recipe: Recipe, data: LesionData, pixels: PixelCache, place: Place, tracking_uri: str | None
) -> TaughtPixels:
    """The training pixels with what the recipe's teachers see in them."""
    return main_first(
        place.ranks,
        lambda: open_taught(
            pixels,
            recipe.teachers or (),
            cache_dir=place.cache_dir,
            device=place.device,
            precision=recipe.precision,
            fingerprint=data.fingerprint,
            say=place.say,
            tracking_uri=tracking_uri,
            progress=place.ranks.is_main,
        ),
    )


def _bank(recipe: Recipe, model: UpConvNet, pixels: PixelCache, *, views: int, place: Place) -> FeatureBank:
    """A bank that every rank has.

    Raises:
        Unbankable: on all ranks, where one of them has no room for it.
    """

    def opened() -> FeatureBank | Unbankable:
        try:
            return open_feature_bank(
                model,
                pixels,
                views=views,
                cache_dir=place.cache_dir,
                device=place.device,
                precision=resolve_precision(recipe.precision, place.device),
            )
        except Unbankable as reason:
            return reason

    bank = main_first(place.ranks, opened)
    # Ranks of which some go on without a bank would wait for each other in different places.
    lacking = int(place.ranks.sum(torch.tensor(int(isinstance(bank, Unbankable)))))
    if isinstance(bank, Unbankable):
        raise bank
    if lacking:
        raise Unbankable("another process has no room for it")
    return bank


def _describe(model: UpConvNet, recipe: Recipe, device: torch.device) -> str:
    count = sum(p.numel() for p in model.parameters())
    trained = "decoder only" if recipe.freeze else "encoder and decoder"
    if recipe.freeze_epochs:
        trained = f"decoder, from epoch {recipe.freeze_epochs + 1} on encoder and decoder"
    precision = resolve_precision(recipe.precision, device)
    threads = torch.get_num_threads()
    on = f"cpu, {threads} thread{'s' * (threads > 1)}," if device.type == "cpu" else str(device)
    return f"model: {model.name}, {count / 1e6:.2f} M parameters, training {trained}, {on} {precision}"
