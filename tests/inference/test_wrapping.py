"""Faint lesions are drawn around all of them, clear ones as they were seen."""

import cv2
import numpy as np
import pytest

from isic_smp.data.resize import upsample_probabilities
from isic_smp.inference.finish import finished
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.wrapping import is_faint, wrap

SIDE = 64
SETTINGS = Preprocessing(size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, wrap_below=0.2)
SKIN = (200, 160, 140)


def crescent(side: int = SIDE) -> np.ndarray:
    """A sure map of a lesion with a bay wider than half of it."""
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side * 5 // 16, 1, -1)
    cv2.circle(mask, (side * 11 // 16, side // 2), side * 4 // 16, 0, -1)
    return np.where(mask > 0, 0.9, 0.1).astype(np.float32)


def picture(lesion: np.ndarray, darker: float) -> np.ndarray:
    """Skin and lesion, which differ by `darker` in RGB from 0 to 1."""
    colours = np.full((*lesion.shape, 3), SKIN, np.float64)
    colours[lesion] -= 255 * darker / np.sqrt(3)
    return colours.round().astype(np.uint8)


def in_hull(mask: np.ndarray) -> np.ndarray:
    """By another way than the code's: pixels whose middle no edge of the hull has outside."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = np.ones(mask.shape, bool)
    corners = cv2.convexHull(np.argwhere(mask)[:, ::-1].astype(np.int32))[:, 0].astype(float)
    for (x, y), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (x2 - x) * (rows - y) - (y2 - y) * (columns - x)
        middle = (x2 - x) * (corners[:, 1].mean() - y) - (y2 - y) * (corners[:, 0].mean() - x)
        inside &= side * np.sign(middle) >= -0.5 * np.hypot(x2 - x, y2 - y)
    return inside


def test_the_mask_becomes_its_convex_hull():
    before = crescent()
    after = wrap(before, 0.5)
    wrapped, hull = after > 0.5, in_hull(before > 0.5)
    assert (wrapped & ~(before > 0.5)).sum() > 200, "there is a bay"
    assert (wrapped ^ hull).sum() < 0.01 * hull.sum()
    assert np.array_equal(after[~wrapped], before[~wrapped])
    assert np.array_equal(before, crescent()), "the map that was given is as it was"


def test_what_was_not_seen_stays_doubtful():
    before = crescent()
    added = (wrap(before, 0.5) > 0.5) & (before <= 0.5)
    assert 0.5 < wrap(before, 0.5)[added].max() < 0.501
    assert 0.8 < wrap(before, 0.8)[added].max() < 0.801


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.85])
def test_no_bay_opens_again_in_a_mask_of_another_size(threshold):
    mask = upsample_probabilities(wrap(crescent(), threshold), (400, 300)) > threshold
    assert in_hull(mask).sum() < 1.04 * mask.sum(), "but for its outline's steps"


@pytest.mark.parametrize(
    "empty", [np.zeros((SIDE, SIDE), np.float32), np.full((SIDE, SIDE), 0.5, np.float32)]
)
def test_no_lesion_is_none_afterwards(empty):
    assert np.array_equal(wrap(empty, 0.5), empty)
    assert np.array_equal(finished(empty, picture(crescent() > 0.5, 0.1), SETTINGS, 0.5), empty)


@pytest.mark.parametrize(("darker", "faint"), [(0.05, True), (0.17, True), (0.23, False), (0.5, False)])
def test_faint_lesions_alone_are_wrapped(darker, faint):
    seen = crescent()
    found = finished(seen, picture(seen > 0.5, darker), SETTINGS, 0.5)
    assert np.array_equal(found, wrap(seen, 0.5) if faint else seen)


def test_faint_is_told_at_the_networks_size_whatever_the_map_s():
    """The skin that is looked at is a ring whose width, in parts of the frame, is rounded to pixels."""
    small, large = crescent(), crescent(4 * SIDE)
    for darker in (0.15, 0.25):
        told = {
            is_faint(picture(seen > 0.5, darker), seen > 0.5, below=0.2, size=SIDE) for seen in (small, large)
        }
        assert told == {darker < 0.2}


def test_where_no_skin_is_seen_nothing_is_faint():
    everywhere = np.ones((SIDE, SIDE), bool)
    assert not is_faint(picture(everywhere, 0), everywhere, below=0.2, size=SIDE)


def test_a_piece_that_is_put_out_is_not_wrapped_in():
    seen = crescent()
    seen[2:5, 2:5] = 0.9
    faint = picture(seen > 0.5, 0.1)
    one_piece = Preprocessing.from_dict(SETTINGS.to_dict() | {"largest_piece": True})
    assert not (finished(seen, faint, one_piece, 0.5) > 0.5)[:8, :8].any()
    assert (finished(seen, faint, SETTINGS, 0.5) > 0.5)[3, 3]


def test_the_threshold_that_is_asked_for_decides_what_the_lesion_is():
    """At .5 a dark spot, which is clear; at .2 the faint patch that it lies in."""
    seen = np.full((SIDE, SIDE), 0.1, np.float32)
    patch = crescent() > 0.5
    seen[patch] = 0.3
    seen[28:36, 13:17] = 0.9
    image = picture(patch, 0.08)
    image[28:36, 13:17] = 20
    assert np.array_equal(finished(seen, image, SETTINGS, 0.5), seen)
    assert (finished(seen, image, SETTINGS, 0.2) > 0.2).sum() > 1.3 * patch.sum()
