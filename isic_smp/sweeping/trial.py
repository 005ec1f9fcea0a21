"""One trial: a recipe trained under the study's parent run, its epochs reported to the pruner.

Nothing here needs torch: what trains is handed in.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from isic_smp.errors import FolderInUse, Stopped
from isic_smp.files import is_disk_trouble
from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.queue import INTERRUPTED, REASON, first_number
from isic_smp.tracking.run_note import RUN_FILE
from isic_smp.training.history import Epoch
from isic_smp.training.recipe import Recipe

if TYPE_CHECKING:
    from isic_smp.experiment import AfterEpoch
    from isic_smp.setup import Setup

logger = logging.getLogger(__name__)

WAIT = 5.0
"""Seconds between two looks whether a trial's folder is free."""

SEED = "seed"
"""User attribute of a trial that trains a winner once more, under another seed."""


@dataclass(frozen=True)
class Outcome:
    """What a study keeps of a trained recipe."""

    run_id: str
    kept_epoch: int
    """Counted from 1, as MLflow and the printed tables do."""
    val_iou: float
    """Per-image mean over the validation images at their own sizes, as all scores here."""
    val_dice: float
    parameters: int
    gmacs: float
    """10⁹ multiply-adds for one picture."""


Train = Callable[[Recipe, "Setup", "AfterEpoch"], Outcome]
"""Trains a recipe: in this process (`alone`), or in a group of them (`group`)."""


class TrialRunner:
    """The function that Optuna calls with each trial.

    A trial whose worker died is given here again with the same parameters, and goes on from the
    checkpoint in its folder where that is shared, else from the beginning.
    """

    def __init__(self, plan: Plan, setup: "Setup", folder: Path, *, study_name: str, train: Train):
        self.plan, self.setup, self.folder, self.study_name = plan, setup, folder, study_name
        self.train = train

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        """Train, and give back the objectives.

        Raises:
            optuna.TrialPruned: as the pruner wants it.
            KeyboardInterrupt: stopped by hand; the trial will be queued again.
            Exception: what the training raised, noted as the trial's reason; but for a disk's refusal, of which the
                trial is not the reason: it will be queued again.
        """
        try:
            return self._run(trial)
        except Stopped as stop:
            self._note_run(trial)
            trial.set_user_attr(REASON, str(stop))
            raise optuna.TrialPruned(str(stop)) from None
        except KeyboardInterrupt:
            trial.set_user_attr(INTERRUPTED, True)
            raise
        except Exception as error:
            if is_disk_trouble(error):
                trial.set_user_attr(INTERRUPTED, True)
                raise
            self._note_run(trial)
            words = " ".join(str(error).split())
            trial.set_user_attr(REASON, f"{type(error).__name__}: {words}"[:500])
            raise

    def _run(self, trial: optuna.Trial) -> float | tuple[float, ...]:
        number = first_number(trial)
        if not self.plan.is_grid:
            # Another sampler for each trial: one seed for all would make resumed studies repeat themselves.
            trial.study.sampler = self.plan.sampler(self.plan.base.seed + number)
        params = {name: suggest(trial, name, d) for name, d in self.plan.distributions.items()}
        recipe = self.plan.recipe(params, seed=trial.user_attrs.get(SEED))
        words = " ".join(f"{name}={say(value)}" for name, value in params.items())
        if SEED in trial.user_attrs:
            words = f"(the winner with seed {recipe.seed}) {words}"
        setup = dataclasses.replace(
            self.setup,
            output_dir=trial_folder(self.folder, number),
            run_name=f"trial-{number:03d} {words}"[:200],
            tags={"optuna.study": self.study_name, "optuna.trial": str(number)},
            resume=True,
            score_test=False,
            bars=False,
        )
        started = time.monotonic()
        outcome = self._train_alone(recipe, setup, self._watch(trial))
        trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
        trial.set_user_attr("training_seed", recipe.seed)
        for name, value in dataclasses.asdict(outcome).items():
            trial.set_user_attr(name, value)
        values = tuple(float(getattr(outcome, name)) for name in self.plan.objectives)
        return values[0] if len(values) == 1 else values

    def _train_alone(self, recipe: Recipe, setup: "Setup", after_epoch: "AfterEpoch") -> Outcome:
        """Train; where the worker that the trial was taken from turns out to live, when it has left the folder.

        On a busy machine a worker can give no sign of life for so long that it is taken for dead.
        """
        while True:
            try:
                return self.train(recipe, setup, after_epoch)
            except FolderInUse as reason:
                logger.warning("%s is waited for: %s", setup.run_name, reason)
                time.sleep(WAIT)

    def _note_run(self, trial: optuna.Trial) -> None:
        """Note which MLflow run belongs to a trial that did not come to its end."""
        note = trial_folder(self.folder, first_number(trial)) / RUN_FILE
        if note.exists():
            trial.set_user_attr("run_id", json.loads(note.read_text())["run_id"])

    def _watch(self, trial: optuna.Trial) -> "AfterEpoch":
        def after_epoch(record: Epoch) -> None:
            if len(self.plan.objectives) > 1 or SEED in trial.user_attrs:
                return  # Optuna prunes by one objective only; a winner is trained to the end under every seed
            trial.report(record.val_iou, record.epoch)
            if trial.should_prune():
                raise Stopped(f"pruned after epoch {record.epoch + 1}, validation IoU {record.val_iou:.4f}")

        return after_epoch


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial keeps its checkpoints, model and scores."""
    return folder / f"trial-{number:03d}"


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """The trial's value of a parameter: the queued one, or the sampler's."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def say(value: Any) -> str:
    """A parameter's value, short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
