"""A trial: what becomes of what its training raises."""

import subprocess
import sys

import pytest
import torch
from optuna.trial import TrialState
from simulated_study import STUDY, NoSetup, Simulation

from isic_smp.errors import FolderInUse
from isic_smp.sweeping.queue import REASON, ended
from isic_smp.sweeping.trial import Outcome, TrialRunner
from isic_smp.sweeping.worker import work


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
