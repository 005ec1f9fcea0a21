"""A profile of real steps: what the trace holds and what the table says."""

import dataclasses
import json

import pytest
import torch
from test_fit import CPU, SMALL, Silent, build, pixel_batches

from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.fit import fit
from isic_smp.training.profile import AHEAD, MAIN, TRACE, StepProfiler


@pytest.fixture
def profiled(small_caches, tmp_path):
    def run(steps, **changes):
        recipe = dataclasses.replace(SMALL, **changes)
        model = build(recipe)
        said = []
        profiler = StepProfiler(Silent(), model=model, steps=steps, folder=tmp_path, say=said.append)
        fit(
            model,
            recipe,
            *pixel_batches(recipe, model, small_caches),
            device=CPU,
            checkpoints=Checkpoints(tmp_path),
            fingerprint="data",
            on_epoch=profiler.logged(lambda record, model: None),
            progress=profiler,
        )
        [table] = said
        return model, profiler, table, json.loads((tmp_path / TRACE).read_text())

    return run


def test_the_trace_holds_the_steps_asked_for_and_every_part_has_its_time(profiled):
    model, profiler, table, trace = profiled(2, epochs=2, batch_size=4)
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert names.count("isic_smp: backward") == names.count("isic_smp: optimizer") == 2
    assert any(name.startswith("aten::") for name in names)
    for name in MAIN + AHEAD:
        assert profiler.parts[name] > 0, name
        assert name in table
    assert "profile of 2 steps of 5" in table
    step = sum(profiler.step_seconds[1:])
    assert sum(profiler.parts[name] for name in MAIN) <= step * 1.01, "parts of a step overlap"
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert sum(hooks) == 0, "labels are gone afterwards"
    assert torch.isfinite(model(torch.zeros(1, 3, 32, 32))).all()


def test_an_epoch_shorter_than_the_profile_is_profiled_as_far_as_it_goes(profiled):
    _, profiler, table, _ = profiled(100, epochs=1, batch_size=10)
    assert profiler.traced == 1  # two steps, the first of which warms up
    assert "profile of 1 steps of 2" in table
