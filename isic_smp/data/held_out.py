"""A group of pictures left out of training and validated on.

A mean over a validation split drawn like the training pictures says little of other people's pictures. A whole group
left out says more: its lesions are fainter, smaller, cut by the frame, in another light, or of another kind than all
that the network has seen.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isic_smp.data.cache import open_pixel_cache
from isic_smp.data.diagnoses import read_diagnoses
from isic_smp.data.fingerprint import digest
from isic_smp.data.groups import GROUPS, SIZE, marks
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.manifest import MANIFEST
from isic_smp.data.names import DIAGNOSIS
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError

_AT_ONCE = 256

WITHOUT = "-without-"
"""Stands before the group in the fingerprint of data that were divided so."""


def hold_out(data: LesionData, group: str, *, cache_dir: Path, binarize_masks: bool = False) -> LesionData:
    """`data` without the pictures of a group to train on, and with all of them, and no others, to validate on.

    A held-out group is for choosing, so nothing is tested. A lesion of which there are two pictures may be on both
    sides (2 of the 388 hard ones that ISIC 2016's subset has); `folds.take_fold` keeps such pairs together.

    Args:
        data: whose training and validation pictures are divided.
        group: a `Group`, told by the pixels, or `diagnosis:NAME`, told by `manifest.csv`. Pictures whose diagnosis that
            does not say are on neither side, and the fingerprint holds which picture is on which, since another
            manifest may tell the same pictures otherwise.
        cache_dir: for the pixels by which groups are told apart.
        binarize_masks: accept masks with grey values.

    Raises:
        UserError: no such group, no table of diagnoses, or nothing left to train or to validate on.
    """
    pairs = sorted((*data.train, *data.val), key=lambda pair: pair.id)
    by_table = group.startswith(DIAGNOSIS)
    if by_table:
        belongs = _by_diagnosis(pairs, group.removeprefix(DIAGNOSIS), data.root)
    else:
        belongs = _by_pixels(pairs, group, cache_dir=cache_dir, binarize_masks=binarize_masks)
    train = tuple(pair for pair in data.train if belongs.get(pair.id) is False)
    val = tuple(pair for pair in pairs if belongs.get(pair.id))
    if not train or not val:
        raise UserError(
            f"holding out {group!r} leaves {len(train)} pictures to train on and {len(val)} to validate on: "
            "expected some of both"
        )
    return dataclasses.replace(
        data,
        train=train,
        val=val,
        test=(),
        fingerprint=f"{data.fingerprint}{WITHOUT}{group}" + (f"-{digest(belongs)}" if by_table else ""),
        official={"train": len(train), "val": len(val), "test": 0},
    )


def _by_pixels(
    pairs: Sequence[Pair], group: str, *, cache_dir: Path, binarize_masks: bool
) -> dict[str, bool]:
    """Whether each id belongs to the group."""
    if group not in GROUPS:
        raise UserError(
            f"no group {group!r} to hold out: expected one of {', '.join(GROUPS)}, or {DIAGNOSIS}NAME with a diagnosis "
            f"of {MANIFEST}"
        )
    pixels = open_pixel_cache(pairs, SIZE, cache_dir=cache_dir, binarize_masks=binarize_masks)
    chunks = [np.arange(len(pairs))[i : i + _AT_ONCE] for i in range(0, len(pairs), _AT_ONCE)]
    belongs = np.concatenate([GROUPS[group](marks(*pixels.read(chunk))) for chunk in chunks])
    return {pair.id: bool(within) for pair, within in zip(pairs, belongs, strict=True)}


def _by_diagnosis(pairs: Sequence[Pair], diagnosis: str, root: Path) -> dict[str, bool]:
    """Whether each id has the diagnosis; ids without any are left out."""
    table = read_diagnoses(root)
    if table is None:
        raise UserError(
            f"{DIAGNOSIS}{diagnosis} needs a {MANIFEST}, with commas and the columns id and diagnosis, in {root}; there is "
            f"{'none with those' if (root / MANIFEST).is_file() else 'none'}"
        )
    known = {pair.id: table[pair.id] for pair in pairs if table.get(pair.id)}
    if diagnosis not in known.values():
        names = (
            ", ".join(sorted(set(known.values())))
            or "none of these pictures: its ids are file names without ending"
        )
        raise UserError(
            f"no picture to train or validate on has the diagnosis {diagnosis!r}: expected one of those in "
            f"{root / MANIFEST} ({names})"
        )
    return {id: its == diagnosis for id, its in known.items()}
