"""Where an experiment finds its data and leaves its results: nothing here changes what is learned."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isic_smp.data.folds import Fold, take_fold
from isic_smp.data.held_out import hold_out
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.names import Data
from isic_smp.data.source import resolve_data
from isic_smp.errors import UserError
from isic_smp.prepare import Place, main_first
from isic_smp.training.recipe import Recipe

DEMO_EXPERIMENT = "isic_smp-demo-synthetic"
"""Runs on drawn pictures are kept apart, so that no demo is taken for a result."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a command says of an experiment beside its recipe."""

    data: Data = "auto"
    data_dir: Path | None = None
    binarize_masks: bool = False
    hold_out: str | None = None
    """A group of pictures (`data.names.HELD_OUT`) to leave out of training and to validate on; nothing is tested."""
    fold: Fold | None = None
    """A part of the training images to validate on, the others to train on (`data.folds`); nothing is tested."""
    output_dir: Path | None = None
    cache_dir: Path | None = None
    experiment: str | None = None
    run_name: str | None = None
    tracking_uri: str | None = None
    offline: bool = False
    """Log into the output folder only; `isic_smp.sync` sends it later."""
    parent_run_id: str | None = None
    device: str = "auto"
    resume: bool = False
    score_test: bool = True
    profile: int = 0
    """Steps of the first epoch to trace; 0 is none."""
    bars: bool = True
    """Show a progress bar over steps and epochs; a sweep's workers show progress over trials instead."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags of the MLflow run."""


def find_data(setup: Setup, place: Place) -> tuple[LesionData, bool]:
    """The data, as `setup` wants them divided, and whether drawn pictures stand in for them."""
    data, is_demo = main_first(
        place.ranks, lambda: resolve_data(setup.data, setup.data_dir, cache_dir=place.cache_dir)
    )
    if setup.hold_out is not None:
        group = setup.hold_out
        data = main_first(
            place.ranks,
            lambda: hold_out(data, group, cache_dir=place.cache_dir, binarize_masks=setup.binarize_masks),
        )
    if setup.fold is not None:
        data = take_fold(data, setup.fold)
    return data, is_demo


def new_output_dir(recipe: Recipe) -> Path:
    """A folder under ./runs that nothing else has, made.

    Raises:
        UserError: it cannot be made.
    """
    way = "frozen" if recipe.freeze else "gradual" if recipe.freeze_epochs else "finetuned"
    folder = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{way}-seed{recipe.seed}"
    # Two runs that start in the same second each get a folder of their own.
    for n in range(1, 1000):
        tried = folder if n == 1 else folder.with_name(f"{folder.name}-{n}")
        try:
            tried.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make {tried}: {error.strerror}; choose another --output-dir") from None
        return tried
    raise UserError(f"too many folders named {folder}: choose an --output-dir")
