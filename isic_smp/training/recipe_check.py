"""Whether a recipe can be run at all: every reason why not, before any work is done."""

import dataclasses
import math
from typing import TYPE_CHECKING

from isic_smp.errors import UserError
from isic_smp.models.families import parse_encoder_name

if TYPE_CHECKING:
    from isic_smp.training.recipe import Recipe

AUGMENTATIONS = ("affine", "colour", "tones", "artefacts")
"""The settings, from 0 (off) to 1, that make new pixels every epoch; flips only move those that are there."""

LARGEST_SIZE = 8192
"""Of the network's square, in pixels: a batch of one takes gigabytes."""


def problems(recipe: "Recipe") -> list[str]:
    """Every reason why `recipe` cannot be run, one phrase each."""
    found: list[str] = []

    def need(holds: bool, phrase: str) -> None:
        if not holds:
            found.append(phrase)

    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            found.append(f"{field.name} must be a finite number, got {value}")
    for name in ("epochs", "batch_size"):
        need(getattr(recipe, name) >= 1, f"{name} must be at least 1, got {getattr(recipe, name)}")
    for name in ("freeze_epochs", "early_stopping", "seed", "weight_decay", "grad_clip"):
        need(getattr(recipe, name) >= 0, f"{name} must not be negative, got {getattr(recipe, name)}")
    for name in AUGMENTATIONS:
        need(0 <= getattr(recipe, name) <= 1, f"{name} must be from 0 to 1, got {getattr(recipe, name)}")
    need(recipe.decoder_width > 0, f"decoder_width must be above 0, got {recipe.decoder_width}")
    need(recipe.seed < 2**63, f"seed must be below 2**63, got {recipe.seed}")
    need(recipe.lr > 0, f"lr must be above 0, got {recipe.lr}")
    need(
        recipe.encoder_lr is None or recipe.encoder_lr > 0,
        f"encoder_lr must be above 0, got {recipe.encoder_lr}",
    )
    need(0 <= recipe.ema < 1, f"ema must be from 0 to below 1, got {recipe.ema}")
    need(
        0 <= recipe.plain_statistics <= 1,
        f"plain_statistics must be from 0 to 1, got {recipe.plain_statistics}",
    )
    need(recipe.teachers != (), "teachers must name a model at least, or be left out")
    need(
        recipe.teachers is None or recipe.loss != "lovasz",
        "lovasz compares with masks of 0 and 1, which teachers' are not: use --loss bce_dice, or no teachers",
    )
    need(0 < recipe.threshold < 1, f"threshold must lie between 0 and 1, got {recipe.threshold}")
    need(
        not (recipe.freeze and recipe.freeze_epochs),
        "freeze keeps the encoder frozen throughout, so freeze_epochs has nothing to say: set one of them",
    )
    need(
        not recipe.freeze_epochs or recipe.freeze_epochs < recipe.epochs,
        f"freeze_epochs ({recipe.freeze_epochs}) must be below epochs ({recipe.epochs}), or use freeze",
    )
    need(
        not (recipe.feature_bank == "on" and not recipe.freeze),
        "feature_bank on needs freeze: a trained encoder's features change at every step",
    )
    need(
        not (recipe.feature_bank == "on" and recipe.makes_new_pixels),
        f"feature_bank on holds no augmentation but flips: switch {', '.join(AUGMENTATIONS)} and pipeline off, "
        "or set feature_bank to auto",
    )
    try:
        strides = parse_encoder_name(recipe.encoder).strides
    except UserError as error:
        return [*found, str(error)]
    halvings = len(strides)
    depth = halvings if recipe.encoder_depth is None else recipe.encoder_depth
    need(
        1 <= depth <= halvings,
        f"encoder_depth must be from 1 to {halvings} for {recipe.encoder}, got {depth}",
    )
    if not 1 <= depth <= halvings:
        return found
    stride = 2**depth
    need(recipe.size <= LARGEST_SIZE, f"size must be at most {LARGEST_SIZE} pixels, got {recipe.size}")
    need(
        recipe.size >= stride and recipe.size % stride == 0,
        f"size must be a multiple of the encoder's output stride {stride}, got {recipe.size}",
    )
    steps = depth if recipe.decoder_depth is None else recipe.decoder_depth
    need(1 <= steps <= depth, f"decoder_depth must be from 1 to {depth} for this encoder, got {steps}")
    channels = recipe.decoder_channels
    need(
        channels is None or (len(channels) == steps and min(channels, default=0) >= 1),
        f"decoder_channels must be {steps} positive numbers, one a decoder step, got {channels}; mind "
        "decoder_depth, the number of steps",
    )
    return found
