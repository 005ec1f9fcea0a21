"""Where a study is kept: SQLite for workers on one host, PostgreSQL beyond.

Optuna's storage, with what a queue needs that many processes empty while some of them are killed and the
database restarts: each step is one transaction, and may be asked for again where its answer was lost.
"""

import json
import logging
import time
import uuid
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from isic_smp.errors import UserError
from isic_smp.store import without_password
from isic_smp.sweeping.database import ERRORS, PATIENCE, brief, check_url, is_sqlite, lock, patiently
from isic_smp.sweeping.study_file import check_study_file

logger = logging.getLogger(__name__)

TICKET = "ticket"
"""User attribute of a queued trial, of which a study has each value once."""

CLAIM = "claim"
"""System attribute of a running trial: which claim won it."""

GRACE = 4
"""Heartbeats without which a running trial's worker is taken for dead."""


class QueueEmpty(Exception):
    """No trial waits."""


class AlreadyQueued(Exception):
    """The study has a trial with this ticket."""


class QueueStorage(RDBStorage):
    """Optuna's storage for studies whose trials are all queued beforehand, and that survives restarts.

    `study.ask` takes a waiting trial, and makes one up where none waits; here it raises `QueueEmpty`
    instead, so that any number of workers together run exactly the trials that were queued.
    """

    # Optuna puts a cache before every RDBStorage, which calls three of its methods with an underscore
    # and not their public forms.

    _failed_at = float("-inf")

    def ask(self, question: Callable[[], Any]) -> Any:
        """The answer to `question`, asked again while the database is away."""
        return patiently(question, on_error=self._note_failure)

    def _create_new_trial(self, study_id: int, template_trial: Any = None) -> Any:
        if template_trial is None:
            raise QueueEmpty
        make = super()._create_new_trial
        if TICKET not in template_trial.user_attrs:
            return make(study_id, template_trial)  # not asked again: an earlier attempt may have arrived
        return self.ask(lambda: make(study_id, template_trial))

    def _get_prepared_new_trial(self, study_id: int, template_trial: Any, session: Session) -> Any:
        """Within the transaction that makes a trial: undo it where its ticket is known.

        Two workers cannot both find it missing: PostgreSQL lets one at a time hold the study's row here,
        and SQLite one at a time write, which the insertion has begun.
        """
        trial = super()._get_prepared_new_trial(study_id, template_trial, session)
        ticket = template_trial.user_attrs.get(TICKET)
        if ticket is not None:
            attribute, other = models.TrialUserAttributeModel, models.TrialModel
            known = (
                session.query(other.trial_id)
                .join(attribute, attribute.trial_id == other.trial_id)
                .filter(other.study_id == study_id, other.trial_id != trial.trial_id)
                .filter(attribute.key == TICKET, attribute.value_json == json.dumps(ticket))
            )
            if known.first() is not None:
                raise AlreadyQueued(ticket)
        return trial

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Move a trial on; False where another worker has taken it."""
        if state == TrialState.RUNNING:
            claim = uuid.uuid4().hex
            return bool(self.ask(lambda: self._claim(trial_id, claim)))
        attempts: list[Exception] = []

        def move() -> bool:
            try:
                return super(QueueStorage, self).set_trial_state_values(trial_id, state, values)
            except optuna.exceptions.UpdateFinishedTrialError:
                if attempts and super(QueueStorage, self).get_trial(trial_id).state == state:
                    return True  # an earlier attempt had arrived, only its answer was lost
                raise
            except ERRORS as error:
                attempts.append(error)
                raise

        return bool(self.ask(move))

    def _claim(self, trial_id: int, claim: str) -> bool:
        """Take a waiting trial, with a first sign of life: of a worker that dies now, somebody shall know."""
        with _create_scoped_session(self.scoped_session) as session:
            waiting = update(models.TrialModel).where(
                models.TrialModel.trial_id == trial_id, models.TrialModel.state == TrialState.WAITING
            )
            taken: Any = session.execute(
                waiting.values(state=TrialState.RUNNING).execution_options(synchronize_session=False)
            )
            if not taken.rowcount:
                attribute = models.TrialSystemAttributeModel
                mine = session.query(attribute).filter_by(
                    trial_id=trial_id, key=CLAIM, value_json=json.dumps(claim)
                )
                return mine.first() is not None
            models.TrialModel.find_or_raise_by_id(trial_id, session).datetime_start = datetime.now()
            session.add(models.TrialHeartbeatModel(trial_id=trial_id))
            session.add(
                models.TrialSystemAttributeModel(trial_id=trial_id, key=CLAIM, value_json=json.dumps(claim))
            )
        return True

    def record_heartbeat(self, trial_id: int) -> None:
        """Note that the trial's worker lives. A beat that is lost does no harm; a dead thread would."""
        try:
            super().record_heartbeat(trial_id)
        except ERRORS as error:
            self._note_failure()
            logger.info("a heartbeat of trial id %d was lost: %s", trial_id, brief(error))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Trials whose workers are dead; none just after an outage, in which no sign of life got through."""
        stale: list[int] = self.ask(lambda: super(QueueStorage, self)._get_stale_trial_ids(study_id))
        assert self.heartbeat_interval is not None
        return [] if time.monotonic() - self._failed_at < 2 * self.heartbeat_interval else stale

    def _note_failure(self) -> None:
        self._failed_at = time.monotonic()


def _asked_again(name: str) -> Callable[..., Any]:
    """A method of Optuna's storage that does no harm twice, with patience."""
    original = getattr(RDBStorage, name)

    def method(self: QueueStorage, *args: Any, **kwargs: Any) -> Any:
        return self.ask(lambda: original(self, *args, **kwargs))

    return method


for _name in (
    *(
        "create_new_study",
        "get_study_id_from_name",
        "get_study_name_from_id",
        "get_study_directions",
        "get_all_studies",
    ),
    *("get_study_user_attrs", "get_study_system_attrs", "set_study_user_attr", "set_study_system_attr"),
    *("get_trial", "_get_trials", "get_best_trial", "get_trial_id_from_study_id_trial_number"),
    *("_set_trial_param", "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr"),
):
    setattr(QueueStorage, _name, _asked_again(_name))


def open_storage(url: str, *, heartbeat: int) -> optuna.storages.BaseStorage:
    """The storage at `url`, its tables made where they are missing; safe when several workers start at once.

    Args:
        url: `sqlite:///FILE`, or `postgresql+DRIVER://USER@HOST:PORT/DATABASE`.
        heartbeat: seconds between two signs of life of a running trial. A trial without one for four
            times as long is taken over by another worker.

    Raises:
        UserError: another kind of URL, a missing driver, no such server or database, no right to write, or a
            file that holds no studies.
    """
    parts = check_url(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if is_sqlite(parts):
        options["connect_args"] = {"timeout": PATIENCE}
        try:
            Path(str(parts.database)).absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder of {url}: {error.strerror}; choose another --storage"
            ) from None

    def make() -> QueueStorage:
        # Optuna makes its tables without a lock: of several that open an empty database all but one die.
        with lock(url, "tables"), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if is_sqlite(parts):
                check_study_file(Path(str(parts.database)), patience=PATIENCE)
            return QueueStorage(
                url, engine_kwargs=options, heartbeat_interval=heartbeat, grace_period=GRACE * heartbeat
            )

    try:
        storage = patiently(make)
    except ImportError as error:
        raise UserError(f"{without_password(url)} needs a driver that is not installed: {error}") from None
    except (*ERRORS, RuntimeError, OSError) as error:
        raise UserError(
            f"cannot keep a study in {without_password(url)}: {brief(error)}; "
            "check --storage, or leave it out to use SQLite under ./runs"
        ) from None
    # A connection that breaks is asked for again; the pool would show a page of tracebacks for each.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    if not is_sqlite(parts):
        # Optuna compares signs of life in the server's time zone with the present in UTC.
        event.listen(storage.engine, "connect", _speak_utc)
        storage.engine.dispose()
    return optuna.storages.get_storage(storage)


def _speak_utc(connection: Any, _: Any) -> None:
    connection.cursor().execute("SET TIME ZONE 'UTC'")
    connection.commit()
