"""The largest piece of a mask."""

import numpy as np
import pytest

from isic_smp.data.resize import upsample_probabilities
from isic_smp.inference.pieces import keep_largest_piece


def spots() -> np.ndarray:
    """A lesion of 24 pixels, with a hole, and two spots besides, one of which touches the lesion at a corner."""
    found = np.full((12, 12), 0.1, np.float32)
    found[2:7, 2:7] = 0.9
    found[4, 4] = 0.2
    found[7, 7] = 0.8
    found[10, 1:4] = 0.7
    return found


def test_only_the_largest_piece_stays_above_the_threshold():
    kept = keep_largest_piece(spots(), 0.5) > 0.5
    expected = spots() > 0.5
    expected[10] = False
    assert np.array_equal(kept, expected)


def test_what_was_seen_elsewhere_is_lowered_not_emptied():
    before = spots()
    kept = keep_largest_piece(before, 0.5)
    assert np.allclose(kept[10, 1:4], 0.5, atol=1e-4)
    elsewhere = np.ones((12, 12), bool)
    elsewhere[10, 1:4] = False
    assert np.array_equal(kept[elsewhere], spots()[elsewhere])
    assert np.array_equal(before, spots())


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_a_piece_that_was_put_out_does_not_come_back_in_the_enlarged_map(threshold):
    probabilities = np.zeros((16, 16), np.float32)
    probabilities[1:9, 1:9] = 0.95
    probabilities[12:15, 12:15] = 0.9
    large = upsample_probabilities(keep_largest_piece(probabilities, threshold), (333, 217)) > threshold
    assert large[:190, :130].any()
    assert not large[200:].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_mask_and_a_full_one_are_left_alone(value):
    flat = np.full((8, 8), value, np.float32)
    assert np.array_equal(keep_largest_piece(flat, 0.5), flat)
