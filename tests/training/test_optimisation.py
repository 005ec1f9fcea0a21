import pytest
import torch

from isic_smp.training.optimisation import make_schedule
from isic_smp.training.recipe import Recipe


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_a_run_of_very_few_steps_has_a_learning_rate_at_each(schedule, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    course = make_schedule(optimizer, Recipe(schedule=schedule), steps)
    for _ in range(steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= 0.5
        optimizer.step()
        course.step()
