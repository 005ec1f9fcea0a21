"""The model that comes with the package: at once, off line, and what its card says of it."""

import json
import re

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

import isic_smp
from isic_smp.data.isic2016 import load_isic2016
from isic_smp.data.lesion_drawing import draw_lesion
from isic_smp.errors import UserError
from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scoring import score
from isic_smp.models.shipped import shipped_folder
from isic_smp.models.upconvnet import UpConvNet


@pytest.fixture(scope="module")
def shipped():
    return load_bundle("isic2016")


def test_no_name_means_the_shipped_model(shipped):
    model = isic_smp.load()
    assert not model.training and sum(p.numel() for p in model.parameters()) < 1.5e6
    for name, value in shipped.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value) and value.dtype != torch.float16


@pytest.mark.oldest
def test_its_files_are_small_and_smp_reads_them_too(shipped):
    assert sum(file.stat().st_size for file in shipped_folder().iterdir()) < 4e6
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(
            smp.from_pretrained(shipped_folder()).eval()(x), shipped.model(x), rtol=1e-4, atol=1e-4
        )


def test_it_finds_lesions_that_it_has_never_seen(shipped):
    predictor = Predictor(shipped.model, shipped.preprocessing)
    images, masks = zip(*(draw_lesion(3, i, 160) for i in range(12)), strict=True)
    found = [p > shipped.preprocessing.threshold for p in predictor.predict(images)]
    ious = [(f & (m > 0)).sum() / (f | (m > 0)).sum() for f, m in zip(found, masks, strict=True)]
    assert np.mean(ious) > 0.6


@pytest.mark.slow
def test_its_card_says_what_it_scores(shipped, isic_dir):
    pairs = load_isic2016(isic_dir).val
    stated = shipped.info["validation"]["iou_per_image_own"]
    if len(pairs) != 85:
        pytest.skip("needs the 85 validation images that the card was made with")
    found = score(Predictor(shipped.model, shipped.preprocessing), pairs).summary()["iou_per_image_own"]
    assert found == pytest.approx(stated, abs=2e-3)  # another processor rounds otherwise
    card = (shipped_folder() / "README.md").read_text(encoding="utf-8")
    assert f"{stated:.3f}".replace("0.", ".") in card and not re.search(r"<\w+>", card)


def test_nothing_of_the_machine_that_trained_it_is_in_it():
    text = (shipped_folder() / "isic_smp.json").read_text(encoding="utf-8")
    assert "/" not in json.loads(text)["info"]["recipe"]["encoder_weights"]
    assert not re.search(r'"/\w+/', text)


def test_its_encoder_is_a_choice_of_weights(shipped):
    model = UpConvNet("trunc-mobilenetv2_100-s2", encoder_weights="isic2016")
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, shipped.model.encoder.state_dict()[name]), name
    assert model.mean == shipped.model.mean and model.std == shipped.model.std
    unet = smp.Unet(
        shipped.model.config["encoder_name"],
        encoder_weights=None,
        encoder_depth=4,
        decoder_channels=(64, 32, 16, 8),
    )
    assert isic_smp.load_encoder_weights(unet, "isic2016").source == "isic2016"
    with pytest.raises(
        UserError, match="isic2016 are of mobilenetv2_100, cut after block stage 4, expected mob"
    ):
        UpConvNet("trunc-mobilenetv3_large_100-s2", encoder_weights="isic2016")
    with pytest.raises(
        UserError, match=r"isic2016 ends with block stage 4, but trunc-mobilenetv2_100-s5\S* goes on to 5"
    ):
        UpConvNet("trunc-mobilenetv2_100-s5", encoder_weights="isic2016")
