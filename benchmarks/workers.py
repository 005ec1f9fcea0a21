"""How a study's speed grows with its workers, and what the storage costs a trial.

python benchmarks/workers.py [--workers 1 2 4 8 16 32]

Simulated trials sleep instead of training, on a private PostgreSQL server (Debian's programs) on this machine:
queue, workers and storage are the project's own, so what is measured is what they cost. Then small real
trials, by the sweep's own command with one worker and with two.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

ABOVE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ABOVE), str(ABOVE / "tests")]

# After the path is set, which the project's own ones are found by.
import optuna  # noqa: E402
from common import report  # noqa: E402
from postgres_server import private_server  # noqa: E402
from simulated_study import Simulation, context, start_worker  # noqa: E402

EPOCHS, EPOCH_SECONDS, TRIALS_A_WORKER, HEARTBEAT = 10, 1.0, 6, 15
TRIAL_SECONDS = EPOCHS * EPOCH_SECONDS
REAL = [*("--data", "synthetic", "--data-dir", "drawn", "--cache-dir", "cache", "--encoder-weights", "none")]
REAL += [*("--size", "64", "--epochs", "3")]


def main() -> None:
    """Measure, print, and write results/workers.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    words.add_argument("--real-workers", type=int, nargs="+", default=[1, 2])
    options = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulated = [simulate(count, Path(folder) / f"simulated-{count}") for count in options.workers]
        real = real_trials(options.real_workers, Path(folder))
    report(
        "workers",
        {
            f"Simulated trials of {TRIAL_SECONDS:.0f} s and {EPOCHS} epochs, PostgreSQL": simulated,
            "Real trials: 48 drawn pictures at 64 px, 3 epochs, SQLite": real,
        },
    )


def simulate(workers: int, folder: Path) -> dict:
    """A study emptied by `workers` processes that begin together."""
    folder.mkdir()
    with private_server() as server:
        simulation = Simulation(
            url=server.url,
            folder=folder,
            trials=workers * TRIALS_A_WORKER,
            epochs=EPOCHS,
            epoch_seconds=EPOCH_SECONDS,
            heartbeat=HEARTBEAT,
        )
        study = simulation.open()
        start = context().Barrier(workers + 1)
        crew = [start_worker(simulation, ready=start.wait) for _ in range(workers)]
        start.wait()
        begun = time.time()
        for worker in crew:
            worker.join()
        complete = Counter(t.params["seed"] for t in study.trials if t.state.name == "COMPLETE")
    ledger = simulation.ledger()
    trained = Counter(line["seed"] for line in ledger if line["what"] == "begin")
    seconds = max(line["time"] for line in ledger if line["what"] == "end") - begun
    return {
        "workers": workers,
        "trials": simulation.trials,
        "trials an hour": round(simulation.trials / seconds * 3600),
        "of what sleeping alone allows": f"{simulation.trials * TRIAL_SECONDS / workers / seconds:.1%}",
        "storage a trial, s": overhead(ledger, begun),
        "trained twice": sum(count > 1 for count in trained.values()),
        "lost": simulation.trials - len(complete),
        "completed twice": sum(count > 1 for count in complete.values()),
    }


def overhead(ledger: list[dict], begun: float) -> float:
    """Mean over trials of the time from one training's end to the next's, less what was slept."""
    last: dict[int, float] = defaultdict(lambda: begun)
    found = []
    for line in ledger:
        if line["what"] == "end":
            found.append(line["time"] - last[line["pid"]] - TRIAL_SECONDS)
            last[line["pid"]] = line["time"]
    return sum(found) / len(found)


def real_trials(counts: list[int], folder: Path) -> list[dict]:
    """The grid of freeze_vs_finetune.py, from its first trial's begin to its last one's end."""
    from isic_smp.data.synthetic import make_synthetic

    make_synthetic(folder / "drawn", train=40, val=8, test=8, size=96)
    sweep(folder, "--study", "warm", "--trials", "1", "--seeds", "1")  # makes the pixel cache
    rows = []
    for count in counts:
        start = time.perf_counter()
        sweep(folder, "--study", f"by-{count}", "--seeds", "4", "--workers", str(count))
        seconds = time.perf_counter() - start
        file = folder / "runs" / "sweeps" / f"by-{count}" / "study.db"
        trials = optuna.load_study(study_name=f"by-{count}", storage=f"sqlite:///{file}").trials
        first = min(trial.datetime_start for trial in trials if trial.datetime_start)
        last = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
        training = (last - first).total_seconds()
        rows.append(
            {
                "workers": count,
                "trials": len(trials),
                "complete": sum(trial.state.name == "COMPLETE" for trial in trials),
                "trials an hour": round(len(trials) / training * 3600),
                "seconds a trial": sum(t.duration.total_seconds() for t in trials if t.duration)
                / len(trials),
                "start and answer, s": seconds - training,
            }
        )
    return rows


def sweep(folder: Path, *words: str) -> None:
    """The sweep's command as a user gives it."""
    command = [sys.executable, str(ABOVE / "sweeps" / "freeze_vs_finetune.py"), *REAL, *words]
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log, env={**os.environ})


if __name__ == "__main__":
    main()
