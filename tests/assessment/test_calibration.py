"""Calibration of pixels whose true frequencies are known."""

import numpy as np
import pytest

from isic_smp.assessment.calibration import BINS, LogitCounts


def counted(temperature: float, pixels: int = 200_000) -> LogitCounts:
    """Pixels that are lesion as often as logit / temperature says."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (2, pixels // 2)).astype(np.float32)
    counts = LogitCounts()
    for some in logits:
        counts.add(some, random.random(len(some)) < 1 / (1 + np.exp(-some / temperature)))
    return counts


def test_a_calibrated_network_has_no_error_and_needs_no_temperature():
    counts = counted(1)
    assert counts.calibration_error() < 0.005
    assert counts.fit_temperature() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_the_temperature_that_was_put_in_is_found_and_mends_the_error(temperature):
    counts = counted(temperature)
    found = counts.fit_temperature()
    assert found == pytest.approx(temperature, rel=0.03)
    assert counts.calibration_error() > 0.05
    assert counts.calibration_error(found) < 0.005
    assert counts.loss(found) < counts.loss()


def test_error_and_loss_by_hand():
    counts = LogitCounts()
    # 0.9 said of four pixels, three are lesion; 0.3 said of four, two are.
    said = np.repeat([0.9, 0.3], 4)
    truth = np.array([1, 1, 1, 0, 1, 1, 0, 0], bool)
    counts.add(np.log(said / (1 - said)), truth)
    assert counts.calibration_error() == pytest.approx((0.15 + 0.2) / 2, abs=2e-3)
    assert counts.loss() == pytest.approx(-np.log(np.where(truth, said, 1 - said)).mean(), abs=5e-3)
    found = counts.reliability()
    full = found.share > 0
    assert full.sum() == 2
    assert found.share[full].tolist() == [0.5, 0.5]
    assert found.frequency[full].tolist() == [0.5, 0.75]
    assert np.flatnonzero(full).tolist() == [int(0.3 * BINS), int(0.9 * BINS)]


def test_logits_beyond_all_bounds_are_counted():
    counts = LogitCounts()
    counts.add(np.array([-1e9, 1e9]), np.array([False, True]))
    assert counts.counts.sum() == 2
    assert counts.calibration_error() < 1e-6
