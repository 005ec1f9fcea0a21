"""The database behind a study: one lock for its workers, and patience with a server that restarts."""

import contextlib
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from isic_smp.errors import UserError
from isic_smp.store import one_line, without_password

T = TypeVar("T")
logger = logging.getLogger(__name__)

ERRORS = (StorageInternalError, DBAPIError, ConnectionError, TimeoutError)
"""What Optuna, SQLAlchemy and pg8000 raise when the database does not do what it is asked."""

PATIENCE = 120.0
"""Seconds for which a database that does not answer is asked again, before a worker gives up."""

SOON = 5.0
"""Seconds after which somebody who looks on is told that a database does not answer."""

HOPELESS = ("28", "3D", "42501")
"""How PostgreSQL's SQLSTATEs begin that time does not mend: user or password, no such database, no right."""

DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite's codes that time does not mend: no such table or column, a damaged file, no database."""


def patiently(
    ask: Callable[[], T],
    *,
    patience: float | None = None,
    on_error: Callable[[], None] = lambda: None,
) -> T:
    """`ask()`, again and again while the database is away.

    Args:
        ask: may have arrived when it raises, so it must do no harm twice.
        patience: in seconds; default: `PATIENCE`.
        on_error: called after each time that failed.
    """
    begun = time.monotonic()
    end = begun + (PATIENCE if patience is None else patience)
    wait, told = 0.1, False
    while True:
        try:
            return ask()
        except ERRORS as error:
            on_error()
            if time.monotonic() + wait > end or _is_hopeless(error):
                raise
            if not told and time.monotonic() - begun > SOON:
                told = True
                left = end - time.monotonic()
                logger.warning(
                    "the study's database does not answer, asked for %.0f s more: %s", left, brief(error)
                )
            time.sleep(wait)
            wait = min(5.0, wait * 2)


@contextlib.contextmanager
def told_in_a_line(url: str) -> Iterator[None]:
    """Within, a database that fails for good, away or damaged in the middle of the work, ends it in one line.

    Raises:
        UserError: in place of the database's own error.
    """
    try:
        yield
    except (StorageInternalError, DBAPIError, UnboundLocalError) as error:
        # Optuna stumbles over a variable of its own where a trial's end cannot be written.
        failure = error.__context__ if isinstance(error, UnboundLocalError) else error
        if not isinstance(failure, (StorageInternalError, DBAPIError)):
            raise
        # Rows that contradict each other are a fault of this program's, and keep their traceback.
        if isinstance(_innermost_raised(failure), IntegrityError):
            raise
        raise UserError(
            f"the study's database {without_password(url)} fails: {brief(failure)}; finished trials are kept in their "
            "folders. Bring it back, or put a whole copy there, and give the same command again"
        ) from None


@contextlib.contextmanager
def lock(url: str, name: str) -> Iterator[None]:
    """Hold `name` alone among all workers that keep their studies in `url`; released when its holder dies.

    PostgreSQL releases it too when the server restarts, while the holder goes on. So it saves workers
    from doing the same work twice; that nothing is queued twice is for the storage to enforce.
    """
    parts = check_url(url)
    if is_sqlite(parts):
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
                with contextlib.suppress(*ERRORS):  # a server that restarted has released it itself
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
    finally:
        engine.dispose()


def check_url(url: str) -> URL:
    """The parts of a URL under which workers can share a study.

    Raises:
        UserError: it is another kind of database, or no URL.
    """
    expected = "expected sqlite:///FILE.db or postgresql+pg8000://USER@HOST:PORT/DATABASE"
    try:
        parts = make_url(url)
        backend = parts.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise UserError(f"--storage is no database URL: {expected}") from None
    if backend not in ("sqlite", "postgresql") or not parts.database or parts.database == ":memory:":
        raise UserError(f"cannot share a study through {without_password(url)!r}: {expected}")
    return parts


def is_sqlite(parts: URL) -> bool:
    """Whether the database is a file on this host."""
    return parts.get_backend_name() == "sqlite"


def brief(error: BaseException) -> str:
    """The innermost reason, on one line."""
    inner = _innermost(error)
    words = inner.args[0] if inner.args else None
    if isinstance(words, dict) and "M" in words:  # pg8000 gives the server's fields by their letters
        return one_line(RuntimeError(words["M"]))
    return one_line(inner)


def _take(engine: Engine, key: int) -> Connection:
    """A connection that holds the advisory lock; the lock is the server's, so a restart releases it."""
    connection = engine.connect()
    try:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
    except BaseException:
        connection.close()
        raise
    return connection


def _is_hopeless(error: BaseException) -> bool:
    inner = _innermost(error)
    words = inner.args[0] if inner.args else None
    if getattr(inner, "sqlite_errorcode", None) in DAMAGED:
        return True
    state = words.get("C") if isinstance(words, dict) else getattr(inner, "sqlstate", None)
    return str(state or "").startswith(HOPELESS)


def _innermost(error: BaseException) -> BaseException:
    """What the driver raised."""
    inner = _innermost_raised(error)
    return getattr(inner, "orig", None) or inner


def _innermost_raised(error: BaseException) -> BaseException:
    """Below what Optuna made of it: SQLAlchemy's error."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    return error
