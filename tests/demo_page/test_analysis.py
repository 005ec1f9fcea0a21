"""What is measured and traced of one image at a threshold."""

import cv2
import numpy as np
import pytest

from isic_smp.data.images import read_image
from isic_smp.demo_page.analysis import agreement, analyse, draw


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_drawing_agrees_with_the_predictor(image_path, predictor, threshold):
    image = read_image(image_path)
    expected = predictor.predict([image])[0]
    drawing = draw(analyse(image, predictor).probabilities, image.shape[:2], threshold=threshold)
    np.testing.assert_array_equal(drawing.mask, expected > threshold)
    assert 0 < drawing.pixels < expected.size
    assert drawing.pixels == (expected > threshold).sum()
    assert drawing.share == pytest.approx((expected > threshold).mean())
    assert drawing.confidence == pytest.approx(expected[expected > threshold].mean(), abs=1e-6)
    filled = np.zeros(expected.shape, np.uint8)
    cv2.fillPoly(filled, [np.floor(line).astype(np.int32) for line in drawing.outline], 1)
    assert agreement(filled > 0, drawing.mask) > 0.95


def test_the_outline_follows_a_known_shape():
    rows, columns = np.mgrid[:64, :64]
    blob = np.hypot(rows - 20, columns - 24)
    chance = (0.9 - 0.02 * blob).clip(0.02, 1).astype(np.float32)
    drawing = draw(chance, (200, 400), threshold=0.7)
    assert drawing.pieces == 1
    assert not drawing.touches_edge
    line = np.concatenate(drawing.outline)
    # radius 10 of 64, round (24.5, 20.5) of 64, stretched to 400 × 200
    assert line.mean(axis=0) == pytest.approx([24.5 / 64 * 400, 20.5 / 64 * 200], abs=4)
    assert np.ptp(line[:, 0]) == pytest.approx(20 / 64 * 400, abs=4)
    assert np.ptp(line[:, 1]) == pytest.approx(20 / 64 * 200, abs=3)
    assert draw(chance, (200, 400), threshold=0.2).touches_edge


def test_nothing_found_is_said():
    chance = np.full((32, 32), 0.2, np.float32)
    drawing = draw(chance, (90, 60), threshold=0.5)
    assert (drawing.pixels, drawing.share, drawing.pieces, drawing.outline) == (0, 0, 0, [])
    assert drawing.confidence == pytest.approx(0.8)
    assert agreement(drawing.mask, drawing.mask) == 1
