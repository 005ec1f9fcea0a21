"""Time to a sweep's answer against the same grid run by hand.

python benchmarks/by_hand.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--epochs 2] [--pairs 0]

Frozen, gradual and fine-tuned, two seeds each: once by `sweeps/freeze_vs_finetune.py` with one worker, once as
six `isic_smp.run` commands and one `isic_smp.compare`. Both begin on empty caches, train one after the
other, score the same test images and end in the same comparison.
"""

import argparse
import shutil
import sys
from pathlib import Path

from common import report
from sweep import timed

SEEDS = 2
WAYS = {"frozen": ["--freeze"], "gradual": [], "fine-tuned": []}
FOLDERS = ("Training_Data", "Training_GroundTruth", "Test_Data", "Test_GroundTruth")


def main() -> None:
    """Measure, print, and write results/by_hand.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--epochs", type=int, default=2)
    words.add_argument("--pairs", type=int, default=0, help="training and test pairs to use; 0: all")
    options = words.parse_args()
    place = (options.work_dir / "by_hand").resolve()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    data = subset(options.data_dir.resolve(), place / "data", options.pairs)
    same = [*("--data-dir", str(data), "--encoder-weights", str(options.encoder_weights.resolve()))]
    same += ["--epochs", str(options.epochs)]
    script = Path(__file__).resolve().parents[1] / "sweeps" / "freeze_vs_finetune.py"
    sweep = [
        sys.executable,
        str(script),
        *same,
        "--seeds",
        str(SEEDS),
        "--cache-dir",
        str(place / "cache-sweep"),
    ]
    swept = timed(sweep, place)
    runs = {
        f"{way}-{seed}": timed(by_hand(way, seed, same, options.epochs, place), place)
        for seed in range(SEEDS)
        for way in WAYS
    }
    folders = [f"hand/{name}" for name in runs]
    compared = timed([sys.executable, "-m", "isic_smp.compare", *folders], place)
    total = sum(runs.values()) + compared
    rows = [
        {"what": "by hand: the first command, on empty caches", "seconds": next(iter(runs.values()))},
        {"what": f"by hand: all {len(runs)} commands", "seconds": sum(runs.values())},
        {"what": "by hand: compare", "seconds": compared},
        {"what": "by hand, all of it", "seconds": total},
        {"what": "the sweep, from the command to its answer", "seconds": swept},
        {"what": "by hand / the sweep", "seconds": total / swept},
    ]
    pairs = f"{options.pairs} training and test pairs" if options.pairs else "all pairs"
    report("by_hand", {f"3 ways × {SEEDS} seeds, {options.epochs} epochs, {pairs}": rows})


def by_hand(way: str, seed: int, same: list[str], epochs: int, place: Path) -> list[str]:
    """The command of one cell."""
    gradual = ["--freeze-epochs", str(max(1, epochs // 3))] if way == "gradual" else []
    return [
        *(sys.executable, "-m", "isic_smp.run", *same, *WAYS[way], *gradual, "--seed", str(seed)),
        *("--output-dir", str(place / "hand" / f"{way}-{seed}"), "--cache-dir", str(place / "cache-hand")),
    ]


def subset(data_dir: Path, folder: Path, pairs: int) -> Path:
    """The data, or links to its first pairs."""
    if not pairs:
        return data_dir
    for name in FOLDERS:
        [source] = data_dir.glob(f"*{name}")
        (folder / source.name).mkdir(parents=True)
        for file in sorted(file for file in source.iterdir() if file.suffix in (".jpg", ".png"))[:pairs]:
            (folder / source.name / file.name).symlink_to(file)
    return folder


if __name__ == "__main__":
    main()
