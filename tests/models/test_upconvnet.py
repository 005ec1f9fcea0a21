"""The architecture, as a user of smp meets it."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

import isic_smp.plugin  # noqa: F401
from isic_smp.errors import UserError
from isic_smp.models.decoder import default_channels
from isic_smp.models.upconvnet import UpConvNet

S4 = "trunc-mobilenetv2_035-s4"  # strides 2, 4, 8, 16


def build(name=S4, **settings):
    return smp.create_model("upconvnet", encoder_name=name, encoder_weights=None, **settings)


def train(model, steps=2):
    """A few real training steps; returns the model in training mode."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(steps):
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def stated(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def differing(module, before):
    return [key for key, value in module.state_dict().items() if not torch.equal(value, before[key])]


@pytest.mark.parametrize("decoder_depth", [1, 2, 3, 4, None])
@pytest.mark.parametrize("skip_connections", [True, False])
def test_every_decoder_depth_gives_the_images_size(decoder_depth, skip_connections):
    model = build(decoder_depth=decoder_depth, skip_connections=skip_connections)
    assert model(torch.randn(2, 3, 64, 32)).shape == (2, 1, 64, 32)
    assert len(model.decoder.steps) == (decoder_depth or 4)
    upsampling = [layer for layer in model.segmentation_head if isinstance(layer, torch.nn.Upsample)]
    assert [layer.scale_factor for layer in upsampling] == (
        [] if decoder_depth in (4, None) else [2 ** (4 - decoder_depth)]
    )
    assert all(layer.mode == "bilinear" for layer in upsampling)


@pytest.mark.parametrize("norm", [True, False])
def test_a_step_is_what_the_report_says(norm):
    model = build(skip_connections=False, decoder_norm=norm)
    layers = [layer for layer in model.decoder.modules() if not list(layer.children())]
    layers = [type(layer).__name__ for layer in layers if not isinstance(layer, torch.nn.Identity)]
    assert layers == ["ConvTranspose2d", "Conv2d", *(["BatchNorm2d"] if norm else []), "ReLU"] * 4


def test_skip_connections_carry_the_finer_maps_and_not_the_image():
    model = build().eval()
    features = model.encoder(torch.randn(1, 3, 64, 64))
    plain = model.decoder(features)
    for i in range(1, 4):
        changed = [f + 1 if i == j else f for j, f in enumerate(features)]
        assert not torch.allclose(model.decoder(changed), plain)
    assert torch.equal(model.decoder([features[0] + 1, *features[1:]]), plain)
    without = build(skip_connections=False).eval()
    expected = without.decoder(features)
    assert torch.equal(without.decoder([f + 1 for f in features[:-1]] + features[-1:]), expected)


@pytest.mark.parametrize(("encoder_depth", "decoder_depth", "channels"), [
    (5, 5, (256, 128, 64, 32, 16)),
    (4, 4, (128, 64, 32, 16)),
    (4, 2, (128, 64)),
    (2, 2, (32, 16)),
])  # fmt: skip
def test_default_channels_follow_the_resolution(encoder_depth, decoder_depth, channels):
    assert default_channels(encoder_depth, decoder_depth) == channels
    model = build("trunc-mobilenetv2_035-s6", encoder_depth=encoder_depth, decoder_depth=decoder_depth)
    assert tuple(step.conv.out_channels for step in model.decoder.steps) == channels
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_what_smps_users_expect():
    aux = {"classes": 5, "dropout": 0.3, "activation": "sigmoid"}
    model = build(
        classes=3, in_channels=4, activation="sigmoid", aux_params=aux, decoder_channels=[8, 8, 4, 4]
    )
    masks, labels = model(torch.randn(2, 4, 32, 32))
    assert masks.shape == (2, 3, 32, 32)
    assert labels.shape == (2, 5)
    assert 0 <= masks.min() <= masks.max() <= 1
    assert model.predict(torch.randn(1, 4, 32, 32))[0].shape == (1, 3, 32, 32)
    with pytest.raises(RuntimeError, match="divisible by 16"):
        model(torch.randn(1, 4, 40, 32))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "resnet34"}, "no encoder 'resnet34'"),
        ({"encoder_depth": 5}, "depth 1 to 4"),
        ({"decoder_depth": 5}, "decoder_depth must be from 1 to 4"),
        ({"decoder_depth": 0}, "decoder_depth must be from 1 to 4"),
        ({"decoder_channels": (8, 8)}, "decoder_channels must be 4"),
        ({"decoder_channels": (8, 8, 8, 0)}, "decoder_channels must be 4"),
        ({"classes": 0}, "classes"),
        ({"mean": (0.5, 0.5)}, "mean must be 3 numbers"),
        ({"std": (0.5, 0.5, 0)}, "std must be numbers above 0"),
    ],
)
def test_impossible_settings(settings, says):
    with pytest.raises(UserError, match=says):
        build(**settings)


@pytest.mark.parametrize("load", [smp.from_pretrained, UpConvNet.from_pretrained])
def test_a_saved_model_comes_back_equal(tmp_path, load):
    saved = train(
        build(
            S4 + "-same",
            encoder_depth=3,
            decoder_depth=2,
            decoder_channels=(12, 6),
            decoder_norm=False,
            skip_connections=False,
            classes=2,
            mean=(0.1, 0.2, 0.3),
            std=(0.4, 0.5, 0.6),
        )
    ).eval()
    saved.save_pretrained(tmp_path)
    loaded = load(tmp_path).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), saved(x))
    assert (loaded.mean, loaded.std) == (saved.mean, saved.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.config == json.loads(json.dumps(saved.config))


@pytest.mark.slow
def test_the_saved_card_says_how_to_load_the_model(tmp_path):
    model = build().eval()
    model.save_pretrained(tmp_path)
    [example] = re.findall("```python\n(import.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    code = example.replace("<save-directory-or-this-repo>", str(tmp_path)) + "print(type(model).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["UpConvNet"], done.stderr


def test_numpy_s_numbers_come_back_too(tmp_path):
    """huggingface_hub leaves out of config.json what JSON cannot hold."""
    saved = build(
        encoder_depth=np.int64(3),
        decoder_channels=np.array([8, 4]),
        decoder_depth=np.int64(2),
        decoder_norm=np.bool_(False),
        skip_connections=np.bool_(False),
        decoder_context=np.bool_(True),
        classes=np.int64(2),
    ).eval()
    saved.save_pretrained(tmp_path / "given")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(smp.from_pretrained(tmp_path / "given").eval()(x), saved(x))
    build(decoder_width=np.float32(0.5), in_channels=np.int64(1)).save_pretrained(tmp_path / "wide")
    wide = smp.from_pretrained(tmp_path / "wide")
    assert wide.decoder.steps[0].conv.out_channels == 64
    assert wide(torch.randn(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_an_activation_that_cannot_be_saved_is_not_lost_silently(tmp_path):
    model = build(activation=torch.nn.Sigmoid).eval()
    with pytest.raises(UserError, match=r"cannot save activation: .* set model\.config"):
        model.save_pretrained(tmp_path)
    model.config["activation"] = "sigmoid"
    model.save_pretrained(tmp_path)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(smp.from_pretrained(tmp_path).eval()(x), model(x))


def test_where_the_encoder_s_weights_came_from_is_not_saved(tmp_path):
    """Loading a saved model must not ask for the weights that its encoder once started from."""
    model = UpConvNet("trunc-mobilenetv2_100-s1", encoder_weights="isic2016")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_weights"] is None
    loaded = smp.from_pretrained(tmp_path)
    assert (loaded.mean, loaded.std) == (model.mean, model.std)
    assert loaded.config["encoder_name"] == model.config["encoder_name"]


def test_a_frozen_encoder_does_not_change_and_is_evaluated_alike():
    """smp 0.6 leaves dropout and drop-path of a frozen encoder on, whatever `eval()` says."""
    model = build()
    model.encoder.blocks[1].append(torch.nn.Dropout(0.5))
    model.train()
    model.freeze_encoder()
    before = stated(model.encoder)
    decoder = stated(model.decoder)
    train(model)
    assert differing(model.encoder, before) == []
    assert len(differing(model.decoder, decoder)) == len(decoder)
    assert not any(p.requires_grad for p in model.encoder.parameters())

    x = torch.randn(1, 3, 64, 64)
    model.train()
    assert torch.equal(model.encoder(x)[-1], model.encoder(x)[-1])  # a bank of features stays true
    model.eval()
    assert torch.equal(model(x), model(x))
    model.encoder.train()  # whatever was done to the encoder itself
    assert not any(layer.training for layer in model.eval().modules())
    assert differing(train(copy.deepcopy(model)).encoder, before) == []


def test_unfreezing_undoes_freezing():
    model = build()
    model.eval()
    model.freeze_encoder()
    model.unfreeze_encoder()
    assert not any(layer.training for layer in model.modules())  # unfreezing in evaluation stays evaluation
    before = stated(model.encoder)
    train(model)
    changed = differing(model.encoder, before)
    statistics = [key for key in before if "running" in key]
    assert set(statistics) < set(changed)
    assert "conv_stem.weight" in changed
    assert all(p.requires_grad for p in model.parameters())
    assert all(layer.training for layer in model.modules())


def test_upsampling_starts_without_a_checkerboard_and_keeps_the_scale():
    model = build()
    up = model.decoder.steps[0].up
    y = up(torch.randn(1, up.in_channels, 32, 32))
    assert torch.equal(y[..., ::2, ::2], y[..., 1::2, 1::2])
    assert 0.8 < y.std() < 1.2


def test_no_parameter_is_unused():
    for skips in (True, False):
        model = build(skip_connections=skips)
        model(torch.randn(2, 3, 32, 32)).mean().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_context_sees_further():
    def reach(context):
        torch.manual_seed(0)
        model = build(decoder_context=context, skip_connections=False).eval()
        image = torch.randn(1, 3, 512, 512, requires_grad=True)
        model(image)[0, 0, 8, 8].backward()
        return image.grad[0, :, 190:230, 190:230].abs().sum().item()

    assert reach(False) == 0 < reach(True)


def test_context_survives_saving(tmp_path):
    model = build(decoder_context=True, decoder_width=0.5).eval()
    model.save_pretrained(tmp_path)
    again = smp.from_pretrained(tmp_path).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(x), model(x))


def test_width_multiplies_the_default_channels():
    model = build(decoder_width=0.25)
    assert [step.conv.out_channels for step in model.decoder.steps] == [32, 16, 8, 4]
    given = build(decoder_width=0.25, decoder_channels=(5, 6, 7, 8))
    assert [step.conv.out_channels for step in given.decoder.steps] == [5, 6, 7, 8]
    with pytest.raises(UserError, match="decoder_width must be above 0, got 0"):
        build(decoder_width=0)
