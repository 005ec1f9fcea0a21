"""The short form of the campaign of kills; the whole one is a command, see `kill_run.py`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_and_interrupted_runs_end_as_if_nothing_had_been(tmp_path):
    campaign = Path(__file__).with_name("kill_run.py")
    words = ["--kills", "6", "--signals", "2", "--seed", "1", "--place", str(tmp_path / "place")]
    done = subprocess.run(
        [sys.executable, str(campaign), *words], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "6 kills in " in done.stdout and "2 signals" in done.stdout
