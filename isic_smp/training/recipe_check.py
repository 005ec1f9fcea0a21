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
    return [*_out_of_range(recipe), *_at_odds(recipe), *_impossible_network(recipe)]


def _unmet(*needs: tuple[bool, str]) -> list[str]:
    """The phrases of what does not hold."""
    return [phrase for holds, phrase in needs if not holds]


def _out_of_range(recipe: "Recipe") -> list[str]:
    """What is wrong with single settings."""
    values = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return _unmet(
        *(
            (math.isfinite(value), f"{name} must be a finite number, got {value}")
            for name, value in values.items()
            if isinstance(value, float)
        ),
        *(
            (values[name] >= 1, f"{name} must be at least 1, got {values[name]}")
            for name in ("epochs", "batch_size")
        ),
        *(
            (values[name] >= 0, f"{name} must not be negative, got {values[name]}")
            for name in ("freeze_epochs", "early_stopping", "seed", "weight_decay", "grad_clip")
        ),
        *(
            (0 <= values[name] <= 1, f"{name} must be from 0 to 1, got {values[name]}")
            for name in (*AUGMENTATIONS, "plain_statistics")
        ),
        *(
            (values[name] is None or values[name] > 0, f"{name} must be above 0, got {values[name]}")
            for name in ("decoder_width", "lr", "encoder_lr")
        ),
        (recipe.seed < 2**63, f"seed must be below 2**63, got {recipe.seed}"),
        (0 <= recipe.ema < 1, f"ema must be from 0 to below 1, got {recipe.ema}"),
        (recipe.teachers != (), "teachers must name a model at least, or be left out"),
        (0 < recipe.threshold < 1, f"threshold must lie between 0 and 1, got {recipe.threshold}"),
        (recipe.size <= LARGEST_SIZE, f"size must be at most {LARGEST_SIZE} pixels, got {recipe.size}"),
    )


def _at_odds(recipe: "Recipe") -> list[str]:
    """Which settings do not go together."""
    return _unmet(
        (
            recipe.teachers is None or recipe.loss != "lovasz",
            "lovasz compares with masks of 0 and 1, which teachers' are not: use --loss bce_dice, or no teachers",
        ),
        (
            not (recipe.freeze and recipe.freeze_epochs),
            "freeze keeps the encoder frozen throughout, so freeze_epochs has nothing to say: set one of them",
        ),
        (
            not recipe.freeze_epochs or recipe.freeze_epochs < recipe.epochs,
            f"freeze_epochs ({recipe.freeze_epochs}) must be below epochs ({recipe.epochs}), or use freeze",
        ),
        (
            not (recipe.feature_bank == "on" and not recipe.freeze),
            "feature_bank on needs freeze: a trained encoder's features change at every step",
        ),
        (
            not (recipe.feature_bank == "on" and recipe.makes_new_pixels),
            f"feature_bank on holds no augmentation but flips: switch {', '.join(AUGMENTATIONS)} and pipeline off, "
            "or set feature_bank to auto",
        ),
    )


def _impossible_network(recipe: "Recipe") -> list[str]:
    """Why there is no such encoder, or no such decoder on it, or none for pictures of that size."""
    try:
        halvings = len(parse_encoder_name(recipe.encoder).strides)
    except UserError as error:
        return [str(error)]
    depth = halvings if recipe.encoder_depth is None else recipe.encoder_depth
    if not 1 <= depth <= halvings:
        return [f"encoder_depth must be from 1 to {halvings} for {recipe.encoder}, got {depth}"]
    stride = 2**depth
    steps = depth if recipe.decoder_depth is None else recipe.decoder_depth
    channels = recipe.decoder_channels
    return _unmet(
        (
            recipe.size >= stride and recipe.size % stride == 0,
            f"size must be a multiple of the encoder's output stride {stride}, got {recipe.size}",
        ),
        (
            recipe.size > stride or recipe.batch_size > 1,
            f"batch_size 1 needs a size above the encoder's output stride {stride}: BatchNorm cannot train on one value",
        ),
        (1 <= steps <= depth, f"decoder_depth must be from 1 to {depth} for this encoder, got {steps}"),
        (
            channels is None or (len(channels) == steps and min(channels, default=0) >= 1),
            f"decoder_channels must be {steps} positive numbers, one a decoder step, got {channels}; mind "
            "decoder_depth, the number of steps",
        ),
    )
