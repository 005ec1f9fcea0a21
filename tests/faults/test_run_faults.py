"""What a run promises when the world about it is not as it should be: no MLflow, another run, no network."""

import json
import shutil
import socket
import subprocess
import sys

import pytest
from filelock import FileLock

from .conftest import last_line

pytestmark = pytest.mark.slow


@pytest.fixture
def store(place, tmp_path):
    shutil.copy(place / "empty.db", tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def everything(uri):
    """The only run of a store: what was logged, by name."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    [run] = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    # Neither the machine nor the checkout is the run's own, and both may change between two runs.
    outside = ("machine", "git", "mlflow.source.git", "mlflow.log-model")
    tags = {k: v for k, v in run.data.tags.items() if not k.startswith(outside)}
    for changing in ("command", "isic_smp.key", "mlflow.runName", "working_folder"):
        tags.pop(changing, None)
    return {
        "params": run.data.params,
        "tags": tags,
        "metrics": {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
            if name != "images_per_second"
        },
        "artifacts": sorted(item.path for item in client.list_artifacts(run.info.run_id)),
        "pictures": len(client.list_artifacts(run.info.run_id, "images")),
        "status": run.info.status,
        "inputs": len(run.inputs.dataset_inputs),
        "models": len(run.outputs.model_outputs),
    }


def test_offline_is_logged_here_and_sent_later_once(run, place, store, tmp_path):
    """Trained with no store in reach, interrupted and gone on with, then sent, twice: as if MLflow had been there."""
    from isic_smp import sync

    away = ["--tracking-uri", "http://127.0.0.1:9", "--cache-dir", tmp_path / "cache"]
    out = tmp_path / "out"
    code, errors = run(*away, "--output-dir", out)
    assert code == 2
    assert "--offline" in last_line(errors)

    code, errors = run(*away, "--output-dir", out, "--offline", "--register", "lesions")
    assert code == 2 and "--register needs MLflow" in last_line(errors)
    code, errors = run(*away, "--output-dir", out, "--offline")
    assert code == 0, errors
    assert "offline: logged in" in errors and "python -m isic_smp.sync" in errors
    assert json.loads((out / "mlflow_run.json").read_text())["run_id"].startswith("offline-")

    def send(uri):
        sys.argv = ["sync", str(out), "--tracking-uri", uri]
        return sync.main()

    sync.PROG = "isic_smp.sync"
    assert send(store) == 0
    noted = json.loads((out / "mlflow_run.json").read_text())["run_id"]
    sent = everything(store)
    assert send(store) == 0
    assert everything(store) == sent, "sent twice"

    shutil.copy(place / "empty.db", tmp_path / "online.db")
    online = f"sqlite:///{tmp_path}/online.db"
    given = ["--tracking-uri", online, "--cache-dir", tmp_path / "cache"]
    assert run(*given, "--output-dir", tmp_path / "online" / "out")[0] == 0
    assert everything(online) == sent

    # Gone on with in reach of the store, it is still the same run.
    code, errors = run(
        "--tracking-uri", store, "--cache-dir", tmp_path / "cache", "--output-dir", out, "--resume"
    )
    assert code == 0, errors
    assert json.loads((out / "mlflow_run.json").read_text())["run_id"] == noted
    assert everything(store) == sent


def test_two_runs_in_one_folder_do_not_disturb_each_other(run, store, tmp_path):
    given = ["--tracking-uri", store, "--cache-dir", tmp_path / "cache", "--output-dir", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        code, errors = run(*given)
    assert code == 2
    assert "another run is going on in" in last_line(errors)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".lock"]
    assert run(*given)[0] == 0


THREE_RUNS = """
import gc, json, sys, threading
import psutil
from isic_smp.run import main

tmp, *given = sys.argv[1:]
me, left = psutil.Process(), []
for n in range(3):
    more = ["--freeze", "--feature-bank", "on"] if n else []
    sys.argv = ["run", *given, "--output-dir", f"{tmp}/out{n}", *more]
    main()
    gc.collect()  # a cache's file is closed with the last object that reads it
    files = [f.path for f in me.open_files() if tmp in f.path and "mlflow.db" not in f.path]
    threads = [t.name for t in threading.enumerate() if t.name.startswith(("isic", "mlflow-"))]
    left.append([files, threads, [" ".join(c.cmdline()) for c in me.children(recursive=True)], me.num_fds()])
print(json.dumps(left))
"""


def test_a_run_leaves_no_process_no_thread_and_no_open_file(place, store, tmp_path):
    """The first run opens what stays open for good (the store's engine, devices); the next two nothing more.

    In a process of its own, where no other test has left anything.
    """
    given = ["--data", "synthetic", "--data-dir", place / "pictures", "--recipe", place / "small.yaml"]
    given += ["--tracking-uri", store, "--cache-dir", tmp_path / "cache"]
    command = [sys.executable, "-c", THREE_RUNS, tmp_path, *given]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    assert [one[:3] for one in left] == [[[], [], []]] * 3
    assert left[2][3] <= left[1][3]


NO_NETWORK = """
import socket, sys
asked = []
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto", "socket.bind") else arguments[0]
        local = isinstance(address, (str, bytes)) and event == "socket.connect"  # a path
        # urllib3 finds out about IPv6 by binding to this machine's own address; nobody hears of it.
        if not local and (event, address) != ("socket.bind", ("::1", 0)):
            asked.append((event, address))
            raise PermissionError(f"no network here: {event} {address}")
sys.addaudithook(refuse)
from isic_smp import cli, run
try:
    cli.command(run.main, prog="run")
except SystemExit as stop:
    print("exit", stop.code)
print("asked", asked)
"""


def test_a_run_asks_nothing_of_the_network(place, store, tmp_path):
    """Every call of the interpreter's sockets is watched, from the first import to the model in MLflow."""
    words = ["--data", "synthetic", "--data-dir", place / "pictures", "--recipe", place / "small.yaml"]
    words += ["--tracking-uri", store, "--cache-dir", tmp_path / "cache", "--output-dir", tmp_path / "out"]
    # Without the variables that the tests set, which would keep libraries quiet.
    import os

    quiet = ("HF_HUB_OFFLINE", "NO_ALBUMENTATIONS_UPDATE", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI")
    environment = {k: v for k, v in os.environ.items() if k not in quiet and not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, *map(str, words)], capture_output=True, text=True, env=environment
    )
    assert "exit 0" in done.stdout, done.stderr
    assert "asked []" in done.stdout, done.stdout


def test_the_guard_sees_a_call(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        code = NO_NETWORK.partition("from isic_smp")[0] + (
            f"try: socket.create_connection(('127.0.0.1', {probe.getsockname()[1]}))\n"
            "except PermissionError as e: print(e)\nprint('asked', len(asked))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "asked 1" in done.stdout, done.stdout + done.stderr
