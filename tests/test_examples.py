"""The examples, run as they stand."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "registry_to_mask.py"


@pytest.mark.slow
def test_from_training_to_a_mask_elsewhere(clean_python, tmp_path):
    command = [sys.executable, SCRIPT, "--out", "out", "--cache-dir", "cache", "--python", clean_python]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "out" / "log").read_text()[-3000:]
    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert steps == [
        "trained",
        "promoted",
        "predicted",
        "elsewhere",
        "pyfunc",
        "pytorch",
        "served",
        "trained",
        "refused",
    ]
    assert "version 1 stays: it is worse" in done.stdout.splitlines()[-1]
    assert set(np.unique(cv2.imread(str(tmp_path / "out" / "mask.png"), cv2.IMREAD_UNCHANGED))) <= {0, 255}

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and "out exists: choose another --out" in again.stderr


@pytest.mark.slow
def test_an_environment_that_knows_isic_smp_is_no_clean_one(tmp_path):
    elsewhere = SCRIPT.with_name("elsewhere.py")
    command = [sys.executable, elsewhere, "models:/lesions@champion", tmp_path, "lesion.jpg"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "isic_smp is installed here" in done.stderr


@pytest.mark.slow
def test_what_to_give_the_script_elsewhere_is_said():
    done = subprocess.run(
        [sys.executable, SCRIPT.with_name("elsewhere.py"), "models:/lesions@champion"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "the following arguments are required: OUT, IMAGE" in done.stderr
