"""A study's queue: every trial ends exactly once, whatever becomes of its workers."""

import contextlib
import dataclasses
import signal
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
import simulated_study
from optuna.distributions import CategoricalDistribution
from optuna.pruners import MedianPruner
from optuna.trial import TrialState

from isic_smp.errors import UserError
from isic_smp.sweeping.database import lock
from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.queue import REASON, ended, first_number, is_over, queued, requeue_lost
from isic_smp.sweeping.storage import open_storage
from isic_smp.sweeping.study import CELL, PLAN, fill, open_study
from isic_smp.sweeping.worker import work
from isic_smp.training.recipe import PRESETS

DISTRIBUTIONS, CELLS = grid(seed=range(12))
HEARTBEAT = 1
SELDOM = 60
"""A heartbeat that no slow machine misses: of such a worker only `age` makes a dead one."""


def plan(count: int = 12, **changes) -> Plan:
    return Plan(base=PRESETS["report"], distributions=DISTRIBUTIONS, cells=CELLS[:count], **changes)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def run(url: str, objective, count: int = 12, heartbeat: int = HEARTBEAT) -> None:
    study = open_study("s", plan(count), url=url, heartbeat=heartbeat)
    work(study, objective, url=url, heartbeat=heartbeat, on_ended=lambda *_: None)


def age(url: str) -> None:
    """Let an hour pass since every sign of life."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")


def quick(trial: optuna.Trial) -> float:
    return float(trial.suggest_categorical("seed", DISTRIBUTIONS["seed"].choices))


def slow(trial: optuna.Trial) -> float:
    time.sleep(0.2)
    return quick(trial)


def test_several_workers_run_each_cell_once(url):
    context = simulated_study.context()
    # All open the empty file, and none that a slow machine holds up counts as dead.
    workers = [context.Process(target=run, args=(url, slow, 12, SELDOM)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    study = open_study("s", plan(), url=url, heartbeat=SELDOM)
    assert len(study.trials) == 12
    assert sorted(trial.value for trial in study.trials) == list(range(12))


def test_a_killed_workers_trial_is_taken_over_under_its_first_number(url):
    worker = simulated_study.context().Process(target=run, args=(url, _hang_on_second, 3, SELDOM))
    worker.start()
    study = open_study("s", plan(3), url=url, heartbeat=SELDOM)
    while len(study.get_trials(states=(TrialState.COMPLETE,))) < 1 or not study.get_trials(
        states=(TrialState.RUNNING,)
    ):
        assert worker.is_alive()
        time.sleep(0.02)
    worker.kill()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert requeue_lost(study) == 0  # it may be alive
    assert not is_over(study)
    age(url)
    run(url, quick, 3, SELDOM)
    assert is_over(study)
    assert [first_number(trial) for trial in ended(study)] == [0, 1, 2]
    assert [trial.value for trial in ended(study)] == [0.0, 1.0, 2.0]
    assert len(queued(study)) == 3


def _hang_on_second(trial: optuna.Trial) -> float:
    value = quick(trial)
    if value == 1:
        time.sleep(60)
    return value


def test_what_raises_is_recorded_and_not_repeated(url):
    def objective(trial: optuna.Trial) -> float:
        if quick(trial) == 1:
            trial.set_user_attr(REASON, "RuntimeError: out of memory")
            raise RuntimeError("out of memory")
        return 1.0

    run(url, objective, 3)
    study = open_study("s", plan(3), url=url, heartbeat=HEARTBEAT)
    assert [trial.state.name for trial in ended(study)] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert len(study.trials) == 3


def test_what_is_interrupted_waits_again(url):
    def objective(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(url, objective, 2)
    run(url, quick, 2)
    study = open_study("s", plan(2), url=url, heartbeat=HEARTBEAT)
    assert [trial.value for trial in ended(study)] == [0.0, 1.0]


def test_a_trial_that_kills_every_worker_is_given_up(url):
    study = open_study("s", plan(1), url=url, heartbeat=HEARTBEAT)
    for _ in range(20):
        waiting = study.get_trials(states=(TrialState.WAITING,))
        if not waiting:
            break
        study.tell(study.ask(), state=TrialState.FAIL)  # as a stale trial is left
        with lock(url, "s"):
            requeue_lost(study)
    [only] = ended(study)
    assert only.state == TrialState.FAIL
    assert "died 5 times" in only.user_attrs[REASON]
    assert is_over(study)


def test_a_trial_that_gets_further_each_time_is_not_given_up(url):
    """As on machines that are taken away every few minutes: it goes on from its checkpoint."""
    study = open_study("s", plan(1), url=url, heartbeat=HEARTBEAT)
    for epoch in range(8):
        trial = study.ask()
        trial.report(0.5, epoch)
        study.tell(trial, state=TrialState.FAIL)
        requeue_lost(study)
    assert [trial.state for trial in queued(study)] == [TrialState.WAITING]


def test_a_worker_that_dies_between_claim_and_training_is_noticed(url):
    study = open_study("s", plan(1), url=url, heartbeat=SELDOM)
    study.ask()  # and it dies: no thread ever gives a sign of life
    assert requeue_lost(study) == 0
    age(url)
    assert requeue_lost(study) == 1
    assert [trial.state for trial in queued(study)] == [TrialState.WAITING]


def test_a_cell_is_queued_once_whoever_else_does_the_same(url, monkeypatch):
    """As where two open a study at once and the lock between them is gone."""
    study = open_study("s", plan(2), url=url, heartbeat=HEARTBEAT)
    monkeypatch.setattr(study, "get_trials", lambda **_: [])
    fill(study, plan(3))
    monkeypatch.undo()
    assert [trial.user_attrs[CELL] for trial in study.get_trials()] == [0, 1, 2]


def test_the_same_failure_again_and_again_stops_the_worker(url):
    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr(REASON, "no weights" if trial.number else "another one before it")
        raise RuntimeError

    with pytest.raises(UserError, match="5 trials in a row failed: no weights"):
        run(url, objective)
    study = open_study("s", plan(), url=url, heartbeat=HEARTBEAT)
    assert len(study.get_trials(states=(TrialState.WAITING,))) == 6


def test_a_study_is_filled_up_but_not_mixed(url):
    open_study("s", plan(2), url=url, heartbeat=HEARTBEAT)
    study = open_study("s", plan(3), url=url, heartbeat=HEARTBEAT)
    assert len(study.trials) == 3
    other = Plan(
        base=PRESETS["report"],
        distributions={"seed": CategoricalDistribution((0, 1))},
        cells=(),
    )
    with pytest.raises(UserError, match="tries something else"):
        open_study("s", other, url=url, heartbeat=HEARTBEAT)
    pruned = dataclasses.replace(plan(2), pruner=MedianPruner())
    with pytest.raises(UserError, match=r"\(pruner NopPruner there, MedianPruner here\)"):
        open_study("s", pruned, url=url, heartbeat=HEARTBEAT)


def test_a_study_of_a_release_with_fewer_settings_is_gone_on_with(url):
    study = open_study("s", plan(2), url=url, heartbeat=HEARTBEAT)
    known = study.user_attrs[PLAN]
    study.set_user_attr(PLAN, known | {"base": {k: v for k, v in known["base"].items() if k != "init_from"}})
    assert len(open_study("s", plan(3), url=url, heartbeat=HEARTBEAT).trials) == 3
    begun = dataclasses.replace(plan(2), base=dataclasses.replace(plan().base, init_from="runs/one"))
    with pytest.raises(UserError, match=r"\(init_from None there, runs/one here\)"):
        open_study("s", begun, url=url, heartbeat=HEARTBEAT)


@pytest.mark.parametrize(
    "url", ["study.db", "mysql://u@h/d", "sqlite:///:memory:", "postgresql+pg8000://u:secret@127.0.0.1:1/d"]
)
def test_storages_that_cannot_be_used_are_refused_in_one_line(url, monkeypatch):
    monkeypatch.setattr("isic_smp.sweeping.database.PATIENCE", 0.0)
    with pytest.raises(UserError) as caught:
        open_storage(url, heartbeat=HEARTBEAT)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
