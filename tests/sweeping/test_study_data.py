"""A study and the data that it works on: trials on other data do not get into it."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from isic_smp.data.isic2016 import LesionData
from isic_smp.data.synthetic import make_synthetic
from isic_smp.errors import UserError
from isic_smp.sweeping import session
from isic_smp.sweeping.options import Options
from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.study import open_study
from isic_smp.sweeping.study_contents import DATA
from isic_smp.sweeping.trial import SEED
from isic_smp.training.recipe import PRESETS

DISTRIBUTIONS, CELLS = grid(seed=range(3))


def plan(count: int = 3) -> Plan:
    return Plan(base=PRESETS["report"], distributions=DISTRIBUTIONS, cells=CELLS[:count])


def data(name: str, mark: str) -> LesionData:
    official = {"train": 810, "val": 90, "test": 379}
    return LesionData(name, Path(), (), (), (), fingerprint=mark * 64, official=official)


REAL, DRAWN = data("isic2016", "a"), data("synthetic", "d")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_other_data_than_the_study_s_are_refused_before_anything_is_queued(url):
    open_study("s", plan(1), url=url, heartbeat=15, data=REAL)
    with pytest.raises(UserError) as caught:
        open_study("s", plan(), url=url, heartbeat=15, data=DRAWN)
    said = str(caught.value)
    assert f"{REAL.describe()}, fingerprint aaaaaaaaaaaa… there" in said
    assert f"{DRAWN.describe()}, dddddddddddd… here" in said
    assert "--data-dir" in said and "another --study" in said and "\n" not in said
    assert len(open_study("s", plan(1), url=url, heartbeat=15, data=REAL).trials) == 1


def test_a_study_of_a_release_that_noted_no_data_takes_the_first(url):
    open_study("s", plan(), url=url, heartbeat=15)
    study = open_study("s", plan(), url=url, heartbeat=15, data=REAL)
    assert study.user_attrs[DATA] == {"fingerprint": "a" * 64, "description": REAL.describe()}
    with pytest.raises(UserError, match="works on other data"):
        open_study("s", plan(), url=url, heartbeat=15, data=DRAWN)


def test_of_workers_that_start_at_once_on_different_data_one_sets_the_study_s(url):
    at_once = threading.Barrier(3)

    class Slow(LesionData):
        """Between the look for the study's data and the note of its own, a worker stands still."""

        def describe(self) -> str:
            time.sleep(1)
            return super().describe()

    def start(mark: str) -> str | None:
        here = Slow(**vars(data("isic2016", mark)))
        at_once.wait(60)
        try:
            open_study("s", plan(), url=url, heartbeat=15, data=here)
        except UserError:
            return None
        return here.fingerprint

    with ThreadPoolExecutor(3) as pool:
        [joined] = [mark for mark in pool.map(start, "abc") if mark]
    assert open_study("s", plan(), url=url, heartbeat=15).user_attrs[DATA]["fingerprint"] == joined


def test_a_command_with_other_data_is_refused(url, tmp_path):
    make_synthetic(tmp_path / "drawn", train=2, val=1, test=1, size=32)
    open_study("s", plan(), url=url, heartbeat=15, data=REAL)
    options = Options(data_dir=tmp_path / "drawn", cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="synthetic: train 2 of 2"):
        session.Session.open(options, plan(), "s", folder=tmp_path, url=url)


def test_a_search_that_is_over_trains_its_winner_under_the_seeds_that_are_asked_for_later(url, tmp_path):
    search = plan(0)
    study = open_study("s", search, url=url, heartbeat=15)
    values = {"state": optuna.trial.TrialState.COMPLETE, "distributions": DISTRIBUTIONS, "value": 0.8}
    study.add_trial(optuna.create_trial(params={"seed": 0}, user_attrs={"val_iou": 0.8}, **values))

    def asked(*seeds: int) -> list[int]:
        wanted = dataclasses.replace(search, confirm_seeds=seeds)
        here = session.Session(Options(), wanted, REAL, study, None, folder=tmp_path, url=url)
        while here._confirm(study):
            pass
        return [trial.user_attrs[SEED] for trial in study.trials if SEED in trial.user_attrs]

    assert asked(1) == [1]
    assert asked(1, 2) == [1, 2]


@pytest.mark.parametrize(("found", "asked"), [(REAL, "isic2016"), (DRAWN, "auto")])
def test_no_pictures_are_drawn_where_the_images_vanish_between_two_trials(
    monkeypatch, tmp_path, found, asked
):
    runners = []
    monkeypatch.setattr(session, "work", lambda study, runner, **_: runners.append(runner))
    study, run = SimpleNamespace(study_name="s"), SimpleNamespace(tracking_uri="", run_id="r")
    session.Session(Options(), plan(), found, study, run, folder=tmp_path, url="").work()
    assert runners[0].setup.data == asked
