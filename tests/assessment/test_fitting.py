"""The expected IoU: the estimator it stands on, its fit, and how it travels with a model."""

import json

import numpy as np
import pytest

from isic_smp.assessment.fitting import Fitted, fit_expected_iou
from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import ExpectedIoU, logit_of_soft_iou, soft_iou


def test_soft_iou_is_the_iou_that_drawn_truths_have_on_average():
    random = np.random.default_rng(0)
    probability = random.random((40, 40)).astype(np.float32) ** 2
    mask = probability > 0.4
    drawn = random.random((400, 40, 40)) < probability
    ious = (drawn & mask).sum((1, 2)) / (drawn | mask).sum((1, 2))
    assert soft_iou(probability, 0.4) == pytest.approx(ious.mean(), abs=0.002)


def test_soft_iou_of_sure_and_empty_maps():
    sure = np.zeros((8, 8), np.float32)
    sure[2:5, 2:5] = 1
    assert soft_iou(sure, 0.5) == 1
    assert soft_iou(np.full((8, 8), 0.3, np.float32), 0.5) == 0
    # 9 pixels at 0.8, and outside 55 at 0.1: 7.2 of 9 + 5.5
    assert soft_iou(np.where(sure > 0, 0.8, 0.1), 0.5) == pytest.approx(7.2 / 14.5)


def test_the_fit_finds_the_line_that_the_images_were_made_with():
    made = ExpectedIoU(intercept=-0.4, slope=0.7)
    soft = np.random.default_rng(0).uniform(0.3, 0.98, 3000)
    noise = np.random.default_rng(1).normal(0, 0.05, 3000)
    iou = np.clip([made.of_soft(s) for s in soft] + noise, 0, 1)
    found = fit_expected_iou(soft.tolist(), iou)
    assert found.intercept == pytest.approx(-0.4, abs=0.05)
    assert found.slope == pytest.approx(0.7, abs=0.03)


def test_few_images_move_it_little_and_none_turn_it_round():
    soft, iou = [0.9, 0.6], np.array([0.2, 0.9])
    found = fit_expected_iou(soft, iou)
    assert found.slope >= 0
    assert abs(found.intercept) < 1
    many = fit_expected_iou(soft * 100, np.tile(iou, 100))
    assert many.slope == 0
    assert many.of_soft(0.5) == pytest.approx(0.55, abs=0.01)


def test_it_travels_as_plain_json_and_old_models_have_none():
    fitted = Fitted(85, 1.3, ExpectedIoU(0.1, 0.8))
    facts = json.loads(json.dumps({"recipe": {}, **fitted.to_facts()}))
    assert Fitted.from_facts(facts) == fitted
    assert ExpectedIoU.from_facts(facts) == fitted.expected_iou
    assert Fitted.from_facts({"recipe": {}}) is None
    assert ExpectedIoU.from_facts({}) is None


@pytest.mark.parametrize("values", [{"intercept": 0.1}, {"intercept": 0.1, "slope": "steep"}])
def test_damaged_numbers_are_refused_in_words(values):
    with pytest.raises(UserError, match="expected_iou must hold the numbers intercept and slope, got"):
        ExpectedIoU.from_facts({"fitted_on_validation": {"expected_iou": values}})


def test_soft_ious_at_the_ends_stay_finite():
    assert logit_of_soft_iou(0.0) == pytest.approx(-4.595, abs=1e-3)
    assert logit_of_soft_iou(1.0) == pytest.approx(4.595, abs=1e-3)
    assert 0 < ExpectedIoU(0, 1).of_soft(0.0) < ExpectedIoU(0, 1).of_soft(1.0) < 1
