"""Batches for the loop: which samples, in which order, read and augmented ahead of the step.

Order and augmentation are functions of (seed, epoch) alone, so a resumed run and a run of several
processes see the same pictures as an uninterrupted one.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from isic_smp.data.augment import Augmenter
from isic_smp.errors import UserError
from isic_smp.models.normalise import normalise
from isic_smp.training.distributed import Ranks
from isic_smp.training.parts import part

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """One step's samples on one rank.

    Attributes:
        inputs: what the trained module is called with.
        target: (B, 1, S, S) float32, 0 or 1; between them where teachers are learned from.
        samples: (B,) positions in the training set.
        share: this rank's samples over an equal share of the whole batch; weighs the loss so that
            gradients averaged over ranks equal those of the whole batch.
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    samples: np.ndarray
    share: float = 1.0


class Batches(Protocol):
    """A source of batches that the loop can go through once an epoch."""

    def steps(self) -> int:
        """Steps an epoch."""
        ...

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        """The batches of one epoch (counted from 0), on `device`."""
        ...

    def names(self, samples: np.ndarray) -> list[str]:
        """The image ids of sample positions."""
        ...


class Pixels(Protocol):
    """Images and masks, read a batch at a time."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The images' ids, in the order of their numbers."""
        ...

    @property
    def levels(self) -> int:
        """What certain lesion counts in the masks."""
        ...

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """RGB images, uint8 (B, S, S, 3), and masks, uint8 (B, S, S) from 0 to `levels`."""
        ...


class Order:
    """Which samples each step takes.

    Raises:
        UserError: there are more ranks than samples in a step.
    """

    def __init__(
        self, count: int, batch_size: int, *, shuffle: bool, seed: int = 0, ranks: Ranks | None = None
    ) -> None:
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.ranks = ranks or Ranks()
        if min(count, batch_size) < self.ranks.world:
            raise UserError(
                f"{self.ranks.world} processes share {count} images in batches of {batch_size}: each needs one a "
                "step; start fewer processes, or raise --batch-size"
            )
        rest = count % batch_size
        # BatchNorm cannot train on a single sample, and each rank needs one: a smaller last batch is left out.
        drop = shuffle and 0 < rest < max(2, self.ranks.world) and count > batch_size
        self.steps = count // batch_size + (rest > 0 and not drop)

    def epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, float]]:
        """(samples, share) of each step; see `Batch`."""
        samples = np.arange(self.count)
        if self.shuffle:
            samples = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        for step in range(self.steps):
            whole = samples[step * self.batch_size : (step + 1) * self.batch_size]
            own = whole[self.ranks.rank :: self.ranks.world]
            yield own, len(own) * self.ranks.world / len(whole)


class PixelBatches:
    """Batches of images from the pixel cache, augmented while the step before is computed."""

    def __init__(
        self,
        cache: Pixels,
        order: Order,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmenter: Augmenter | None = None,
    ) -> None:
        self.cache, self.order, self.mean, self.std, self.augmenter = cache, order, mean, std, augmenter

    def steps(self) -> int:
        """Steps an epoch."""
        return self.order.steps

    def names(self, samples: np.ndarray) -> list[str]:
        """The image ids of sample positions."""
        return [self.cache.ids[i] for i in samples]

    def _read(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, np.ndarray, float]]:
        for samples, share in self.order.epoch(epoch):
            with part("read"):
                images, masks = self.cache.read(samples)
            if self.augmenter is not None:
                with part("augment"):
                    images, masks = self.augmenter.apply(
                        images,
                        masks,
                        sample_ids=samples,
                        seed=self.order.seed,
                        epoch=epoch,
                        levels=self.cache.levels,
                    )
            yield torch.from_numpy(images), torch.from_numpy(masks), samples, share

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        """The batches of one epoch, on `device`; (B, 3, S, S) inputs in channels-last memory."""
        for images, masks, samples, share in prefetch(self._read(epoch)):
            if device.type == "cuda":
                images, masks = images.pin_memory(), masks.pin_memory()
            images, masks = (t.to(device, non_blocking=True) for t in (images, masks))
            target = target_of(masks, self.cache.levels)
            yield Batch((normalise(images, mean=self.mean, std=self.std),), target, samples, share)


def target_of(masks: Tensor, levels: int) -> Tensor:
    """Masks, uint8 (B, S, S) from 0 to `levels`, as what logits are compared with: float32 (B, 1, S, S) from 0 to 1."""
    target = masks.unsqueeze(1).float()
    return target if levels == 1 else target.div_(levels)


def prefetch(items: Iterable[T], *, ahead: int = 2) -> Iterator[T]:
    """`items`, made by a thread up to `ahead` before they are asked for; its errors are raised here."""
    box: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def offer(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                box.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer((True, item)):
                    return
            offer((False, None))
        except BaseException as error:  # handed over and raised in the consumer
            offer((False, error))

    thread = threading.Thread(target=work, daemon=True, name="isic-smp-prefetch")
    thread.start()
    try:
        while True:
            with part("wait for a batch"):
                is_item, value = box.get()
            if not is_item:
                if isinstance(value, BaseException):
                    raise value
                return
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
