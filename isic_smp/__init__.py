"""Skin-lesion segmentation with truncated MobileNets, inside segmentation-models-pytorch (smp).

The bare package is light, so that commands start at once: torch and smp are imported when one of
the names below is first used, and using one registers the encoders and `UpConvNet` with smp too
(as `import isic_smp.plugin` does).
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segmentation_models_pytorch import create_model, from_pretrained

    from isic_smp.inference.load import load
    from isic_smp.models.encoder import TruncatedMobileNet
    from isic_smp.models.upconvnet import UpConvNet
    from isic_smp.models.weights import load_encoder_weights
    from isic_smp.training.recipe import Recipe

_LAZY = {
    "TruncatedMobileNet": "isic_smp.models.encoder",
    "UpConvNet": "isic_smp.models.upconvnet",
    "create_model": "segmentation_models_pytorch",
    "from_pretrained": "segmentation_models_pytorch",
    "load": "isic_smp.inference.load",
    "load_encoder_weights": "isic_smp.models.weights",
    "Recipe": "isic_smp.training.recipe",
}

__all__ = [
    "Recipe",
    "TruncatedMobileNet",
    "UpConvNet",
    "create_model",
    "from_pretrained",
    "load",
    "load_encoder_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'isic_smp' has no attribute {name!r}")
    if name != "Recipe":
        importlib.import_module("isic_smp.plugin")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
