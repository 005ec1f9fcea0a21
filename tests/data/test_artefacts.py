"""What is laid over real pictures: repeatable, rarely all at once, and never at odds with the mask."""

import numpy as np
import pytest

from isic_smp.data.artefacts import add_artefacts
from isic_smp.data.augment import Augmenter

SKIN = np.full((64, 64, 3), [200, 160, 140], np.uint8)
LESION = np.zeros((64, 64), np.uint8)
LESION[20:44, 20:44] = 1
CORNERS = LESION.copy()
CORNERS[:6, :6] = 1


def many(strength: float, mask: np.ndarray = LESION, count: int = 300) -> list[tuple[np.ndarray, np.ndarray]]:
    return [add_artefacts(SKIN, mask, np.random.default_rng(i), strength=strength) for i in range(count)]


def test_pictures_keep_their_form_and_the_original_its_pixels() -> None:
    before = SKIN.copy(), LESION.copy()
    for image, mask in many(1.0):
        assert image.shape == SKIN.shape and image.dtype == np.uint8
        assert mask.shape == LESION.shape and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}
    np.testing.assert_array_equal(SKIN, before[0])
    np.testing.assert_array_equal(LESION, before[1])


def test_strength_is_how_often_something_is_laid_over() -> None:
    shares = [np.mean([(image != SKIN).any() for image, _ in many(s)]) for s in (0.0, 0.2, 1.0)]
    assert shares[0] == 0 and 0.15 < shares[1] < 0.6 < shares[2] < 1


def test_lesion_behind_the_dark_rim_is_no_lesion_and_all_other_artefacts_leave_the_mask() -> None:
    hidden = [(image, mask) for image, mask in many(1.0, CORNERS) if (mask != CORNERS).any()]
    assert 10 < len(hidden) < 100
    for image, mask in hidden:
        gone = (CORNERS == 1) & (mask == 0)
        assert image[gone].mean() < 0.55 * SKIN.mean()  # it lies in the dark
        assert not (mask & ~CORNERS).any()


def test_a_view_depends_on_seed_epoch_and_sample_alone() -> None:
    augmenter = Augmenter(flips=False, affine=0.0, colour=0.0, artefacts=1.0)
    images, masks, ids = np.stack([SKIN] * 12), np.stack([LESION] * 12), np.arange(12)
    whole, _ = augmenter.apply(images, masks, sample_ids=ids, seed=3, epoch=2)
    half, _ = augmenter.apply(images[6:], masks[6:], sample_ids=ids[6:], seed=3, epoch=2)
    np.testing.assert_array_equal(whole[6:], half)
    other, _ = augmenter.apply(images, masks, sample_ids=ids, seed=3, epoch=3)
    assert (other != whole).any()


def test_an_impossible_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="artefacts must be from 0 to 1, got 2"):
        Augmenter(flips=False, affine=0.0, colour=0.0, artefacts=2)
