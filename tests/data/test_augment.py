"""Random views: repeatable by key, image and mask in register, and nothing at strength 0."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isic_smp.data.augment import Augmenter, apply_dihedral, dihedral_codes
from isic_smp.data.draws import uniforms
from isic_smp.data.pairs import find_pairs, read_pair
from isic_smp.data.resize import resize_image, resize_mask

STRONG = Augmenter(flips=True, affine=1.0, colour=1.0, tones=1.0)


def discs(count: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Bright off-centre discs on darker skin, and their masks."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] + 0.5
    centres = rng.uniform(0.35, 0.65, (count, 2, 1, 1)) * size
    radii = rng.uniform(0.12, 0.3, (count, 1, 1)) * size
    masks = ((rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < radii**2).astype(np.uint8)
    return np.where(masks[..., None], np.uint8([200, 170, 160]), np.uint8([80, 50, 40])), masks


def photos(count: int, size: int = 48, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return images, (images[..., 0] > 127).astype(np.uint8)


# --- the eight flips and quarter turns


def test_the_eight_views_are_distinct() -> None:
    images, masks = photos(1)
    codes = np.arange(8)
    for batch in (images, masks, masks.astype(np.float32) / 3):
        views = apply_dihedral(np.repeat(batch, 8, axis=0), codes)
        assert len({view.tobytes() for view in views}) == 8
        np.testing.assert_array_equal(views[0], batch[0])


def test_the_views_are_the_square_s_own_symmetries() -> None:
    image = photos(1)[0][0]
    expected = [np.rot90(flipped, k) for flipped in (image, image[:, ::-1]) for k in range(4)]
    np.testing.assert_array_equal(apply_dihedral(np.stack([image] * 8), np.arange(8)), expected)


@given(st.integers(0, 2**40), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_every_sample_passes_through_all_eight_views_in_its_own_order(seed: int, block: int) -> None:
    ids = np.arange(50)
    codes = np.stack([dihedral_codes(ids, seed=seed, epoch=8 * block + e) for e in range(8)])
    np.testing.assert_array_equal(np.sort(codes, axis=0), np.repeat(np.arange(8)[:, None], 50, axis=1))
    assert len({tuple(column) for column in codes.T}) > 40
    following = np.stack([dihedral_codes(ids, seed=seed, epoch=8 * block + 8 + e) for e in range(8)])
    assert (codes != following).any()


# --- what a view depends on


@pytest.mark.parametrize("augmenter", [STRONG, Augmenter(flips=False, affine=0.3, colour=0.0)])
def test_a_view_depends_on_seed_epoch_and_sample_alone(augmenter: Augmenter) -> None:
    images, masks = photos(12)
    ids = np.arange(100, 112)
    together = augmenter.apply(images, masks, sample_ids=ids, seed=3, epoch=5)
    order = np.array([7, 2, 11])
    apart = augmenter.apply(images[order], masks[order], sample_ids=ids[order], seed=3, epoch=5)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one[order], other)
    for seed, epoch in ((4, 5), (3, 6)):
        changed, _ = augmenter.apply(images, masks, sample_ids=ids, seed=seed, epoch=epoch)
        assert all((changed[i] != together[0][i]).any() for i in range(12))


def test_samples_of_one_batch_get_views_of_their_own() -> None:
    image, mask = photos(1)
    images, _ = STRONG.apply(
        np.repeat(image, 16, 0), np.repeat(mask, 16, 0), sample_ids=np.arange(16), seed=0, epoch=0
    )
    assert len({view.tobytes() for view in images}) == 16


def test_the_arrays_given_are_left_alone() -> None:
    images, masks = photos(4)
    before = images.copy(), masks.copy()
    STRONG.apply(images, masks, sample_ids=np.arange(4), seed=0, epoch=0)
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(masks, before[1])


def test_draws_are_uniform_and_independent() -> None:
    numbers = uniforms(np.arange(4000), 8, seed=1, epoch=2, purpose=3)
    assert numbers.min() >= 0 and numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=0.025)  # five standard errors
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, atol=0.006)
    neighbours = [
        uniforms(np.arange(4000) + 1, 8, seed=1, epoch=2, purpose=3),
        uniforms(np.arange(4000), 8, seed=2, epoch=2, purpose=3),
        uniforms(np.arange(4000), 8, seed=1, epoch=3, purpose=3),
        uniforms(np.arange(4000), 8, seed=1, epoch=2, purpose=4),
    ]
    columns = np.concatenate([numbers, *neighbours], axis=1).T
    correlation = np.corrcoef(columns) - np.eye(40)
    assert np.abs(correlation).max() < 0.08


# --- strength


def test_strength_zero_changes_nothing() -> None:
    images, masks = photos(4)
    same = Augmenter(flips=False, affine=0, colour=0).apply(
        images, masks, sample_ids=np.arange(4), seed=0, epoch=0
    )
    np.testing.assert_array_equal(same[0], images)
    np.testing.assert_array_equal(same[1], masks)


def test_almost_no_strength_changes_almost_nothing() -> None:
    images, masks = discs(16)
    near, near_masks = Augmenter(flips=False, affine=1e-4, colour=1e-4).apply(
        images, masks, sample_ids=np.arange(16), seed=0, epoch=0
    )
    assert np.abs(near.astype(int) - images).max() <= 5  # warps count in 1/32 of a pixel
    np.testing.assert_array_equal(near_masks, masks)


def test_colour_leaves_the_mask_and_affine_the_palette() -> None:
    images, masks = discs(32)
    arguments = {"sample_ids": np.arange(32), "seed": 0, "epoch": 0}
    coloured, same_masks = Augmenter(flips=True, affine=0, colour=1).apply(images, masks, **arguments)
    flipped, flipped_masks = Augmenter(flips=True, affine=0, colour=0).apply(images, masks, **arguments)
    np.testing.assert_array_equal(same_masks, flipped_masks)
    skin = np.array([image[mask == 0].mean(axis=0) for image, mask in zip(coloured, same_masks, strict=True)])
    assert skin.std(axis=0).min() > 3  # brightness and cast vary from view to view
    assert np.std(skin[:, 0] / skin[:, 2]) > 0.1
    warped, _ = Augmenter(flips=False, affine=1, colour=0).apply(images, masks, **arguments)
    assert warped.min() == images.min() and warped.max() == images.max()
    assert (warped != flipped).any()


def test_each_kind_of_colour_change_happens() -> None:
    image = np.full((1, 32, 32, 3), (140, 110, 90), np.uint8)
    image[:, :16] = (100, 80, 70)
    ids = np.arange(200)
    views, _ = Augmenter(flips=False, affine=0, colour=1).apply(
        np.repeat(image, 200, 0),
        np.zeros((200, 32, 32), np.uint8),
        sample_ids=ids,
        seed=0,
        epoch=0,
    )
    dark, light = views[:, 0, 0].astype(float), views[:, -1, 0].astype(float)
    brightness = (dark + light).mean(axis=1) / (image[0, 0, 0].astype(float) + image[0, -1, 0]).mean()
    contrast = (light - dark).sum(axis=1) / (dark + light).sum(axis=1) / (90 / 590)
    saturation = (light.max(axis=1) - light.min(axis=1)) / light.mean(axis=1) / (50 / (340 / 3))
    for factor, spread in ((brightness, 0.1), (contrast, 0.1), (saturation, 0.22)):
        assert np.log(factor).std() > spread and abs(np.log(factor).mean()) < 0.1
    hue = np.arctan2(np.sqrt(3) * (light[:, 1] - light[:, 2]), 2 * light[:, 0] - light[:, 1] - light[:, 2])
    assert 0.18 < hue.std() < 0.4  # radians; the cast alone gives 0.16, and skin stays skin-coloured


def test_tones_bend_half_of_the_views_most_of_them_darker_and_leave_black_and_white() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0)
    images, masks = np.repeat(np.repeat(ramp, 3, axis=2)[None], 400, 0), np.zeros((400, 256, 256), np.uint8)

    def middles(strength: float) -> np.ndarray:
        """What becomes of middle grey, a view each."""
        views, kept = Augmenter(flips=False, affine=0, colour=0, tones=strength).apply(
            images, masks, sample_ids=np.arange(400), seed=0, epoch=0
        )
        assert not kept.any() and (views[:, 0, 0] == 0).all() and (views[:, 0, 255] == 255).all()
        assert (np.diff(views[:, 0].astype(int), axis=1) >= 0).all()
        return views[:, 0, 128, 0].astype(int)

    whole = middles(1.0)
    assert 0.4 < (whole == 128).mean() < 0.6
    assert (whole < 128).sum() > 1.5 * (whole > 128).sum() > 0
    assert whole.min() < 50 and whole.max() > 155
    weaker = middles(0.3)
    assert weaker.min() > 90 and ((weaker < 128) <= (whole < 128)).all() and (weaker < 128).any()


# --- image and mask in register


@given(st.integers(0, 10**6), st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_masks_stay_binary_and_on_their_lesions(seed: int, epoch: int) -> None:
    images, masks = discs(16)
    images, masks = STRONG.apply(images, masks, sample_ids=np.arange(16), seed=seed, epoch=epoch)
    assert masks.dtype == np.uint8 and masks.max() <= 1
    for image, mask in zip(images, masks, strict=True):
        lesion = image.sum(axis=-1) > (int(image.sum(axis=-1).min()) + int(image.sum(axis=-1).max())) / 2
        assert (lesion & (mask == 1)).sum() > 0.9 * (lesion | (mask == 1)).sum()


def test_real_lesions_stay_darker_than_their_skin(isic_dir: Path) -> None:
    pairs = find_pairs(
        isic_dir / "ISBI2016_ISIC_Part1_Training_Data", isic_dir / "ISBI2016_ISIC_Part1_Training_GroundTruth"
    )[::40]
    read = [read_pair(pair) for pair in pairs]
    images = np.stack([resize_image(image, 128) for image, _ in read])
    masks = np.stack([resize_mask(mask, 128) for _, mask in read])

    def contrast(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Grey levels from lesion up to skin."""
        return np.array([i[m == 0].mean() - i[m == 1].mean() for i, m in zip(images, masks, strict=True)])

    usable = (contrast(images, masks) > 15) & (masks.mean(axis=(1, 2)) < 0.6)
    assert usable.sum() > 10
    images, masks = images[usable], masks[usable]
    views = Augmenter(flips=True, affine=0.5, colour=0.5).apply(
        images, masks, sample_ids=np.arange(len(images)), seed=0, epoch=0
    )
    assert (contrast(*views) > 0.4 * contrast(images, masks)).all()


# --- finer pictures than the views


def halved(images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half = images.shape[1] // 2
    return np.stack([resize_image(i, half) for i in images]), np.stack([resize_mask(m, half) for m in masks])


def both_ways(images: np.ndarray, masks: np.ndarray) -> tuple[tuple, tuple]:
    """Views of 60 pictures taken from finer ones, and of the same at the views' own size."""
    fine, coarse = (Augmenter(flips=True, affine=1.0, colour=0.0, finer=finer) for finer in (2, 1))
    key = {"sample_ids": np.arange(len(images)), "seed": 0, "epoch": 0}
    return fine.apply(images, masks, **key), coarse.apply(*halved(images, masks), **key)


def test_finer_pictures_are_shown_in_the_same_places() -> None:
    _, masks = discs(60, size=128)
    ramp = np.add.outer(np.arange(128), np.arange(128)) * 2 // 3  # 2.7 levels a pixel of the view
    images = np.repeat(ramp.astype(np.uint8)[None, ..., None], 3, axis=-1).repeat(60, axis=0)
    (fine, fine_masks), (coarse, coarse_masks) = both_ways(images, masks)
    assert fine.shape == (60, 64, 64, 3) and fine_masks.shape == (60, 64, 64)
    assert set(np.unique(fine_masks)) == {0, 1}
    change = fine.astype(float) - coarse
    # Mirrored frames aside; half a fine pixel off would be 0.7 levels along each axis that is not flipped against another.
    assert np.abs(np.median(change, axis=(1, 2, 3))).max() <= 1
    assert np.abs(change[:, 24:40, 24:40].mean(axis=(1, 2, 3))).max() < 0.35
    shared = (fine_masks & coarse_masks).sum((1, 2)) / (fine_masks | coarse_masks).sum((1, 2))
    assert shared.min() > 0.93


def test_only_views_that_zoom_in_gain_detail_by_finer_pictures() -> None:
    stripes = (np.indices((128, 128)).sum(axis=0) // 3 % 2 * 200).astype(np.uint8)
    images = np.repeat(stripes[None, ..., None], 3, axis=-1).repeat(60, axis=0)
    (fine, _), (coarse, _) = both_ways(images, np.zeros((60, 128, 128), np.uint8))
    gain = fine.std(axis=(1, 2, 3)) / coarse.std(axis=(1, 2, 3))
    sharper = gain > 1.2
    assert 10 < sharper.sum() < 40  # scales from 0.6 to 1.65, as likely each way
    np.testing.assert_allclose(gain[~sharper], 1, atol=0.02)


def test_finer_pictures_need_a_warp_and_a_size_that_divides() -> None:
    with pytest.raises(ValueError, match="finer must be 1, or with affine"):
        Augmenter(flips=True, affine=0.0, colour=1.0, finer=2)
    with pytest.raises(ValueError, match="got images"):
        Augmenter(flips=True, affine=1.0, colour=1.0, finer=2).apply(
            *photos(2, 47), sample_ids=np.arange(2), seed=0, epoch=0
        )


def test_bad_batches_and_strengths_are_refused() -> None:
    images, masks = photos(4)
    with pytest.raises(ValueError, match="sample ids"):
        STRONG.apply(images, masks, sample_ids=np.arange(3), seed=0, epoch=0)
    with pytest.raises(ValueError, match="affine must be"):
        Augmenter(flips=True, affine=1.5, colour=0)
