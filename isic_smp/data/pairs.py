"""An image and its lesion mask: finding pairs by name, reading one, and refusing what does not fit."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isic_smp.data.images import read_image, read_mask
from isic_smp.errors import UserError

__all__ = ["Pair", "PairScan", "find_pairs", "read_image", "read_mask", "read_pair", "scan_pairs", "some"]

IMAGE_ENDINGS = frozenset(
    {
        *(".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"),
        *(".jfif", ".jpe", ".mpo", ".pgm", ".pnm"),  # rarer names of JPEG and PPM
    }
)
MASK_SUFFIX = "_segmentation"


@dataclass(frozen=True)
class Pair:
    """One image and the mask of its lesion; `id` is the image's file name without ending."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairScan:
    """What two folders hold: the pairs, and by id or file name what is not part of one."""

    pairs: tuple[Pair, ...]
    without_mask: tuple[str, ...]
    without_image: tuple[str, ...]
    ambiguous: tuple[str, ...]
    """Ids that several files of one folder claim."""

    def problems(self, *, limit: int | None = 3) -> list[str]:
        """One phrase for each kind of trouble, with its count and first ids; empty when all is well."""
        kinds = [
            (self.without_mask, "without a mask"),
            (self.without_image, "with a mask but no image"),
            (self.ambiguous, "with several files of the same name and different endings"),
        ]
        return [
            f"{len(ids)} {'id' if len(ids) == 1 else 'ids'} {words} ({some(ids, limit=limit)})"
            for ids, words in kinds
            if ids
        ]


def scan_pairs(image_dir: Path, mask_dir: Path) -> PairScan:
    """Match the images of one folder with the masks of another by file name.

    The mask of `ISIC_0000000.jpg` is `ISIC_0000000_Segmentation.png` (the official naming) or
    `ISIC_0000000.png`. Endings may be those of any common image format, in upper or lower case;
    files that are no images, hidden files, and ISIC 2017's `_superpixels` pictures are passed over.

    Raises:
        UserError: a folder that does not exist or cannot be listed, or no image in it at all.
    """
    images, ambiguous_images = _by_id(image_dir, suffix="")
    masks, ambiguous_masks = _by_id(mask_dir, suffix=MASK_SUFFIX)
    if not images and not ambiguous_images:
        raise UserError(f"no images in {image_dir}: expected files such as ISIC_0000000.jpg")
    if not masks and not ambiguous_masks:
        raise UserError(f"no masks in {mask_dir}: expected files such as ISIC_0000000_Segmentation.png")
    ambiguous = ambiguous_images | ambiguous_masks
    return PairScan(
        pairs=tuple(Pair(id, images[id], masks[id]) for id in sorted(images.keys() & masks.keys())),
        without_mask=tuple(sorted(images.keys() - masks.keys() - ambiguous)),
        without_image=tuple(sorted(masks.keys() - images.keys() - ambiguous)),
        ambiguous=tuple(sorted(ambiguous)),
    )


def find_pairs(image_dir: Path, mask_dir: Path) -> list[Pair]:
    """All pairs of the two folders (see `scan_pairs`), sorted by id.

    Raises:
        UserError: as `scan_pairs`; or an image without mask, a mask without image, two files for one id.
    """
    scan = scan_pairs(image_dir, mask_dir)
    if problems := scan.problems():
        raise UserError(f"{image_dir} and {mask_dir} do not pair up: " + "; ".join(problems))
    return list(scan.pairs)


def read_pair(pair: Pair, *, binarize_masks: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The image, uint8 RGB (H, W, 3), and the mask, uint8 (H, W) of 0 and 1 (1 is lesion).

    Raises:
        UserError: as `read_image` and `read_mask`; or image and mask of different sizes.
    """
    image = read_image(pair.image)
    mask = read_mask(pair.mask, binarize=binarize_masks)
    if image.shape[:2] != mask.shape:
        height, width = image.shape[:2]
        raise UserError(
            f"the mask {pair.mask} is {mask.shape[1]} × {mask.shape[0]} pixels, "
            f"its image {pair.image.name} {width} × {height}: expected equal sizes"
        )
    return image, mask


def some(ids: Iterable[str], *, limit: int | None = 3) -> str:
    """The first few ids (None: all), for a message: `a, b, c, …`."""
    ids = list(ids)
    return ", ".join(ids[:limit]) + (", …" if len(ids[:limit]) < len(ids) else "")


def passed_over(folder: Path) -> list[str]:
    """Names of what lies in `folder` and is not looked at: subfolders (with a / behind) and files of other endings."""
    return [
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in sorted(folder.iterdir())
        if not entry.name.startswith(".") and not (entry.is_file() and entry.suffix.lower() in IMAGE_ENDINGS)
    ]


def _by_id(folder: Path, *, suffix: str) -> tuple[dict[str, Path], set[str]]:
    """Image files of `folder` by id (the stem less `suffix`), and the ids that several files claim."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot list the folder {folder}: {error.strerror or error}") from None
    found = []
    for file in files:
        if file.suffix.lower() not in IMAGE_ENDINGS or file.name.startswith(".") or not file.is_file():
            continue
        if not file.stem.endswith("_superpixels"):
            cut = len(suffix) if suffix and file.stem.lower().endswith(suffix) else 0
            found.append((file.stem[: len(file.stem) - cut], file))
    counts = Counter(id for id, _ in found)
    ambiguous = {id for id, count in counts.items() if count > 1}
    return {id: file for id, file in found if id not in ambiguous}, ambiguous
