"""Data once more as a run divided them: as they come, without one fold, or without a group of pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isic_smp.data.fingerprint import parted
from isic_smp.data.folds import FOLD, parse_fold, take_fold
from isic_smp.data.groups import GROUPS
from isic_smp.data.held_out import WITHOUT, hold_out
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.manifest import MANIFEST
from isic_smp.data.names import DIAGNOSIS, ISIC2016, SYNTHETIC
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
        The data, divided; as they are where `fingerprint` is of data that were not.

    Raises:
        UserError: the division is of other data, leaves nothing or is another one by now, or an image cannot be read.
    """
    whole, division = parted(fingerprint)
    is_divided = division.startswith(FOLD) or group_held_out(division) is not None
    if is_divided and whole != data.fingerprint:
        raise UserError(
            f"{data.root} holds other images than those that the model's validation images were taken from "
            f"({division.lstrip('-')}), and some of these it was trained on: expected the images as they were then, or "
            "another split"
        )
    if not is_divided:
        return data
    told_otherwise = UserError(
        f"{data.root / MANIFEST} tells its images apart otherwise than when the model was trained: expected it and "
        "the images as they were then, or another split"
    )
    if group := group_held_out(division):
        divided = hold_out(data, group, cache_dir=cache_dir, binarize_masks=binarize_masks)
    else:
        try:
            divided = take_fold(data, parse_fold(division.removeprefix(FOLD).partition("-")[0]))
        except UserError:  # it advises on a fold to be chosen, and this one was
            raise told_otherwise from None
    if divided.fingerprint != fingerprint:
        raise told_otherwise
    return divided


def group_held_out(division: str) -> str | None:
    """The group that a fingerprint, less that of the whole data, says was held out; None where it says none."""
    if division.startswith(WITHOUT + DIAGNOSIS):
        return division.removeprefix(WITHOUT).rpartition("-")[0]
    return next((group for group in GROUPS if division == WITHOUT + group), None)


def may_have_seen(trained_on: Mapping[str, Any], data: LesionData) -> bool:
    """Whether a network may have learned from images that `data` validate or test on.

    It has not where both are divided alike, nor where both are the official lists of ISIC 2016, however many of their
    images are there, or the one is drawn and the other is not.

    Args:
        trained_on: `name` and `fingerprint` of what it was trained on, as they are kept with a model; empty: unknown.
        data: of a run that starts from it.
    """
    name, theirs = trained_on.get("name"), str(trained_on.get("fingerprint", ""))
    if theirs == data.fingerprint or {name, data.name} == {ISIC2016, SYNTHETIC}:
        return False
    is_divided = any(parted(fingerprint)[1] for fingerprint in (theirs, data.fingerprint))
    return is_divided or not name == data.name == ISIC2016


def warning_of_seen(what: str, trained_on: Mapping[str, Any]) -> str:
    """What is said where `may_have_seen`; `what` is the network."""
    return (
        f"warning: {what} was trained on other data ({trained_on.get('description', 'unknown')}); where images that this "
        "run validates or tests on were among them, its scores flatter"
    )
