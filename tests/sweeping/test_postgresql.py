"""A study in PostgreSQL, as workers on several hosts share it: a real server, started for these tests."""

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.queue import ended, is_over
from isic_smp.sweeping.study import open_study
from isic_smp.sweeping.worker import work
from isic_smp.training.recipe import PRESETS

pytestmark = pytest.mark.slow

COUNT, HEARTBEAT = 24, 2
DISTRIBUTIONS, CELLS = grid(seed=range(COUNT))
PLAN = Plan(base=PRESETS["report"], distributions=DISTRIBUTIONS, cells=CELLS)


class Server:
    """A cluster of its own on a free loopback port, with password authentication."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+pg8000://postgres:of-this-test@127.0.0.1:{self.port}/postgres"
        password = folder / "password"
        password.write_text("of-this-test")
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(password, "postgres", "postgres")
        self._run(
            "initdb", "-D", f"{folder}/data", "-A", "scram-sha-256", "-U", "postgres", f"--pwfile={password}"
        )

    def start(self) -> None:
        words = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        log = f"{self.folder}/log"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", log, "-o", words, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(self.programs / program), *words]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **user)


@pytest.fixture
def server() -> Iterator[Server]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("needs PostgreSQL's programs (Debian: apt-get install postgresql); .ci/run installs them")
    # Not tmp_path: its parents are closed to the user postgres.
    with tempfile.TemporaryDirectory() as folder:
        made = Server(found[-1].parent, Path(folder))
        made.start()
        yield made
        made.stop()


def run(url: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = float(trial.suggest_categorical("seed", DISTRIBUTIONS["seed"].choices))
        for step in range(3):
            time.sleep(0.2)
            trial.report(value, step)
        return value

    study = open_study("s", PLAN, url=url, heartbeat=HEARTBEAT)
    work(study, objective, url=url, heartbeat=HEARTBEAT, on_ended=lambda *_: None)


def start_workers(count: int, url: str) -> list:
    workers = [multiprocessing.get_context("spawn").Process(target=run, args=(url,)) for _ in range(count)]
    for worker in workers:
        worker.start()
    return workers


def test_workers_that_open_an_empty_database_at_once_run_each_cell_once(server):
    workers = start_workers(4, server.url)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    study = open_study("s", PLAN, url=server.url, heartbeat=HEARTBEAT)
    assert sorted(trial.value for trial in study.trials) == list(range(COUNT))


def test_kills_and_a_restart_of_the_server_lose_and_double_nothing(server):
    workers = start_workers(3, server.url)
    study = open_study("s", PLAN, url=server.url, heartbeat=HEARTBEAT)
    while len(ended(study)) < 3:
        time.sleep(0.2)
    workers[0].kill()
    time.sleep(1)
    server.stop()
    time.sleep(2)
    server.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers[1:]] == [0, 0]
    assert is_over(study)
    assert [trial.value for trial in ended(study)] == list(range(COUNT))
