"""A file under a study's name that is none, or a damaged one: one line, and the file stays as it is."""

import contextlib
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from isic_smp.errors import UserError
from isic_smp.sweeping.database import told_in_a_line
from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.study import open_study
from isic_smp.sweeping.worker import work
from isic_smp.training.recipe import PRESETS

DISTRIBUTIONS, CELLS = grid(seed=range(3))
PLAN = Plan(base=PRESETS["report"], distributions=DISTRIBUTIONS, cells=CELLS)


def open_here(file: Path) -> optuna.Study:
    return open_study("s", PLAN, url=f"sqlite:///{file}", heartbeat=15)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A study of three queued trials."""
    file = tmp_path_factory.mktemp("whole") / "study.db"
    open_here(file)
    return file


def execute(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def as_bytes(make):
    return lambda file: file.write_bytes(make(file.read_bytes()))


def as_sql(*statements: str):
    return lambda file: execute(file, *statements)


def anew(*statements: str):
    def spoil(file: Path) -> None:
        file.unlink()
        execute(file, *statements)

    return spoil


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


FILES = {
    "text": (as_bytes(lambda _: b"lr: 0.1\n"), "no SQLite database"),
    "pickle": (as_bytes(lambda _: pickle.dumps(print)), "no SQLite database"),
    "zeros": (as_bytes(lambda whole: bytes(len(whole))), "no SQLite database"),
    "a folder": (a_folder, "no file"),
    "cut in its header": (as_bytes(lambda whole: whole[:50]), "SQLite says"),
    "cut in half": (as_bytes(lambda whole: whole[: len(whole) // 2]), "malformed|damaged"),
    "without its end": (as_bytes(lambda whole: whole[:-5000]), "malformed|damaged"),
    "a page of rubbish": (as_bytes(lambda b: b[:4096] + b"\xa5" * 4096 + b[8192:]), "malformed|damaged"),
    "another program's": (anew("CREATE TABLE runs (run_uuid TEXT)"), "other tables .*runs"),
    "a trigger": (
        as_sql("CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM studies; END"),
        "holds the trigger t",
    ),
    "a view for a table": (
        as_sql("DROP TABLE trial_values", "CREATE VIEW trial_values AS SELECT * FROM trials"),
        "holds the view trial_values",
    ),
    "a column less": (
        as_sql("ALTER TABLE trials DROP COLUMN datetime_complete"),
        "no column datetime_complete",
    ),
    "of a later Optuna": (as_sql("UPDATE alembic_version SET version_num = 'v9.0.0.a'"), "updating optuna"),
    "of two versions": (as_sql("INSERT INTO alembic_version VALUES ('v9.0.0.a')"), "2 versions"),
}

ROWS = {
    "no JSON in the study": "UPDATE study_user_attributes SET value_json = '{\"base\": '",
    "no JSON in a trial": "UPDATE trial_user_attributes SET value_json = 'rubbish' WHERE key = 'ticket'",
    "JSON without an end": f"UPDATE trial_user_attributes SET value_json = '{'[' * 100_000}'",
    "a plan that is a number": "UPDATE study_user_attributes SET value_json = '5' WHERE key = 'plan'",
    "a plan without its parts": "UPDATE study_user_attributes SET value_json = '{}' WHERE key = 'plan'",
    "data that are a list": "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'data', '[]')",
    "data without their parts": "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'data', '{}')",
    "a cell that is a list": "UPDATE trial_user_attributes SET value_json = '[1]' WHERE key = 'cell'",
    "an unknown state": "UPDATE trials SET state = 'LOST' WHERE number = 1",
    "an unknown distribution": 'UPDATE trial_params SET distribution_json = \'{"name": "os.system"}\'',
    "an unknown direction": "UPDATE study_directions SET direction = 'SIDEWAYS'",
    "another program's study": "DELETE FROM study_user_attributes",
}


def refusal(file: Path) -> str:
    """What opening it says; fails where the file is touched, or anything is left beside it but locks."""
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(UserError) as caught:
        open_here(file)
    assert (file.read_bytes() if file.is_file() else None) == before
    assert [p.name for p in file.parent.iterdir() if p != file and not p.name.endswith(".lock")] == []
    said = str(caught.value)
    assert "--storage" in said and "\n" not in said
    return said


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_whole_study_is_refused_and_left_as_it_is(whole, tmp_path, kind):
    file = tmp_path / "study.db"
    shutil.copy(whole, file)
    spoil, said = FILES[kind]
    spoil(file)
    assert re.search(said, refusal(file))


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_no_sweep_wrote_are_refused_and_left_as_they_are(whole, tmp_path, kind):
    file = tmp_path / "study.db"
    shutil.copy(whole, file)
    execute(file, ROWS[kind])
    assert "the study s " in refusal(file)


@pytest.mark.parametrize("kind", ["missing", "empty", "without tables", "half its tables"])
def test_what_a_killed_maker_left_is_filled(whole, tmp_path, kind):
    file = tmp_path / "study.db"
    if kind == "empty":
        file.touch()
    if kind == "without tables":
        execute(file, "CREATE TABLE t (x)", "DROP TABLE t")
    if kind == "half its tables":
        execute(file, "CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512) UNIQUE)")
    assert len(open_here(file).trials) == 3


@pytest.mark.parametrize("damage", [bytes, lambda size: b"\xa5" * size], ids=["zeros", "rubbish"])
def test_damage_in_the_middle_of_the_work_ends_it_in_one_line(whole, tmp_path, damage):
    file = tmp_path / "study.db"
    shutil.copy(whole, file)
    study, tried = open_here(file), []

    def objective(trial: optuna.Trial) -> float:
        tried.append(trial.number)
        if len(tried) == 2:
            file.write_bytes(damage(file.stat().st_size))
        return 0.5

    url = f"sqlite:///{file}"
    with pytest.raises(UserError) as caught, told_in_a_line(url):
        work(study, objective, url=url, heartbeat=15, on_ended=lambda study, trial: None)
    said = str(caught.value)
    assert "fails: " in said and "same command again" in said and "\n" not in said
    assert len(tried) == 2


@pytest.mark.slow
def test_the_command_ends_with_code_2_and_one_line(tmp_path):
    from isic_smp.data.synthetic import make_synthetic

    make_synthetic(tmp_path / "drawn", train=4, val=2, test=2, size=32)
    (tmp_path / "study.db").write_bytes(pickle.dumps(print))
    script = Path(__file__).parents[2] / "sweeps" / "freeze_vs_finetune.py"
    given = ["--data", "synthetic", "--data-dir", "drawn", "--storage", "sqlite:///study.db"]
    done = subprocess.run([sys.executable, script, *given], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "no SQLite database" in line
    assert (tmp_path / "study.db").read_bytes() == pickle.dumps(print)
