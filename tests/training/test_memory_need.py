"""Whether a training fits is said before it begins: estimated from the network itself, against what is really free."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import draw_pictures, write_recipe
from test_fit import CPU, SMALL, build, same, state_of

from isic_smp.errors import UserError
from isic_smp.training import memory_need
from isic_smp.training.distributed import Ranks
from isic_smp.training.memory_need import check_memory, step_bytes


def test_what_a_step_takes_grows_with_the_picture_and_shrinks_with_a_frozen_encoder():
    model = build(SMALL)
    before = state_of(model)
    step = step_bytes(model, SMALL)
    assert step > 32 * 32 * 8 * 4  # the last decoder step's map alone: 8 channels of float32
    assert step_bytes(model, dataclasses.replace(SMALL, size=64)) == pytest.approx(4 * step, rel=0.15)
    frozen = step_bytes(model, dataclasses.replace(SMALL, freeze=True))
    assert 0.3 * step < frozen < 0.8 * step
    assert same(before, state_of(model)) and model.training


def test_the_estimate_itself_never_takes_what_a_large_picture_would(monkeypatch):
    model, recipe = build(SMALL), dataclasses.replace(SMALL, size=256)
    whole = step_bytes(model, recipe)
    sides = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[-1]))
    monkeypatch.setattr(memory_need, "PROBE", 64)
    assert step_bytes(model, recipe) == pytest.approx(whole, rel=0.05)
    assert set(sides) == {64}


def test_it_is_refused_warned_of_or_passed_by_what_is_free(monkeypatch):
    model = build(SMALL)

    def say(free: float) -> str | None:
        monkeypatch.setattr(memory_need, "free_bytes", lambda: int(free))
        return check_memory(model, SMALL, CPU, Ranks(), images=10**6)

    with pytest.raises(UserError, match=r"needs about .* GB more memory, and 0.1 GB are free") as refused:
        say(1e8)
    assert "\n" not in str(refused.value)
    needed = float(str(refused.value).split("about ")[1].split()[0]) * 1e9
    assert "may be killed" in str(say(needed))
    assert say(2 * needed) is None
    with pytest.raises(UserError):  # two processes share what is free
        monkeypatch.setattr(memory_need, "free_bytes", lambda: int(needed))
        check_memory(model, SMALL, CPU, Ranks(world=2, local_world=2), images=10**6)


def test_a_batch_that_fits_is_named(monkeypatch):
    model, recipe = build(SMALL), dataclasses.replace(SMALL, size=128, batch_size=4096)
    monkeypatch.setattr(memory_need, "free_bytes", lambda: int(2e9))
    with pytest.raises(UserError, match="--batch-size ") as refused:
        check_memory(model, recipe, CPU, Ranks(), images=10**6)
    fits = int(str(refused.value).split("--batch-size ")[1].split()[0])
    assert check_memory(model, recipe, CPU, Ranks(), images=fits) is None, (
        "no batch is larger than all images"
    )
    assert (
        check_memory(model, dataclasses.replace(recipe, batch_size=fits), CPU, Ranks(), images=10**6) is None
    )
    with pytest.raises(UserError):
        check_memory(model, dataclasses.replace(recipe, batch_size=4 * fits), CPU, Ranks(), images=10**6)


@pytest.fixture
def group():
    """Makes a control group of so many bytes; a function for `preexec_fn` that puts a process into it."""
    made = []

    def make(limit: int):
        v1 = Path("/sys/fs/cgroup/memory")
        root, file = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v1.parent, "memory.max")
        folder = root / f"isic-smp-test-{os.getpid()}"
        try:
            folder.mkdir()
            made.append(folder)
            (folder / file).write_text(str(limit))
        except OSError as error:
            pytest.skip(
                f"needs to make a control group with a memory limit, which is not allowed here: {error}"
            )
        return lambda: (folder / "cgroup.procs").write_text(str(os.getpid()))

    yield make
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    draw_pictures(folder / "pictures")
    write_recipe(folder / "small.yaml")
    return folder


def run(place: Path, *words: str, start) -> subprocess.CompletedProcess[str]:
    given = ["--data", "synthetic", "--data-dir", "pictures", "--cache-dir", "cache", "--offline"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-m", "isic_smp.run", *given, *words],
        cwd=place, env=environment, capture_output=True, text=True, timeout=900, preexec_fn=start,
    )  # fmt: skip


@pytest.mark.slow
def test_in_a_gigabyte_a_run_that_needs_more_ends_in_one_line(place, group):
    words = ["--encoder-weights", "none", "--size", "512", "--batch-size", "64"]
    done = run(place, *words, start=group(1_500_000_000))
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert ": error: training needs about " in line and "GB are free" in line
    assert float(line.split(" GB are free")[0].split()[-1]) < 1.5


@pytest.mark.slow
def test_on_one_core_a_run_ends_with_one_thread(place):
    core = min(os.sched_getaffinity(0))
    done = run(place, "--recipe", "small.yaml", start=lambda: os.sched_setaffinity(0, {core}))
    assert done.returncode == 0, done.stderr
    assert ", 1 thread" in done.stderr
