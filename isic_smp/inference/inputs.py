"""Which images a prediction is for, and what each one's mask is called."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from isic_smp.data.pairs import IMAGE_ENDINGS, MASK_SUFFIX
from isic_smp.errors import UserError
from isic_smp.inference.prediction_folder import MASKS, OVERLAYS, PROBABILITIES, RECORD

_ASSESSMENT = re.compile(r"assessment_(\w+)\.json")
"""What `evaluate --out` writes beside its pictures of a split."""
_ITS_PICTURES = ("groups_{}.png", "range_{}.jpg", "reliability_{}.png", "review_{}.png", "worst_{}.jpg")


def find_images(inputs: Sequence[str], *, leave_out: Path) -> list[Path]:
    """The image files that files, folders and patterns stand for, each once, in the order given.

    A folder stands for the images in it and in its subfolders, by ending; hidden files, masks
    (`…_Segmentation.png`), ISIC 2017's `_superpixels` pictures and subfolders that are links are passed over, and
    so are the pictures that earlier calls of predict and evaluate wrote. A file that is named is taken whatever it is
    called. Patterns are `glob`'s, `**` included.

    Args:
        inputs: files, folders, or patterns that the shell has not expanded.
        leave_out: the output folder; nothing that a folder or a pattern finds in it is an input.

    Returns:
        Absolute paths.

    Raises:
        UserError: an input that does not exist or that this user may not look up, a folder that cannot be
            listed, or no image at all.
    """
    leave_out = _real(leave_out)
    found: dict[Path, None] = {}
    for given in inputs:
        for path in _expand(given, leave_out):
            # Not Path's, which raises where a link leads to what may not be looked up; reading says so then.
            if os.path.isdir(path):  # noqa: PTH112
                found.update(dict.fromkeys(_images_below(path, leave_out)))
            else:
                found[path] = None
    if not found:
        outside = f", outside the output folder {leave_out}" if leave_out.is_dir() else ""
        raise UserError(
            f"no images in {', '.join(inputs)}: expected files such as {', '.join(sorted(IMAGE_ENDINGS))}{outside}; "
            "results of predict and evaluate are passed over"
        )
    return list(found)


def name_masks(images: Iterable[Path], named: dict[Path, str]) -> dict[Path, str]:
    """A name for each image, from which its mask's is made; no two are equal, whatever a file system's case.

    That is the file's stem, so ISIC_0000000.jpg gives ISIC_0000000. Images of equal stems get their folder
    before it (`left_scan`, `right_scan`), or as many folders as tell them apart, else their ending, at last a number.

    Args:
        images: absolute paths.
        named: names that were given before, in the same output folder. They stay as they are.

    Returns:
        The name of each of `images`.
    """
    images = list(images)
    names = {image: named[image] for image in images if image in named}
    taken = {name.casefold() for name in named.values()}
    alike: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        if image not in names:
            alike[image.stem.casefold()].append(image)
    # Those alone with their stem first, so that no name made up for others takes it from them.
    for group in sorted(alike.values(), key=len):
        for candidates in _candidates(group):
            folded = {name.casefold() for name in candidates}
            if len(folded) == len(group) and not folded & taken:
                names.update(zip(group, candidates, strict=True))
                taken |= folded
                break
    return names


def _candidates(group: Sequence[Path]) -> Iterator[list[str]]:
    """Names for images of equal stems, ever longer, at last numbered."""
    longest = max(len(image.parts) for image in group)
    for ending in (False, True):
        for folders in range(longest - 1):
            yield [_name(image, folders, with_ending=ending) for image in group]
    number = 2
    while True:
        yield [f"{_name(image, 0, with_ending=True)}_{number + i}" for i, image in enumerate(group)]
        number += 1


def _name(image: Path, folders: int, *, with_ending: bool) -> str:
    stem = image.name.replace(".", "_") if with_ending else image.stem
    above = image.parts[1:-1][-folders:] if folders else ()
    return "_".join([*above, stem])


def _expand(given: str, leave_out: Path) -> list[Path]:
    if _is_there(given):
        return [_absolute(given)]
    matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (pathlib has none for absolute patterns)
    if not matches:
        raise UserError(f"no such image or folder: {given}")
    return [_absolute(match) for match in matches if not _real(Path(match).parent).is_relative_to(leave_out)]


def _is_there(given: str) -> bool:
    """As `os.path.lexists`, which calls missing what this user may not look up."""
    try:
        os.lstat(given)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return False
    except OSError as error:
        advice = (
            "; let this user enter the folder it is in, or leave it out"
            if isinstance(error, PermissionError)
            else ""
        )
        raise UserError(f"cannot look up {given}: {error.strerror}{advice}") from None
    return True


def _absolute(path: str | Path) -> Path:
    """Without `..`, but symbolic links as they are: a link's name is the image's, not its target's."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _real(folder: Path) -> Path:
    """Where it lies: by way of a symbolic link, as the current folder may be, the output folder has another name."""
    return Path(os.path.realpath(folder))


def _images_below(folder: Path, leave_out: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"cannot list the folder {error.filename}: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        if _real(here) == leave_out:
            folders.clear()
            continue
        own = {MASKS, PROBABILITIES, OVERLAYS} if RECORD in files else set()
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in own)
        drawn = _drawn_by_evaluate(files)
        yield from (here / name for name in sorted(files) if _is_image_name(name) and name not in drawn)


def _drawn_by_evaluate(files: Sequence[str]) -> set[str]:
    """Names of the pictures that go with the assessments among the files of a folder."""
    splits = [match[1] for match in map(_ASSESSMENT.fullmatch, files) if match]
    return {name.format(split) for split in splits for name in _ITS_PICTURES}


def _is_image_name(name: str) -> bool:
    path = Path(name)
    return (
        path.suffix.lower() in IMAGE_ENDINGS
        and not name.startswith(".")
        and not path.stem.lower().endswith((MASK_SUFFIX, "_superpixels"))
    )
