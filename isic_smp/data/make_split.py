"""Makes the lists in splits/ again: `python -m isic_smp.data.make_split DIR_OF_ISIC2016 [FOLDER_FOR_THE_LISTS]`.

It says whether they are the package's own, which stay as they are. They are where the masks at hand are the same ones.

Of the 900 official training ids, 90 become the validation split:

- Ids that show the same lesion as another image (`splits/near_duplicates.txt`, pairs found by
  `audit.py` and confirmed by eye) stay in training, so that no two splits but the official ones
  share a lesion.
- The others are sorted by lesion area (share of the mask) and cut into equal blocks of neighbours;
  of each block the id with the smallest SHA-256 of "seed:id" goes to validation. So validation has
  the areas of training, and the choice depends on no library's random numbers.
- 55 training masks were not at hand when the lists were made. Their ids form blocks of their own,
  in proportion: 85 of the 90 come from masks at hand, 5 from the others.

The lists are facts from then on: results are comparable only while they stay as they are.
"""

import hashlib
import math
import sys
from pathlib import Path

from isic_smp.cli import command
from isic_smp.data.isic2016 import TRAINING, misplaced_ids, split_lists
from isic_smp.data.pairs import find_pairs, read_mask
from isic_smp.errors import UserError
from isic_smp.files import write_text

PROG = "python -m isic_smp.data.make_split"
SEED = 2016
VALIDATION = 90
LISTS = Path(__file__).parent / "splits"


def choose_validation(areas: dict[str, float | None], twins: set[str], *, count: int, seed: int) -> list[str]:
    """`count` of the ids in `areas`, none of them in `twins`, spread evenly over the lesion areas.

    Args:
        areas: lesion share by id, 0 to 1, or None where it is not known.
        twins: ids that have a near duplicate.
        count: how many are chosen.
        seed: another one chooses others.
    """
    known = sorted(
        (id for id in areas if areas[id] is not None and id not in twins), key=lambda id: (areas[id], id)
    )
    unknown = sorted(id for id in areas if areas[id] is None and id not in twins)
    from_unknown = math.floor(count * len(unknown) / (len(known) + len(unknown)))
    chosen: list[str] = []
    for ids, blocks in ((known, count - from_unknown), (unknown, from_unknown)):
        for block in range(blocks):
            members = ids[block * len(ids) // blocks : (block + 1) * len(ids) // blocks]
            chosen.append(min(members, key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).hexdigest()))
    return sorted(chosen)


def main() -> None:
    """Measure the areas under the folder given, compare the lists that follow with the package's, and write them.

    Raises:
        UserError: no such folder, images that are not official training ones, or lists that would be overwritten.
    """
    if not 2 <= len(sys.argv) <= 3 or sys.argv[1].startswith("-"):
        raise UserError(
            "expected the folder that holds the four official ISIC 2016 folders, and maybe a folder for the lists"
        )
    root, out = Path(sys.argv[1]), (Path(sys.argv[2]) if len(sys.argv) == 3 else None)
    pairs = find_pairs(*(root / folder for folder in TRAINING))
    if misplaced := misplaced_ids(training=[pair.id for pair in pairs], test=[]):
        raise UserError(f"{root} is not ISIC 2016 part 1: " + "; ".join(misplaced))
    lists = split_lists()
    areas: dict[str, float | None] = dict.fromkeys(sorted(lists["train"] | lists["val"]))
    for pair in pairs:
        areas[pair.id] = float(read_mask(pair.mask).mean())
    twins = set((LISTS / "near_duplicates.txt").read_text(encoding="utf-8").split())
    chosen = set(choose_validation(areas, twins, count=VALIDATION, seed=SEED))
    made = {"validation": sorted(chosen), "train": sorted(areas.keys() - chosen)}
    others = len(chosen - lists["val"])
    print(
        f"from {len(pairs)} of {len(areas)} masks: "
        + ", ".join(f"{name} {len(ids)} ids" for name, ids in made.items())
        + (f"; {others} of the validation ids are others than" if others else "; the same ids as")
        + " in the package's lists"
    )
    if out is not None:
        _write(made, out)


def _write(lists: dict[str, list[str]], folder: Path) -> None:
    """Each list into a file of its own; other lists, such as those that results were measured on, are left as they are."""
    for name, ids in lists.items():
        file, text = folder / f"isic2016_{name}.txt", "\n".join(ids) + "\n"
        if file.exists() and file.read_text(encoding="utf-8") != text:
            raise UserError(f"{file} is another list, which results may rest on: name another folder")
        write_text(file, text, option="folder for the lists")


if __name__ == "__main__":
    command(main, prog=PROG)
