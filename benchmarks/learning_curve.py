"""What more training pictures bring: the default recipe on ever more of them, scored on the same test images.

python benchmarks/learning_curve.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--images 190 380] [--seeds 2]

Each seed puts the training images into an order of its own and takes the first so many of them, so what is added is
new and what was there stays. Fewer images are seen so many times more often: every run takes as many steps as the
whole would in --epochs. Only test scores are reported, each image at its own size, in two looks, and nothing is chosen
by them. A run that is done is not trained again, one that was interrupted is gone on with. Writes
results/learning_curve.json and docs/images/learning_curve.png.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from common import as_score, report
from networks import over_seeds, test_scores

ASKED = ("two looks", "two looks, flips")
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "learning_curve.png"


def main() -> None:
    """Train what is missing, score, print and draw."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--images", type=int, nargs="+", default=[190, 380], help="besides all of them")
    words.add_argument("--seeds", type=int, default=2)
    words.add_argument("--epochs", type=int, default=50, help="over all images")
    options = words.parse_args()

    from isic_smp.data.isic2016 import load_isic2016

    everything = len(load_isic2016(options.data_dir).train)
    if max(options.images) >= everything:
        words.error(
            f"--images {max(options.images)} is not fewer than the {everything} training images in {options.data_dir}"
        )
    sizes = [*sorted(options.images), everything]
    found: dict[int, dict[str, list[dict[str, float]]]] = {}
    for size in sizes:
        models = [trained(options, size, everything, seed) for seed in range(options.seeds)]
        found[size] = {way: [test_scores(options, model, way) for model in models] for way in ASKED}
    title = f"Test images, each at its own size; mean ± standard deviation over {options.seeds} seeds"
    report("learning_curve", {title: as_table(found)}, epochs=options.epochs)
    draw(found)


def trained(options: argparse.Namespace, size: int, everything: int, seed: int) -> Path:
    """The saved model of `size` training images, trained now or before."""
    epochs = round(options.epochs * everything / size)
    place = options.work_dir.resolve() / "learning_curve"
    folder = place / f"{size}-images-{epochs}-epochs-s{seed}"
    if not (folder / "model" / "isic_smp.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        data = options.data_dir.resolve()
        if size < everything:
            data = some_of(data, size, seed, place / f"data-{size}-s{seed}")
        command = [
            *[sys.executable, "-m", "isic_smp.run", "--epochs", str(epochs), "--seed", str(seed)],
            *["--data-dir", str(data), "--encoder-weights", str(options.encoder_weights.resolve())],
            *["--cache-dir", str(options.work_dir.resolve() / "cache")],
            *["--output-dir", str(folder), "--resume"],
        ]
        with (place / "log.txt").open("a") as log:
            subprocess.run(command, cwd=place, check=True, stdout=log, stderr=log)
    return folder / "model"


def some_of(data_dir: Path, size: int, seed: int, folder: Path) -> Path:
    """A data folder with links to the test and validation images and to `size` of the training ones."""
    import numpy as np

    from isic_smp.data.isic2016 import FOLDERS, load_isic2016

    data = load_isic2016(data_dir)
    order = np.random.default_rng(seed).permutation(len(data.train))
    pairs = [*data.val, *data.test, *(data.train[i] for i in order[:size])]
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for file in (file for pair in pairs for file in (pair.image, pair.mask)):
        link = folder / file.relative_to(data_dir)
        if not link.is_symlink():
            link.symlink_to(file.resolve())
    return folder


def as_table(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[dict[str, Any]]:
    """A row for each number of training images, with what it gained over the row before."""
    rows: list[dict[str, Any]] = []
    before: dict[str, float] = {}
    for size, ways in found.items():
        row: dict[str, Any] = {"training images": size}
        for way, scored in ways.items():
            for name in ("dice", "iou"):
                row[f"{way}: {name}"] = as_score(*over_seeds(name, [one[name] for one in scored]).values())
            iou = mean(one["iou"] for one in scored)
            row[f"{way}: gained IoU"] = as_score(iou - before[way], form="+.4f") if before else ""
        before = {way: mean(one["iou"] for one in scored) for way, scored in ways.items()}
        rows.append(row)
    return rows


def draw(found: dict[int, dict[str, list[dict[str, float]]]]) -> None:
    """Test IoU over the number of training images, a point a run, a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, way in enumerate(ASKED):
        points = [(size, [one["iou"] for one in ways[way]]) for size, ways in found.items()]
        axis.plot(
            [size for size, _ in points],
            [mean(scores) for _, scores in points],
            color=f"C{number}",
            label=way,
        )
        for size, scores in points:
            axis.plot([size] * len(scores), scores, "o", markersize=4, color=f"C{number}", alpha=0.6)
    axis.set(xscale="log", xlabel="training images", ylabel="test IoU")
    axis.xaxis.set_major_locator(FixedLocator(list(found)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([str(size) for size in found])
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
