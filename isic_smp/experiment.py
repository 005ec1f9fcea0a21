"""One experiment, from a recipe to a result: the parts of the project put together.

`run.py` and a sweep's trial call `run_experiment`; everything below it can be used alone.
"""

import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from isic_smp.conclude import Result, conclude
from isic_smp.data.diagnoses import read_diagnoses
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.source import default_cache_dir
from isic_smp.errors import UserError
from isic_smp.folder_lock import alone_in
from isic_smp.prepare import Place, Prepared, Say, prepare
from isic_smp.progress import EpochBars
from isic_smp.setup import DEMO_EXPERIMENT, Setup, find_data, new_output_dir
from isic_smp.tracking.experiment_log import ExperimentLog
from isic_smp.tracking.sync import check_all_sent
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.device import choose_device, make_deterministic
from isic_smp.training.distributed import join_ranks
from isic_smp.training.fit import fit
from isic_smp.training.history import Epoch, Progress
from isic_smp.training.memory import kept_memory
from isic_smp.training.profile import StepProfiler
from isic_smp.training.recipe import Recipe
from isic_smp.training.resume import (
    check_beginning,
    check_frozen_encoder,
    check_nothing_is_lost,
    note_beginning,
    resumable_state,
)
from isic_smp.training.statistics import renew_statistics

OnEpoch = Callable[[Epoch, nn.Module], None]
AfterEpoch = Callable[[Epoch], None]


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
        data, is_demo = find_data(setup, place)
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
        output_dir = ranks.share(setup.output_dir or new_output_dir(recipe) if ranks.is_main else None)
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
        if log is not None and state is None:
            note_beginning(checkpoints, recipe, fingerprint, prepared.model)
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
            result = conclude(
                recipe,
                setup,
                data,
                prepared,
                fitted,
                diagnosis=diagnosis,
                log=log,
                place=place,
                output_dir=output_dir,
            )
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


def _state_to_go_on_from(
    checkpoints: Checkpoints, recipe: Recipe, setup: Setup, fingerprint: str, prepared: Prepared
) -> dict[str, Any] | None:
    """With `setup.resume` the last checkpoint, where it is of this training; None where training begins anew."""
    if not setup.resume:
        check_nothing_is_lost(checkpoints)
        check_all_sent(checkpoints.last.parent)
        return None
    state = resumable_state(checkpoints, recipe, fingerprint)
    check_beginning(checkpoints, recipe, fingerprint, prepared.model)
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
