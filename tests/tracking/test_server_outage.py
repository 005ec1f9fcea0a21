"""A real `mlflow server`, killed in the middle of a run and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
from free_port import free_port

from isic_smp.store import prepare_store
from isic_smp.tracking.run_log import RunLog

from .conftest import new_store
from .fault_proxy import FaultProxy

pytestmark = pytest.mark.slow


def start_server(port, backend, artifacts, log):
    """A real server in a process group of its own, answering."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    places = ["--backend-store-uri", backend, "--artifacts-destination", str(artifacts), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("a") as out:
        process = subprocess.Popen(
            [*command, *places], env=environment, stdout=out, stderr=out, start_new_session=True
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok:
                return process
        except requests.RequestException:
            time.sleep(0.2)
    pytest.fail(log.read_text())


def kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def server(store, tmp_path):
    """Starts and kills one server on one port; yields its URI and the two functions."""
    port = free_port()
    processes = []

    def up():
        processes.append(start_server(port, store, tmp_path / "server-artifacts", tmp_path / "server.log"))

    def down(how=signal.SIGKILL):
        os.killpg(processes[-1].pid, how)
        if how == signal.SIGKILL:
            processes[-1].wait()

    yield f"http://127.0.0.1:{port}", up, down
    for process in processes:
        kill(process)


class Ballast:
    """A file that takes all the room of a disk."""

    def __init__(self, disk):
        self.file = disk / "ballast"

    def load(self):
        with self.file.open("ab", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
            for size in (1 << 16, 1):  # then to the last byte
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(bytes(size))
            stream.write(b"0")

    def drop(self):
        self.file.unlink()


@pytest.fixture
def on_small_disk(started_together, small_disk, tmp_path):
    """A server whose store and artifacts are on a disk of 24 MB: its URI, the store's, the disk, what it says."""
    disk, said, port = small_disk(24), tmp_path / "server.log", free_port()
    store = new_store(started_together, disk)
    process = start_server(port, store, disk / "artifacts", said)
    yield f"http://127.0.0.1:{port}", store, disk, said
    kill(process)


@pytest.fixture(scope="module")
def behind_proxy(started_together, tmp_path_factory):
    """A proxy before a server that answers, and the server's folder of artifacts."""
    folder = tmp_path_factory.mktemp("behind")
    port = free_port()
    process = start_server(port, new_store(started_together, folder), folder / "artifacts", folder / "log")
    proxy = FaultProxy(port)
    yield proxy, folder / "artifacts"
    proxy.close()
    kill(process)


def picture(epoch: int) -> np.ndarray:
    return np.full((64, 64, 3), epoch, np.uint8)


def start(experiment: str, name: str, uri: str, folder: Path) -> RunLog:
    """A run whose journal lies in `folder`."""
    return RunLog.start(
        experiment=experiment,
        run_name=name,
        params={"a": 1},
        tags={},
        journal=folder / "journal",
        tracking_uri=prepare_store(uri),
    )


def train(log: RunLog, trouble: Callable[[], None]) -> None:
    """300 epochs of metrics, with a picture and a data set in each fiftieth; `trouble` comes before the hundredth.

    Fails where a call takes as long as a request that is given up (3 s): training would have waited for MLflow.
    """
    longest = 0.0
    for epoch in range(1, 301):
        if epoch == 100:
            trouble()
        began = time.monotonic()
        log.log_metrics({"train/loss": 1 / epoch, "val/dice": epoch / 300}, step=epoch)
        if epoch % 50 == 0:
            log.log_image(picture(epoch % 256), "val/case_1", epoch)
            log.log_dataset("shared", source="here", digest=f"{epoch:012d}", profile={}, context="train")
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    assert longest < 2.5, "the training thread waited for MLflow"


def check_whole(client, log: RunLog) -> None:
    """The server holds all that `train` logged, each once, and the run has ended."""
    for key in ("train/loss", "val/dice"):
        assert [m.step for m in client.get_metric_history(log.run_id, key)] == list(range(1, 301))
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED" and run.data.params == {"a": "1"}
    assert len(run.inputs.dataset_inputs) == 6


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_nothing_is_lost_or_doubled_when_the_server_goes_away(server, tmp_path, client, fault, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    uri, up, down = server
    up()
    log = start("outage", fault, uri, tmp_path)
    train(log, lambda: down(signal.SIGKILL if fault == "killed" else signal.SIGSTOP))
    if fault == "killed":
        up()
    else:
        down(signal.SIGCONT)
    assert log.finish(timeout=120)

    check_whole(client, log)
    stored = sorted(path.name for path in (tmp_path / "server-artifacts").rglob("*+step+*"))
    assert len(stored) == 12 and len(set(stored)) == 12


def test_nothing_is_lost_or_doubled_when_the_servers_disk_is_full(on_small_disk, tmp_path):
    """Full for two thirds of a run, under the server's database and its artifacts; then there is room again."""
    from mlflow import MlflowClient

    uri, store, disk, said = on_small_disk
    log = start("full", "full", uri, tmp_path)
    ballast = Ballast(disk)
    train(log, ballast.load)
    deadline = time.monotonic() + 60
    while not any(words in said.read_text() for words in ("disk is full", "No space left", "disk I/O error")):
        assert time.monotonic() < deadline, "the server never met its full disk"
        time.sleep(0.1)
    ballast.drop()
    assert log.finish(timeout=120)
    assert log.journal.count_refused() == 0

    client = MlflowClient(store)
    check_whole(client, log)
    stored = {path.name: path for path in (disk / "artifacts").rglob("*+step+*")}
    assert len(stored) == len(list((disk / "artifacts").rglob("*+step+*"))) == 12
    assert all(path.stat().st_size > 0 for path in stored.values())


FAULTS = ("slow", "500", "500 after", "cut", "garbage", "half")


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_or_doubled_whatever_the_server_answers(behind_proxy, tmp_path, fault):
    """A proxy before a real server spoils its answers for two thirds of a run; what was done then is not done twice."""
    from mlflow import MlflowClient

    proxy, artifacts = behind_proxy
    proxy.mode, proxy.spoiled = "well", 0
    log = start("faults", fault, proxy.uri, tmp_path)
    train(log, lambda: setattr(proxy, "mode", fault))
    deadline = time.monotonic() + 60
    while not proxy.spoiled and time.monotonic() < deadline:
        time.sleep(0.1)
    assert proxy.spoiled, "the fault was never met"
    proxy.mode = "well"
    assert log.finish(timeout=120)
    assert log.journal.count_refused() == 0

    client = MlflowClient(proxy.uri)
    check_whole(client, log)
    stored = [path.name for path in artifacts.rglob(f"{log.run_id}/artifacts/images/*+step+*")]
    assert len(stored) == 12 and len(set(stored)) == 12
    run = client.get_run(log.run_id)
    runs = client.search_runs([run.info.experiment_id], f"attributes.run_name = '{fault}'")
    assert len(runs) == 1
