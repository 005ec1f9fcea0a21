"""How to look at a run: the command that opens MLflow's UI, and the address in it."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from isic_smp.tracking.store import SQLITE, sqlite_file, without_password

LOCAL_UI = "http://127.0.0.1:5000"


def ui_hint(tracking_uri: str, *, experiment_id: str, run_id: str) -> str:
    """Lines to print after a run: for a SQLite store the command that starts the UI, and the run's address.

    The UI listens on 127.0.0.1 only. Without job execution it is 2 processes instead of 10.
    """
    database = sqlite_file(tracking_uri)
    if database is None:
        return f"look: {without_password(tracking_uri).rstrip('/')}{_run_page(experiment_id, run_id)}"
    store = SQLITE + os.path.relpath(database) if database.is_relative_to(Path.cwd()) else tracking_uri
    command = f"{_mlflow_command()} ui --backend-store-uri {shlex.quote(store)}"
    return (
        f"look: MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {command}\n"
        f"then: {LOCAL_UI}{_run_page(experiment_id, run_id)}"
    )


def _run_page(experiment_id: str, run_id: str) -> str:
    return f"/#/experiments/{experiment_id}/runs/{run_id}"


def _mlflow_command() -> str:
    """`mlflow` where the shell finds this environment's own, else its path."""
    own = Path(sys.executable).parent / "mlflow"
    found = shutil.which("mlflow")
    if (found and Path(found) == own) or not own.exists():
        return "mlflow"
    return shlex.quote(os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own))
