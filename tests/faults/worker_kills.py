"""Kill the workers of a study at random, again and again, and restart its database: does every trial end once?

python tests/faults/worker_kills.py                      # 200 trials on PostgreSQL, two restarts
python tests/faults/worker_kills.py --sqlite --trials 80 --workers 4

Trials sleep instead of training; queue, workers and storage are the project's own. Every few seconds a
worker gets SIGKILL and another is started in its place.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # pytest has these folders on its path
    for above in (1, 2):
        sys.path.insert(0, str(Path(__file__).parents[above]))

from postgres_server import Server, private_server
from simulated_study import Simulation, start_worker

from isic_smp.sweeping.queue import REASON, ended, is_over
from isic_smp.sweeping.study import CELL

PATIENCE_SECONDS = 1800.0


def campaign(
    simulation: Simulation,
    *,
    workers: int,
    kill_every: float,
    server: Server | None = None,
    restarts: int = 0,
    most_kills: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, int | float]:
    """Run the study under fire, and count.

    Args:
        simulation: the study; not begun.
        workers: kept at this number.
        kill_every: seconds from one SIGKILL to the next, on average; each is drawn between half and one and a half.
        server: its database, where that is to be restarted.
        restarts: how often, spread evenly over the trials.
        most_kills: after which the workers are left alone; on a slow machine none might live long enough.
        seed: of the draws.
        say: told of what happens.

    Returns:
        Counts. `cells_complete_once` is what must equal `trials`; `trials_complete` must not be above it.
    """
    draw = random.Random(seed)
    study = simulation.open()
    crew = [start_worker(simulation) for _ in range(workers)]
    begun = time.monotonic()
    kills = done_restarts = died = 0
    next_kill, next_word = begun + kill_every, begun
    while not is_over(study):
        if time.monotonic() - begun > PATIENCE_SECONDS:
            raise TimeoutError(
                f"after {PATIENCE_SECONDS:.0f} s trials still wait: {Counter(t.state.name for t in study.trials)}"
            )
        time.sleep(0.1)
        if time.monotonic() >= next_kill and (most_kills is None or kills < most_kills):
            victim = draw.randrange(workers)
            crew[victim].kill()
            crew[victim].join()
            kills += 1
            next_kill = time.monotonic() + kill_every * draw.uniform(0.5, 1.5)
        for place, worker in enumerate(crew):
            if not worker.is_alive():
                died += worker.exitcode not in (0, -9)
                crew[place] = start_worker(simulation)
        over = len(ended(study))
        if time.monotonic() >= next_word:
            say(f"{over} of {simulation.trials} trials have ended, {kills} workers were killed")
            next_word = time.monotonic() + 15
        if (
            server is not None
            and done_restarts < restarts
            and over * (restarts + 1) >= (done_restarts + 1) * simulation.trials
        ):
            say(f"{over} of {simulation.trials} trials have ended: the server stops")
            server.stop()
            time.sleep(draw.uniform(1, 4))
            server.start()
            done_restarts += 1
    seconds = time.monotonic() - begun
    for worker in crew:
        worker.join(60)
    for trial in ended(study):
        if trial.state.name != "COMPLETE":
            say(f"trial {trial.number}: {trial.state.name}, {trial.user_attrs.get(REASON)}")
    states = Counter(trial.state.name for trial in study.trials)
    complete = Counter(t.user_attrs[CELL] for t in study.trials if t.state.name == "COMPLETE")
    trainings = Counter(line["seed"] for line in simulation.ledger() if line["what"] == "begin")
    return {
        "trials": simulation.trials,
        "workers": workers,
        "kills": kills,
        "restarts": done_restarts,
        "cells_complete_once": sum(count == 1 for count in complete.values()),
        "trials_complete": states["COMPLETE"],
        "trials_ended": len(ended(study)),
        "taken_over": states["FAIL"],
        "other_states": len(study.trials) - states["COMPLETE"] - states["FAIL"],
        "trainings_begun": sum(trainings.values()),
        "workers_that_raised": died,
        "workers_left_hanging": sum(worker.is_alive() for worker in crew),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """The campaign, and its counts; exit code 1 where a trial did not end exactly once."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--sqlite", action="store_true", help="SQLite on this host, without restarts")
    words.add_argument("--trials", type=int, default=200)
    words.add_argument("--workers", type=int, default=8)
    words.add_argument("--kill-every", type=float, default=2.0, help="seconds between kills, on average")
    words.add_argument("--restarts", type=int, default=2)
    words.add_argument("--timezone", default="UTC", help="of the server")
    words.add_argument("--seed", type=int, default=0)
    options = words.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None if options.sqlite else stack.enter_context(private_server(options.timezone))
        simulation = Simulation(
            url=server.url if server else f"sqlite:///{folder / 'study.db'}",
            folder=folder,
            trials=options.trials,
        )
        counts = campaign(
            simulation,
            workers=options.workers,
            kill_every=options.kill_every,
            server=server,
            restarts=options.restarts,
            seed=options.seed,
            say=lambda line: print(line, flush=True),
        )
    for name, count in counts.items():
        print(f"{name.replace('_', ' '):22} {count}")
    sys.exit(0 if ended_once(counts) else 1)


def ended_once(counts: dict[str, int | float]) -> bool:
    """Whether every cell of the plan has one complete trial, and nothing else is left."""
    return (
        counts["cells_complete_once"] == counts["trials"]
        and counts["trials_complete"] == counts["trials_ended"] == counts["trials"]
        and counts["other_states"] == counts["workers_that_raised"] == counts["workers_left_hanging"] == 0
    )


if __name__ == "__main__":
    main()
