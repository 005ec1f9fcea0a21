"""Where a study is kept: SQLite for workers on one host, PostgreSQL beyond, and one lock for both.

Optuna's tables are created without a lock, so of several workers that open an empty database at once
all but one die; and a database that restarts ends every worker with an exception. Both are mended here.
"""

import contextlib
import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from isic_smp.errors import UserError
from isic_smp.store import one_line, without_password

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds for which a database that does not answer is asked again, before a worker gives up."""


class QueueEmpty(Exception):
    """No trial waits."""


class QueueStorage(RDBStorage):
    """Optuna's storage for studies whose trials are all queued beforehand, and that survives restarts.

    `study.ask` takes a waiting trial, and makes one up where none waits; here it raises `QueueEmpty`
    instead, so that any number of workers together run exactly the trials that were queued.
    """

    # Optuna puts a cache before every RDBStorage, which calls the three methods with an underscore below
    # and not their public forms.

    def _create_new_trial(self, study_id: int, template_trial: Any = None) -> Any:
        if template_trial is None:
            raise QueueEmpty
        # Not repeated on an error: it may have arrived, and its caller counts again.
        return super()._create_new_trial(study_id, template_trial)

    def _set_trial_param(self, *args: Any, **kwargs: Any) -> Any:
        return patiently(lambda: super(QueueStorage, self)._set_trial_param(*args, **kwargs))

    def _get_trials(self, *args: Any, **kwargs: Any) -> Any:
        return patiently(lambda: super(QueueStorage, self)._get_trials(*args, **kwargs))

    def record_heartbeat(self, trial_id: int) -> None:
        """Note that the trial's worker lives. A beat that is lost does no harm; a dead thread would."""
        try:
            super().record_heartbeat(trial_id)
        except (StorageInternalError, DBAPIError) as error:
            logger.warning("a heartbeat of trial id %d was lost: %s", trial_id, _brief(error))

    def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
        """Move a trial on; False where another worker has taken it."""
        attempts: list[Exception] = []
        # SQLite has no SELECT … FOR UPDATE, so two workers could find the same trial waiting and both take it.
        claims = state == optuna.trial.TrialState.RUNNING and self.url.startswith("sqlite")

        def move() -> bool:
            try:
                with lock(self.url, "claim") if claims else contextlib.nullcontext():
                    return super(QueueStorage, self).set_trial_state_values(trial_id, state, values)
            except optuna.exceptions.UpdateFinishedTrialError:
                if not attempts or not state.is_finished():
                    raise
                return True  # an earlier attempt had arrived, only its answer was lost
            except (StorageInternalError, DBAPIError) as error:
                attempts.append(error)
                raise

        return patiently(move)

    def set_trial_intermediate_value(self, *args: Any, **kwargs: Any) -> None:
        """Note an epoch's value."""
        patiently(lambda: super(QueueStorage, self).set_trial_intermediate_value(*args, **kwargs))

    def set_trial_user_attr(self, *args: Any, **kwargs: Any) -> None:
        """Note what is worth knowing of a trial."""
        patiently(lambda: super(QueueStorage, self).set_trial_user_attr(*args, **kwargs))

    def set_trial_system_attr(self, *args: Any, **kwargs: Any) -> None:
        """Note what a sampler or pruner keeps."""
        patiently(lambda: super(QueueStorage, self).set_trial_system_attr(*args, **kwargs))

    def set_study_user_attr(self, *args: Any, **kwargs: Any) -> None:
        """Note what all workers should know."""
        patiently(lambda: super(QueueStorage, self).set_study_user_attr(*args, **kwargs))

    def get_trial(self, *args: Any, **kwargs: Any) -> Any:
        """One trial."""
        return patiently(lambda: super(QueueStorage, self).get_trial(*args, **kwargs))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        return patiently(lambda: super(QueueStorage, self)._get_stale_trial_ids(study_id))


def patiently(ask: Callable[[], T], *, patience: float | None = None) -> T:
    """`ask()`, again and again for `patience` seconds (default: `PATIENCE`) while the database is away."""
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    wait = 0.1
    while True:
        try:
            return ask()
        except (StorageInternalError, DBAPIError) as error:
            if time.monotonic() + wait > end:
                raise
            logger.info(
                "the study's database does not answer, asked again in %.1f s: %s", wait, _brief(error)
            )
            time.sleep(wait)
            wait = min(5.0, wait * 2)


def open_storage(url: str, *, heartbeat: int) -> optuna.storages.BaseStorage:
    """The storage at `url`, its tables made where they are missing; safe when several workers start at once.

    Args:
        url: `sqlite:///FILE`, or `postgresql+DRIVER://USER@HOST:PORT/DATABASE`.
        heartbeat: seconds between two signs of life of a running trial. A trial without one for four
            times as long is taken over by another worker.

    Raises:
        UserError: another kind of URL, a missing driver, no such server or database, no right to write.
    """
    parts = _check(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if parts.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": PATIENCE}
        try:
            Path(str(parts.database)).absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder of {url}: {error.strerror}; choose another --storage"
            ) from None
    try:
        with lock(url, "tables"), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = QueueStorage(
                url, engine_kwargs=options, heartbeat_interval=heartbeat, grace_period=4 * heartbeat
            )
    except ImportError as error:
        raise UserError(f"{without_password(url)} needs a driver that is not installed: {error}") from None
    except (StorageInternalError, DBAPIError, RuntimeError, OSError) as error:
        raise UserError(
            f"cannot keep a study in {without_password(url)}: {_brief(error)}; "
            "check --storage, or leave it out to use SQLite under ./runs"
        ) from None
    return optuna.storages.get_storage(storage)


@contextlib.contextmanager
def lock(url: str, name: str) -> Iterator[None]:
    """Hold `name` alone among all workers that keep their studies in `url`; released when its holder dies."""
    parts = _check(url)
    if parts.get_backend_name() == "sqlite":
        from filelock import FileLock

        short = hashlib.sha256(name.encode()).hexdigest()[:12]
        database = Path(str(parts.database)).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_name(f".{database.name}.{short}.lock")):
            yield
        return
    key = int.from_bytes(hashlib.sha256(f"isic_smp {name}".encode()).digest()[:8], signed=True)
    engine = create_engine(url, pool_pre_ping=True, isolation_level="AUTOCOMMIT")
    try:
        with patiently(lambda: _take(engine, key)) as connection:
            try:
                yield
            finally:
                with contextlib.suppress(DBAPIError):  # a server that restarted has released it itself
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
    finally:
        engine.dispose()


def _take(engine: Engine, key: int) -> Connection:
    """A connection that holds the advisory lock; the lock is the server's, so a restart releases it."""
    connection = engine.connect()
    try:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
    except BaseException:
        connection.close()
        raise
    return connection


def _check(url: str) -> Any:
    expected = "expected sqlite:///FILE.db or postgresql+pg8000://USER@HOST:PORT/DATABASE"
    try:
        parts = make_url(url)
        backend = parts.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise UserError(f"--storage is no database URL: {expected}") from None
    if backend not in ("sqlite", "postgresql") or not parts.database or parts.database == ":memory:":
        raise UserError(f"cannot share a study through {without_password(url)!r}: {expected}")
    return parts


def _brief(error: BaseException) -> str:
    """The innermost reason, on one line."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return one_line(getattr(inner, "orig", None) or inner)
