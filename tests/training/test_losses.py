import math

import pytest
import torch
from torch.nn import functional as F

from isic_smp.errors import UserError
from isic_smp.training.losses import LOSSES, make_loss

TRUTH = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
NAMES = sorted(LOSSES)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    return logits, (torch.rand(3, 1, 8, 8, generator=generator) < 0.3).float()


@pytest.mark.parametrize("name", NAMES)
def test_a_better_prediction_costs_less_and_a_perfect_one_nothing(name, batch):
    _, truth = batch
    loss, toward = make_loss(name), 2 * truth - 1
    costs = [loss(scale * toward, truth).item() for scale in (-12, -1, 0.5, 12)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 1e-3 < costs[0]


# Two of four pixels are lesion; the network says p = 3/4 on those, 1/4 on the others.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bce", -math.log(3 / 4)),
        ("dice", 1 - 2 * 1.5 / (2 + 2)),
        ("jaccard", 1 - 1.5 / (2 + 2 - 1.5)),
        ("bce_dice", -math.log(3 / 4) + 1 / 4),
        ("focal", -((1 / 4) ** 2) * math.log(3 / 4)),
        # every pixel is short of the margin of 6 logits by the same share of it
        ("lovasz", 1 - math.log(3) / 6),
        ("tversky", 1 - 1.5 / (1.5 + 0.3 * 0.5 + 0.7 * 0.5)),
    ],
)
def test_value_of_a_case_worked_by_hand(name, expected):
    logits = math.log(3) * (2 * TRUTH - 1)
    assert make_loss(name)(logits, TRUTH).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1, 10, 100])
def test_bce_is_torchs_own_with_its_gradient(batch, scale):
    logits, truth = batch
    ours, theirs = (scale * logits).requires_grad_(), (scale * logits).requires_grad_()
    loss, expected = make_loss("bce")(ours, truth), F.binary_cross_entropy_with_logits(theirs, truth)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=2e-7)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_tversky_punishes_a_miss_more_than_a_false_alarm():
    sure = 20 * (2 * TRUTH - 1)
    missed, false_alarm = sure.clone(), sure.clone()
    missed[0, 0, 0, 0] *= -1
    false_alarm[0, 0, 1, 0] *= -1
    loss = make_loss("tversky")
    assert loss(missed, TRUTH) > loss(false_alarm, TRUTH)


def test_lovasz_is_the_mean_over_images(batch):
    logits, truth = batch
    loss = make_loss("lovasz")
    alone = torch.stack([loss(logits[i : i + 1], truth[i : i + 1]) for i in range(len(logits))])
    assert loss(logits, truth).item() == pytest.approx(alone.mean().item(), rel=1e-6)


def test_lovasz_asks_a_pixel_for_a_margin_and_no_more(batch):
    truth = batch[1]
    for logit, satisfied in ((5.9, False), (6.1, True)):
        sure = (logit * (2 * truth - 1)).requires_grad_()
        make_loss("lovasz")(sure, truth).backward()
        assert bool((sure.grad == 0).all()) is satisfied


@pytest.mark.parametrize("lesion", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_for_empty_and_full_masks(name, lesion, scale, batch):
    logits = (scale * batch[0]).requires_grad_()
    loss = make_loss(name)(logits, torch.full_like(logits, lesion))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_is_float32_under_autocast(name, batch):
    logits, truth = batch[0].bfloat16(), batch[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make_loss(name)(logits, truth)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, make_loss(name)(logits.float(), truth))


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match=r"no loss 'dise': expected one of bce, dice"):
        make_loss("dise")
