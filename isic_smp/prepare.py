"""From a recipe and data to everything the loop needs: the network, its batches, its preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from isic_smp.data.augment import Augmenter
from isic_smp.data.cache import PixelCache, open_pixel_cache
from isic_smp.data.coarser import CoarserPixels
from isic_smp.data.division import may_have_seen, warning_of_seen
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair
from isic_smp.data.pipeline import SavedPipeline
from isic_smp.data.taught import TaughtPixels
from isic_smp.inference.faintest import RAISED, WRAPPED, faintest
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.second_look import FINER
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.network import describe, start_network
from isic_smp.teaching import open_taught
from isic_smp.training.batches import Batches, Order, PixelBatches, Pixels
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
    model, weights_used, trained_on = main_first(
        place.ranks, lambda: start_network(recipe, is_demo=is_demo, tracking_uri=tracking_uri)
    )
    if trained_on is not None and may_have_seen(trained_on, data):
        place.say(warning_of_seen(f"the network of the first weights, {weights_used},", trained_on))
    model.to(
        place.device, memory_format=torch.channels_last if recipe.channels_last else torch.preserve_format
    )
    place.say(describe(model, recipe, place.device))
    if place.ranks.is_main:
        warning = check_memory(model, recipe, place.device, place.ranks, images=len(data.train))
        if warning is not None:
            place.say(f"warning: {warning}")

    def cached(pairs: tuple[Pair, ...], *, finer: int = 1) -> PixelCache:
        def make() -> PixelCache:
            return open_pixel_cache(
                pairs,
                finer * recipe.size,
                cache_dir=place.cache_dir,
                binarize_masks=binarize_masks,
                progress=place.ranks.is_main,
            )

        return main_first(place.ranks, make)

    finer = FINER if recipe.takes_finer_pixels else 1
    pixels = cached(data.train, finer=finer), cached(data.val)
    pipeline = SavedPipeline(Path(recipe.pipeline)) if recipe.pipeline else None
    augmenter = _augmenter(recipe, pipeline, finer=finer)
    learned: PixelCache | TaughtPixels = pixels[0]
    if recipe.teachers:
        seen = _taught(recipe, data, cached(data.train), place, tracking_uri)
        learned = TaughtPixels(pixels[0], seen.maps, side=recipe.size)
    network, train, validation = _batches(recipe, model, pixels, learned, augmenter, place)
    return Prepared(
        model,
        network,
        train,
        validation,
        statistics=_statistics(recipe, model, pixels[0], augmenter),
        validation_pixels=pixels[1],
        preprocessing=_preprocessing(recipe, model, CoarserPixels(pixels[0], recipe.size)),
        weights_used=weights_used,
        pipeline_digest=pipeline.digest if pipeline else "",
        teachers_digest=learned.digest if isinstance(learned, TaughtPixels) else "",
    )


def _preprocessing(recipe: Recipe, model: UpConvNet, learned: CoarserPixels) -> Preprocessing:
    """What goes with the trained model; how faint the lesions are that it has `learned` from is a part of it."""
    looked_for = recipe.raise_contrast or recipe.wrap_faint
    least, wrapped = faintest(learned, RAISED, WRAPPED) if looked_for else (0.0, 0.0)
    return Preprocessing(
        size=recipe.size,
        mean=model.mean,  # type: ignore[arg-type]
        std=model.std,  # type: ignore[arg-type]
        threshold=recipe.threshold,
        test_time_flips=recipe.test_time_flips,
        second_look=recipe.second_look,
        least_contrast=least if recipe.raise_contrast else 0.0,
        wrap_below=wrapped if recipe.wrap_faint else 0.0,
        largest_piece=recipe.largest_piece,
        close_bays=recipe.close_bays,
    )


def _augmenter(recipe: Recipe, pipeline: SavedPipeline | None, *, finer: int) -> Augmenter:
    """What makes the recipe's views of pixels that are `finer` times as many a side as the network takes."""
    return Augmenter(
        flips=recipe.flips,
        affine=recipe.affine,
        colour=recipe.colour,
        tones=recipe.tones,
        artefacts=recipe.artefacts,
        pipeline=pipeline,
        finer=finer,
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
    if not (recipe.makes_new_pixels and recipe.plain_statistics > 0):
        return None
    order = Order(len(pixels), recipe.batch_size, shuffle=True, seed=recipe.seed)

    def batches(source: Pixels, views: Augmenter | None) -> PixelBatches:
        return PixelBatches(source, order, mean=model.mean, std=model.std, augmenter=views)

    return {
        "plain": batches(CoarserPixels(pixels, recipe.size), None),
        "augmented": batches(pixels, augmenter),
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
                progress=place.ranks.is_main,
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
