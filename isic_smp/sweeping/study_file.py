"""A study's SQLite file, looked at before anything is written into it: is it one, whole, and Optuna's?

Optuna makes its tables in whatever it is given, and meets damage in the middle of the work.
"""

import contextlib
import sqlite3
from pathlib import Path

from optuna.storages._rdb import models

from isic_smp.errors import UserError

MAGIC = b"SQLite format 3\x00"
"""How every SQLite file begins."""


def check_study_file(database: Path, *, patience: float) -> None:
    """Refuse a file that holds no studies of Optuna's; it is only read.

    A missing or empty file, and one whose tables were not all made when their maker died, is what
    Optuna fills.

    Args:
        database: the file.
        patience: seconds to wait for somebody who writes into it.

    Raises:
        UserError: another kind of file, a damaged one, or another program's database.
    """
    problem = _problem(database, patience)
    if problem is not None:
        raise UserError(
            f"cannot keep a study in {database}: {problem}; it was left as it is. Give another --storage, or "
            "put a whole copy of the study there"
        )


def _problem(database: Path, patience: float) -> str | None:
    try:
        if not database.exists():
            return None
        if not database.is_file():
            return "it is no file"
        with database.open("rb") as stream:
            begin = stream.read(len(MAGIC))
    except OSError as error:
        return str(error.strerror)
    if not begin:
        return None
    if begin != MAGIC:
        return f"it is no SQLite database, it begins with {begin!r}"
    # Only where a writer was killed in a transaction must SQLite write, to undo it.
    was_cut = database.with_name(f"{database.name}-journal").exists()
    mode = "rw" if was_cut else "ro"
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=patience)
        ) as connection:
            return _damage(connection) or _foreign(connection)
    except sqlite3.Error as error:
        return f"SQLite says «{error}»"


def _damage(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the file as a database."""
    [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    return None if verdict == "ok" else f"it is damaged ({' '.join(str(verdict).split())[:200]})"


def _foreign(connection: sqlite3.Connection) -> str | None:
    """What shows that its tables are not those that this version of Optuna makes."""
    known = models.BaseModel.metadata.tables
    held = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    # Optuna makes neither; both are code that runs when its tables are written or read.
    code = [f"{kind} {name}" for kind, name in held if kind in ("trigger", "view")]
    if code:
        return f"it holds the {code[0]}, which Optuna does not make"
    tables = {name for kind, name in held if kind == "table" and not name.startswith("sqlite_")}
    others = sorted(tables - known.keys() - {"alembic_version"})
    if others and "studies" not in tables:
        return f"it holds other tables than a study's ({', '.join(others)[:100]})"
    for name in sorted(tables & known.keys()):
        columns = {row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')}
        missing = sorted({column.name for column in known[name].columns} - columns)
        if missing:
            return f"its table {name} has no column {missing[0]}: another version of Optuna's, or rubbish"
    if "alembic_version" in tables:
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        if len(versions) > 1:
            return f"it says {len(versions)} versions of its tables"
    return None
