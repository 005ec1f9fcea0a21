"""Predicted masks as files, named and coded as the official ISIC scorer wants them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isic_smp.errors import UserError
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


def refuse_masks_of_another(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse a folder with masks that `claim` was not called for with the same `made_by`: none, or no folder, is fine.

    Raises:
        UserError: there are such masks.
    """
    record = folder.with_suffix(".json")
    is_there = any(folder.glob("*.png"))
    if is_there and not (
        record.exists() and record.read_text(encoding="utf-8", errors="replace") == _as_text(made_by)
    ):
        raise UserError(
            f"{folder} holds masks of another model, of other settings or of other data: choose another --out, or "
            "delete that folder first"
        )


def claim(folder: Path, image_ids: Iterable[str], made_by: Mapping[str, Any]) -> None:
    """Say in `FOLDER.json`, beside a folder of masks to be written, whose they are.

    Args:
        folder: that `write_mask` will be given.
        image_ids: of all masks to come; the official scorer would take others along.
        made_by: what the masks depend on, as plain JSON values; masks of two models would be scored as one's.

    Raises:
        UserError: the folder holds masks of other images or of another model.
    """
    own = {mask_path(folder, image_id) for image_id in image_ids}
    if others := sorted(set(folder.glob("*.png")) - own):
        raise UserError(
            f"{folder} holds masks of other images, such as {others[0].name}: choose another --out"
        )
    refuse_masks_of_another(folder, made_by)
    folder.with_suffix(".json").write_text(_as_text(made_by), encoding="utf-8")


def _as_text(made_by: Mapping[str, Any]) -> str:
    return json.dumps(made_by, sort_keys=True)
