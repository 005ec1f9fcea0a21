"""A real `mlflow server`, killed in the middle of a run and started again."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import requests

from isic_smp.store import prepare_store
from isic_smp.tracking.run_log import RunLog

from .test_store import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def server(store, tmp_path):
    """Starts and kills one server on one port; yields its URI and the two functions."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    processes = []

    def up():
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        places = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "server-artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = (tmp_path / "server.log").open("a")
        processes.append(
            subprocess.Popen(
                [*command, *places, "--workers", "1"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{uri}/health", timeout=1).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        pytest.fail((tmp_path / "server.log").read_text())

    def down(how=signal.SIGKILL):
        os.killpg(processes[-1].pid, how)
        if how == signal.SIGKILL:
            processes[-1].wait()

    yield uri, up, down
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def picture(epoch: int) -> np.ndarray:
    return np.full((64, 64, 3), epoch, np.uint8)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_nothing_is_lost_or_doubled_when_the_server_goes_away(server, tmp_path, client, fault, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    uri, up, down = server
    up()
    log = RunLog.start(
        experiment="outage",
        run_name=fault,
        params={"a": 1},
        tags={},
        journal=tmp_path / "journal",
        tracking_uri=prepare_store(uri),
    )
    longest = 0.0
    for epoch in range(1, 301):
        if epoch == 100:
            down(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        began = time.monotonic()
        log.log_metrics({"train/loss": 1 / epoch, "val/dice": epoch / 300}, step=epoch)
        if epoch % 50 == 0:
            log.log_image(picture(epoch % 256), "val/case_1", epoch)
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    assert longest < 1, "the training thread waited for MLflow"
    if fault == "killed":
        up()
    else:
        down(signal.SIGCONT)
    assert log.finish(timeout=120)

    for key in ("train/loss", "val/dice"):
        assert [m.step for m in client.get_metric_history(log.run_id, key)] == list(range(1, 301))
    stored = sorted(path.name for path in (tmp_path / "server-artifacts").rglob("*+step+*"))
    assert len(stored) == 12 and len(set(stored)) == 12
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED" and run.data.params == {"a": "1"}
