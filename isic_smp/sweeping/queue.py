"""A study as a queue: what waits, what was lost with its worker and waits again, when all is done.

A trial ends in one of three ways: complete, pruned, or failed with a `reason`. One that failed without
a reason was running when its worker died or was interrupted; `requeue_lost` queues it once more, and its
successor goes on from its checkpoint.
"""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from isic_smp.sweeping.storage import TICKET, AlreadyQueued

REASON, FIRST, BEFORE, TRIES, INTERRUPTED = "reason", "first", "before", "tries", "interrupted"
REACHED = "reached"
"""User attribute of a trial that was queued again: the last epoch that one of its tries reported."""

MOST_TRIES = 5
"""How often in a row a trial's worker may die before an epoch is new: it may be the trial that kills it."""


def enqueue(
    study: optuna.Study,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    *,
    ticket: str,
    **attrs: Any,
) -> None:
    """Let a trial wait that has these parameters; the sampler chooses those that are left out.

    Args:
        study: the queue.
        params: of the trial.
        distributions: from which they are.
        ticket: what the trial is for; where the study has queued a trial for it before, nothing happens.
        attrs: more user attributes.
    """
    trial = create_trial(
        state=TrialState.WAITING,
        params=dict(params),
        distributions={name: distributions[name] for name in params},
        user_attrs={**attrs, TICKET: ticket},
    )
    _add(study, trial)


def _add(study: optuna.Study, trial: FrozenTrial) -> None:
    with contextlib.suppress(AlreadyQueued):
        study.add_trial(trial)


def requeue_lost(study: optuna.Study) -> int:
    """Queue again what was lost with its worker, once, whoever else does the same; say how many there were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    lost = _without_successor(study.get_trials(deepcopy=False))
    for trial in lost:
        known = trial.user_attrs.get(REACHED, -1)
        reached = max([known, *trial.intermediate_values])
        tries = 0 if reached > known else trial.user_attrs.get(TRIES, 0)
        tries += not trial.user_attrs.get(INTERRUPTED)
        kept = {k: v for k, v in trial.user_attrs.items() if k != INTERRUPTED}
        attrs = {**kept, FIRST: first_number(trial), BEFORE: trial.number, TRIES: tries}
        attrs[REACHED] = reached
        attrs[TICKET] = f"after trial {trial.number}"
        gives_up = tries >= MOST_TRIES
        if gives_up:
            attrs[REASON] = f"its worker died {tries} times in a row (out of memory?)"
        successor = create_trial(
            state=TrialState.FAIL if gives_up else TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attrs,
            system_attrs={k: v for k, v in trial.system_attrs.items() if k == "fixed_params"},
        )
        _add(study, successor)
    return len(lost)


def is_over(study: optuna.Study) -> bool:
    """Whether nothing waits, runs, or was lost."""
    trials = study.get_trials(deepcopy=False)
    return all(trial.state.is_finished() for trial in trials) and not _without_successor(trials)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended, each once, in the order of their first numbers."""
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not _was_lost(trial)
    ]
    return sorted(trials, key=first_number)


def queued(study: optuna.Study) -> list[FrozenTrial]:
    """Every trial that was ever queued, each once, as what became of it last."""
    latest: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        latest[first_number(trial)] = trial
    return [latest[number] for number in sorted(latest)]


def first_number(trial: FrozenTrial | optuna.Trial) -> int:
    """The number under which a trial was first queued: what its folder and its MLflow run are named by."""
    return int(trial.user_attrs.get(FIRST, trial.number))


def complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those with a value."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _without_successor(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were lost and have not been queued again."""
    followed = {trial.user_attrs.get(BEFORE) for trial in trials}
    return [trial for trial in trials if _was_lost(trial) and trial.number not in followed]


def _was_lost(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs
