"""A study whose trials only sleep: queue, workers and storage are the project's own, the training is not.

What trains writes to a ledger, a file of its own, when it begins and ends: what the storage says of a
study can be held against it. Nothing here needs torch, so that many workers start at once.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from isic_smp.sweeping.plan import Plan, grid
from isic_smp.sweeping.study import open_study
from isic_smp.sweeping.trial import Outcome, TrialRunner
from isic_smp.sweeping.worker import work
from isic_smp.training.history import Epoch
from isic_smp.training.recipe import PRESETS, Recipe

if TYPE_CHECKING:
    import optuna

STUDY = "simulated"


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A grid of one cell a seed, each training `epochs` epochs of `epoch_seconds`."""

    url: str
    folder: Path
    """Of the ledger and of the trials."""
    trials: int
    epochs: int = 5
    epoch_seconds: float = 0.2
    heartbeat: int = 1

    def plan(self) -> Plan:
        """What is queued."""
        distributions, cells = grid(seed=range(self.trials))
        return Plan(base=PRESETS["report"], distributions=distributions, cells=cells)

    def open(self) -> "optuna.Study":
        """The study, created where it is missing."""
        return open_study(STUDY, self.plan(), url=self.url, heartbeat=self.heartbeat)

    def ledger(self) -> list[dict[str, Any]]:
        """What the trainings wrote, in the order of time."""
        file = self.folder / "ledger.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def note(self, what: str, **facts: Any) -> None:
        """Append a line; lines this short are not mixed up between processes."""
        line = json.dumps({"what": what, "pid": os.getpid(), "time": time.time(), **facts}) + "\n"
        file = os.open(self.folder / "ledger.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def run_worker(simulation: Simulation, ready: Callable[[], Any] | None = None) -> None:
    """Work on the study until it is over."""

    def train(recipe: Recipe, _: Any, after_epoch: Callable[[Epoch], None]) -> Outcome:
        simulation.note("begin", seed=recipe.seed)
        for epoch in range(simulation.epochs):
            time.sleep(simulation.epoch_seconds)
            after_epoch(
                Epoch(epoch, *[0.5] * 5, val_iou=recipe.seed / 1e3, lr=0.1, images_per_second=1, seconds=1)
            )
        simulation.note("end", seed=recipe.seed)
        return Outcome("", simulation.epochs, recipe.seed / 1e3, 0.5, 1, 1.0)

    study = simulation.open()
    setup = cast(Any, NoSetup())
    runner = TrialRunner(simulation.plan(), setup, simulation.folder, study_name=STUDY, train=train)
    if ready is not None:
        ready()
    work(study, runner, url=simulation.url, heartbeat=simulation.heartbeat, on_ended=lambda *_: None)
    simulation.note("over")


@dataclass(frozen=True)
class NoSetup:
    """The fields of an `experiment.Setup` that a trial fills in."""

    output_dir: Path | None = None
    run_name: str = ""
    tags: tuple = ()
    resume: bool = False
    score_test: bool = False
    bars: bool = False


def context() -> Any:
    """Where workers are forked from a process that has made their imports, and nothing else."""
    found = multiprocessing.get_context("forkserver")
    here = str(Path(__file__).parent)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in known:  # else the server does not find this module, and says nothing
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, known)])
    found.set_forkserver_preload([__name__])
    return found


def start_worker(simulation: Simulation, ready: Callable[[], Any] | None = None) -> ForkServerProcess:
    """A worker in a process of its own.

    Args:
        simulation: its study.
        ready: called when it has opened the study, before its first trial.
    """
    process = context().Process(target=run_worker, args=(simulation, ready), daemon=True)
    process.start()
    return process
