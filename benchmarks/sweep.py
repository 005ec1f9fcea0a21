"""Twelve frozen trials in one process against one, and against twelve commands.

python benchmarks/sweep.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--epochs 12]

A trial is a whole experiment (training, scores, pictures, model, MLflow run) with its own learning rate,
decoder and seed. The trials in one process share the imports, the pixel cache and the feature bank; "one"
is the first command on empty caches, which is what a person pays for a single run. Two processes, with half of the
trials and one thread each, share the caches alone, as a sweep's --workers 2 do.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from common import report, silent

from isic_smp.training.recipe_check import AUGMENTATIONS

TRIALS = 12


def main() -> None:
    """Measure, print, and write results/sweep.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--epochs", type=int, default=12)
    words.add_argument("--separate", type=int, default=2, help="separate commands really run of the twelve")
    words.add_argument("--in-process", nargs="*", type=int, metavar="TRIAL", help=argparse.SUPPRESS)
    words.add_argument("--cache", help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.in_process is not None:
        trials(options)
        return
    place = options.work_dir / "sweep"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    one = timed([[*single(options, 0), "--cache-dir", str(place / "cache-one")]], place)
    # Each of twelve commands finds the caches of the one before, unless they are started on twelve machines.
    warm = [
        timed([[*single(options, i), "--cache-dir", str(place / "cache-one")]], place)
        for i in range(1, options.separate)
    ]
    twelve = timed([in_process(range(TRIALS), "cache-trials")], place)
    by_two = timed(
        [in_process(range(first, TRIALS, 2), "cache-two") for first in (0, 1)], place, OMP_NUM_THREADS="1"
    )
    separate = one + (TRIALS - 1) * sum(warm) / len(warm)
    rows = [
        {"what": "one command on empty caches, s", "seconds": one},
        {"what": f"one command on warm caches, s (mean of {len(warm)})", "seconds": sum(warm) / len(warm)},
        {"what": f"{TRIALS} commands, s (from those above)", "seconds": separate},
        {"what": f"{TRIALS} trials in one process on empty caches, s", "seconds": twelve},
        {"what": f"{TRIALS} trials in two processes on empty caches, s", "seconds": by_two},
    ]
    ratios = [
        {"what": "twelve trials in one process / one run", "goal": "≤ 4", "measured": twelve / one},
        {"what": "twelve trials in two processes / one run", "goal": "≤ 4", "measured": by_two / one},
        {
            "what": "twelve trials in one process / twelve commands",
            "goal": "",
            "measured": twelve / separate,
        },
    ]
    report("sweep", {f"Frozen, {options.epochs} epochs": rows, "Ratios": ratios}, epochs=options.epochs)


def settings(number: int) -> dict:
    """What trial `number` varies."""
    return {
        "lr": (1e-3, 2e-3, 3e-3)[number % 3],
        "decoder_width": (0.75, 0.5)[number // 3 % 2],
        "seed": number // 6,
    }


def single(options: argparse.Namespace, number: int) -> list[str]:
    """The command of one trial."""
    varied = settings(number)
    return [
        *[sys.executable, "-m", "isic_smp.run", "--freeze"],
        *[word for augmentation in AUGMENTATIONS for word in (f"--{augmentation}", "0")],
        *["--epochs", str(options.epochs), "--encoder-weights", str(options.encoder_weights.resolve())],
        *["--data-dir", str(options.data_dir.resolve()), "--lr", str(varied["lr"])],
        *["--decoder-width", str(varied["decoder_width"]), "--seed", str(varied["seed"])],
    ]


def in_process(numbers: Iterable[int], cache: str) -> list[str]:
    """The command that runs these trials in one process."""
    return [
        *[sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]],
        *["--cache", cache, "--in-process", *map(str, numbers)],
    ]


def timed(commands: list[list[str]], place: Path, **environment: str) -> float:
    """Seconds until commands that start together have all ended; their output goes to a file beside the results."""
    start = time.perf_counter()
    with (place / "log.txt").open("a") as log:
        running = [
            subprocess.Popen(command, cwd=place, stdout=log, stderr=log, env=os.environ | environment)
            for command in commands
        ]
        for process in running:
            if process.wait() != 0:
                raise SystemExit(f"a command failed, see {place / 'log.txt'}")
    return time.perf_counter() - start


def trials(options: argparse.Namespace) -> None:
    """Some trials in this process, as a sweep runs them."""
    from isic_smp.experiment import run_experiment
    from isic_smp.setup import Setup
    from isic_smp.training.recipe import Recipe

    for number in options.in_process:
        recipe = Recipe.from_dict(
            {
                "freeze": True,
                **dict.fromkeys(AUGMENTATIONS, 0.0),
                "epochs": options.epochs,
                "encoder_weights": str(options.encoder_weights.resolve()),
                **settings(number),
            }
        )
        setup = Setup(
            data_dir=options.data_dir.resolve(),
            output_dir=Path(f"{options.cache}-trial-{number}"),
            cache_dir=Path(options.cache),
            run_name=f"trial {number}",
            score_test=False,
        )
        run_experiment(recipe, setup, say=silent)


if __name__ == "__main__":
    main()
