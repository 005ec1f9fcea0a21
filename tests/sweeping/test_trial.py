"""A trial: what becomes of what its training raises."""

import errno
import subprocess
import sys

import pytest
import torch
from optuna.trial import TrialState
from simulated_study import STUDY, NoSetup, Simulation

from isic_smp.errors import FolderInUse, UserError
from isic_smp.files import write_atomically
from isic_smp.sweeping.queue import REASON, ended
from isic_smp.sweeping.trial import Outcome, TrialRunner
from isic_smp.sweeping.worker import work
from isic_smp.training.checkpoint import Checkpoints


def test_a_trial_that_runs_out_of_memory_is_recorded_and_the_others_go_on(tmp_path):
    simulation = Simulation(url=f"sqlite:///{tmp_path / 'study.db'}", folder=tmp_path, trials=3)

    def train(recipe, setup, after_epoch) -> Outcome:
        if recipe.seed == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB")
        return Outcome("", 0, 0.5, 0.5, 1, 1.0)

    study = simulation.open()
    runner = TrialRunner(simulation.plan(), NoSetup(), tmp_path, study_name=STUDY, train=train)
    work(study, runner, url=simulation.url, heartbeat=1, on_ended=lambda *_: None)
    assert [trial.state for trial in ended(study)] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    reason = ended(study)[1].user_attrs[REASON]
    assert reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"


@pytest.mark.parametrize("told", ["as it is", "in a line", "by torch"])
def test_a_full_disk_stops_the_worker_and_its_trial_waits(tmp_path, told):
    simulation = Simulation(url=f"sqlite:///{tmp_path / 'study.db'}", folder=tmp_path, trials=3)
    full, trained = True, []

    def train(recipe, setup, after_epoch) -> Outcome:
        trained.append(recipe.seed)
        if full and recipe.seed == 1:
            if told == "by torch":
                (tmp_path / ".last.pt.part").symlink_to("/dev/full")
                Checkpoints(tmp_path).save_last({"model": torch.zeros(10**6)})
            refusal = OSError(errno.ENOSPC, "No space left on device")
            if told == "as it is":
                raise refusal
            write_atomically(tmp_path / "file", lambda _: throw(refusal))
        return Outcome("", 0, 0.5, 0.5, 1, 1.0)

    def go() -> list[TrialState]:
        study = simulation.open()
        runner = TrialRunner(simulation.plan(), NoSetup(), tmp_path, study_name=STUDY, train=train)
        work(study, runner, url=simulation.url, heartbeat=1, on_ended=lambda *_: None)
        return [trial.state for trial in ended(study)]

    with pytest.raises(OSError if told == "as it is" else UserError):
        go()
    assert trained == [0, 1]
    full = False
    assert go() == [TrialState.COMPLETE] * 3
    assert sorted(trained) == [0, 1, 1, 2]


def throw(error: Exception):
    raise error


def test_a_trial_taken_from_a_worker_that_lives_after_all_waits_for_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("isic_smp.sweeping.trial.WAIT", 0.01)
    simulation = Simulation(url=f"sqlite:///{tmp_path / 'study.db'}", folder=tmp_path, trials=1)
    asked = []

    def train(recipe, setup, after_epoch) -> Outcome:
        asked.append(setup.output_dir)
        if len(asked) < 3:
            raise FolderInUse("another run is going on")
        return Outcome("", 0, 0.5, 0.5, 1, 1.0)

    study = simulation.open()
    runner = TrialRunner(simulation.plan(), NoSetup(), tmp_path, study_name=STUDY, train=train)
    work(study, runner, url=simulation.url, heartbeat=1, on_ended=lambda *_: None)
    assert [trial.state for trial in ended(study)] == [TrialState.COMPLETE]
    assert len(asked) == 3


@pytest.mark.parametrize("moment", ["while it trains", "while it tells"])
def test_a_worker_whose_trial_was_taken_over_goes_on_with_the_next(tmp_path, monkeypatch, moment):
    simulation = Simulation(url=f"sqlite:///{tmp_path / 'study.db'}", folder=tmp_path, trials=2)
    study, lost = simulation.open(), []

    def lose(trial_id):
        other = simulation.open()  # of another worker, which takes this one for dead
        other._storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
        lost.append(trial_id)

    def train(recipe, setup, after_epoch) -> Outcome:
        if not lost and moment == "while it trains":
            lose(study.get_trials(states=[TrialState.RUNNING])[0]._trial_id)
        return Outcome("", 0, 0.5, 0.5, 1, 1.0)

    if moment == "while it tells":
        tell = study._storage.set_trial_state_values

        def late(trial_id, state, values=None):
            if not lost and state == TrialState.COMPLETE:
                lose(trial_id)
            return tell(trial_id, state, values)

        monkeypatch.setattr(study._storage, "set_trial_state_values", late)
    runner = TrialRunner(simulation.plan(), NoSetup(), tmp_path, study_name=STUDY, train=train)
    work(study, runner, url=simulation.url, heartbeat=1, on_ended=lambda *_: None)
    assert len(lost) == 1
    # The lost one was tried again.
    assert sum(trial.state == TrialState.COMPLETE for trial in ended(study)) == 2


def test_what_waits_for_trials_needs_no_torch():
    """So that many workers start at once on a machine that only simulates, and a sweep's options at once."""
    code = "import sys, isic_smp.sweeping.worker, isic_smp.sweeping.study; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
