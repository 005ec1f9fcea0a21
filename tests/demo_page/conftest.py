"""Two small models and a real image for the page to show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import isic_smp
from isic_smp.data.images import read_image
from isic_smp.data.isic2016 import FOLDERS
from isic_smp.data.resize import resize_image
from isic_smp.demo_page.models import Models, named_choices
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing

EXPECTED = ExpectedIoU(intercept=0.2, slope=0.8)


def save_model(folder: Path, seed: int, image: np.ndarray) -> Path:
    """A small random network, its logits on `image` spread out so that every threshold draws another mask."""
    torch.manual_seed(seed)
    model = isic_smp.create_model(
        "upconvnet", encoder_name="trunc-mobilenetv3_small_050-s1", encoder_weights=None
    )
    preprocessing = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, threshold=0.45)
    logits = Predictor(model, preprocessing).logits(resize_image(image, 64)[None])
    scale = 1.5 / logits.std()
    with torch.no_grad():
        model.segmentation_head[0].weight *= scale
        model.segmentation_head[0].bias.copy_((model.segmentation_head[0].bias - logits.mean()) * scale)
    info = {"validation": {"dice_per_image_own": 0.875}}
    if seed:  # the other one is of an older version
        info |= EXPECTED.to_facts()
    save_bundle(model, preprocessing, info, folder / "model")
    return folder


@pytest.fixture(scope="session")
def image_path(isic_dir, tmp_path_factory) -> Path:
    """A real image, at a size that is neither square nor the network's."""
    path = tmp_path_factory.mktemp("image") / "ISIC_0000013.png"
    picture = Image.open(isic_dir / FOLDERS[2] / "ISIC_0000013.jpg")
    picture.resize((300, 225), Image.Resampling.LANCZOS).save(path)
    return path


@pytest.fixture(scope="session")
def model_dirs(image_path, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"model-{seed}", seed, read_image(image_path)) for seed in (0, 1)]


@pytest.fixture
def models(model_dirs) -> Models:
    specs = [str(folder) for folder in model_dirs]
    return Models(named_choices(specs), specs, device=torch.device("cpu"))


@pytest.fixture
def predictor(model_dirs) -> Predictor:
    bundle = load_bundle(model_dirs[0])
    return Predictor(bundle.model, bundle.preprocessing)


@pytest.fixture
def expected_iou() -> ExpectedIoU:
    """What was fitted for the second model."""
    return EXPECTED
