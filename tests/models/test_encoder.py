"""The cut networks against timm's whole ones, and against smp's contract of an encoder."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from timm.models import adapt_input_conv

import isic_smp.plugin  # noqa: F401
from isic_smp.errors import UserError
from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.families import STAGE_STRIDES, parse_encoder_name

ONE_OF_EACH = [
    "mobilenetv1_100",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "tf_mobilenetv3_small_minimal_100",
    "mobilenetv4_conv_small_035",
]


def count(module):
    return sum(p.numel() for p in module.parameters())


def cut(timm_name, stage=None, **settings):
    stage = len(STAGE_STRIDES[timm_name]) - 1 if stage is None else stage
    return TruncatedMobileNet(timm_name=timm_name, cut=stage, **settings).eval()


def last_at_each_stride(maps):
    """Of maps fine to coarse, the last one of each size."""
    pairs = zip(maps, [*maps[1:], None], strict=True)
    return [m for m, after in pairs if after is None or m.shape[-1] > after.shape[-1]]


@pytest.mark.parametrize("timm_name", ONE_OF_EACH)
def test_every_cut_is_timms_network_up_to_there(timm_name):
    whole = timm.create_model(timm_name, pretrained=False).eval()
    for layer in whole.modules():  # statistics other than 0 and 1, so that a lost one shows
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        timms = whole.forward_intermediates(x, intermediates_only=True, extra_blocks=True)
    for stage in (0, 2, len(STAGE_STRIDES[timm_name]) - 1):
        encoder = cut(timm_name, stage)
        encoder.load_state_dict(whole.state_dict())
        with torch.no_grad():
            maps = encoder(x)
        assert maps[0] is x
        for got, expected in zip(maps[1:], last_at_each_stride(timms[: stage + 2]), strict=True):
            torch.testing.assert_close(got, expected)
        assert [m.shape[1] for m in maps] == encoder.out_channels
        assert tuple(64 // m.shape[-1] for m in maps[1:]) == parse_encoder_name(encoder.encoder_name).strides
        assert encoder.output_stride == 64 // maps[-1].shape[-1]


@pytest.mark.parametrize("timm_name", ONE_OF_EACH)
def test_what_is_cut_off_does_not_exist(timm_name):
    whole = timm.create_model(timm_name, pretrained=False)
    for stage in range(len(STAGE_STRIDES[timm_name])):
        encoder = cut(timm_name, stage)
        kept = [whole.conv_stem, whole.bn1, *whole.blocks[: stage + 1]]
        assert count(encoder) == sum(map(count, kept))
        prefixes = ("conv_stem.", "bn1.", *(f"blocks.{i}." for i in range(stage + 1)))
        assert set(encoder.state_dict()) == {k for k in whole.state_dict() if k.startswith(prefixes)}


def test_a_smaller_depth_cuts_further():
    assert count(cut("mobilenetv2_035", 4, depth=3)) == count(cut("mobilenetv2_035", 2))
    stem_only = cut("mobilenetv3_small_050", 5, depth=1)
    assert {key.split(".")[0] for key in stem_only.state_dict()} == {"conv_stem", "bn1"}
    assert [m.shape[-1] for m in stem_only(torch.zeros(1, 3, 32, 32))] == [32, 16]


@pytest.mark.parametrize("depth", [0, 5, 6])
def test_a_depth_that_the_cut_has_not(depth):
    with pytest.raises(ValueError, match=r"depth 1 to 4.*encoder_depth=4"):
        cut("mobilenetv2_035", 4, depth=depth)


def test_only_what_was_cut_off_is_passed_over_in_loading():
    state_dict = timm.create_model("mobilenetv2_035", pretrained=False).state_dict()
    encoder = cut("mobilenetv2_035", 2)
    before = len(state_dict)
    encoder.load_state_dict(state_dict)
    assert len(state_dict) == before  # the caller's own is left alone
    with pytest.raises(RuntimeError, match="Unexpected"):
        encoder.load_state_dict({**state_dict, "blocks.7.0.conv.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Unexpected"):
        encoder.load_state_dict({**state_dict, "blocks.1.9.conv.weight": torch.zeros(1)})
    del state_dict["blocks.1.0.bn1.weight"]
    with pytest.raises(RuntimeError, match="Missing"):
        encoder.load_state_dict(state_dict)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_pretrained_stem_is_adapted_as_timm_does(channels):
    encoder = cut("mobilenetv2_035", 1)
    rgb = encoder.conv_stem.weight.detach().clone()
    encoder.set_in_channels(channels, pretrained=True)
    assert torch.equal(encoder.conv_stem.weight, adapt_input_conv(channels, rgb))
    assert encoder(torch.zeros(1, channels, 32, 32))[0].shape[1] == encoder.out_channels[0] == channels


def test_a_fresh_stem_for_other_channels_has_the_same_scale():
    encoder = cut("mobilenetv1_100", 0)
    before = encoder.conv_stem.weight.std()
    encoder.set_in_channels(6, pretrained=False)
    assert encoder.conv_stem.weight.shape[1] == 6
    torch.testing.assert_close(encoder.conv_stem.weight.std(), before, rtol=0.15, atol=0)
    with pytest.raises(UserError, match="in_channels"):
        encoder.set_in_channels(0)


@pytest.mark.parametrize("name", ["trunc-mobilenetv2_035-s6", "trunc-tf_mobilenetv3_small_100-s5"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_keeps_the_resolution(name, output_stride):
    encoder = smp.encoders.get_encoder(name, depth=5, weights=None, output_stride=output_stride)
    sizes = [m.shape[-1] for m in encoder(torch.zeros(1, 3, 64, 64))]
    assert sizes == [64 // min(2**i, output_stride) for i in range(6)]
    assert encoder.output_stride == output_stride


def test_dilation_sees_what_strides_saw():
    """Away from the border, every second pixel of the dilated map is a pixel of the strided one."""
    torch.manual_seed(0)
    strided = cut("mobilenetv2_035", 5)
    dilated = cut("mobilenetv2_035", 5, output_stride=16)
    dilated.load_state_dict(strided.state_dict())
    # smp dilates the striding convolution itself too, which a centre tap alone does not notice.
    for encoder in (strided, dilated):
        weight = encoder.blocks[5][0].conv_dw.weight
        centre = torch.zeros_like(weight)
        centre[:, :, 1, 1] = 1
        weight.data = centre
    x = torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        coarse, fine = strided(x)[-1], dilated(x)[-1][:, :, ::2, ::2]
    assert coarse.shape == fine.shape
    torch.testing.assert_close(coarse[:, :, 6:-6, 6:-6], fine[:, :, 6:-6, 6:-6], rtol=1e-4, atol=1e-4)


def test_dilation_that_cannot_be():
    with pytest.raises(UserError, match="8, 16 or 32"):
        cut("mobilenetv2_035", output_stride=4)
    with pytest.raises(UserError, match="anti-aliasing"):
        cut("mobilenetv4_conv_aa_medium", output_stride=16)
    assert cut("mobilenetv4_conv_aa_medium", 2, output_stride=16).output_stride == 16  # nothing to dilate


@pytest.mark.parametrize("name", ["trunc-mobilenetv3_small_050-s5", "trunc-mobilenetv2_035-s4"])
def test_every_parameter_is_used(name):
    """What DistributedDataParallel asks for."""
    depth = len(parse_encoder_name(name).strides)
    encoder = smp.encoders.get_encoder(name, depth=depth, weights=None)
    encoder(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
