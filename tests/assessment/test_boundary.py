"""Distances of outlines, against their definition pixel by pixel, and against MONAI."""

import numpy as np
import pytest

from isic_smp.assessment.boundary import boundary_scores


def disc(size: int, row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.hypot(y - row, x - column) < radius


def edge(mask: np.ndarray) -> np.ndarray:
    """Coordinates of lesion pixels with a neighbour (up, down, left, right) that is none, or with the frame there."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


PAIRS = {
    "discs": (disc(48, 20, 22, 11), disc(48, 24, 25, 14)),
    "at the frame": (disc(40, 2, 39, 15), disc(40, 5, 30, 12)),
    "two pieces": (disc(60, 15, 15, 8) | disc(60, 50, 48, 3), disc(60, 16, 15, 9)),
    "single pixels": (disc(9, 1, 1, 0.5), disc(9, 4, 5, 0.5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_distances_are_those_between_the_outermost_pixels(name):
    one, two = PAIRS[name]
    between = np.linalg.norm(edge(one)[:, None] - edge(two)[None], axis=2)
    there, back = between.min(axis=1), between.min(axis=0)
    found = boundary_scores(one, two)
    assert found.hausdorff95 == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5
    )
    assert found.surface_distance == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)
    assert boundary_scores(two, one) == pytest.approx(found)


def test_a_shift_is_told_in_pixels():
    square = np.zeros((100, 120), bool)
    square[20:60, 30:70] = True
    found = boundary_scores(square, np.roll(square, 6, axis=1))
    assert found.hausdorff95 == 6
    assert 2 < found.surface_distance < 4  # the sides that lie along the shift are nearly where they were


def test_boundary_iou_counts_the_rim_alone():
    big = np.zeros((300, 400), bool)
    big[50:250, 50:350] = True
    inside = big.copy()
    inside[120:180, 150:250] = False  # a hole is an outline too, and the band round it is missing on one side
    width = 10  # 2 % of the diagonal of 500
    rim = 200 * 300 - (200 - 2 * width) * (300 - 2 * width)
    band = (60 + 2 * width) * (100 + 2 * width) - 60 * 100
    assert boundary_scores(inside, big).boundary_iou == pytest.approx(rim / (rim + band))
    assert boundary_scores(big, big) == (0, 0, 1)


def test_empty_masks():
    empty, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    assert boundary_scores(empty, empty) == (0, 0, 1)
    assert boundary_scores(empty, full) == (50, 50, 0)  # the diagonal
    assert boundary_scores(full, empty) == (50, 50, 0)


@pytest.mark.slow  # importing MONAI takes ten seconds
@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's own
@pytest.mark.parametrize("name", PAIRS)
def test_monai_gives_the_same(name):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    one, two = PAIRS[name]
    batch = [torch.from_numpy(mask)[None, None] for mask in (one, two)]
    found = boundary_scores(one, two)
    hausdorff = compute_hausdorff_distance(*batch, include_background=True, percentile=95)
    surface = compute_average_surface_distance(*batch, include_background=True, symmetric=True)
    assert found.hausdorff95 == pytest.approx(hausdorff.item(), rel=1e-5)
    assert found.surface_distance == pytest.approx(surface.item(), rel=1e-5)
