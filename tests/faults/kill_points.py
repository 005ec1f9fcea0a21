"""When a run is killed: after a time, within a phase, or right before an operation on the file system."""

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

PHASES = (
    "decode", "bank", "start the MLflow run", "train", "validate", "keep the best", "keep the last",
    "journal", "send", "save the model", "export", "finish the log", "register",
)  # fmt: skip


@dataclass
class Plan:
    """When a child dies: after `seconds`, `seconds` after entering a phase for the nth time, or before an operation."""

    kind: str = "never"
    seconds: float = 0.0
    phase: str = ""
    nth: int = 1
    how: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        if self.kind == "time":
            return f"after {self.seconds:.2f} s"
        if self.kind == "phase":
            return f"{self.seconds * 1000:.0f} ms into «{self.phase}» no. {self.nth}"
        return f"before file operation {self.nth}" if self.kind == "operation" else "never"


@dataclass
class Seen:
    """What `observe` saw of a run that nobody killed."""

    operations: int
    phases: dict[str, list[float]]
    """Seconds of each time that a phase was gone through."""
    modules: list[str]
    """What it imported as it went along."""


def draw_plan(rng: random.Random, seen: Seen, seconds: float) -> Plan:
    """A moment of a run of which `seen` is known, and that takes `seconds`."""
    kind = rng.choice(["time", "phase", "operation"])
    if kind == "time":
        return Plan(kind, rng.uniform(0.02, seconds))
    if kind == "operation":
        return Plan(kind, nth=rng.randint(1, seen.operations))
    name = rng.choice([name for name, times in seen.phases.items() if times])
    nth = rng.randint(1, len(seen.phases[name]))
    return Plan(kind, rng.uniform(0, seen.phases[name][nth - 1]), name, nth)


def observe(plan: Plan, trace: Path | None) -> None:
    """In a child: count phases and operations on files, and die where the plan says so.

    Args:
        plan: when to die.
        trace: a file to write what was `Seen` into, at the end.
    """
    import isic_smp.conclude as conclude
    import isic_smp.prepare as prepare
    import isic_smp.tracking.experiment_log as experiment_log
    import isic_smp.tracking.sending as sending
    from isic_smp.tracking.journal import Journal
    from isic_smp.tracking.registry import Registry
    from isic_smp.tracking.run_log import RunLog
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.trainer import Trainer

    entered: Counter = Counter()
    took: dict[str, list[float]] = {name: [] for name in PHASES}
    operations = [0]

    def die() -> None:
        os.kill(os.getpid(), plan.how)

    def phase(name: str, place: object, attribute: str) -> None:
        work: Callable = getattr(place, attribute)

        def watched(*args: object, **kwargs: object) -> object:
            entered[name] += 1
            if plan.kind == "phase" and plan.phase == name and plan.nth == entered[name]:
                threading.Timer(plan.seconds, die).start() if plan.seconds > 0.002 else die()
            began = time.monotonic()
            try:
                return work(*args, **kwargs)
            finally:
                took[name].append(time.monotonic() - began)

        setattr(place, attribute, watched)

    phase("decode", prepare, "open_pixel_cache")
    phase("bank", prepare, "open_feature_bank")
    phase("start the MLflow run", experiment_log.ExperimentLog, "start")
    phase("train", Trainer, "train_epoch")
    phase("validate", Trainer, "validate")
    phase("keep the best", Checkpoints, "save_best")
    phase("keep the last", Checkpoints, "save_last")
    phase("journal", Journal, "append")
    phase("send", sending, "send_pending")
    phase("save the model", conclude, "save_bundle")
    phase("export", experiment_log, "log_segmentation_model")
    phase("finish the log", RunLog, "finish")
    phase("register", Registry, "register")

    def operation(event: str, arguments: tuple) -> None:
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"):
            return
        operations[0] += 1
        if plan.kind == "operation" and operations[0] == plan.nth:
            die()

    sys.addaudithook(operation)
    if trace is not None:
        exit_now, known = os._exit, set(sys.modules)

        def leave(code: int) -> None:
            seen = Seen(operations[0], took, sorted(sys.modules.keys() - known))
            trace.write_text(json.dumps(asdict(seen)))
            exit_now(code)

        os._exit = leave  # type: ignore[assignment]
