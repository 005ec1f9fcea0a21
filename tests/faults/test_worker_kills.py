"""The campaign of `worker_kills.py`, in short: every trial ends exactly once, whatever becomes of its workers."""

import pytest
from postgres_server import private_server, programs
from simulated_study import Simulation

from .worker_kills import campaign, ended_once

pytestmark = pytest.mark.slow


def test_every_trial_ends_once_though_workers_are_killed_and_postgresql_restarts(tmp_path):
    if programs() is None:
        pytest.skip("needs PostgreSQL's programs (Debian: apt-get install postgresql); .ci/run installs them")
    with private_server(
        "Asia/Tokyo"
    ) as server:  # signs of life are compared whatever the server's clock shows
        simulation = Simulation(url=server.url, folder=tmp_path, trials=24)
        counts = campaign(simulation, workers=4, kill_every=2, most_kills=6, server=server, restarts=1)
    assert ended_once(counts), counts
    assert counts["kills"] and counts["restarts"] == 1


def test_every_trial_ends_once_on_sqlite(tmp_path):
    simulation = Simulation(url=f"sqlite:///{tmp_path / 'study.db'}", folder=tmp_path, trials=16)
    counts = campaign(simulation, workers=3, kill_every=2, most_kills=5)
    assert ended_once(counts), counts
    assert counts["kills"]
