"""A frozen encoder's banked features: what they train is what the way through the encoder trains."""

import dataclasses

import numpy as np
import pytest
import torch
from test_fit import CPU, SMALL, Silent, build, pixel_batches, train

from isic_smp.models.normalise import normalise
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.training.batches import Order
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.feature_bank import (
    BankBatches,
    FromFeatures,
    Unbankable,
    bank_views,
    open_feature_bank,
)
from isic_smp.training.fit import fit


def open_bank(model, cache, folder, views=1):
    return open_feature_bank(model, cache, views=views, cache_dir=folder, device=CPU, precision="float32")


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("flips", [True, False])
def test_the_bank_gives_the_losses_of_the_way_through_the_encoder(small_caches, tmp_path, skips, flips):
    recipe = dataclasses.replace(
        SMALL,
        freeze=True,
        affine=0.0,
        colour=0.0,
        flips=flips,
        skip_connections=skips,
        epochs=8 if flips else 2,  # a bank of flipped pictures pays over eight
        feature_bank="on",
    )
    _, through = train(recipe, small_caches, tmp_path / "through")
    model = build(recipe)
    model.freeze_encoder()
    banks = [
        open_bank(model, cache, tmp_path, views=views)
        for cache, views in zip(small_caches, (bank_views(recipe), 1), strict=True)
    ]
    order = pixel_batches(recipe, model, small_caches)[0].order
    banked = fit(
        model,
        recipe,
        BankBatches(banks[0], small_caches[0], order),
        BankBatches(banks[1], small_caches[1], Order(6, 8, shuffle=False)),
        device=CPU,
        network=FromFeatures(model),
        checkpoints=Checkpoints(tmp_path / "banked"),
        fingerprint="data",
        on_epoch=lambda record, model: None,
        progress=Silent(),
    )
    for a, b in zip(through.history, banked.history, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=5e-3)  # float16 holds 11 bits
        assert a.val_loss == pytest.approx(b.val_loss, rel=5e-3)


def test_a_bank_is_shared_by_equal_encoders_only(small_caches, tmp_path):
    def bank_of(seed):
        model = build(dataclasses.replace(SMALL, seed=seed))
        return open_bank(model, small_caches[1], tmp_path).folder

    assert bank_of(0) == bank_of(0) != bank_of(1)


def test_a_bank_holds_what_the_decoder_s_steps_read_and_no_more(small_caches, tmp_path):
    torch.manual_seed(0)
    model = UpConvNet("trunc-mobilenetv2_035-s4", encoder_weights=None, decoder_depth=2).eval()
    bank = open_bank(model, small_caches[1], tmp_path)
    assert [shape[0] for shape in bank.shapes] == [8, 4, 2], "of 32 pixels, the maps at strides 4, 8 and 16"
    images, _ = small_caches[1].read([0, 1])
    zeros = np.zeros(2, np.int64)
    with torch.no_grad():
        banked = FromFeatures(model)(*bank.read(np.arange(2), zeros))
        whole = model(normalise(torch.from_numpy(images), mean=model.mean, std=model.std))
    torch.testing.assert_close(banked, whole, atol=0.01, rtol=0.01)  # float16 holds 11 bits


def test_a_bank_that_a_killed_process_left_half_built_is_built_anew(small_caches, tmp_path):
    left = tmp_path / "banks" / ".building"
    left.mkdir(parents=True)
    (left / "map_0.bin").write_bytes(b"half")
    bank = open_bank(build(SMALL), small_caches[1], tmp_path)
    assert len(bank.read(np.array([5]), np.array([0]))[0]) == 1
    assert sorted(p.name for p in left.parent.iterdir()) == [".lock", bank.folder.name]


def test_recipes_that_cannot_be_banked_say_why():
    for change, why in (
        ({}, "encoder is trained"),
        ({"freeze": True}, "new pixels every epoch"),
        ({"freeze": True, "affine": 0.0, "colour": 0.0}, "cost more than 4 epochs"),
        ({"freeze": True, "feature_bank": "off"}, "switched off"),
    ):
        with pytest.raises(Unbankable, match=why):
            bank_views(dataclasses.replace(SMALL, **change))
