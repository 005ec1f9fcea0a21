"""How long a person waits: for `--help`, for the first training step, and for the log.

python benchmarks/startup.py --data-dir DIR --encoder-weights FILE --work-dir DIR [--epochs 5]

The first step is timed in the second of two equal commands, whose pixels are cached. Logging's share is
what the process spends in `tracking` (MLflow calls, pictures, model export) before, while and after it trains; it is
worked out for as many epochs as the default recipe has, and for 25, which draw pictures as often.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import report

WATCH = """
import json, runpy, sys, time
from pathlib import Path
started, out = float(sys.argv.pop(1)), Path(sys.argv.pop(1))
found = {}
from isic_smp.training.trainer import Trainer
step = Trainer.step
def first(self, batch):
    result = step(self, batch)
    found.setdefault("first_step", time.time() - started)
    return result
Trainer.step = first
import isic_smp.tracking.experiment_log as log
def timed(name):
    inner = getattr(log.ExperimentLog, name)
    inner = getattr(inner, "__func__", inner)
    def outer(*a, **k):
        begun = time.perf_counter()
        try:
            return inner(*a, **k)
        finally:
            found[name] = found.get(name, 0.0) + time.perf_counter() - begun
            found[name + " calls"] = found.get(name + " calls", 0) + 1
    return outer
log.ExperimentLog.start = classmethod(timed("start"))
for name in ("epoch", "finish", "_draw_cases"):
    setattr(log.ExperimentLog, name, timed(name))
try:
    runpy.run_module("isic_smp.run", run_name="__main__")
finally:
    found["all"] = time.time() - started
    out.write_text(json.dumps(found))
"""


def main() -> None:
    """Measure, print, and write results/startup.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--epochs", type=int, default=5)
    options = words.parse_args()
    place = options.work_dir / "startup"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    helps = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "isic_smp.run", "--help"], check=True, capture_output=True)
        helps.append(time.perf_counter() - start)
    run(options, place, epochs=1)
    found = run(options, place, epochs=options.epochs)
    once = found["start"] + found["finish"]
    a_drawing = found["_draw_cases"] / found["_draw_cases calls"]
    # Each of so few epochs draws pictures; the last drawing is the end's.
    an_epoch = (found["epoch"] - (found["_draw_cases calls"] - 1) * a_drawing) / options.epochs
    rest = (found["all"] - found["first_step"] - found["finish"] - found["epoch"]) / options.epochs
    rows = [
        {"what": "run --help, s", "goal": "< 1", "measured": sorted(helps)[2]},
        {"what": "first step of a cached run, s", "goal": "≤ 15", "measured": found["first_step"]},
        {"what": "logging at the start, s", "goal": "", "measured": found["start"]},
        {"what": "logging an epoch without pictures, s", "goal": "", "measured": an_epoch},
        {"what": "pictures of an epoch that has them, s", "goal": "", "measured": a_drawing},
        {"what": "logging at the end (figures, tables, model), s", "goal": "", "measured": found["finish"]},
    ]
    from isic_smp.training.recipe import load_recipe

    for epochs, goal in ((load_recipe("default").epochs, "≤ 0.03"), (25, "")):
        logging = epochs * an_epoch + drawings(epochs) * a_drawing
        whole = found["first_step"] + epochs * rest + logging + found["finish"]
        rows += [
            {
                "what": f"logging's share of {epochs} epochs",
                "goal": goal,
                "measured": (once + logging) / whole,
            },
            {"what": f"a run of {epochs} epochs (from the one measured), s", "goal": "", "measured": whole},
        ]
    report("startup", {"Waiting": rows}, epochs=options.epochs, raw=found)


def drawings(epochs: int) -> int:
    """How many epochs of a run draw pictures."""
    from isic_smp.tracking.experiment_log import has_pictures

    return sum(has_pictures(step, epochs) for step in range(1, epochs + 1))


def run(options: argparse.Namespace, place: Path, *, epochs: int) -> dict:
    """One default run; seconds of its parts."""
    out = place / "found.json"
    command = [sys.executable, "-c", WATCH, str(time.time()), str(out.resolve())]
    command += ["--data-dir", str(options.data_dir.resolve()), "--epochs", str(epochs)]
    command += ["--encoder-weights", str(options.encoder_weights.resolve()), "--cache-dir", "cache"]
    with (place / "log.txt").open("a") as log:
        subprocess.run(command, cwd=place, check=True, stdout=log, stderr=log)
    return json.loads(out.read_text())


if __name__ == "__main__":
    main()
