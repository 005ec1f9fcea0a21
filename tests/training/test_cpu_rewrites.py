"""The rewritten forward and backward passes against torch's own."""

import pytest
import torch

from isic_smp.models.upconvnet import UpConvNet
from isic_smp.training.cpu_rewrites import rewritten


def gradients(model, x, weights):
    model.train()
    model.zero_grad()
    made = model(x)
    (made * weights).sum().backward()
    return made.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.oldest
@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("trunc-mobilenetv2_035-s3", {}),
        # At 2 × 4 the outer rows of the dilated kernel see padding alone.
        ("trunc-mobilenetv2_035-s3", {"decoder_context": True}),
        ("trunc-mobilenetv2_035-s3", {"skip_connections": False, "decoder_norm": False}),
        ("trunc-mobilenetv2_035-s3-same", {"decoder_norm": False}),
        ("trunc-mobilenetv3_small_050-s2-same", {"decoder_depth": 2, "decoder_channels": (24, 8)}),
        # Too many channels go in for one transposed convolution to be cheaper than two.
        ("trunc-mobilenetv2_035-s2", {"decoder_channels": (8, 8, 3)}),
    ],
)
def test_outputs_and_gradients_are_those_of_the_plain_modules(encoder, settings):
    torch.manual_seed(0)
    model = UpConvNet(encoder, encoder_weights=None, **settings)
    for step in model.decoder.steps:
        torch.nn.init.normal_(step.up.bias)  # zero at first, which would hide what it does at the borders
    model = model.double().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    weights = torch.randn(2, 1, 32, 64, dtype=torch.float64)
    plain, expected = gradients(model, x, weights)
    with rewritten(model):
        fast, got = gradients(model, x, weights)
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-7, atol=1e-8, msg=name)


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "size"),
    [((5, 5), (4, 4), (2, 2), (8, 6)), ((3, 5), (0, 3), (3, 2), (9, 8)), ((5, 3), (4, 1), (2, 1), (2, 3))],
)
def test_a_dilated_depthwise_convolution_has_the_gradients_of_the_plain_one(kernel, padding, dilation, size):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6).double()
    x = torch.randn(3, 6, *size, dtype=torch.float64, requires_grad=True)
    plain = conv(x)
    weights = torch.randn_like(plain)
    wanted = (x, conv.weight, conv.bias)
    expected = torch.autograd.grad((plain * weights).sum(), wanted)
    with rewritten(conv):
        assert "forward" in vars(conv)
        made = conv(x)
        got = torch.autograd.grad((made * weights).sum(), wanted)
    torch.testing.assert_close(made, plain)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_modules_and_state_are_left_as_they_were():
    model = UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None)
    names = list(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"), rewritten(model):
        assert list(model.state_dict()) == names
        assert any("forward" in vars(module) for module in model.modules())
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in model.modules())


def test_bf16_is_as_near_to_float32_as_the_plain_modules_are():
    torch.manual_seed(0)
    model = UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None)
    x, weights = torch.randn(4, 3, 32, 32), torch.randn(4, 1, 32, 32)
    exact, exact_gradients = gradients(model, x, weights)

    def distance():
        with torch.autocast("cpu", torch.bfloat16):
            made, got = gradients(model, x, weights)
        off = [(got[n] - g).norm() / g.norm() for n, g in exact_gradients.items() if g.norm() > 1e-2]
        return ((made.float() - exact).norm() / exact.norm()).item(), torch.stack(off).mean().item()

    plain = distance()
    with rewritten(model):
        fast = distance()
    assert fast[0] < 1.5 * plain[0]
    assert fast[1] < 1.5 * plain[1]
