"""Predicted masks as files, named and coded as the official ISIC scorer wants them."""

from pathlib import Path

import numpy as np

from isic_smp.inference.outputs import write_picture


def mask_path(folder: Path, image_id: str) -> Path:
    """Where the mask of an image belongs: `<image_id>_Segmentation.png`."""
    return folder / f"{image_id}_Segmentation.png"


def write_mask(folder: Path, image_id: str, mask: np.ndarray) -> Path:
    """Write a mask as an 8-bit single-channel PNG, lesion 255, skin 0.

    Args:
        folder: made where missing; the scorer wants masks alone in it.
        image_id: such as ISIC_0000000.
        mask: bool (H, W), true where lesion.

    Returns:
        The file, `<image_id>_Segmentation.png`.
    """
    path = mask_path(folder, image_id)
    write_picture(path, mask.astype(np.uint8) * np.uint8(255))
    return path
