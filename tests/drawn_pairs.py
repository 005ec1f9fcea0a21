"""Small pictures with masks, drawn for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from isic_smp.data.pairs import Pair


def write_pairs(root: Path, count: int, side: int = 48) -> list:
    """Bright ellipses on dark, noisy ground with their masks: learnable in a few steps, drawn in milliseconds."""
    root.mkdir(parents=True, exist_ok=True)
    pairs = []
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    for i in range(count):
        y, x, a, b = rng.uniform(0.35, 0.65, 2).tolist() + rng.uniform(0.12, 0.3, 2).tolist()
        mask = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1
        image = np.where(mask[..., None], [200, 120, 90], [60, 70, 80]) + rng.normal(0, 12, (side, side, 3))
        name = f"IMG_{i:04d}"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"{name}_Segmentation.png")
        pairs.append(Pair(name, root / f"{name}.png", root / f"{name}_Segmentation.png"))
    return pairs
