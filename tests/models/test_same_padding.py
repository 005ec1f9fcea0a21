"""The fixed pad against timm's, which is computed at every call."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from timm.layers import Conv2dSame

import isic_smp.plugin  # noqa: F401
from isic_smp.errors import UserError
from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.families import STAGE_STRIDES
from isic_smp.models.same_padding import Conv2dStaticSame


@pytest.mark.parametrize(
    ("timm_name", "same_padding"),
    [
        ("mobilenetv1_100", True),
        ("mobilenetv2_035", True),
        ("mobilenetv3_small_050", True),
        ("mobilenetv4_conv_small_035", True),
        ("tf_mobilenetv3_small_100", False),
    ],
)
def test_equal_to_timms_dynamic_padding(timm_name, same_padding):
    settings = {"pad_type": "same"} if same_padding else {}
    dynamic = timm.create_model(timm_name, pretrained=False, **settings).eval()
    last = len(STAGE_STRIDES[timm_name]) - 1
    static = TruncatedMobileNet(timm_name=timm_name, cut=last, same_padding=same_padding).eval()
    static.load_state_dict(dynamic.state_dict())
    assert not any(isinstance(layer, Conv2dSame) for layer in static.modules())
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected = dynamic.blocks(dynamic.bn1(dynamic.conv_stem(x)))
        torch.testing.assert_close(static(x)[-1], expected)


def test_the_pad_matters():
    """Otherwise the test above could not fail."""
    symmetric = TruncatedMobileNet(timm_name="mobilenetv2_035", cut=1).eval()
    same = TruncatedMobileNet(timm_name="mobilenetv2_035", cut=1, same_padding=True).eval()
    same.load_state_dict(symmetric.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(same(x)[-1], symmetric(x)[-1], atol=1e-3)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_one_convolution(kernel):
    conv = torch.nn.Conv2d(2, 3, kernel, stride=2)
    dynamic = Conv2dSame(2, 3, kernel, stride=2)
    dynamic.load_state_dict(conv.state_dict())
    x = torch.randn(1, 2, 10, 8)
    torch.testing.assert_close(Conv2dStaticSame(conv)(x), dynamic(x))


@pytest.mark.parametrize(
    "name", ["trunc-mobilenetv2_035-s4-same", "trunc-tf_mobilenetv3_small_minimal_100-s3"]
)
def test_smps_unet_does_not_take_a_size_that_would_be_padded_otherwise(name):
    """smp's Unet takes any size, and the fixed pad is TensorFlow's at multiples of the output stride only."""
    model = smp.Unet(name, encoder_weights=None, encoder_depth=4, decoder_channels=(8, 8, 4, 4)).eval()
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 1, 32, 48)
    with pytest.raises(UserError, match=r"multiples of 16, got 250 × 64: .* to 256 × 64"):
        model(torch.zeros(1, 3, 250, 64))


def test_a_symmetrically_padded_encoder_takes_any_size():
    settings = {"encoder_depth": 4, "decoder_channels": (8, 8, 4, 4)}
    model = smp.Unet("trunc-mobilenetv2_035-s4", encoder_weights=None, **settings).eval()
    assert model(torch.zeros(1, 3, 50, 70)).shape == (1, 1, 50, 70)
