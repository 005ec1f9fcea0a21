"""When a training run reaches its goals, and what its epochs cost."""

import time

from common import cpu_seconds


class Reached(Exception):
    """The last goal is reached, or time is up."""


class Clock:
    """The minutes at which goals are first reached, and the processor time of each epoch.

    Args:
        goals: Validation IoU, rising.
        limit: Seconds after which a run ends, if it has had `last` epochs.
        last: Epochs.
    """

    def __init__(self, goals: tuple[float, ...], limit: float, last: int) -> None:
        self.goals, self.limit, self.last = goals, limit, last
        self.start = time.perf_counter()
        self.cpu = [cpu_seconds()]
        self.reached: dict[str, float] = {}
        self.ious: list[float] = []

    def epoch(self, iou: float) -> None:
        """Note an epoch's validation IoU.

        Raises:
            Reached: the run is to end.
        """
        seconds = time.perf_counter() - self.start
        self.cpu.append(cpu_seconds())
        self.ious.append(iou)
        for goal in self.goals:
            if iou >= goal:
                self.reached.setdefault(str(goal), seconds / 60)
        if len(self.reached) == len(self.goals) or (seconds > self.limit and len(self.ious) >= self.last):
            raise Reached

    def found(self, prepare_seconds: float, seconds: list[float], images: int) -> dict:
        """What was measured: `seconds` are those of each epoch, `images` those of one."""
        return {
            "prepare_seconds": prepare_seconds,
            "epoch_seconds": sorted(seconds)[len(seconds) // 2],
            "epochs_run": len(seconds),
            # With validation. On a machine that others use too, these compare better than the clock does.
            "prepare_cpu_seconds": self.cpu[-1 - len(self.ious)] - self.cpu[0],
            "epoch_cpu_seconds": (self.cpu[-1] - self.cpu[-1 - len(self.ious)]) / max(1, len(self.ious)),
            "images": images,
            "seconds": time.perf_counter() - self.start,
            "reached": self.reached,
            "validation_iou": self.ious,
        }
