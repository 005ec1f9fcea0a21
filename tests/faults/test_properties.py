"""What must hold for every input, not only for those that somebody thought of."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from isic_smp.data.augment import apply_dihedral
from isic_smp.data.pairs import find_pairs
from isic_smp.data.resize import resize_image, resize_mask, upsample_probabilities
from isic_smp.errors import UserError
from isic_smp.training.metrics import METRICS, confusion, per_image, summarise
from isic_smp.training.recipe import Recipe, load_recipe

MODEST = settings(max_examples=60, deadline=None)
names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=30
)
masks = st.builds(
    lambda h, w, share, seed: np.random.default_rng(seed).random((h, w)) < share,
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 10**6),
)  # fmt: skip


# --- pairing


@MODEST
@given(st.sets(names, min_size=1, max_size=6), st.randoms())
def test_whatever_images_are_called_each_finds_its_own_mask(ids, rng):
    ids = {
        i for i in ids
        if not i.startswith(".") and not i.lower().endswith(("_segmentation", "_superpixels"))
        and len(i.encode()) < 200
    }  # fmt: skip
    if not ids:
        return
    with tempfile.TemporaryDirectory() as folder:
        images, masks = Path(folder) / "images", Path(folder) / "masks"
        images.mkdir()
        masks.mkdir()
        for i in ids:
            (images / f"{i}{rng.choice(['.jpg', '.PNG', '.tiff'])}").touch()
            (masks / f"{i}{rng.choice(['', '_Segmentation', '_segmentation'])}.png").touch()
        found = find_pairs(images, masks)
    assert [pair.id for pair in found] == sorted(ids)
    for pair in found:
        assert pair.image.stem == pair.id
        assert pair.mask.stem.lower() in (pair.id.lower(), f"{pair.id.lower()}_segmentation")


# --- metrics


@MODEST
@given(masks, st.integers(0, 10**6))
def test_scores_lie_between_0_and_1_and_dice_follows_from_iou(truth, seed):
    pred = np.random.default_rng(seed).random(truth.shape) < 0.5
    counts = confusion(torch.from_numpy(pred)[None], torch.from_numpy(truth)[None])
    assert counts.sum() == truth.size
    scores = {name: value.item() for name, value in per_image(counts).items()}
    assert all(0 <= scores[name] <= 1 for name in METRICS)
    assert scores["dice"] == pytest.approx(2 * scores["iou"] / (1 + scores["iou"]))
    swapped = per_image(confusion(torch.from_numpy(truth)[None], torch.from_numpy(pred)[None]))
    assert swapped["dice"].item() == scores["dice"] and swapped["iou"].item() == scores["iou"]


@MODEST
@given(masks)
def test_the_truth_scores_1_and_its_negative_scores_no_overlap(truth):
    t = torch.from_numpy(truth)[None]
    assert all(value == 1.0 for value in summarise(confusion(t, t)).values())
    wrong = summarise(confusion(~t, t))
    assert wrong["iou_per_image"] == wrong["dice_per_image"] == wrong["accuracy_per_image"] == 0.0


@MODEST
@given(masks, st.integers(0, 7))
def test_scores_do_not_change_when_image_and_mask_are_turned_together(truth, code):
    side = min(truth.shape)
    square = truth[:side, :side].astype(np.uint8)
    other = np.roll(square, 1, axis=0)

    def counts(a, b):
        return confusion(torch.from_numpy(a.astype(bool)), torch.from_numpy(b.astype(bool))).tolist()

    codes = np.array([code])
    turned = [apply_dihedral(m[None].copy(), codes) for m in (square, other)]
    assert counts(*turned) == counts(square[None], other[None])


# --- geometry


@MODEST
@given(masks, st.integers(1, 40))
def test_a_resized_mask_is_binary_and_keeps_what_is_all_one_value(mask, size):
    small = resize_mask(mask.astype(np.uint8), size)
    assert small.shape == (size, size) and set(np.unique(small)) <= {0, 1}
    if mask.all() or not mask.any():
        assert (small == mask.flat[0]).all()


@MODEST
@given(masks, st.integers(1, 40))
def test_resizing_commutes_with_flips(mask, size):
    picture = np.repeat((mask * np.uint8(200))[..., None], 3, axis=-1)
    for turn in (np.fliplr, np.flipud):
        one = resize_image(np.ascontiguousarray(turn(picture)), size).astype(int)
        assert np.abs(one - turn(resize_image(picture, size))).max() <= 1  # rounding


@MODEST
@given(st.integers(1, 16), st.integers(1, 60), st.integers(1, 60), st.integers(0, 10**6))
def test_probabilities_stay_in_their_range_at_any_size(side, height, width, seed):
    small = np.random.default_rng(seed).random((side, side), np.float32)
    large = upsample_probabilities(small, (height, width))
    assert large.shape == (height, width)
    assert small.min() - 1e-6 <= large.min() and large.max() <= small.max() + 1e-6


# --- recipes

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 500), "batch_size": st.integers(1, 512), "lr": st.floats(1e-9, 10),
        "encoder_lr": st.none() | st.floats(1e-9, 10), "seed": st.integers(0, 2**62), "ema": st.floats(0, 0.9999),
        "loss": st.sampled_from(["bce", "dice", "focal", "tversky"]), "flips": st.booleans(),
        "decoder_channels": st.none() | st.tuples(*[st.integers(1, 512)] * 4), "threshold": st.floats(0.01, 0.99),
        "affine": st.floats(0, 1), "keep": st.sampled_from(["last", "best"]), "size": st.integers(2, 30).map(lambda n: 16 * n),
    },
)  # fmt: skip


@MODEST
@given(changes)
def test_a_recipe_survives_its_file(changed):
    recipe = dataclasses.replace(Recipe(), **changed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "r.yaml"
        file.write_text(yaml.safe_dump(recipe.to_dict()))
        assert load_recipe(str(file)) == recipe


@MODEST
@given(st.dictionaries(st.sampled_from(sorted(Recipe().to_dict())) | st.text(max_size=8), plain, max_size=4))
def test_any_settings_give_a_recipe_or_one_line(found):
    try:
        Recipe.from_dict(found)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 5000
