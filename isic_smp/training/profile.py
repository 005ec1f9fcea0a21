"""Where an epoch's time goes: a torch profiler trace of some steps, and a table.

`StepProfiler` takes the place of the progress display, so the loop itself knows nothing of it; the parts
of a step are labelled where they stand in the code (`parts.part`).
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

from isic_smp.training.history import Epoch, Progress
from isic_smp.training.parts import PREFIX, part

TRACE = "profile.json"
"""File of the trace, in Chrome's format: open it in chrome://tracing or https://ui.perfetto.dev."""

AHEAD = ("read", "augment")
"""Parts that another thread does while the step before is computed."""

MAIN = ("wait for a batch", "encoder", "decoder", "loss", "backward", "optimizer", "metrics")
"""Parts of a step, one after the other; the encoder and the decoder (with its head) forward."""


class StepProfiler:
    """Shows what `progress` shows, and profiles the first epoch that is trained.

    Args:
        progress: what is shown meanwhile.
        model: the smp model; its encoder, decoder and head are told apart.
        steps: how many steps are traced, after a first one that is not; at most what the epoch has.
        folder: where the trace is written.
        say: given the table, when the epoch is over.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        model: SegmentationModel,
        steps: int,
        folder: Path,
        say: Callable[[str], object],
    ) -> None:
        self.progress, self.model, self.steps, self.folder, self.say = progress, model, steps, folder, say
        self.done = False
        self.steps_an_epoch = self.traced = 0
        self.parts: dict[str, float] = {}
        self.step_seconds: list[float] = []
        self.logging = 0.0
        self._open = ExitStack()
        self._profile: profile | None = None

    def start(self, epoch: int, steps: int) -> None:
        """As `Progress.start`; tracing begins with the first epoch."""
        self.progress.start(epoch, steps)
        if self.done:
            return
        self.steps_an_epoch = steps
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=self._read,
            experimental_config=torch._C._profiler._ExperimentalConfig(profile_all_threads=True),
        )
        self._open.enter_context(self._profile)
        for name, module in (
            ("encoder", self.model.encoder),
            ("decoder", self.model.decoder),
            ("decoder", self.model.segmentation_head),
        ):
            self._label(name, module)
        self._last = time.perf_counter()

    def step(self, images: int, figures: Callable[[], dict[str, float]]) -> None:
        """As `Progress.step`."""
        self.progress.step(images, figures)
        if self._profile is None:
            return
        now = time.perf_counter()
        self.step_seconds.append(now - self._last)
        self._profile.step()
        if len(self.step_seconds) > self.steps:
            self._stop()
        self._last = time.perf_counter()

    def logged(self, on_epoch: Callable[[Epoch, nn.Module], None]) -> Callable[[Epoch, nn.Module], None]:
        """`on_epoch` with the time that it takes noted."""

        def timed(record: Epoch, model: nn.Module) -> None:
            begun = time.perf_counter()
            on_epoch(record, model)
            self.logging = time.perf_counter() - begun

        return timed

    def end(self, record: Epoch) -> None:
        """As `Progress.end`; the table is said once."""
        if not self.done:
            self._stop()
            self.done = True
            self.progress.end(record)
            self.say(self.table(record.seconds))
            return
        self.progress.end(record)

    def table(self, seconds: float) -> str:
        """What was found, for an epoch that trained for `seconds`."""
        traced = self.step_seconds[1 : 1 + self.traced] or self.step_seconds
        step = sum(traced) / max(1, len(traced))
        lines = [
            "",
            f"profile of {self.traced} steps of {self.steps_an_epoch}, trace in {self.folder / TRACE}",
            f"{'':26}{'ms a step':>10}{'share':>8}",
        ]

        def add(name: str, part_seconds: float, note: str = "") -> None:
            lines.append(f"{name:26}{1000 * part_seconds:>10.1f}{part_seconds / step:>8.1%}{note}")

        each = {name: total / max(1, self.traced) for name, total in self.parts.items()}
        for name in MAIN:
            add(name, each.get(name, 0.0))
        add("everything else", step - sum(each.get(name, 0.0) for name in MAIN))
        add("a step", step)
        for name in AHEAD:
            add(name, each.get(name, 0.0), "  meanwhile, on another thread")
        lines.append(f"the epoch: training {seconds:.2f} s, logging {self.logging:.2f} s")
        return "\n".join(lines)

    def _label(self, name: str, module: nn.Module) -> None:
        """Label a module's forward pass."""
        running: list[Any] = []

        def enter(*_: object) -> None:
            running.append(part(name))
            running[-1].__enter__()

        def leave(*_: object) -> None:
            running.pop().__exit__(None, None, None)

        for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave)):
            self._open.callback(hook.remove)

    def _stop(self) -> None:
        self._profile = None
        self._open.close()

    def _read(self, profiled: profile) -> None:
        """Called once by the profiler, when the steps are over or the epoch is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        profiled.export_chrome_trace(str(self.folder / TRACE))
        for event in profiled.events() or []:
            if event.name.startswith(PREFIX):
                name = event.name.removeprefix(PREFIX)
                self.parts[name] = self.parts.get(name, 0.0) + event.time_range.elapsed_us() / 1e6
        self.traced = sum(event.name == PREFIX + "backward" for event in profiled.events() or [])
