"""The data set at its original sizes: the images at hand are enlarged to what manifest.csv gives."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TYPICAL = (1024, 768)  # where the manifest knows no original size


def make_originals(data_dir: Path, folder: Path) -> Path:
    """The data set with every picture enlarged to its original size, in the same folders."""
    import cv2

    from isic_smp.data.isic2016 import TRAINING, load_isic2016

    done = folder / "done"
    if done.exists():
        return folder
    sizes = {}
    with (data_dir / "manifest.csv").open() as file:
        for line in csv.DictReader(file):
            width, height = (int(line[f"original_{side}"] or 0) for side in ("width", "height"))
            sizes[line["id"]] = (width, height) if width else TYPICAL
    data = load_isic2016(data_dir)
    for name in TRAINING:
        (folder / name).mkdir(parents=True, exist_ok=True)

    def enlarge(pair: Any) -> None:
        image, mask = cv2.imread(str(pair.image)), cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, dsize=sizes[pair.id], interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(mask, dsize=sizes[pair.id], interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / TRAINING[0] / pair.image.name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(folder / TRAINING[1] / pair.mask.name), mask)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(enlarge, [*data.train, *data.val]))
    done.touch()
    return folder


def pairs_of(root: Path, images: int | None = None) -> tuple[list, list]:
    """Training and validation pairs of the enlarged data set; of the first `images`, a ninth validates."""
    from isic_smp.data.isic2016 import TRAINING, split_lists
    from isic_smp.data.pairs import find_pairs

    lists = split_lists()
    pairs = find_pairs(root / TRAINING[0], root / TRAINING[1])
    train = [p for p in pairs if p.id in lists["train"]]
    val = [p for p in pairs if p.id in lists["val"]]
    if images is None:
        return train, val
    # Evenly over the ids, whose originals differ in size.
    return train[:: len(train) // images][:images], val[:: len(val) * 9 // images][: images // 9]
