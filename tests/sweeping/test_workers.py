"""The processes that `--workers` starts: interrupted once, never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = """
import os, signal, sys, time
from pathlib import Path
from isic_smp import cli
from isic_smp.sweeping.workers import start_workers, worker_number

class Session:
    def show_new(self, shown):
        if Path("away").exists():
            raise ConnectionError("the database is away")
    def is_over(self):
        return True

# Tests may run in a background job or under nohup, whose children ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
cli.end_on_sigterm()
if worker_number() is None:
    start_workers(2, Session())
    sys.exit()

def note(word):
    with open(f"{os.getpid()}.log", "a") as file:
        file.write(word + " ")

try:
    note("ready")
    time.sleep(60)
except KeyboardInterrupt:
    note("interrupted")
    try:
        time.sleep(1)  # as long as it takes to give the trial back
        note("clean")
    except KeyboardInterrupt:
        note("again")
"""


@pytest.fixture
def parent(tmp_path):
    """The command as a terminal starts it, in a process group of its own; its two workers are ready."""
    environment = {k: v for k, v in os.environ.items() if k != "ISIC_SMP_WORKER"}
    (tmp_path / "command.py").write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, "command.py"],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    eventually(lambda: words(tmp_path) == ["ready"] * 2)
    yield process
    process.kill()
    process.wait()
    for worker in workers(tmp_path):
        if is_alive(worker):
            os.kill(worker, signal.SIGKILL)


def workers(folder: Path) -> list[int]:
    return [int(file.stem) for file in folder.glob("*.log")]


def words(folder: Path) -> list[str]:
    return [file.read_text().strip() for file in folder.glob("*.log")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ctrl_c_in_a_terminal_interrupts_each_worker_once(parent, tmp_path):
    os.killpg(parent.pid, signal.SIGINT)
    parent.wait(60)
    assert not any(map(is_alive, workers(tmp_path)))
    assert words(tmp_path) == ["ready interrupted clean"] * 2


def test_workers_end_where_their_parent_fails(parent, tmp_path):
    (tmp_path / "away").touch()
    _, said = parent.communicate(timeout=60)
    assert b"the database is away" in said
    assert not any(map(is_alive, workers(tmp_path)))
    assert words(tmp_path) == ["ready interrupted clean"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_workers_end_where_their_parent_is_killed(parent, tmp_path, how):
    os.killpg(parent.pid, how)
    eventually(lambda: words(tmp_path) == ["ready interrupted clean"] * 2)
