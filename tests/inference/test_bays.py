"""Narrow bays of a mask's outline."""

import cv2
import numpy as np
import pytest

from isic_smp.data.resize import upsample_probabilities
from isic_smp.inference.bays import REACH, close_bays


def disc(side: int, *, y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.hypot(rows - y, columns - x) <= radius


def lesion() -> np.ndarray:
    """Of radius 30, with a cut of 6 pixels to its middle, a hole, and a spot apart."""
    found = np.where(disc(128, y=60, x=64, radius=30), 0.9, 0.1).astype(np.float32)
    found[60:66, 64:] = 0.1
    found[45:49, 50:54] = 0.2
    found[disc(128, y=118, x=118, radius=4)] = 0.8
    return found


def test_a_narrow_bay_and_a_hole_are_closed_and_the_outline_stays():
    closed = close_bays(lesion(), 0.5) > 0.5
    whole = disc(128, y=60, x=64, radius=30) | disc(128, y=118, x=118, radius=4)
    # The mouth of the bay is a few pixels wide, where the disc reaches in.
    assert (closed & ~whole).sum() == 0 and (whole & ~closed).sum() < 20
    assert (whole & ~(lesion() > 0.5)).sum() > 150


def test_a_wide_bay_stays_open():
    moon = disc(128, y=64, x=64, radius=40) & ~disc(128, y=64, x=96, radius=28)
    closed = close_bays(moon.astype(np.float32), 0.5) > 0.5
    assert not closed[disc(128, y=64, x=96, radius=20)].any()


@pytest.mark.parametrize("scale", [2, 4])
def test_narrow_is_narrow_for_the_lesion_s_size(scale):
    """The same picture of more pixels is closed in the same places."""
    large = np.kron(lesion(), np.ones((scale, scale), np.float32))
    closed = close_bays(large, 0.5) > 0.5
    expected = np.kron(close_bays(lesion(), 0.5) > 0.5, np.ones((scale, scale), bool))
    assert (closed != expected).sum() < 0.005 * closed.size


def test_it_is_a_morphological_closing():
    mask = (lesion() > 0.5).astype(np.uint8)
    reach = int(REACH * np.sqrt(mask.sum() / np.pi))
    kernel = disc(2 * reach + 1, y=reach, x=reach, radius=reach).astype(np.uint8)
    theirs = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel) > 0
    assert ((close_bays(lesion(), 0.5) > 0.5) != theirs).sum() < 0.02 * mask.sum()


def test_what_was_seen_in_a_bay_is_raised_to_the_threshold_and_no_further():
    before = lesion()
    after = close_bays(before, 0.5)
    changed = after != before
    assert changed.any() and np.allclose(after[changed], 0.5, atol=1e-4) and (after[changed] > 0.5).all()
    assert np.array_equal(before, lesion())


@pytest.mark.parametrize("threshold", [0.15, 0.5, 0.85])
def test_a_bay_that_was_closed_does_not_open_in_the_enlarged_map(threshold):
    large = upsample_probabilities(close_bays(lesion(), threshold), (333, 517)) > threshold
    assert large[int(62.5 / 128 * 333), int(70 / 128 * 517)]
    assert cv2.connectedComponents((~large).astype(np.uint8))[0] == 2, "a hole is left"


@pytest.mark.parametrize("threshold", [0.99, 0.999, 0.99999])
def test_bays_close_also_where_hardly_a_number_is_left_above_the_threshold(threshold):
    sure = (lesion() > 0.5).astype(np.float32)
    closed = close_bays(sure, threshold)
    assert np.array_equal(closed > threshold, close_bays(sure, 0.5) > 0.5)
    large = upsample_probabilities(closed, (333, 517)) > threshold
    assert large[int(62.5 / 128 * 333), int(70 / 128 * 517)]


def test_a_bay_between_lesion_and_frame_is_no_bay():
    """A lesion near the frame is not stretched to it: what is beyond is as what is at the edge."""
    near = disc(64, y=32, x=24, radius=20).astype(np.float32)
    assert np.array_equal(close_bays(near, 0.5)[:, 0] > 0.5, np.zeros(64, bool))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_mask_and_a_full_one_are_left_alone(value):
    flat = np.full((16, 16), value, np.float32)
    assert np.array_equal(close_bays(flat, 0.5), flat)
