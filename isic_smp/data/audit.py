"""What a folder of images and masks holds, and everything that is wrong with it, before any training.

The words of a refusal are those of `pairs.py`, `images.py` and `isic2016.py`, which loading uses too.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from isic_smp.data.duplicates import Sketch, look_alikes, near_duplicates, sketch
from isic_smp.data.isic2016 import SPLIT_NAMES, TEST, TRAINING, has_isic2016, misplaced_ids, split_lists
from isic_smp.data.pairs import Pair, read_pair, scan_pairs
from isic_smp.data.synthetic import is_synthetic
from isic_smp.errors import UserError

SIDES = {"training": TRAINING, "test": TEST}


@dataclass(frozen=True)
class Twins:
    """Two images that show, or may show, one lesion.

    Attributes:
        sides: training or test, of each.
        matches: features that agree; 0 where that was not asked.
        correlation: 1 for equal pixels; see `duplicates.py`.
    """

    ids: tuple[str, str]
    sides: tuple[str, str]
    matches: int
    correlation: float
    mirrored: bool = False


@dataclass
class Audit:
    """The findings of `audit`.

    Attributes:
        problems: what loading refuses, and equal images on both sides of the split; one phrase each.
        pairs: number of readable pairs by side.
        official: ids found of the official split, by train, val and test.
        sizes: number of images by "width × height".
        areas: lesion share of each readable mask, 0 to 1, by id.
        exact, near, alike: images with equal pixels; the same lesion in detail; alike only at a glance
            (between training and test).
    """

    root: Path
    problems: list[str] = field(default_factory=list)
    pairs: dict[str, int] = field(default_factory=dict)
    official: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)
    exact: list[Twins] = field(default_factory=list)
    near: list[Twins] = field(default_factory=list)
    alike: list[Twins] = field(default_factory=list)
    files: dict[str, Pair] = field(default_factory=dict)
    """Readable pairs by "side/id"."""

    def to_dict(self) -> dict[str, Any]:
        """All but the file paths, as plain JSON values."""
        return {
            **{name: getattr(self, name) for name in ("problems", "pairs", "official", "sizes", "areas")},
            **{
                name: [dataclasses.asdict(it) for it in getattr(self, name)]
                for name in ("exact", "near", "alike")
            },
            "root": str(self.root),
        }


@dataclass(frozen=True)
class _Looked:
    """What is kept of one decoded pair."""

    side: str
    pair: Pair
    size: str
    area: float
    pixels: bytes  # a digest
    sketch: Sketch


def audit(
    root: Path, *, binarize_masks: bool = False, workers: int | None = None, progress: bool = True
) -> Audit:
    """Look at every image and mask under `root` (the official folders, or some of them).

    Pictures are decoded one by one, on several threads; of each about 75 kB are kept.

    Args:
        root: holds the folders named in `isic2016.FOLDERS`.
        binarize_masks: as `read_mask`.
        workers: threads; default one a core.
        progress: show a bar on stderr.

    Raises:
        UserError: no such folder, or none of the official ones in it.
    """
    if not root.is_dir():
        raise UserError(f"the folder {root} does not exist")
    if not has_isic2016(root):
        raise UserError(f"{root} holds none of the folders {', '.join(TRAINING + TEST)}")
    report = Audit(root)
    looked = []
    for it in _look(_find(report), binarize_masks, workers, progress):
        if isinstance(it, str):
            report.problems.append(it)
        else:
            looked.append(it)
            report.areas[it.pair.id] = it.area
            report.files[f"{it.side}/{it.pair.id}"] = it.pair
    report.pairs = dict(Counter(it.side for it in looked))
    report.sizes = dict(Counter(it.size for it in looked).most_common())
    _note_official(report, looked)
    _note_twins(report, looked, progress)
    return report


def _find(report: Audit) -> list[tuple[str, Pair]]:
    found = []
    for side, (images, masks) in SIDES.items():
        try:
            scan = scan_pairs(report.root / images, report.root / masks)
        except UserError as error:
            report.problems.append(str(error))
            continue
        report.problems += [f"{side}: {problem}" for problem in scan.problems(limit=None)]
        found += [(side, pair) for pair in scan.pairs]
    return found


def _look(
    found: list[tuple[str, Pair]], binarize_masks: bool, workers: int | None, progress: bool
) -> Iterator[_Looked | str]:
    """The pairs decoded and measured, or why one is refused, in their order."""

    def look(item: tuple[str, Pair]) -> _Looked | str:
        side, pair = item
        try:
            image, mask = read_pair(pair, binarize_masks=binarize_masks)
        except UserError as error:
            return str(error)
        height, width = mask.shape
        digest = hashlib.sha256(f"{width} {height} ".encode() + image.tobytes()).digest()
        return _Looked(side, pair, f"{width} × {height}", float(mask.mean()), digest, sketch(image))

    with ThreadPoolExecutor(workers) as pool:
        yield from tqdm(
            pool.map(look, found), total=len(found), desc="looking", unit="pair", disable=not progress
        )


def _note_official(report: Audit, looked: list[_Looked]) -> None:
    ids = {side: [it.pair.id for it in looked if it.side == side] for side in SIDES}
    lists = split_lists()
    here = set(ids["training"] + ids["test"])
    report.official = {name: len(here & official) for name, official in lists.items()}
    if not is_synthetic(report.root):
        # Of other data in the same layout all ids are unknown: three say so.
        limit = None if any(report.official.values()) else 3
        report.problems += misplaced_ids(training=ids["training"], test=ids["test"], limit=limit)
        report.problems += _empty_splits(report.official, ids)


def _empty_splits(official: Mapping[str, int], ids: Mapping[str, list[str]]) -> list[str]:
    """The splits of which no image is there, where others of their side are: a side without any has been said."""
    sides = {"train": "training", "val": "training", "test": "test"}
    empty = [
        name for name, side in sides.items() if ids[side] and any(official.values()) and not official[name]
    ]
    return [f"no image of the {SPLIT_NAMES[name]} split" for name in empty]


def _note_twins(report: Audit, looked: list[_Looked], progress: bool) -> None:
    first: dict[bytes, _Looked] = {}
    for it in looked:
        if (one := first.setdefault(it.pixels, it)) is not it:
            report.exact.append(_twins(one, it, correlation=1.0))
    for near in near_duplicates([it.sketch for it in looked], progress=progress):
        one, other = looked[near.first], looked[near.second]
        if one.pixels != other.pixels:
            found = _twins(one, other, near.correlation, matches=near.matches, mirrored=near.mirrored)
            report.near.append(found)
    training, test = ([it for it in looked if it.side == side] for side in SIDES)
    known = {frozenset(twins.ids) for twins in report.exact + report.near}
    for i, j, correlation in look_alikes([it.sketch for it in training], [it.sketch for it in test]):
        if frozenset((training[i].pair.id, test[j].pair.id)) not in known:
            report.alike.append(_twins(training[i], test[j], correlation))
    if across := [" = ".join(twins.ids) for twins in report.exact if twins.sides[0] != twins.sides[1]]:
        report.problems.append(f"{len(across)} images are in training and in test ({', '.join(across)})")


def _twins(
    one: _Looked, two: _Looked, correlation: float, *, matches: int = 0, mirrored: bool = False
) -> Twins:
    return Twins((one.pair.id, two.pair.id), (one.side, two.side), matches, round(correlation, 3), mirrored)
