"""Data once more as a run divided them: as they come, without one fold, or without a group of pictures."""

from pathlib import Path

from isic_smp.data.folds import FOLD, parse_fold, take_fold
from isic_smp.data.groups import GROUPS
from isic_smp.data.held_out import WITHOUT, hold_out
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.manifest import MANIFEST
from isic_smp.data.names import DIAGNOSIS
from isic_smp.errors import UserError


def as_divided(
    data: LesionData, fingerprint: str, *, cache_dir: Path, binarize_masks: bool = False
) -> LesionData:
    """`data` as they were divided when they had `fingerprint`, so that what is validated on was not trained on.

    Args:
        data: as they come.
        fingerprint: of a run's data.
        cache_dir: for the pixels by which groups are told apart.
        binarize_masks: accept masks with grey values.

    Returns:
        The data, divided; as they are where `fingerprint` is theirs, or of other data.

    Raises:
        UserError: the division leaves nothing or is another one by now, or an image cannot be read.
    """
    division = fingerprint.removeprefix(data.fingerprint)
    if division.startswith(FOLD):
        divided = take_fold(data, parse_fold(division.removeprefix(FOLD).partition("-")[0]))
    elif group := group_held_out(division):
        divided = hold_out(data, group, cache_dir=cache_dir, binarize_masks=binarize_masks)
    else:
        return data
    if divided.fingerprint != fingerprint:
        raise UserError(
            f"{data.root / MANIFEST} tells its images apart otherwise than when the model was trained: expected it and "
            "the images as they were then, or another split"
        )
    return divided


def group_held_out(division: str) -> str | None:
    """The group that a fingerprint, less that of the whole data, says was held out; None where it says none."""
    if division.startswith(WITHOUT + DIAGNOSIS):
        return division.removeprefix(WITHOUT).rpartition("-")[0]
    return next((group for group in GROUPS if division == WITHOUT + group), None)
