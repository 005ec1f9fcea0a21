import copy

import pytest
import torch
from torch import nn

import isic_smp
from isic_smp.inference.fuse import fused_for_inference


def worn(model: nn.Module) -> nn.Module:
    """With BatchNorm statistics and scales as after training, not the neutral ones of a new network."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def upconvnet(**settings: object) -> nn.Module:
    return isic_smp.create_model("upconvnet", encoder_weights=None, **settings)


@pytest.mark.parametrize("name", ["v1", "v2-same", "v3", "labels"])
def test_the_fused_copy_computes_the_same_without_batchnorm(name, make_unet):
    model = worn(
        {
            "v1": lambda: upconvnet(encoder_name="trunc-mobilenetv1_100-s2"),
            "v2-same": lambda: upconvnet(encoder_name="trunc-mobilenetv2_050-s3-same"),
            "v3": lambda: upconvnet(encoder_name="trunc-mobilenetv3_small_050-s2"),
            "labels": lambda: make_unet(aux_params={"classes": 2}),
        }[name]()
    )
    state = copy.deepcopy(model.state_dict())
    model.train()
    fused = fused_for_inference(model, torch.rand(1, 3, 64, 64))
    unused = norms(model.encoder.layer3) + norms(model.encoder.layer4) if name == "labels" else 0
    assert norms(fused) == unused < norms(model)
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    batch = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model.eval()(batch)
        expected = expected[0] if name == "labels" else expected
        torch.testing.assert_close(fused(batch), expected, atol=1e-4, rtol=1e-4)


class Peeking(nn.Module):
    """Uses the map between convolution and BatchNorm as well: folding would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 1, 3, padding=1), nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        between = self.conv(x)
        return self.norm(between) + between


def test_a_network_that_folding_would_change_stays_as_it_is():
    model = worn(Peeking()).eval()
    batch = torch.randn(1, 3, 8, 8)
    fused = fused_for_inference(model, batch)
    assert norms(fused) == 1
    with torch.no_grad():
        assert torch.equal(fused(batch), model(batch))
