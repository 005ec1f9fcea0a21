"""Opening a study: created once with its whole queue, joined by every worker that plans the same."""

import warnings
from typing import TYPE_CHECKING, Any

import optuna

from isic_smp.data.fingerprint import shortened
from isic_smp.errors import UserError
from isic_smp.store import without_password
from isic_smp.sweeping.database import ERRORS, brief, lock
from isic_smp.sweeping.plan import DIRECTIONS, Plan
from isic_smp.sweeping.queue import enqueue
from isic_smp.sweeping.storage import open_storage
from isic_smp.sweeping.study_contents import CELL, DATA, PLAN, UNREADABLE, check_contents, damaged
from isic_smp.training.recipe import differences

if TYPE_CHECKING:
    from isic_smp.data.isic2016 import LesionData


def open_study(
    name: str, plan: Plan, *, url: str, heartbeat: int, data: "LesionData | None" = None
) -> optuna.Study:
    """The study `name`, created where it is missing, with every cell of the plan in its queue.

    Args:
        name: of the study.
        plan: what it tries.
        url: its storage.
        heartbeat: seconds between signs of life.
        data: that are here; None where the trials need none.

    Raises:
        UserError: the storage cannot be used, or the study is damaged, tries something else or works on other data.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    storage = open_storage(url, heartbeat=heartbeat)
    with lock(url, name):
        try:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                directions=[DIRECTIONS[objective] for objective in plan.objectives],
                sampler=plan.sampler(plan.base.seed),
                pruner=plan.pruner,
                load_if_exists=True,
            )
        except UNREADABLE as error:
            raise damaged(name, error) from None
        except ERRORS as error:
            raise UserError(
                f"cannot open the study {name} in {without_password(url)}: {brief(error)}; check --storage"
            ) from None
        check_contents(study)
        known = study.user_attrs.get(PLAN)
        if known is None:
            study.set_user_attr(PLAN, plan.identity())
        else:
            _check_same(name, known, plan)
        if data is not None:
            _keep_to_data(study, data)
        fill(study, plan)
    return study


def fill(study: optuna.Study, plan: Plan) -> None:
    """Queue the cells that were never queued."""
    present = {trial.user_attrs.get(CELL) for trial in study.get_trials(deepcopy=False)}
    for index, cell in enumerate(plan.cells):
        if index not in present:
            enqueue(study, cell, plan.distributions, ticket=f"cell {index}", **{CELL: index})


def _check_same(name: str, known: dict[str, Any], plan: Plan) -> None:
    """Refuse to mix two plans in one study."""
    now = plan.identity()
    differing = [
        f"{setting} {there} there, {here} here"
        for setting, there, here in differences(known["base"], plan.base)
    ]
    varied = {**known["varied"], **now["varied"]}
    differing += [
        f"{key} varies otherwise" for key in varied if known["varied"].get(key) != now["varied"].get(key)
    ]
    if list(known["objectives"]) != now["objectives"]:
        differing.append("the objectives differ")
    pruner = known.get("pruner", now["pruner"])  # a release that did not note it began the study
    if pruner != now["pruner"]:
        differing.append(f"pruner {pruner} there, {now['pruner']} here")
    if differing:
        raise UserError(
            f"the study {name} exists and tries something else ({'; '.join(differing)}): "
            "choose another --study, or give the same settings to go on with it"
        )


def _keep_to_data(study: optuna.Study, data: "LesionData") -> None:
    """Note on which data the study works, or refuse others; call it under the study's lock."""
    known = study.user_attrs.get(DATA)
    if known is None:  # it is new, or of a release that did not note it
        study.set_user_attr(DATA, {"fingerprint": data.fingerprint, "description": data.describe()})
    elif known["fingerprint"] != data.fingerprint:
        raise UserError(
            f"the study {study.study_name} works on other data ({known['description']}, fingerprint "
            f"{shortened(known['fingerprint'])} there; {data.describe()}, {shortened(data.fingerprint)} here): "
            "give the --data-dir (and --hold-out) of the same data, or choose another --study"
        )
