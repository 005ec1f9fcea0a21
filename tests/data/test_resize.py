"""Geometry between own size and network size: nothing may shift, whatever the ratio."""

import numpy as np
import pytest

from isic_smp.data.resize import resize_image, resize_mask, upsample_probabilities

ODD_SIZES = [(767, 1022), (401, 333), (256, 256), (97, 300), (300, 97), (61, 45)]


def disc(height: int, width: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """An anti-aliased bright ellipse, its mask, and its centre as fractions of height and width."""
    supersample = 4
    centre = (0.37, 0.58)
    rows = (np.arange(height * supersample) + 0.5) / (height * supersample)
    columns = (np.arange(width * supersample) + 0.5) / (width * supersample)
    inside = ((rows[:, None] - centre[0]) / 0.24) ** 2 + ((columns[None] - centre[1]) / 0.24) ** 2 < 1
    share = inside.reshape(height, supersample, width, supersample).mean(axis=(1, 3))
    image = np.repeat(np.rint(255 * share).astype(np.uint8)[..., None], 3, axis=2)
    return image, (share >= 0.5).astype(np.uint8), centre


def centroid(weights: np.ndarray) -> np.ndarray:
    """Centre of mass in pixels, pixel centres at i + 0.5."""
    w = weights.astype(np.float64)
    rows, columns = np.arange(w.shape[0]) + 0.5, np.arange(w.shape[1]) + 0.5
    return np.array([(w.sum(1) * rows).sum(), (w.sum(0) * columns).sum()]) / w.sum()


@pytest.mark.parametrize("shape", ODD_SIZES)
@pytest.mark.parametrize("size", [64, 128, 192])
def test_image_and_mask_of_a_disc_share_the_expected_centre(shape: tuple[int, int], size: int) -> None:
    image, mask, centre = disc(*shape)
    expected = np.array(centre) * size
    small_image, small_mask = resize_image(image, size), resize_mask(mask, size)
    assert small_image.shape == (size, size, 3) and small_image.dtype == np.uint8
    assert set(np.unique(small_mask)) == {0, 1} and small_mask.dtype == np.uint8
    np.testing.assert_allclose(centroid(small_image[..., 1]), expected, atol=0.1)
    # A mask that grows shows the jaggedness of its own coarse pixels; a half-pixel shift would be 0.5 of one.
    growth = size / min(shape)
    np.testing.assert_allclose(centroid(small_mask), expected, atol=0.1 if growth <= 1 else 0.15 * growth)


@pytest.mark.parametrize("shape", ODD_SIZES)
def test_probabilities_come_back_where_the_mask_was(shape: tuple[int, int]) -> None:
    _, mask, centre = disc(*shape)
    back = upsample_probabilities(resize_mask(mask, 128).astype(np.float32), shape)
    assert back.shape == shape and back.dtype == np.float32
    assert back.min() >= 0 and back.max() <= 1
    tolerance = 0.1 * max(1, *(n / 128 for n in shape))
    np.testing.assert_allclose(centroid(back), np.array(centre) * shape, atol=tolerance)
    overlap = (back > 0.5) & (mask == 1)
    assert overlap.sum() / ((back > 0.5) | (mask == 1)).sum() > 0.95


def test_shrinking_averages_every_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (384, 256, 3), dtype=np.uint8)
    expected = noise.reshape(64, 6, 64, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(noise, 64), expected, atol=0.51)


def test_one_axis_may_grow_while_the_other_shrinks() -> None:
    ramp = np.linspace(0, 250, 40, dtype=np.float64)[None, :, None]
    image = np.broadcast_to(ramp, (400, 40, 3)).astype(np.uint8)
    row = resize_image(image, 80)[40, :, 0].astype(float)
    # Half-pixel centres: output column j reads the ramp at (j + 0.5) / 2 - 0.5.
    expected = np.interp((np.arange(80) + 0.5) / 2 - 0.5, np.arange(40), image[0, :, 0])
    np.testing.assert_allclose(row, expected, atol=1)


def test_exactly_half_a_pixel_of_lesion_is_lesion() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 1] = 1
    assert resize_mask(mask, 4)[:, 0].all() and not resize_mask(mask, 4)[:, 1:].any()
    assert resize_mask(mask, 2).sum() == 0  # one column in four


def test_the_own_size_changes_nothing() -> None:
    image, mask, _ = disc(96, 96)
    np.testing.assert_array_equal(resize_image(image, 96), image)
    np.testing.assert_array_equal(resize_mask(mask, 96), mask)


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize_image(np.zeros((4, 4, 3), np.float32), 2)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        resize_mask(np.zeros((4, 4, 1), np.uint8), 2)
