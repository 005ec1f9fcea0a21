"""What a study's database says, looked at once before the work: damage is met here, not in the middle of it."""

from collections.abc import Mapping
from typing import Any

import optuna

from isic_smp.errors import UserError
from isic_smp.sweeping.queue import BEFORE, FIRST, INTERRUPTED, REACHED, REASON, TRIES
from isic_smp.sweeping.storage import TICKET

PLAN, DATA, CELL = "plan", "data", "cell"
"""User attributes: of the study, what it tries and on which data; of a trial, which cell of the plan it is."""

UNREADABLE = (ValueError, LookupError, TypeError, AssertionError, RecursionError)
"""What Optuna raises where a row holds no JSON, an unknown state or distribution, or another type."""

NUMBER = (int, float)
OF_STUDY = {PLAN: dict, DATA: dict, "mlflow_run": str}
OF_TRIAL = {
    **dict.fromkeys((CELL, FIRST, BEFORE, TRIES, REACHED, "seed", "training_seed", "parameters"), int),
    **dict.fromkeys((TICKET, REASON, "run_id"), str),
    **dict.fromkeys(("val_iou", "val_dice", "gmacs", "seconds"), NUMBER),
    INTERRUPTED: bool,
}
OF_PLAN = {"base": dict, "varied": dict, "objectives": list}
OF_DATA = {"fingerprint": str, "description": str}


def check_contents(study: optuna.Study) -> None:
    """Read all of a study.

    Raises:
        UserError: something cannot be read, is of another type than the sweeps write, or the study is
            not theirs.
    """
    try:
        attrs, trials = study.user_attrs, study.get_trials(deepcopy=False)
        study.directions  # noqa: B018 - read, or refused
    except UNREADABLE as error:
        raise damaged(study.study_name, error) from None
    _check_types(study.study_name, "", attrs, OF_STUDY)
    if PLAN in attrs:
        _check_types(study.study_name, f"{PLAN}'s ", attrs[PLAN], OF_PLAN, all_needed=True)
    elif trials:
        raise UserError(
            f"the study {study.study_name} has {len(trials)} trials, but no plan of a sweep: another program "
            "made it; choose another --study or --storage"
        )
    if DATA in attrs:
        _check_types(study.study_name, f"{DATA}'s ", attrs[DATA], OF_DATA, all_needed=True)
    for trial in trials:
        _check_types(study.study_name, f"trial {trial.number}'s ", trial.user_attrs, OF_TRIAL)


def damaged(name: str, error: BaseException | str) -> UserError:
    """The refusal of a study that cannot be gone on with."""
    words = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return UserError(
        f"the study {name} is damaged ({' '.join(words.split())[:200]}): give another --study or --storage, "
        "or put a whole copy of it there"
    )


def _check_types(
    name: str, whose: str, attrs: Mapping[str, Any], types: Mapping[str, Any], *, all_needed: bool = False
) -> None:
    for key, kind in types.items():
        if (key in attrs or all_needed) and not isinstance(attrs.get(key), kind):
            raise damaged(name, f"{whose}{key} is {str(attrs.get(key))[:60]!r}")
