"""The options that every sweep's command has."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from isic_smp import cli
from isic_smp.data.names import HELD_OUT, Data
from isic_smp.errors import UserError
from isic_smp.training.recipe import PRESETS, Recipe, base_preset, recipe_of_command

STORAGE_VARIABLE = "ISIC_SMP_STORAGE"


@dataclass(frozen=True, kw_only=True)
class Options:
    """A study, its workers, its data, and where results go."""

    study: str | None = None
    """Name of the study; the same name goes on with it, or joins it. Default: the sweep's own name."""
    storage: str | None = None
    """Where the study is kept: sqlite:///FILE for one host, postgresql+pg8000://USER@HOST:PORT/DATABASE beyond.
    Default: ISIC_SMP_STORAGE, else SQLite in --output-dir."""
    trials: int | None = None
    """How many trials the study is to have. Default: the whole grid; a search: 30."""
    seeds: int = 3
    """Seeds from the recipe's own on: a grid runs each cell with each, a search confirms its winner with them."""
    workers: int = 1
    """Processes on this machine that work on the study."""
    processes_per_trial: int = 1
    """Processes that train one trial together, by torchrun."""
    dry_run: bool = False
    """List the trials and stop."""
    heartbeat: int = 15
    """Seconds between signs of life; a trial without one for four times as long is taken over."""
    hold_out: Annotated[str | None, tyro.conf.arg(metavar=HELD_OUT)] = None
    """Train without this group of pictures and choose by it alone: faint, small, cut by the frame, in cool light, any of
    these (hard), or of a diagnosis that the manifest.csv beside them names. No test scores."""
    output_dir: Path | None = None
    """Folder of the study: a folder a trial, and the answer. Default: runs/sweeps/STUDY."""
    data: Data = "auto"
    """auto: ISIC 2016 where it is found, else drawn pictures, said loudly."""
    data_dir: Path | None = None
    """Folder that holds the four ISIC 2016 part 1 folders. Else ISIC_SMP_DATA, else ./data/isic2016."""
    binarize_masks: bool = False
    """Take grey mask values above 128 as lesion, instead of refusing the mask."""
    cache_dir: Path | None = None
    """Decoded pixels and banked features, shared by all trials. Default: ISIC_SMP_CACHE, else the user's cache folder."""
    experiment: str | None = None
    """MLflow experiment. Default: the data's own, with -sweeps."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, else SQLite under ./mlruns."""
    register: str | None = None
    """Register the winner under this name in MLflow's registry."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; with several workers and auto, worker n takes GPU n."""
    recipe: str = "default"
    """A preset (default, small, report) or a .yaml file of settings; the options below change single settings of it."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: PRESETS["default"])


T = TypeVar("T", bound=Options)


def parse(kind: type[T], *, prog: str, description: str) -> T:
    """Options from the command line, over the preset or file that `--recipe` names.

    Raises:
        UserError: an unknown or impossible option.
    """
    name, recipe = recipe_of_command(None)
    default = kind(recipe=name, settings=recipe)
    options = cli.parse(kind, prog=prog, description=description, default=default)
    for name in ("workers", "processes_per_trial", "seeds", "heartbeat"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    if options.trials is not None and options.trials < 1:
        raise UserError(f"--trials must be at least 1, got {options.trials}")
    return options


def preset(options: Options) -> Recipe:
    """The preset that the settings build on, without a file's changes and the command line's."""
    return base_preset(options.recipe)


def study_folder(options: Options, name: str) -> Path:
    """The folder of the study."""
    return options.output_dir or Path("runs") / "sweeps" / name


def storage_url(options: Options, folder: Path) -> str:
    """Where the study is kept."""
    return (
        options.storage or os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{folder.absolute() / 'study.db'}"
    )
