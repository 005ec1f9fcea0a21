"""Cross-validation: the training ids in k parts, of which one is validated on and the others are trained on.

Each training image is thus validated on once, by a network that has not seen it: ten times the images of the
fixed validation split, and no test image is looked at. With whole cameras in each part, it is a network that has not
seen its camera either.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from isic_smp.data.cameras import cameras
from isic_smp.data.fingerprint import digest
from isic_smp.data.isic2016 import LesionData, lesions_seen_twice, split_lists
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError

MOST = 20
"""Parts; more would be of a handful of images each."""

FOLD = "-fold-"
"""Stands before the fold in the fingerprint of data that were divided so."""


CAMERAS = ":cameras"
"""Ends a fold that keeps whole cameras together."""


@dataclass(frozen=True)
class Fold:
    """One of `of` parts, counted from 1."""

    number: int
    of: int
    by_camera: bool = False
    """Whether a camera's pictures are all in one part."""

    def __str__(self) -> str:
        return f"{self.number}/{self.of}{CAMERAS * self.by_camera}"


def parse_fold(text: str) -> Fold:
    """`2/5` as the second of five parts, `2/5:cameras` as that of parts with whole cameras.

    Raises:
        UserError: anything else, or more than 20 parts.
    """
    found = re.fullmatch(rf"(\d{{1,3}})/(\d{{1,3}})({CAMERAS})?", text, re.ASCII)
    fold = Fold(int(found[1]), int(found[2]), by_camera=bool(found[3])) if found else None
    if fold is None or not 2 <= fold.of <= MOST or not 1 <= fold.number <= fold.of:
        raise UserError(
            f"a fold is like 2/5, the second of five parts, of 2 to {MOST}, or 2/5{CAMERAS} for parts of whole "
            f"cameras; got {text!r}"
        )
    return fold


def take_fold(data: LesionData, fold: Fold) -> LesionData:
    """`data` with one part of its training and validation images to validate on, and the others to train on.

    Images that show one lesion are not on both sides. Nothing is tested. Which part an image is in depends on its id
    and the number of parts alone, not on what else is at hand. Parts of whole cameras do depend on it: the pictures of
    each camera (`cameras.cameras`), the most first, go to the part that has the fewest by then. There, of a lesion that
    two cameras saw, the picture that would be trained on is left out. Their fingerprint tells the parts, since another
    manifest may make others of the same images.

    Raises:
        UserError: nothing is left to train or to validate on, fewer cameras than parts, or a size that cannot be read.
    """
    pairs = sorted((*data.train, *data.val), key=lambda pair: pair.id)
    parts = _parts_of_cameras(data, pairs, fold.of) if fold.by_camera else _parts(data, pairs, fold.of)
    held = {id for id, part in parts.items() if part == fold.number}
    known = {other for pair in _twins(data) if held & set(pair) for other in pair}
    train = tuple(pair for pair in pairs if pair.id not in held | known)
    val = tuple(pair for pair in pairs if pair.id in held)
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
        fingerprint=f"{data.fingerprint}{FOLD}{fold}" + (f"-{digest(parts)}" if fold.by_camera else ""),
        official={"train": len(train), "val": len(val), "test": 0},
    )


def _parts(data: LesionData, pairs: Sequence[Pair], count: int) -> dict[str, int]:
    """The part of each id, from 1: ids in the order of their digests are dealt out in turn."""
    dealt = {pair.id for pair in pairs}
    if data.name == "isic2016":
        lists = split_lists()
        dealt |= lists["train"] | lists["val"]
    leader = {other: one for one, other in _twins(data) if {one, other} <= dealt}
    order = sorted(dealt - leader.keys(), key=lambda id: hashlib.sha256(id.encode()).digest())
    part = {id: position % count + 1 for position, id in enumerate(order)}
    return part | {id: part[first] for id, first in leader.items()}


def _parts_of_cameras(data: LesionData, pairs: Sequence[Pair], count: int) -> dict[str, int]:
    """The part of each id, from 1; a camera is in one."""
    found = cameras(pairs, data.root)
    if len(found) < count:
        raise UserError(
            f"{count} parts of whole cameras need as many cameras; the sizes of the pictures' frames tell "
            f"{len(found)} apart: ask for fewer parts, or leave out {CAMERAS}"
        )
    part: dict[str, int] = {}
    filled = [0] * count
    for ids in found:
        emptiest = filled.index(min(filled))
        filled[emptiest] += len(ids)
        part |= dict.fromkeys(ids, emptiest + 1)
    return part


def _twins(data: LesionData) -> list[tuple[str, str]]:
    """Pairs of ids that show one lesion, where they are known."""
    return lesions_seen_twice() if data.name == "isic2016" else []
