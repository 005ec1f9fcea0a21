"""One experiment, from a recipe to a result: the parts of the project put together.

`run.py` and a sweep's trial call `run_experiment`; everything below it can be used alone.
"""

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from isic_smp.assessment.assess import assess
from isic_smp.assessment.fitting import fit_on_validation
from isic_smp.assessment.observations import Observations, score_and_observe
from isic_smp.data.diagnoses import read_diagnoses
from isic_smp.data.folds import Fold, take_fold
from isic_smp.data.held_out import hold_out
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.names import Data
from isic_smp.data.pairs import Pair
from isic_smp.data.source import default_cache_dir, resolve_data
from isic_smp.errors import UserError
from isic_smp.folder_lock import alone_in
from isic_smp.inference.load import OUTPUT_FOLDER, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scores import Scores
from isic_smp.prepare import Place, Prepared, Say, main_first, prepare
from isic_smp.progress import EpochBars
from isic_smp.tracking.experiment_log import ExperimentLog
from isic_smp.tracking.sync import check_all_sent
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.device import choose_device, make_deterministic
from isic_smp.training.distributed import join_ranks
from isic_smp.training.fit import fit
from isic_smp.training.history import Epoch, Fit, Progress
from isic_smp.training.losses import make_loss
from isic_smp.training.memory import kept_memory
from isic_smp.training.profile import StepProfiler
from isic_smp.training.recipe import Recipe
from isic_smp.training.resume import check_frozen_encoder, check_nothing_is_lost, resumable_state
from isic_smp.training.statistics import renew_statistics

OnEpoch = Callable[[Epoch, nn.Module], None]
AfterEpoch = Callable[[Epoch], None]

DEMO_EXPERIMENT = "isic_smp-demo-synthetic"
"""Runs on drawn pictures are kept apart, so that no demo is taken for a result."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where an experiment finds its data and leaves its results; nothing here changes what is learned."""

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


@dataclass(frozen=True)
class Result:
    """What an experiment gives back on rank 0."""

    output_dir: Path
    run_id: str
    fit: Fit
    validation: Scores
    test: Scores | None
    ui_hint: str


def run_experiment(
    recipe: Recipe, setup: Setup, *, say: Say = print, after_epoch: AfterEpoch | None = None
) -> Result | None:
    """Train, evaluate and log one recipe; None on every rank but the first.

    Args:
        recipe: what is learned.
        setup: where data are and results go.
        say: called with each line of information.
        after_epoch: called on rank 0 after each epoch is logged. It may raise `Stopped` to end the run.

    Raises:
        UserError: data, weights, device, folders or tracking server that cannot be used.
        Stopped: what `after_epoch` raised; the MLflow run is marked as ended before its time.
        KeyboardInterrupt: stopped; the message says how to go on.
    """
    if setup.profile < 0:
        raise UserError(f"--profile must be a number of steps, 0 for none, got {setup.profile}")
    if setup.hold_out is not None and setup.fold is not None:
        raise UserError("--hold-out and --fold both say what is validated on: leave one of them out")
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(join_ranks())
        place = Place(
            ranks,
            choose_device(setup.device, local_rank=ranks.local_rank),
            setup.cache_dir or default_cache_dir(),
            say if ranks.is_main else _silent,
        )
        if place.device.type == "cpu":
            stack.enter_context(kept_memory())
        data, is_demo = _find_data(setup, place)
        place.say(f"data: {data.describe()}")
        diagnosis = read_diagnoses(data.root) or {}  # before the work: a manifest may be broken
        make_deterministic(place.device, recipe.seed)
        prepared = prepare(
            recipe,
            data,
            place,
            binarize_masks=setup.binarize_masks,
            is_demo=is_demo,
            tracking_uri=setup.tracking_uri,
        )
        output_dir = ranks.share(setup.output_dir or _new_output_dir(recipe) if ranks.is_main else None)
        if ranks.is_main:
            stack.enter_context(alone_in(output_dir))
        checkpoints = Checkpoints(output_dir)
        fingerprint = data.fingerprint + prepared.pipeline_digest + prepared.teachers_digest
        # Before the log: a run that is over keeps its record where another recipe is refused.
        state = ranks.share(
            _state_to_go_on_from(checkpoints, recipe, setup, fingerprint, prepared) if ranks.is_main else None
        )
        log = (
            _start_log(recipe, setup, data, prepared, place, output_dir, checkpoints)
            if ranks.is_main
            else None
        )
        on_epoch: OnEpoch = _followed_by(log.epoch, after_epoch) if log else _silent
        on_epoch, progress = _watched(on_epoch, recipe, setup, prepared, place, output_dir)
        try:
            fitted = fit(
                prepared.model,
                recipe,
                prepared.train,
                prepared.validation,
                device=place.device,
                network=prepared.network,
                ranks=ranks,
                checkpoints=checkpoints,
                fingerprint=fingerprint,
                state=state,
                on_epoch=on_epoch,
                progress=progress,
            )
            if log is None:
                return None
            if prepared.statistics is not None:
                renew_statistics(prepared.model, recipe, **prepared.statistics, device=place.device)
            result = _finish(recipe, setup, data, diagnosis, prepared, fitted, log, place, output_dir)
            # Last of all: it says that nothing is left to go on with.
            checkpoints.save_history(fitted.history)
            return result
        except BaseException as error:
            if log is not None:
                log.fail(error)
            if isinstance(error, KeyboardInterrupt):
                go_on = (
                    f"go on with the same command, --output-dir {shlex.quote(str(output_dir))} and --resume"
                )
                raise KeyboardInterrupt(go_on) from None
            raise


def _find_data(setup: Setup, place: Place) -> tuple[LesionData, bool]:
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


def _state_to_go_on_from(
    checkpoints: Checkpoints, recipe: Recipe, setup: Setup, fingerprint: str, prepared: Prepared
) -> dict[str, Any] | None:
    """With `setup.resume` the last checkpoint, where it is of this training; None where training begins anew."""
    if not setup.resume:
        check_nothing_is_lost(checkpoints)
        check_all_sent(checkpoints.last.parent)
        return None
    state = resumable_state(checkpoints, recipe, fingerprint)
    if state is not None and recipe.freeze:
        check_frozen_encoder(state, prepared.model, prepared.weights_used)
    return state


def _silent(*_: object) -> None:
    """What the other ranks say and log."""


def _followed_by(logged: OnEpoch, after_epoch: AfterEpoch | None) -> OnEpoch:
    def on_epoch(record: Epoch, model: nn.Module) -> None:
        logged(record, model)
        if after_epoch is not None:
            after_epoch(record)

    return on_epoch


def _watched(
    on_epoch: OnEpoch, recipe: Recipe, setup: Setup, prepared: Prepared, place: Place, output_dir: Path
) -> tuple[OnEpoch, Progress]:
    """What is called after each epoch, and what is shown meanwhile; with --profile both also trace steps."""
    progress = EpochBars(recipe.epochs, shown=place.ranks.is_main and setup.bars)
    if not (setup.profile and place.ranks.is_main):
        return on_epoch, progress
    profiler = StepProfiler(
        progress, model=prepared.model, steps=setup.profile, folder=output_dir, say=place.say
    )
    return profiler.logged(on_epoch), profiler


def _start_log(
    recipe: Recipe,
    setup: Setup,
    data: LesionData,
    prepared: Prepared,
    place: Place,
    output_dir: Path,
    checkpoints: Checkpoints,
) -> ExperimentLog:
    log = ExperimentLog.start(
        recipe,
        data,
        prepared.preprocessing,
        validation=prepared.validation_pixels,
        binarize_masks=setup.binarize_masks,
        output_dir=output_dir,
        experiment=setup.experiment or (DEMO_EXPERIMENT if data.name == "synthetic" else data.name),
        run_name=setup.run_name or output_dir.resolve().name,
        tracking_uri=setup.tracking_uri,
        offline=setup.offline,
        parent_run_id=setup.parent_run_id,
        resume=setup.resume,
        clear=checkpoints.clear,
        tags={
            "encoder_weights_used": prepared.weights_used,
            "device": str(place.device),
            "world_size": str(place.ranks.world),
            **({"held_out": setup.hold_out} if setup.hold_out else {}),
            **({"fold": str(setup.fold)} if setup.fold else {}),
            **setup.tags,
            **({"pipeline_sha256": prepared.pipeline_digest} if prepared.pipeline_digest else {}),
        },
    )
    place.say(log.hint())
    return log


def _finish(
    recipe: Recipe,
    setup: Setup,
    data: LesionData,
    diagnosis: Mapping[str, str],
    prepared: Prepared,
    fitted: Fit,
    log: ExperimentLog,
    place: Place,
    output_dir: Path,
) -> Result:
    """Score the kept weights, fit what goes with them, save the model, and close the log."""
    # float32, whatever it was trained in: the exported program computes so, and its scores must be these.
    predictor = Predictor(prepared.model, prepared.preprocessing, device=place.device)
    loss = make_loss(recipe.loss).to(place.device)

    def scored(pairs: tuple[Pair, ...]) -> tuple[Scores, Observations]:
        return score_and_observe(
            predictor, pairs, loss=loss, batch_size=recipe.batch_size, binarize_masks=setup.binarize_masks
        )

    validation_scores, seen = scored(data.val)
    numbers = fit_on_validation(validation_scores, seen)
    validation = assess(validation_scores, seen, data, "val", fitted=numbers, diagnosis=diagnosis)
    test = (
        assess(*scored(data.test), data, "test", fitted=numbers, diagnosis=diagnosis)
        if setup.score_test and data.test
        else None
    )
    info = {
        "recipe": recipe.to_dict(),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "description": data.describe(),
            **({"fold": str(setup.fold)} if setup.fold else {}),
        },
        "encoder_weights_used": prepared.weights_used,
        "kept_epoch": fitted.kept_epoch + 1,
        "validation": validation.scores.summary(),
        "test": test.scores.summary() if test else None,
        "assessment": {"validation": validation.summary(), "test": test.summary() if test else None},
        **numbers.to_facts(),
    }
    model_folder = output_dir / OUTPUT_FOLDER
    save_bundle(prepared.model, prepared.preprocessing, info, model_folder)
    log.finish(prepared.model, predictor, fitted, validation=validation, test=test, model_folder=model_folder)
    return Result(
        output_dir, log.run_id, fitted, validation.scores, test.scores if test else None, log.hint()
    )


def _new_output_dir(recipe: Recipe) -> Path:
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
