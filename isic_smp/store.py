"""Where runs are kept: finding the MLflow store, and creating the local one exactly once.

Order of choice: an explicit URI, the environment variable MLFLOW_TRACKING_URI, else SQLite in
./mlruns with the artifacts beside it.

MLflow creates the schema of a fresh database when a client first opens it, without a lock: of
several clients that do so at once all but one die ("duplicate column name"), and one that is
killed on the way leaves a database nobody can open. So the schema is made here, in a file of
another name under a file lock, and renamed when it is complete: where the database exists, it is whole.
"""

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from isic_smp.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
SQLITE_BEGINS = b"SQLite format 3\x00"
"""The first bytes of every SQLite file."""
CONNECT_SECONDS = 5
ANSWER_SECONDS = 15

# MLflow's own client waits 247 s a call for a server that is gone. The journal repeats what fails,
# so one short try a call is enough; a server that takes 5 s an answer must still get through.
_CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class NoStore(UserError):
    """There is nothing to read yet."""


def prepare_store(uri: str | None = None) -> str:
    """The tracking URI to write to, its store created where it is missing, and reachable.

    Args:
        uri: `sqlite:///FILE`, `http(s)://SERVER` or another MLflow tracking URI; None: the environment
            variable MLFLOW_TRACKING_URI, else SQLite in ./mlruns.

    Returns:
        The URI, with a SQLite file's path made absolute.

    Raises:
        UserError: the server does not answer, the folder cannot be written, or MLflow cannot open what is there.
    """
    return _opened(uri, create=True)


def existing_store(uri: str | None = None) -> str:
    """As `prepare_store`, for who only reads: where there is no database, none is made.

    Raises:
        UserError: as of `prepare_store`; `NoStore`, where the SQLite file is not there.
    """
    return _opened(uri, create=False)


def _opened(uri: str | None, *, create: bool) -> str:
    for name, value in _CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlruns/mlflow.db"
    database = sqlite_file(uri)
    if database is None:
        _check_reachable(uri)
    else:
        uri = f"{SQLITE}{database}"
        if not _is_there(database):
            if not create:
                raise NoStore(
                    f"no MLflow store {database}: train a run here first, or go to the folder that has the runs, or "
                    "name their store with MLFLOW_TRACKING_URI or --tracking-uri"
                )
            _create_sqlite(database)
    _check_opens(uri)
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of a SQLite store's file; None for every other kind of store.

    Raises:
        UserError: a SQLite URI with options or without a file, or a path that a URI cannot hold.
    """
    if not uri.startswith("sqlite:"):
        return None
    path = uri.removeprefix(SQLITE)
    if not uri.startswith(SQLITE) or path in ("", ":memory:") or "?" in path:
        raise UserError(f"cannot keep runs in {uri!r}: expected {SQLITE}PATH/mlflow.db, without options")
    database = Path(path).absolute()
    if mistaken := re.search(r"\?|%[0-9A-Fa-f]{2}", str(database)):  # the working folder's perhaps
        raise UserError(
            f"cannot keep runs in {database}: {mistaken[0]!r} in a path means something else to MLflow; choose "
            "another folder, or point MLFLOW_TRACKING_URI elsewhere"
        )
    return database


def artifact_root(uri: str) -> Path | None:
    """The folder for the artifacts of a SQLite store, beside its file; None where a server decides."""
    database = sqlite_file(uri)
    return database.parent / "artifacts" if database else None


def experiment_id(name: str, *, tracking_uri: str) -> str:
    """The id of the experiment `name`, created where it is missing; safe when several processes ask at once.

    Raises:
        UserError: the store refuses (its words are in the message), or the experiment was deleted.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return _get_or_create(MlflowClient(tracking_uri), name, artifact_root(tracking_uri))
    except MlflowException as error:
        raise UserError(
            f"the MLflow store {without_password(tracking_uri)} refuses the experiment {name!r}: "
            f"{one_line(error)}"
        ) from None


def _get_or_create(client: "MlflowClient", name: str, root: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # The folder is named after the experiment, since its number is not known yet.
        folder = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
        try:
            return client.create_experiment(name, artifact_location=str(root / folder) if root else None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was quicker
    assert found is not None
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"the experiment {name!r} was deleted: choose another name, "
            f"or bring it back with `mlflow experiments restore -x {found.experiment_id}`"
        )
    return str(found.experiment_id)


def without_password(uri: str) -> str:
    """`uri` fit for messages and files: without the password that it may hold."""
    hidden = f"{uri.partition('://')[0]}://…"
    try:
        parts = urlsplit(uri)
    except ValueError:
        return hidden
    if parts.password is None:
        # A / in a password ends the host's part too early.
        return hidden if ":" in parts.netloc and "@" in parts.path + parts.query + parts.fragment else uri
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:***@{host}").geturl()


def one_line(error: BaseException) -> str:
    """An exception's message on one line of at most 300 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else words[:299] + "…"


def _create_sqlite(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_name(database.name + ".lock")):
            if not database.exists() or database.stat().st_size == 0:
                part = database.with_name(database.name + ".part")
                part.unlink(missing_ok=True)  # of a process that was killed
                _create_schema(f"{SQLITE}{part}")
                part.replace(database)
    except OSError as error:
        raise UserError(
            f"cannot create the MLflow store {database}: {error.strerror or error}; "
            "make the folder writable, or point MLFLOW_TRACKING_URI elsewhere"
        ) from None


def _is_there(database: Path) -> bool:
    """Whether the file holds a database already.

    Raises:
        UserError: it is something else, which MLflow would try to open for a minute and a half.
    """
    try:
        if not database.exists() or (database.is_file() and database.stat().st_size == 0):
            return False
        with database.open("rb") as file:
            begin = file.read(len(SQLITE_BEGINS))
        problem = None if begin == SQLITE_BEGINS else f"it is no SQLite database, it begins with {begin!r}"
    except OSError as error:
        problem = str(error.strerror or error)
    if problem:
        raise UserError(f"cannot keep runs in {database}: {problem}; expected {SQLITE}PATH/mlflow.db")
    return True


def _create_schema(uri: str) -> None:
    """All tables and the Default experiment that MLflow expects, in a new SQLite file (about 4 s)."""
    import logging

    import mlflow.db
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    chatty = [logging.getLogger("mlflow.store.db.utils"), logging.getLogger("alembic")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.WARNING)
    try:
        mlflow.db.upgrade.main([uri], standalone_mode=False)
        MlflowClient(uri).search_experiments(max_results=1)
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()  # nobody may keep the file open when it is renamed


def _check_reachable(uri: str) -> None:
    """Refuse a server that does not answer, before MLflow's and SQLAlchemy's own long retries."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose words may hold a part of the password
        raise UserError(
            "the MLflow tracking URI cannot be read: expected SCHEME://[USER:PASSWORD@]HOST[:PORT]/…, with the "
            "characters / ? # @ : of a password written as %2F %3F %23 %40 %3A"
        ) from None
    problem = None
    if parts.scheme in ("http", "https"):
        import requests

        try:
            status = requests.get(
                uri.rstrip("/") + "/health", timeout=(CONNECT_SECONDS, ANSWER_SECONDS)
            ).status_code
            problem = f"it answers with HTTP status {status}" if status >= 500 else None
        except requests.RequestException as error:
            problem = "no answer in time" if isinstance(error, requests.Timeout) else "no connection"
    elif host and port:  # a database server
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            problem = one_line(error)
    if problem:
        raise UserError(
            f"the MLflow server {without_password(uri)} cannot be used ({problem}): start it, correct "
            "MLFLOW_TRACKING_URI, unset it to keep the runs in ./mlruns, or train with --offline and send "
            "the run later"
        )


def _check_opens(uri: str) -> None:
    """Refuse a store that MLflow cannot open: of another kind, a damaged one, or one of another release's tables."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        MlflowClient(uri)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        shown = without_password(uri)
        if urlsplit(uri).scheme in ("", "file"):
            folder = uri.removeprefix("file://").rstrip("/")
            raise UserError(
                f"cannot keep runs in the folder {folder!r}: MLflow wants a database; "
                f"name the one in it, {SQLITE}{folder}/mlflow.db"
            ) from None
        raise UserError(
            f"MLflow cannot open {shown}: {one_line(error).replace(uri, shown)} "
            f"(expected {SQLITE}PATH/mlflow.db or http://SERVER:PORT)"
        ) from None
