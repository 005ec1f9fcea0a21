import contextlib
import importlib
import re
import shutil
import socket
import sqlite3
import time

import pytest
from free_port import free_port
from PIL import Image

from isic_smp import store as store_module
from isic_smp.errors import UserError
from isic_smp.store import experiment_id, prepare_store, sqlite_file, without_password

from .conftest import STARTS


def test_first_runs_that_start_together_all_succeed(started_together):
    from mlflow import MlflowClient

    folder, failed, stderr = started_together
    assert failed == 0, stderr
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    assert [e.name for e in client.search_experiments()].count("together") == 1
    experiment = client.get_experiment_by_name("together")
    assert experiment.artifact_location == str(folder / "mlruns" / "artifacts" / "together")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(r.data.metrics["value"] for r in runs) == list(range(STARTS))
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert all(len(r.inputs.dataset_inputs) == 1 for r in runs)
    assert not (folder / "mlruns" / "mlflow.db.part").exists()


def test_an_existing_store_is_left_as_it_is(store, monkeypatch):
    # The migration takes seconds; a second start may not run it again.
    monkeypatch.setattr(store_module, "_create_schema", lambda uri: pytest.fail("created again"))
    assert prepare_store(store) == store


def test_environment_variable_is_honoured_and_an_explicit_uri_wins(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert prepare_store() == store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    assert prepare_store(store) == store


def test_default_store_lies_in_the_working_folder(store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert prepare_store() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"


def test_a_store_in_a_folder_with_an_awkward_name(store, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    folder = tmp_path / "my läsions #1 50%"
    shutil.move(tmp_path / "mlruns", folder)
    uri = prepare_store(f"sqlite:///{folder}/mlflow.db")
    client = MlflowClient(uri)
    run = client.create_run(experiment_id("here", tracking_uri=uri))
    (tmp_path / "note.txt").write_text("hello")
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert list((folder / "artifacts" / "here").rglob("note.txt"))


def test_a_server_that_is_not_there_is_said_within_seconds():
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(
        UserError, match=r"start it, correct MLFLOW_TRACKING_URI, unset it.*--offline"
    ) as caught:
        prepare_store(uri)
    assert time.monotonic() - began < 60, "MLflow's own retries take four minutes"
    assert "secret" not in str(caught.value)


def test_a_database_server_that_is_not_there_is_said_within_seconds():
    with pytest.raises(UserError, match="cannot be used"):
        prepare_store(f"postgresql://user:secret@127.0.0.1:{free_port()}/mlflow")


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", 0.5)
    silent = socket.create_server(("127.0.0.1", 0))  # connections wait there for ever
    with silent, pytest.raises(UserError, match="no answer in time"):
        prepare_store(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "mlruns").write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot create the MLflow store"):
        prepare_store(f"sqlite:///{tmp_path}/mlruns/mlflow.db")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///a.db?mode=ro"])
def test_sqlite_without_a_file_is_refused(uri):
    with pytest.raises(UserError, match=re.escape(uri)):
        prepare_store(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("localhost:5000", "unsupported URI 'localhost:5000'.*http://SERVER:PORT"),
        ("sqlite:///{folder}", "Is a directory"),
        ("sqlite:///{folder}/notes.txt", "no SQLite database, it begins with b'what I did"),
        ("sqlite:///{folder}/a%20b/mlflow.db", "'%20' in a path"),
    ],
)
def test_what_mlflow_cannot_open_is_refused_in_seconds_and_one_line(uri, said, tmp_path):
    (tmp_path / "notes.txt").write_text("what I did on Monday\n")
    began = time.monotonic()
    with pytest.raises(UserError, match=said) as refusal:
        prepare_store(uri.format(folder=tmp_path))
    assert time.monotonic() - began < 60, "MLflow's own retries take a minute and a half"
    assert "\n" not in str(refusal.value)


def test_a_store_of_another_mlflow_is_refused_with_the_way_to_migrate_it(store, tmp_path):
    older = tmp_path / "older.db"  # not the store's own file, which this process has open
    shutil.copy(store.removeprefix("sqlite:///"), older)
    with contextlib.closing(sqlite3.connect(older)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'of another year'")
        database.commit()
    with pytest.raises(UserError, match="mlflow db upgrade"):
        prepare_store(f"sqlite:///{older}")


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns/", "file://{tmp_path}/mlruns"])
def test_a_folder_is_refused_with_the_database_that_belongs_into_it(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = uri.format(tmp_path=tmp_path)
    with pytest.raises(UserError, match=r"name the one in it, sqlite:///\S*mlruns/mlflow\.db") as refused:
        prepare_store(uri)
    proposed = str(refused.value).rpartition(", ")[2]
    assert sqlite_file(proposed) == tmp_path / "mlruns" / "mlflow.db"


def test_a_kind_of_store_that_there_is_not_is_refused_without_its_password():
    with pytest.raises(UserError, match=r"\(expected sqlite:///PATH/mlflow\.db") as refused:
        prepare_store("mongodb://user:secret@host/runs")
    assert "secret" not in str(refused.value)


def test_a_deleted_experiment_is_said_with_its_way_back(store, client):
    number = experiment_id("gone", tracking_uri=store)
    client.delete_experiment(number)
    with pytest.raises(UserError, match=f"mlflow experiments restore -x {number}"):
        experiment_id("gone", tracking_uri=store)


def test_passwords_are_not_shown():
    assert without_password("http://me:secret@host:5000/x") == "http://me:***@host:5000/x"
    assert without_password("http://host:5000") == "http://host:5000"


@pytest.mark.parametrize(
    "uri", ["postgresql://mlflow:pa/ss@db:5432/mlflow", "http://me:pa/ss@host:5000", "http://[::1"]
)
def test_an_address_that_cannot_be_read_is_not_repeated(uri):
    with pytest.raises(UserError, match="of a password written as %2F") as refusal:
        prepare_store(uri)
    assert "pa" not in str(refusal.value).split() and "ss@" not in str(refusal.value)
    assert "ss@" not in without_password(uri)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("registry", ["list"]),
        ("registry", ["register", "0" * 32, "--name", "lesions"]),
        ("predict", ["photos", "--model", "models:/lesions@champion"]),
        ("compare", ["0" * 32, "1" * 32]),
    ],
)
def test_who_only_reads_makes_no_store(command, words, in_this_process, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), (200, 150, 130)).save(tmp_path / "photos" / "a.png")
    done = in_this_process(importlib.import_module(f"isic_smp.{command}"), *words)
    assert done.returncode == 2
    assert f"no MLflow store {tmp_path}/mlruns/mlflow.db: train a run here first, or " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
