"""What a person sees while a run goes on: a bar an epoch, or plain lines where nobody watches."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from isic_smp.training.history import Epoch

REFRESH_SECONDS = 0.5


class EpochBars:
    """A bar an epoch with loss, Dice, images/s and time left; one line an epoch when not on a terminal."""

    def __init__(self, epochs: int, *, shown: bool = True, file: TextIO | None = None) -> None:
        self.epochs, self.shown = epochs, shown
        self.file = file or sys.stderr
        self.bar: tqdm | None = None
        self.images = 0
        self.started = self.refreshed = 0.0
        self.run_started = time.perf_counter()
        self.done = 0

    def start(self, epoch: int, steps: int) -> None:
        """An epoch begins."""
        self.images, self.started, self.refreshed = 0, time.perf_counter(), 0.0
        self.bar = tqdm(
            total=steps,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            file=self.file,
            disable=not self._watched(),
            bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
        )

    def step(self, images: int, figures: Callable[[], dict[str, float]]) -> None:
        """A step over `images` images is done."""
        self.images += images
        now = time.perf_counter()
        if self.bar is not None and not self.bar.disable and now - self.refreshed > REFRESH_SECONDS:
            self.refreshed = now
            current = figures()
            rate = self.images / (now - self.started)
            self.bar.set_postfix_str(
                f"loss {current['loss']:.4f} Dice {current['dice']:.4f} {rate:.0f} images/s", refresh=False
            )
        if self.bar is not None:
            self.bar.update()

    def end(self, record: Epoch) -> None:
        """The epoch is over: its figures stay on the screen."""
        self.done += 1
        left = (time.perf_counter() - self.run_started) / self.done * (self.epochs - record.epoch - 1)
        line = (
            f"epoch {record.epoch + 1:>3}/{self.epochs}  "
            f"train loss {record.train_loss:.4f} Dice {record.train_dice:.4f}  "
            f"validation loss {record.val_loss:.4f} Dice {record.val_dice:.4f} IoU {record.val_iou:.4f}  "
            f"{record.images_per_second:.0f} images/s  {_minutes(left)} left"
        )
        if self.bar is not None:
            self.bar.leave = False
            self.bar.close()
        if self.shown:
            print(line, file=self.file, flush=True)

    def _watched(self) -> bool:
        return self.shown and self.file.isatty()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
