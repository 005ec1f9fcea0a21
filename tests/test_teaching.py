"""Learning from trained models: what is learned, that it stays in register with the picture, and what is refused."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from drawn_pairs import write_pairs
from small_run import SETTINGS, draw_pictures

from isic_smp.data.augment import Augmenter
from isic_smp.data.cache import PixelCache, open_pixel_cache
from isic_smp.data.taught import TaughtPixels
from isic_smp.errors import Stopped, UserError
from isic_smp.experiment import run_experiment
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.setup import Setup
from isic_smp.teaching import open_taught
from isic_smp.training.batches import Order, PixelBatches
from isic_smp.training.feature_bank import BankBatches, open_feature_bank
from isic_smp.training.recipe import PRESETS, Recipe

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def pixels(small_caches) -> PixelCache:
    return small_caches[0]


@pytest.fixture
def teachers(tmp_path) -> list[str]:
    """Two untrained networks, saved."""
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None, decoder_channels=(8, 8, 8))
        folders.append(tmp_path / f"teacher-{seed}")
        info = {"data": {"fingerprint": ("ours", "theirs")[seed], "description": "their pictures"}}
        save_bundle(model.eval(), PREPROCESSING, info, folders[-1])
    return [str(folder) for folder in folders]


def taught(pixels, teachers, place, say=lambda line: None):
    return open_taught(
        pixels,
        teachers,
        cache_dir=place,
        device=CPU,
        precision="float32",
        fingerprint="ours",
        say=say,
        progress=False,
    )


def test_half_of_what_is_learned_is_the_mask_and_half_the_teachers_mean_over_the_eight_views(
    pixels, teachers, tmp_path
):
    several = np.arange(len(pixels))
    images, masks = pixels.read(several)
    flipping = dataclasses.replace(PREPROCESSING, test_time_flips=True)
    seen = [Predictor(load_bundle(t).model, flipping).predict(list(images)) for t in teachers]
    expected = 0.5 * masks + 0.5 * np.mean(seen, axis=0)
    found = taught(pixels, teachers, tmp_path)
    same_images, shares = found.read(several[::-1])
    assert np.array_equal(same_images, images[::-1])
    np.testing.assert_allclose(shares / 255, expected[::-1], atol=1.1 / 255)
    assert np.array_equal(found.read_masks(several[::-1]), shares)


def test_the_maps_are_computed_once_for_the_same_teachers_and_anew_for_others(pixels, teachers, tmp_path):
    both = taught(pixels, teachers, tmp_path).maps
    written = both.stat().st_mtime_ns
    assert taught(pixels, teachers, tmp_path).maps == both
    assert both.stat().st_mtime_ns == written
    assert taught(pixels, teachers[:1], tmp_path).maps != both


def test_shares_move_with_the_picture(pixels, teachers, tmp_path):
    """Each batch's target, thresholded, is where the picture itself went: shares made of the mask alone say so."""
    found = taught(pixels, teachers, tmp_path)
    _, masks = pixels.read(np.arange(len(pixels)))
    (tmp_path / "own.u8").write_bytes((masks * np.uint8(255)).tobytes())
    own = type(found)(pixels, tmp_path / "own.u8")
    augmenter = Augmenter(flips=True, affine=1.0, colour=1.0, artefacts=1.0)
    order = Order(len(pixels), 4, shuffle=True, seed=3)
    norm = {"mean": PREPROCESSING.mean, "std": PREPROCESSING.std}
    hard, soft = (PixelBatches(p, order, augmenter=augmenter, **norm) for p in (pixels, own))
    between = 0
    for one, other in zip(hard.epoch(2, CPU), soft.epoch(2, CPU), strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert other.target.min() >= 0 and other.target.max() <= 1
        assert torch.equal(one.target, (other.target >= 128 / 255).float())
        between += int(((other.target > 0) & (other.target < 1)).sum())
    assert between > 0


def test_asking_goes_on_after_an_interruption(pixels, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr("isic_smp.teaching._BATCH", 4)  # five of them
    whole = taught(pixels, teachers, tmp_path / "whole").maps.read_bytes()
    calls = []
    predict = Predictor.predict

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) == 6:  # the second teacher's, of the third batch
            raise KeyboardInterrupt
        return predict(self, images)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        taught(pixels, teachers, tmp_path / "cut")
    calls[:] = [0] * 10
    found = taught(pixels, teachers, tmp_path / "cut").maps
    assert len(calls) - 10 == 2 * 3, "two batches are not asked about again"
    assert found.read_bytes() == whole
    assert [file.name for file in found.parent.glob("*.u8")] == [found.name] and not list(
        found.parent.glob("*.asked")
    )


def test_a_bank_learns_the_same_shares_in_the_same_views(pixels, teachers, tmp_path):
    found = taught(pixels, teachers, tmp_path)
    model = load_bundle(teachers[0]).model
    model.freeze_encoder()
    bank = open_feature_bank(model, pixels, views=8, cache_dir=tmp_path, device=CPU, precision="float32")
    order = Order(len(pixels), 4, shuffle=True, seed=3)
    flips = Augmenter(flips=True, affine=0, colour=0)
    through = PixelBatches(found, order, augmenter=flips, mean=PREPROCESSING.mean, std=PREPROCESSING.std)
    for one, other in zip(through.epoch(1, CPU), BankBatches(bank, found, order).epoch(1, CPU), strict=True):
        assert torch.equal(one.target, other.target)
        assert ((one.target > 0) & (one.target < 1)).any()


def test_a_teacher_of_other_data_is_warned_of(pixels, teachers, tmp_path):
    said: list[str] = []
    taught(pixels, teachers, tmp_path, said.append)
    [line] = said
    assert teachers[1] in line and "their pictures" in line


def test_maps_are_enlarged_for_finer_pixels(pixels, teachers, tmp_path):
    fine = open_pixel_cache(
        write_pairs(tmp_path / "pairs", 26)[:20], 2 * pixels.size, cache_dir=tmp_path, progress=False
    )
    coarse = taught(pixels, teachers, tmp_path)
    several = np.arange(20)[::-1]
    found = TaughtPixels(fine, coarse.maps, side=pixels.size).read_masks(several)
    assert found.shape == (20, 2 * pixels.size, 2 * pixels.size)
    means = found.reshape(20, pixels.size, 2, pixels.size, 2).mean((2, 4))
    truth = fine.read_masks(several).reshape(20, pixels.size, 2, pixels.size, 2).mean((2, 4))
    expected = coarse.read_masks(several) + 127.0 * (truth - pixels.read_masks(several))
    assert np.abs(means - expected).mean() < 1


def test_a_map_file_of_another_length_is_refused(pixels, teachers, tmp_path):
    maps = taught(pixels, teachers, tmp_path).maps
    maps.write_bytes(maps.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"damaged.*delete that file"):
        taught(pixels, teachers, tmp_path)


def test_a_run_learns_from_a_run_and_does_not_go_on_with_other_teachers(tmp_path, teachers):
    draw_pictures(tmp_path / "drawn")
    settings = {**SETTINGS, "teachers": teachers[:1], "epochs": 2}
    recipe = Recipe.from_dict({k: v for k, v in settings.items() if k != "recipe"}, PRESETS["report"])
    setup = Setup(
        data="synthetic",
        data_dir=tmp_path / "drawn",
        output_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        offline=True,
    )
    said: list[str] = []

    def stop(record):
        if record.epoch == 1:
            raise Stopped("there is a checkpoint: the rest of a run is not what this is about")

    with pytest.raises(Stopped):
        run_experiment(recipe, setup, say=said.append, after_epoch=stop)
    assert any("trained on other data" in line for line in said)
    shutil.rmtree(teachers[0])
    shutil.copytree(teachers[1], teachers[0])
    with pytest.raises(UserError, match="other data"):
        run_experiment(recipe, dataclasses.replace(setup, resume=True), say=said.append)


def test_what_no_teacher_can_be_is_refused(pixels, tmp_path):
    with pytest.raises(UserError, match="no model 'nobody'"):
        taught(pixels, ["nobody"], tmp_path)
    with pytest.raises(UserError, match="name a model"):
        Recipe(teachers=())
    with pytest.raises(UserError, match="lovasz"):
        Recipe(teachers=("isic2016",), loss="lovasz")
    with pytest.raises(UserError, match="a list of words"):
        Recipe.from_dict({"teachers": [1, 2]})
