"""A trial trained by the worker itself, in its own process."""

import logging

from isic_smp.conclude import Result
from isic_smp.experiment import AfterEpoch, run_experiment
from isic_smp.inference.load import load
from isic_smp.models.cost import cost
from isic_smp.setup import Setup
from isic_smp.sweeping.trial import Outcome
from isic_smp.training.recipe import Recipe

logger = logging.getLogger(__name__)


def train_here(recipe: Recipe, setup: Setup, after_epoch: AfterEpoch) -> Outcome:
    """Train in this process."""
    result = run_experiment(recipe, setup, say=logger.info, after_epoch=after_epoch)
    assert result is not None  # a process by itself is the first rank
    return outcome_of(result, recipe)


def outcome_of(result: Result, recipe: Recipe) -> Outcome:
    """What is kept of a finished experiment."""
    found = cost(load(result.output_dir), recipe.size)
    scores = result.validation.summary()
    return Outcome(
        result.run_id,
        result.fit.kept_epoch + 1,
        scores["iou_per_image_own"],
        scores["dice_per_image_own"],
        found.parameters,
        found.multiply_adds / 1e9,
    )
