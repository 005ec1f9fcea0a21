"""The torch-free table against timm itself."""

import pytest
import timm
import torch

from isic_smp.errors import UserError
from isic_smp.models.families import (
    STAGE_STRIDES,
    STEM_STRIDE,
    all_encoder_names,
    encoder_name,
    has_same_twin,
    is_antialiased,
    parse_encoder_name,
)

# One of each family and padding; the rest of the table is slow.
TYPICAL = {
    "mobilenetv1_100",
    "mobilenetv2_035",
    "mobilenetv3_large_075",
    "mobilenetv3_small_050",
    "tf_mobilenetv3_large_075",
    "tf_mobilenetv3_small_075",
    "mobilenetv4_conv_small_035",
    "mobilenetv4_conv_aa_medium",
    "mobilenetv4_conv_blur_medium",
}


def networks():
    for name in STAGE_STRIDES:
        yield pytest.param(name, marks=() if name in TYPICAL else pytest.mark.slow)


@pytest.mark.oldest
@pytest.mark.parametrize("timm_name", networks())
def test_strides_and_padding_are_timms(timm_name):
    with torch.device("meta"):  # shapes without arithmetic
        network = timm.create_model(timm_name, pretrained=False).eval()
        x = network.bn1(network.conv_stem(torch.empty(1, 3, 64, 64)))
    assert 64 // x.shape[-1] == STEM_STRIDE
    strides = []
    for stage in network.blocks:
        x = stage(x)
        strides.append(64 // x.shape[-1])
    assert STAGE_STRIDES[timm_name] == tuple(strides)

    layers = {type(layer).__name__ for layer in network.modules()}
    antialiased = bool(layers & {"BlurPool2d", "AvgPool2d"})
    assert is_antialiased(timm_name) == antialiased
    assert has_same_twin(timm_name) == (not antialiased and "Conv2dSame" not in layers)


@pytest.mark.oldest
def test_every_convolutional_mobilenet_of_timm_is_there():
    timms = {name for v in "1234" for name in timm.list_models(f"*mobilenetv{v}*")}
    assert set(STAGE_STRIDES) == {name for name in timms if "hybrid" not in name}


def test_names_round_trip():
    names = all_encoder_names()
    assert len(set(names)) == len(names)
    for name in names:
        parsed = parse_encoder_name(name)
        assert str(parsed) == name
        assert encoder_name(parsed.timm_name, parsed.cut, parsed.same_padding) == name


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("trunc-mobilenetv2_100-s4", (2, 4, 8, 16)),
        ("trunc-mobilenetv2_100-s0", (2,)),
        ("trunc-mobilenetv3_small_100-s0", (2, 4)),
        ("trunc-mobilenetv4_conv_small-s4-same", (2, 4, 8, 16, 32)),
    ],
)
def test_strides_of_a_cut(name, strides):
    assert parse_encoder_name(name).strides == strides


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet34", "trunc-<timm MobileNet>"),
        ("trunc-mobilenetv2_10-s4", "trunc-mobilenetv2_100-s4"),
        ("trunc-mobilenetv2_100-s7", "s0 to s6"),
        ("trunc-mobilenetv2_100-s04", "s0 to s6"),
        ("trunc-mobilenetv4_hybrid_medium-s1", "no encoder"),
        ("trunc-tf_mobilenetv3_small_100-s1-same", "use trunc-tf_mobilenetv3_small_100-s1"),
    ],
)
def test_an_unknown_name_is_an_error_that_helps(name, says):
    with pytest.raises(UserError, match="no encoder") as error:
        parse_encoder_name(name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
