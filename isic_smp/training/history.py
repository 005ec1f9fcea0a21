"""What a training reports: the figures of each epoch, how it went, and what watches it meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; Dice and IoU are per-image means at the network's size."""

    epoch: int
    """From 0, as in checkpoints; what a user sees counts from 1."""
    train_loss: float
    train_dice: float
    train_iou: float
    val_loss: float
    val_dice: float
    val_iou: float
    lr: float
    images_per_second: float
    seconds: float


@dataclass
class Fit:
    """How a training went; the weights to keep are in the model by then."""

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    kept_epoch: int = 0
    stopped_early: bool = False


class Progress(Protocol):
    """Shown while an epoch runs."""

    def start(self, epoch: int, steps: int) -> None:
        """An epoch begins."""
        ...

    def step(self, images: int, figures: Callable[[], dict[str, float]]) -> None:
        """A step is done; `figures` costs a synchronisation, so call it a few times a second at most."""
        ...

    def end(self, record: Epoch) -> None:
        """The epoch is over."""
        ...
