"""Cross-validation: the training ids in k parts, of which one is validated on and the others are trained on.

Each training image is thus validated on once, by a network that has not seen it: ten times the images of the
fixed validation split, and no test image is looked at.
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass

from isic_smp.data.isic2016 import LesionData, lesions_seen_twice, split_lists
from isic_smp.errors import UserError

MOST = 20
"""Parts; more would be of a handful of images each."""

FOLD = "-fold-"
"""Stands before the fold in the fingerprint of data that were divided so."""


@dataclass(frozen=True)
class Fold:
    """One of `of` parts, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_fold(text: str) -> Fold:
    """`2/5` as the second of five parts.

    Raises:
        UserError: anything else, or more than 20 parts.
    """
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text, re.ASCII)
    fold = Fold(*map(int, found.groups())) if found else None
    if fold is None or not 2 <= fold.of <= MOST or not 1 <= fold.number <= fold.of:
        raise UserError(f"a fold is like 2/5, the second of five parts, of 2 to {MOST}; got {text!r}")
    return fold


def take_fold(data: LesionData, fold: Fold) -> LesionData:
    """`data` with one part of its training and validation images to validate on, and the others to train on.

    Which part an image is in depends on its id and the number of parts alone, not on what else is at hand, and
    images that show one lesion are in one part. Nothing is tested.

    Raises:
        UserError: nothing is left to train or to validate on.
    """
    pairs = sorted((*data.train, *data.val), key=lambda pair: pair.id)
    parts = _parts(data, [pair.id for pair in pairs], fold.of)
    train = tuple(pair for pair in pairs if parts[pair.id] != fold.number)
    val = tuple(pair for pair in pairs if parts[pair.id] == fold.number)
    if not train or not val:
        raise UserError(
            f"fold {fold} leaves {len(train)} images to train on and {len(val)} to validate on: expected some of "
            "both; ask for fewer parts"
        )
    return dataclasses.replace(
        data,
        train=train,
        val=val,
        test=(),
        fingerprint=f"{data.fingerprint}{FOLD}{fold}",
        official={"train": len(train), "val": len(val), "test": 0},
    )


def _parts(data: LesionData, ids: list[str], count: int) -> dict[str, int]:
    """The part of each id, from 1: ids in the order of their digests are dealt out in turn."""
    dealt = set(ids)
    leader: dict[str, str] = {}
    if data.name == "isic2016":
        lists = split_lists()
        dealt |= lists["train"] | lists["val"]
        leader = {other: one for one, other in lesions_seen_twice() if {one, other} <= dealt}
    order = sorted(dealt - leader.keys(), key=lambda id: hashlib.sha256(id.encode()).digest())
    part = {id: position % count + 1 for position, id in enumerate(order)}
    return part | {id: part[first] for id, first in leader.items()}
