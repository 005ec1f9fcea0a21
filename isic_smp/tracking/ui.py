"""How to look at a run: the command that opens MLflow's UI, and the addresses in it."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from isic_smp.store import SQLITE, sqlite_file, without_password
from isic_smp.tracking.views import VIEW_KEY

LOCAL_UI = "http://127.0.0.1:5000"
ADDRESS_VARIABLE = "ISIC_SMP_MLFLOW_ADDRESS"
"""Where a browser finds the MLflow server, when it is not where a container or a job finds it."""


def ui_hint(tracking_uri: str, *, experiment_id: str, run_id: str) -> str:
    """Lines to print after a run: where to look, and the command that starts the UI where no server shows it.

    The addresses begin with `ISIC_SMP_MLFLOW_ADDRESS` where that is set and there is a server. The UI that the
    command starts listens on 127.0.0.1 only. Without job execution it is 2 processes instead of 10.
    """
    shown = without_password(tracking_uri)
    if shown.startswith(("http://", "https://")):
        lines, server = [], os.environ.get(ADDRESS_VARIABLE) or shown
    else:
        database = sqlite_file(tracking_uri)
        if database is not None and database.is_relative_to(Path.cwd()):
            shown = SQLITE + os.path.relpath(database)
        command = f"{_mlflow_command()} ui --backend-store-uri {shlex.quote(shown)}"
        lines, server = [f"look at it: MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {command}"], LOCAL_UI
    # Without workflowType the UI opens its pages for language models.
    runs = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    view = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW_KEY}"
    return "\n".join(
        [*lines, f"this run:   {runs}/{run_id}?workflowType=machine_learning", f"all runs:   {runs}?{view}"]
    )


def _mlflow_command() -> str:
    """`mlflow` where the shell finds this environment's own, else its path."""
    own = Path(sys.executable).parent / "mlflow"
    found = shutil.which("mlflow")
    if (found and Path(found) == own) or not own.exists():
        return "mlflow"
    return shlex.quote(os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own))
