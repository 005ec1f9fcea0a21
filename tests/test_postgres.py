"""The private PostgreSQL server that other tests stand on."""

import os
import stat

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError


def query(url, words):
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(words))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def test_the_password_comes_from_the_file_and_what_was_written_survives_a_crash(postgresql):
    url = postgresql.create_database("survives")
    query(url, "CREATE TABLE t AS SELECT 42 AS answer")
    postgresql.restart("immediate")
    assert query(url, "SELECT answer FROM t") == 42
    assert stat.S_IMODE(postgresql.pgpass.stat().st_mode) == 0o600


def test_without_the_password_nobody_comes_in(postgresql, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    with pytest.raises(OperationalError, match="no password supplied"):
        query(postgresql.url("postgres"), "SELECT 1")
