"""Twelve frozen trials in one process against one, and against twelve commands.

python benchmarks/sweep.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--epochs 12]

A trial is a whole experiment (training, scores, pictures, model, MLflow run) with its own learning rate,
decoder and seed. The trials in one process share the imports, the pixel cache and the feature bank; "one"
is the first command on empty caches, which is what a person pays for a single run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import report, silent

TRIALS = 12


def main() -> None:
    """Measure, print, and write results/sweep.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--epochs", type=int, default=12)
    words.add_argument("--separate", type=int, default=2, help="separate commands really run of the twelve")
    words.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.in_process:
        trials(options)
        return
    place = options.work_dir / "sweep"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    one = timed([*single(options, 0), "--cache-dir", str(place / "cache-one")], place)
    # Each of twelve commands finds the caches of the one before, unless they are started on twelve machines.
    warm = [
        timed([*single(options, i), "--cache-dir", str(place / "cache-one")], place)
        for i in range(1, options.separate)
    ]
    twelve = timed([sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--in-process"], place)
    separate = one + (TRIALS - 1) * sum(warm) / len(warm)
    rows = [
        {"what": "one command on empty caches, s", "seconds": one},
        {"what": f"one command on warm caches, s (mean of {len(warm)})", "seconds": sum(warm) / len(warm)},
        {"what": f"{TRIALS} commands, s (from those above)", "seconds": separate},
        {"what": f"{TRIALS} trials in one process on empty caches, s", "seconds": twelve},
    ]
    ratios = [
        {"what": "twelve trials / one run", "reach": "≤ 4", "measured": twelve / one},
        {"what": "twelve trials / twelve commands", "reach": "", "measured": twelve / separate},
    ]
    report("sweep", {f"Frozen, {options.epochs} epochs": rows, "Ratios": ratios}, epochs=options.epochs)


def settings(number: int) -> dict:
    """What trial `number` varies."""
    return {
        "lr": (1e-3, 2e-3, 3e-3)[number % 3],
        "decoder_channels": ((128, 64, 32, 16), (64, 64, 32, 16))[number // 3 % 2],
        "seed": number // 6,
    }


def single(options: argparse.Namespace, number: int) -> list[str]:
    """The command of one trial."""
    varied = settings(number)
    return [
        *[sys.executable, "-m", "isic_smp.run", "--freeze", "--affine", "0", "--colour", "0"],
        *["--artefacts", "0"],
        *["--epochs", str(options.epochs), "--encoder-weights", str(options.encoder_weights.resolve())],
        *["--data-dir", str(options.data_dir.resolve()), "--lr", str(varied["lr"])],
        *["--decoder-channels", *map(str, varied["decoder_channels"]), "--seed", str(varied["seed"])],
    ]


def timed(command: list[str], place: Path) -> float:
    """Seconds of a command; its output goes to a file beside the results."""
    start = time.perf_counter()
    with (place / "log.txt").open("a") as log:
        subprocess.run(command, cwd=place, check=True, stdout=log, stderr=log, env={**os.environ})
    return time.perf_counter() - start


def trials(options: argparse.Namespace) -> None:
    """All trials in this process, as a sweep runs them."""
    from isic_smp.experiment import Setup, run_experiment
    from isic_smp.training.recipe import Recipe

    for number in range(TRIALS):
        recipe = Recipe.from_dict(
            {
                "freeze": True,
                "affine": 0.0,
                "colour": 0.0,
                "artefacts": 0.0,
                "epochs": options.epochs,
                "encoder_weights": str(options.encoder_weights.resolve()),
                **settings(number),
            }
        )
        setup = Setup(
            data_dir=options.data_dir.resolve(),
            output_dir=Path(f"trial-{number}"),
            cache_dir=Path("cache-trials"),
            run_name=f"trial {number}",
            score_test=False,
        )
        run_experiment(recipe, setup, say=silent)


if __name__ == "__main__":
    main()
