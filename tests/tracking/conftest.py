import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

WITHOUT_THE_TRAINING_CODE = """
import os, sys
class Unknown:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("isic_smp", "segmentation_models_pytorch", "timm"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Unknown())
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
import mlflow, numpy as np, torch
mlflow.set_tracking_uri(sys.argv[1])
"""
"""How a script begins that never sees the training code, and refuses pickles. Its first argument is the MLflow store."""

STARTS = 8

# mlflow is imported once, then eight processes start at the same moment: no import time between them.
EIGHT_STARTS = """
import os, sys
from pathlib import Path
import mlflow.db, mlflow.store.tracking.sqlalchemy_store
from isic_smp.tracking.run_log import RunLog
from isic_smp.store import prepare_store

os.chdir(sys.argv[1])
gate_read, gate_write = os.pipe()
children = []
for number in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(gate_write)
            os.read(gate_read, 1)  # until the parent closes the gate
            with RunLog.start(experiment="together", run_name=f"run-{number}", params={"n": number}, tags={},
                              journal=Path(f"journal-{number}"), tracking_uri=prepare_store()) as log:
                log.log_metrics({"value": number}, step=1)
                log.log_dataset("shared", source="here", digest="0123", profile={}, context="train")
            code = 0 if log.finish() else 2
        finally:
            os._exit(code)
    children.append(pid)
os.close(gate_write)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children))
"""


@pytest.fixture(scope="session")
def started_together(tmp_path_factory) -> tuple[Path, int, str]:
    """A fresh folder in which eight first runs started at once; how many failed; what they printed.

    Made once for all of pytest's workers.
    """
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = (
        tmp_path_factory.getbasetemp().parent / f"together-{session}"
        if session
        else tmp_path_factory.mktemp("together")
    )
    report = folder / "report.json"
    with FileLock(f"{folder}.lock"):
        if not report.exists():
            # What a process leaves behind that is killed while it makes the database:
            (folder / "mlruns").mkdir(parents=True)
            (folder / "mlruns" / "mlflow.db.part").write_bytes(b"half a database")
            # A store that the person who tests has set would be used in place of the folder's own.
            without_store = {
                name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"
            }
            done = subprocess.run(
                [sys.executable, "-c", EIGHT_STARTS, str(folder), str(STARTS)],
                capture_output=True,
                text=True,
                env=without_store,
            )
            report.write_text(json.dumps([done.returncode, done.stderr]))
    return folder, *json.loads(report.read_text())


def new_store(started_together, folder: Path) -> str:
    """The URI of a SQLite store in `folder`; a copy, since making one takes seconds."""
    from isic_smp.store import prepare_store

    database = folder / "mlruns" / "mlflow.db"
    database.parent.mkdir()
    shutil.copy(started_together[0] / "mlruns" / "mlflow.db", database)
    return prepare_store(f"sqlite:///{database}")


@pytest.fixture
def store(started_together, tmp_path) -> str:
    """The URI of a SQLite store of this test's own."""
    return new_store(started_together, tmp_path)


@pytest.fixture
def start(store, tmp_path):
    """`RunLog.start` with the arguments that a test does not care about."""
    from isic_smp.tracking.run_log import RunLog

    def start(**changes):
        arguments = {
            "experiment": "tests",
            "run_name": "a run",
            "params": {},
            "tags": {},
            "journal": tmp_path / "journal",
            "tracking_uri": store,
        }
        return RunLog.start(**(arguments | changes))

    return start


@pytest.fixture
def client(store):
    from mlflow import MlflowClient

    return MlflowClient(store)
