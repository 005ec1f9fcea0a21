"""A group of pictures left out of training and validated on.

A mean over a validation split drawn like the training pictures says little of other people's pictures. A whole group
left out says more: its lesions are fainter, smaller, cut by the frame, or in another light than all that the network
has seen.
"""

import dataclasses
from pathlib import Path

import numpy as np

from isic_smp.data.cache import open_pixel_cache
from isic_smp.data.groups import GROUPS, SIZE, marks
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.names import Group
from isic_smp.errors import UserError

_AT_ONCE = 256

WITHOUT = "-without-"
"""Stands before the group in the fingerprint of data that were divided so."""


def hold_out(data: LesionData, group: Group, *, cache_dir: Path, binarize_masks: bool = False) -> LesionData:
    """`data` without the pictures of a group to train on, and with all of them, and no others, to validate on.

    A held-out group is for choosing, so nothing is tested. A lesion of which there are two pictures may be on both
    sides (2 of the 388 hard ones that ISIC 2016's subset has); `folds.take_fold` keeps such pairs together.

    Raises:
        UserError: no such group, or nothing left to train or to validate on.
    """
    if group not in GROUPS:
        raise UserError(f"no group {group!r} to hold out: expected one of {', '.join(GROUPS)}")
    pairs = sorted((*data.train, *data.val), key=lambda pair: pair.id)
    pixels = open_pixel_cache(pairs, SIZE, cache_dir=cache_dir, binarize_masks=binarize_masks)
    chunks = [np.arange(len(pairs))[i : i + _AT_ONCE] for i in range(0, len(pairs), _AT_ONCE)]
    belongs = np.concatenate([GROUPS[group](marks(*pixels.read(chunk))) for chunk in chunks])
    held = {pair.id for pair, within in zip(pairs, belongs, strict=True) if within}
    train = tuple(pair for pair in data.train if pair.id not in held)
    val = tuple(pair for pair in pairs if pair.id in held)
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
        fingerprint=f"{data.fingerprint}{WITHOUT}{group}",
        official={"train": len(train), "val": len(val), "test": 0},
    )
