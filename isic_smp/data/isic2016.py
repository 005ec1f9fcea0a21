"""ISIC 2016 part 1: the official folders, and the fixed split into training, validation and test.

Gutman et al., "Skin Lesion Analysis toward Melanoma Detection: A Challenge at the International
Symposium on Biomedical Imaging (ISBI) 2016" (arXiv:1605.01397). The official split has 900 training
and 379 test images. Here 90 of the 900 are kept for validation: which ones, and how they were
chosen, stands in `splits/` and `make_split.py`. Of the 24 pairs of images that show one lesion twice
(`splits/near_duplicates.txt`), 13 lie on both sides of the official split, 11 within training.
"""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from isic_smp.data.fingerprint import fingerprint
from isic_smp.data.pairs import Pair, find_pairs, some
from isic_smp.errors import UserError

TRAINING = ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth")
TEST = ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth")
FOLDERS = (*TRAINING, *TEST)

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class LesionData:
    """Image and mask pairs in three splits, each sorted by id.

    Attributes:
        name: of the data set, as MLflow shows it.
        root: the folder it lies in.
        fingerprint: digest of ids, splits and file contents (`fingerprint.fingerprint`).
        official: how many pairs each split has when complete, by the keys train, val and test.
    """

    name: str
    root: Path
    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]
    fingerprint: str
    official: Mapping[str, int]

    def describe(self) -> str:
        """One line: `isic2016: train 760 of 810, validation 85 of 90, test 331 of 379`."""
        parts = [
            f"{words} {len(getattr(self, key))} of {self.official[key]}" for key, words in SPLIT_NAMES.items()
        ]
        return f"{self.name}: " + ", ".join(parts)


def has_isic2016(root: Path) -> bool:
    """Whether `root` holds at least one of the four official folders."""
    return any((root / folder).is_dir() for folder in FOLDERS)


def load_isic2016(root: Path, *, cache_dir: Path | None = None) -> LesionData:
    """The pairs under `root`, laid out as the four official archives unpack, in the fixed split.

    A part of the official images is enough, as long as each split has some; `LesionData.describe`
    says how many there are. Files are paired and their content is digested, not decoded: broken
    images and masks are refused where they are first read.

    Args:
        root: the folder that holds the four official folders.
        cache_dir: remembers file digests, so that a further start takes milliseconds.

    Raises:
        UserError: a missing folder, an image without its mask (or the other way round), an id that
            the official split does not have or has on the other side, or a split with no image at all.
    """
    if missing := [folder for folder in FOLDERS if not (root / folder).is_dir()]:
        raise UserError(
            f"no complete ISIC 2016 data in {root}: it lacks the folder {some(missing, limit=4)}; "
            f"`python -m isic_smp.data download --data-dir {shlex.quote(str(root))}` fetches all four"
        )
    lists = split_lists()
    pairs = {
        "training": find_pairs(*(root / folder for folder in TRAINING)),
        "test": find_pairs(*(root / folder for folder in TEST)),
    }
    ids = {side: [pair.id for pair in here] for side, here in pairs.items()}
    if misplaced := misplaced_ids(training=ids["training"], test=ids["test"]):
        raise UserError(f"{root} is not ISIC 2016 part 1: " + "; ".join(misplaced))
    both = pairs["training"] + pairs["test"]
    splits = {name: tuple(pair for pair in both if pair.id in ids) for name, ids in lists.items()}
    if empty := [SPLIT_NAMES[name] for name, found in splits.items() if not found]:
        raise UserError(
            f"{root} has no image of the {' or '.join(empty)} split (the lists are in isic_smp/data/splits)"
        )
    return LesionData(
        name="isic2016",
        root=root,
        **splits,
        fingerprint=fingerprint(splits, cache_dir=cache_dir),
        official={name: len(ids) for name, ids in lists.items()},
    )


def misplaced_ids(*, training: Sequence[str], test: Sequence[str], limit: int | None = 3) -> list[str]:
    """One phrase for each kind of id that the official split has not, or has on the other side."""
    lists = split_lists()
    official = {"training": lists["train"] | lists["val"], "test": lists["test"]}
    phrases = []
    for side, other, ids in (("training", "test", training), ("test", "training", test)):
        if swapped := [id for id in ids if id in official[other]]:
            phrases.append(
                f"{len(swapped)} {side} images are official {other} images ({some(swapped, limit=limit)})"
            )
        if unknown := [id for id in ids if id not in official[side] | official[other]]:
            phrases.append(
                f"{len(unknown)} {side} images are not official ones ({some(unknown, limit=limit)})"
            )
    return phrases


def seen_in_training(
    data: LesionData, split: str, *, learned_from: Collection[str] | None = None
) -> tuple[str, ...]:
    """Ids of a split whose lesion a training image shows too (`splits/near_duplicates.txt`), sorted.

    Of other data than ISIC 2016 none are known.

    Args:
        data: the data.
        split: train, val or test; of train, none are.
        learned_from: ids of the training images. Default: those of `data`.
    """
    if split == "train" or data.name != "isic2016":
        return ()
    training = {pair.id for pair in data.train} if learned_from is None else learned_from
    here = {pair.id for pair in getattr(data, split)}
    twins = lesions_seen_twice()
    both_ways = [*twins, *((other, one) for one, other in twins)]
    return tuple(sorted({one for one, other in both_ways if one in here and other in training}))


def lesions_seen_twice() -> list[tuple[str, str]]:
    """Pairs of official ids whose images show one lesion (`splits/near_duplicates.txt`)."""
    text = (resources.files("isic_smp.data") / "splits" / "near_duplicates.txt").read_text(encoding="utf-8")
    return [(one, other) for one, other in map(str.split, text.splitlines())]


def split_lists() -> dict[str, frozenset[str]]:
    """The official ids by split: train (810), val (90), test (379)."""
    folder = resources.files("isic_smp.data") / "splits"
    return {
        key: frozenset((folder / f"isic2016_{words}.txt").read_text(encoding="utf-8").split())
        for key, words in SPLIT_NAMES.items()
    }
