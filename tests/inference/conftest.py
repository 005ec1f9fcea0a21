from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from isic_smp.inference.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return Preprocessing(size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., nn.Module]:
    """An untrained smp model, small and always the same."""

    def make(**changes: Any) -> nn.Module:
        torch.manual_seed(0)
        settings = {"encoder_weights": None, "encoder_depth": 3, "decoder_channels": (16, 8, 4), **changes}
        return smp.Unet("resnet18", **settings)

    return make


@pytest.fixture
def unet(make_unet: Callable[..., nn.Module]) -> nn.Module:
    return make_unet()
