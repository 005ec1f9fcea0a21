"""Where tests find the real images and weights, and what keeps them off the network."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

CHECKOUT = Path(__file__).resolve().parent.parent


def _real(variable: str, beside: str) -> Path:
    folder = Path(os.environ.get(variable) or CHECKOUT.parent / "shared" / beside)
    if not folder.is_dir():
        pytest.skip(f"needs real files: set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def isic_dir() -> Path:
    """The folder that holds the four ISIC 2016 part 1 folders."""
    return _real("ISIC_SMP_DATA", "isic2016")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """The folder of .safetensors encoder weights with their .json files."""
    return _real("ISIC_SMP_WEIGHTS", "weights")
