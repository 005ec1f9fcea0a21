"""A worker: takes trials from the study's queue until nothing waits, runs, or was lost."""

import time
from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, TrialState

from isic_smp.errors import UserError
from isic_smp.files import is_disk_trouble
from isic_smp.sweeping.database import lock
from isic_smp.sweeping.queue import REASON, complete, ended, first_number, is_over, queued, requeue_lost
from isic_smp.sweeping.storage import QueueEmpty
from isic_smp.sweeping.trial import say as short

MOST_FAILURES = 5
"""Trials that may fail in a row for one and the same reason: by then it is not the trials."""

Ended = Callable[[optuna.Study, FrozenTrial], None]


def work(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float | tuple[float, ...]],
    *,
    url: str,
    heartbeat: float,
    on_ended: Ended,
    add_more: Callable[[optuna.Study], bool] = lambda _: False,
) -> None:
    """Work on the study until it is over.

    Where others still run the last trials this one waits, to take over what they may lose.

    Args:
        study: opened with `open_study`.
        objective: called with each trial.
        url: the study's storage.
        heartbeat: as the study was opened with, in seconds.
        on_ended: called after each of this worker's trials.
        add_more: called under the study's lock when all is done; it may queue more, and says whether it did.

    Raises:
        UserError: trial after trial fails for the same reason.
        Exception: a disk refuses to be written: the other trials would fare no better, and wait.
    """
    reasons: list[str] = []
    refusals: list[Exception] = []

    def tried(trial: optuna.Trial) -> float | tuple[float, ...]:
        try:
            return objective(trial)
        except Exception as error:
            if is_disk_trouble(error):
                refusals.append(error)
            raise

    def note(study: optuna.Study, trial: FrozenTrial) -> None:
        if refusals:  # this one has not ended: it waits
            return
        if trial.state == TrialState.FAIL:
            reasons.append(trial.user_attrs.get(REASON, ""))
        else:
            reasons.clear()
        on_ended(study, trial)

    looked = float("-inf")
    while True:
        if time.monotonic() - looked > heartbeat:
            with lock(url, study.study_name):
                requeue_lost(study)
            looked = time.monotonic()
        try:
            study.optimize(tried, n_trials=1, catch=(Exception,), callbacks=[note])
        except QueueEmpty:
            with lock(url, study.study_name):
                requeue_lost(study)
                over = is_over(study) and not add_more(study)
            if over:
                return
            time.sleep(min(heartbeat, 2.0))
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError, AssertionError) as error:
            if not _says_taken_over(error):
                raise
        if refusals:
            raise refusals[0]
        last = reasons[-MOST_FAILURES:]
        if len(last) == MOST_FAILURES and len(set(last)) == 1:
            raise UserError(
                f"{len(last)} trials in a row failed: {last[0]}; mend that and give the same command "
                "again, the other trials still wait"
            )


def _says_taken_over(error: Exception) -> bool:
    """Whether this worker stood still for so long that another has taken its trial over.

    `study.tell` says so with an UpdateFinishedTrialError or a plain ValueError, over which `study.optimize` may
    stumble with an AssertionError. Those of the objective are caught by `optimize`.
    """
    told = error.__context__ if isinstance(error, AssertionError) else error
    if isinstance(told, ValueError):
        return str(told).startswith("Cannot tell")
    return isinstance(told, optuna.exceptions.UpdateFinishedTrialError)


def line(study: optuna.Study, trial: FrozenTrial) -> str:
    """Progress after a trial, in one line."""
    over = ended(study)
    words = " ".join(f"{name}={short(value)}" for name, value in trial.params.items())
    if trial.state == TrialState.COMPLETE:
        found = f"validation IoU {trial.user_attrs.get('val_iou', trial.values[0]):.4f}"
    else:
        found = trial.user_attrs.get(REASON, "lost with its worker, will be taken over")
    values = [t.user_attrs.get("val_iou", t.values[0]) for t in complete(over)]
    best = f", best {max(values):.4f}" if values else ""
    seconds = f", {(trial.duration.total_seconds() if trial.duration else 0):.0f} s"
    return f"[{len(over)}/{len(queued(study))}] trial {first_number(trial)} {words}: {found}{best}{seconds}"
