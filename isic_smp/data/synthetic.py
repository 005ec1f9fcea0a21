"""A data set of drawn pictures in ISIC 2016's folders, for demonstrations, tests and scale benchmarks."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from isic_smp.data.fingerprint import fingerprint
from isic_smp.data.isic2016 import TEST, TRAINING, LesionData
from isic_smp.data.lesion_drawing import draw_lesion
from isic_smp.data.pairs import find_pairs
from isic_smp.errors import UserError
from isic_smp.processors import processors

__all__ = ["draw_lesion", "is_synthetic", "load_synthetic", "make_synthetic"]

_FACTS = "synthetic.json"
_QUALITY = 90  # of JPEG, about that of the real images
_HANDED_OVER = 64  # pictures


def make_synthetic(
    root: Path,
    *,
    train: int = 160,
    val: int = 40,
    test: int = 40,
    size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Draw a data set into `root`, in the official layout with ids SYN_0000000, SYN_0000001, ….

    Images are JPEGs of quality 90, masks PNGs of 0 and 255. Training and validation pictures share
    the training folders, as in ISIC 2016. The same arguments give the same files. `root` appears when
    all is written, so an interrupted call leaves no half of a data set.

    Args:
        root: a folder that does not exist yet, or is empty.
        train: how many pictures to train on.
        val: how many to validate on.
        test: how many to test on.
        size: side of each, in pixels.
        seed: of all pictures.
        progress: show a progress bar.

    Raises:
        UserError: impossible counts or size, a folder that holds something, or no room on the disk.
    """
    if min(train, val, test) < 1 or not 16 <= size <= 4096 or seed < 0:
        raise UserError(
            f"expected at least 1 picture a split, a size from 16 to 4096 and a seed of at least 0, "
            f"got {train}, {val} and {test} pictures, size {size}, seed {seed}"
        )
    root = Path(root)
    building = root.parent / f".{root.name}-{os.getpid()}"
    try:
        if root.exists() and any(root.iterdir()):
            raise UserError(f"{root} is not empty: name a new folder for the synthetic pictures")
        building.mkdir(parents=True)
        _write(building, train + val, test, size, seed, progress)
        facts = {"train": train, "val": val, "test": test, "size": size, "seed": seed}
        (building / _FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        building.rename(root)
    except OSError as error:
        raise UserError(f"cannot write synthetic pictures to {root}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def is_synthetic(root: Path) -> bool:
    """Whether `make_synthetic` wrote the folder `root`."""
    return (root / _FACTS).is_file()


def load_synthetic(root: Path) -> LesionData:
    """The data set that `make_synthetic` wrote to `root`; its first training ids are for training.

    Raises:
        UserError: there is none, or pictures are missing from it.
    """
    root = Path(root)
    try:
        facts = json.loads((root / _FACTS).read_text(encoding="utf-8"))
        counts = {name: int(facts[name]) for name in ("train", "val", "test")}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"no synthetic pictures in {root}: expected a folder made by `python -m isic_smp.data synthetic`"
        ) from None
    training = find_pairs(root / TRAINING[0], root / TRAINING[1])
    splits = {
        "train": tuple(training[: counts["train"]]),
        "val": tuple(training[counts["train"] :]),
        "test": tuple(find_pairs(root / TEST[0], root / TEST[1])),
    }
    found = {name: len(pairs) for name, pairs in splits.items()}
    if found != counts:
        raise UserError(f"{root} holds {found} pictures, expected {counts}: delete it and draw it again")
    return LesionData(name="synthetic", root=root, **splits, fingerprint=fingerprint(splits), official=counts)


def _write(root: Path, training: int, test: int, size: int, seed: int, progress: bool) -> None:
    for folder in (*TRAINING, *TEST):
        (root / folder).mkdir()

    def write(index: int) -> None:
        images, masks = TRAINING if index < training else TEST
        image, mask = draw_lesion(seed, index, size)
        _save(root / images / f"SYN_{index:07}.jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        _save(root / masks / f"SYN_{index:07}_Segmentation.png", mask * np.uint8(255), [])

    count = training + test
    pool = ThreadPoolExecutor(processors())  # numpy and OpenCV release the interpreter lock
    try:
        with tqdm(total=count, unit=" pictures", desc="draw", disable=not progress) as bar:
            # A few at a time: Ctrl-C while a task is handed over may leave the pool locked for ever.
            for start in range(0, count, _HANDED_OVER):
                for _ in pool.map(write, range(start, min(start + _HANDED_OVER, count))):
                    bar.update()
    finally:
        pool.shutdown(cancel_futures=True)


def _save(path: Path, pixels: np.ndarray, options: list[int]) -> None:
    _, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)
    path.write_bytes(encoded.tobytes())
