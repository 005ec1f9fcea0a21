"""Does the fast path cost accuracy? The same recipe by the fast path and by the plain one, over several seeds.

python benchmarks/same_scores.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--epochs 8 --seeds 3]

Fast: bf16, channels_last with rewritten steps, and for a frozen encoder the feature bank. Plain: float32 in torch's own
memory order and operations, every step through the encoder. Validation scores alone; a pair that is done is not
run again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from common import report

from isic_smp.training.recipe_check import AUGMENTATIONS

PLAIN = ["--precision", "float32", "--no-channels-last", "--feature-bank", "off"]
FAST = {"fine-tuned": [], "frozen": ["--feature-bank", "on"]}  # auto takes no bank for under eight epochs
WAYS = {
    "fine-tuned": [],
    "frozen": ["--freeze", *[word for name in AUGMENTATIONS for word in (f"--{name}", "0")]],
}


def main() -> None:
    """Measure, print, and write results/same_scores.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--epochs", type=int, default=8)
    words.add_argument("--seeds", type=int, default=3)
    options = words.parse_args()
    rows = []
    for way, settings in WAYS.items():
        fast, plain = (
            [validation_dice(options, [*settings, *path], seed) for seed in range(options.seeds)]
            for path in (FAST[way], PLAIN)
        )
        differences = [f - p for f, p in zip(fast, plain, strict=True)]
        rows.append(
            {
                "what": way,
                "fast": spread(fast),
                "plain": spread(plain),
                "fast - plain, a seed each": " ".join(f"{d:+.4f}" for d in differences),
                "mean": f"{mean(differences):+.4f}",
                "fast seeds differ by": f"{max(fast) - min(fast):.4f}",
            }
        )
    title = f"Validation Dice at own size after {options.epochs} epochs"
    report("same_scores", {title: rows}, epochs=options.epochs, seeds=options.seeds)


def validation_dice(options: argparse.Namespace, settings: list[str], seed: int) -> float:
    """The validation Dice of one run, trained now or before."""
    name = "-".join([*(word.strip("-") for word in settings), f"s{seed}"])
    place = options.work_dir / "same-scores" / f"e{options.epochs}"
    place.mkdir(parents=True, exist_ok=True)
    bundle = place / name / "model" / "isic_smp.json"
    if not bundle.exists():
        command = [
            *[sys.executable, "-m", "isic_smp.run", *settings, "--seed", str(seed), "--keep", "last"],
            *["--epochs", str(options.epochs), "--encoder-weights", str(options.encoder_weights.resolve())],
            *["--data-dir", str(options.data_dir.resolve()), "--output-dir", name, "--resume"],
            *["--cache-dir", str(options.work_dir.resolve() / "cache")],
        ]
        with (place / "log.txt").open("a") as log:
            subprocess.run(command, cwd=place, check=True, stdout=log, stderr=log, env={**os.environ})
    return json.loads(bundle.read_text())["info"]["validation"]["dice_per_image_own"]


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


if __name__ == "__main__":
    main()
