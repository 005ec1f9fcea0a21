"""A study in PostgreSQL, as workers on several hosts share it: a real server, started for these tests."""

import multiprocessing
import time
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import TrialState
from postgres_server import Server, private_server, programs

from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.queue import ended, is_over, requeue_lost
from isic_smp.sweeping.study import open_study
from isic_smp.sweeping.worker import work
from isic_smp.training.recipe import PRESETS

pytestmark = pytest.mark.slow

COUNT, HEARTBEAT = 24, 2
DISTRIBUTIONS, CELLS = grid(seed=range(COUNT))
PLAN = Plan(base=PRESETS["report"], distributions=DISTRIBUTIONS, cells=CELLS)


@pytest.fixture
def server() -> Iterator[Server]:
    if programs() is None:
        pytest.skip("needs PostgreSQL's programs (Debian: apt-get install postgresql); .ci/run installs them")
    with private_server() as made:
        yield made


def run(url: str, heartbeat: int = HEARTBEAT) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = float(trial.suggest_categorical("seed", DISTRIBUTIONS["seed"].choices))
        for step in range(3):
            time.sleep(0.2)
            trial.report(value, step)
        return value

    study = open_study("s", PLAN, url=url, heartbeat=heartbeat)
    work(study, objective, url=url, heartbeat=heartbeat, on_ended=lambda *_: None)


def start_workers(count: int, url: str, heartbeat: int = HEARTBEAT) -> list:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=run, args=(url, heartbeat)) for _ in range(count)]
    for worker in workers:
        worker.start()
    return workers


@pytest.mark.oldest
def test_workers_that_open_an_empty_database_at_once_run_each_cell_once(server):
    workers = start_workers(4, server.url, 60)  # a heartbeat that no slow machine misses
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


@pytest.mark.parametrize("timezone", ["America/New_York", "Asia/Tokyo"])
def test_a_running_trial_is_alive_and_a_lost_one_is_noticed_in_every_time_zone(timezone):
    with private_server(timezone) as server:
        study = open_study("s", PLAN, url=server.url, heartbeat=1)
        alive, dead = study.ask(), study.ask()
        end = time.monotonic() + 6
        while time.monotonic() < end:
            study._storage.record_heartbeat(alive._trial_id)
            time.sleep(0.5)
        requeue_lost(study)
        assert [t.number for t in study.get_trials(states=(TrialState.RUNNING,))] == [alive.number]
        assert [t.number for t in study.get_trials(states=(TrialState.FAIL,))] == [dead.number]


def test_what_two_workers_find_lost_at_once_is_queued_once(server):
    """As where the server restarted under the lock that one of them holds."""
    study = open_study("s", PLAN, url=server.url, heartbeat=HEARTBEAT)
    study.tell(study.ask(), state=TrialState.FAIL)
    barrier = multiprocessing.get_context("spawn").Barrier(4)
    both = [
        multiprocessing.get_context("spawn").Process(target=requeue, args=(server.url, barrier))
        for _ in range(4)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0] * 4
    assert len(study.get_trials()) == COUNT + 1


def requeue(url: str, barrier) -> None:
    study = open_study("s", PLAN, url=url, heartbeat=HEARTBEAT)
    found = study.get_trials()
    study.get_trials = lambda **_: found  # all four have looked before the first of them queues
    barrier.wait(60)
    requeue_lost(study)
