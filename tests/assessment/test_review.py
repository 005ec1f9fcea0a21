"""What a ranking finds, on numbers small enough to count by hand."""

import numpy as np
import pytest

from isic_smp.assessment.review import Review

TRUE = np.array([0.9, 0.8, 0.5, 0.95, 0.3, 0.85, 0.88, 0.7, 0.6, 0.92])


def test_the_best_ranking_and_the_opposite_one():
    best, opposite = Review(TRUE.copy(), TRUE), Review(1 - TRUE, TRUE)
    assert best.rank_correlation() == pytest.approx(1)
    assert opposite.rank_correlation() == pytest.approx(-1)
    np.testing.assert_allclose(best.curve(), best.best_curve())
    assert (best.failures(), best.looked_at(), best.found()) == (3, 1, 1)
    assert (best.looked_at(0.3), best.found(0.3), opposite.found(0.3)) == (3, 3, 0)
    assert best.curve().mean() < best.random_risk() < opposite.curve().mean()


def test_the_curve_is_the_mean_risk_of_the_most_trusted():
    review = Review(np.array([0.2, 0.9, 0.5]), np.array([0.4, 0.8, 0.9]))
    np.testing.assert_allclose(review.curve(), [0.2, 0.15, 0.3])
    np.testing.assert_allclose(review.best_curve(), [0.1, 0.15, 0.3])
    assert review.random_risk() == pytest.approx(0.3)
    assert review.mean_error() == pytest.approx((0.2 + 0.1 + 0.4) / 3)


def test_a_tenth_of_331_is_34_and_equal_estimates_have_no_rank():
    assert Review(np.zeros(331), np.zeros(331)).looked_at() == 34
    assert Review(np.zeros(330), np.zeros(330)).looked_at() == 33
    assert Review(np.full(10, 0.5), TRUE).rank_correlation() is None
