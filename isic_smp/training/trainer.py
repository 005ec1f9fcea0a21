"""One model while it is trained: its step, its epoch, its validation, and its state to go on from."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from isic_smp.errors import UserError
from isic_smp.training.batches import Batch
from isic_smp.training.cpu_rewrites import rewritten
from isic_smp.training.device import autocast, resolve_precision
from isic_smp.training.distributed import Ranks
from isic_smp.training.history import Progress
from isic_smp.training.losses import make_loss
from isic_smp.training.metrics import confusion, summarise
from isic_smp.training.optimisation import make_average, make_optimizer, make_schedule
from isic_smp.training.parts import part
from isic_smp.training.recipe import Recipe
from isic_smp.training.sync_batchnorm import synced_batchnorm


class TrainingDiverged(UserError):
    """A loss, a gradient or a weight is no finite number any more."""


@dataclass
class Tally:
    """Sums over the batches of an epoch, kept on the device so that no step waits for them."""

    loss: Tensor
    images: int = 0
    counts: list[Tensor] = field(default_factory=list)

    def add(self, loss: Tensor, logits: Tensor, batch: Batch, threshold_logit: float) -> None:
        """Count one batch; `loss` is its mean, `logits` are (B, 1, H, W)."""
        size = len(batch.samples)
        self.loss += loss.detach() * size
        self.images += size
        self.counts.append(confusion(logits.detach()[:, 0] > threshold_logit, batch.target[:, 0] > 0.5))

    def figures(self) -> dict[str, float]:
        """Mean loss, and per-image mean Dice and IoU, so far."""
        scores = summarise(torch.cat(self.counts).cpu())
        loss = float(self.loss) / max(self.images, 1)
        return {"loss": loss, "dice": scores["dice_per_image"], "iou": scores["iou_per_image"]}


class Trainer:
    """Everything that changes while a model is trained. `fit` is the way to use it."""

    def __init__(
        self,
        model: SegmentationModel,
        network: nn.Module,
        recipe: Recipe,
        *,
        steps: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.model, self.network, self.recipe = model, network, recipe
        self.device, self.ranks = device, ranks
        self.precision = resolve_precision(recipe.precision, device)
        self.loss = make_loss(recipe.loss).to(device)
        self.threshold_logit = float(torch.logit(torch.tensor(recipe.threshold)))
        self.optimizer = make_optimizer(model, recipe)
        self.schedule = make_schedule(self.optimizer, recipe, steps * recipe.epochs)
        self.average: AveragedModel | None = make_average(model, recipe.ema) if recipe.ema else None
        self.frozen: bool | None = None
        self.stepping: nn.Module = network

    def set_frozen(self, frozen: bool) -> None:
        """Freeze or unfreeze the encoder; DDP learns anew which parameters have gradients."""
        if frozen == self.frozen:
            return
        self.model.freeze_encoder() if frozen else self.model.unfreeze_encoder()
        self.frozen = frozen
        if self.recipe.compile:
            self.network.compile()
        self.stepping = DistributedDataParallel(self.network) if self.ranks.world > 1 else self.network

    def fast(self) -> AbstractContextManager[None]:
        """The context of the epoch's hot loop: on a CPU, the same sums in fewer operations."""
        pays = self.device.type == "cpu" and self.recipe.channels_last and not self.recipe.compile
        return rewritten(self.network) if pays else nullcontext()

    def new_tally(self) -> Tally:
        """An empty tally on this device."""
        return Tally(torch.zeros((), device=self.device))

    def step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """One update; loss and logits of the batch before it, and whether loss and gradients were finite.

        On a CPU, weights are left as they are where they were not.
        """
        with autocast(self.device, self.precision):
            logits = self.stepping(*self._inputs(batch))
        with part("loss"):
            loss = self.loss(logits.float(), batch.target)
        with part("backward"):
            (loss * batch.share).backward()
        with part("optimizer"):
            finite = self._update(loss.detach())
        return loss, logits, finite

    def _inputs(self, batch: Batch) -> list[Tensor]:
        """What the network is given; batches come in channels-last memory, and a convolution follows its input's."""
        return [x if self.recipe.channels_last else x.contiguous() for x in batch.inputs]

    def _update(self, loss: Tensor) -> Tensor:
        """The weights, from their gradients; whether those and `loss` were finite."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, self.recipe.grad_clip or math.inf)
        finite = torch.isfinite(norm) & torch.isfinite(loss)
        # On a GPU, looking at the answer would stall every step; there it is looked at when the epoch is over.
        if self.device.type == "cpu" and not finite:
            return finite
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return finite

    def train_epoch(
        self, batches: Iterator[Batch], batch_names: Callable[[Any], list[str]], progress: Progress
    ) -> Tally:
        """Every batch once.

        Raises:
            TrainingDiverged: a loss or gradient that is not finite, with the images of that batch; on a
                CPU at that step, on a GPU when the epoch is over.
        """
        self.network.train()
        self.model.train()
        if not self.recipe.channels_last:  # which a predictor that drew pictures between epochs has made it
            self.model.to(memory_format=torch.contiguous_format)
        tally = self.new_tally()
        seen = []
        with self.fast(), synced_batchnorm(self.network, self.ranks):
            for batch in batches:
                loss, logits, finite = self.step(batch)
                if self.device.type == "cpu":
                    _check(finite, loss, batch_names(batch.samples))
                else:
                    seen.append((finite, loss.detach(), batch.samples))
                with part("metrics"):
                    tally.add(loss, logits, batch, self.threshold_logit)
                progress.step(len(batch.samples) * self.ranks.world, tally.figures)
        for finite, loss, samples in seen:
            _check(finite, loss, batch_names(samples))
        return tally

    def check_weights(self) -> None:
        """Refuse to keep weights or statistics that are no finite numbers.

        Raises:
            TrainingDiverged: naming the first that is not.
        """
        averaged = self.average.module.state_dict() if self.average is not None else {}
        for name, value in [*self.model.state_dict().items(), *averaged.items()]:
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise TrainingDiverged(
                    f"{name} holds numbers that are not finite after this epoch; try a lower lr"
                )

    @torch.inference_mode()
    def validate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Loss, Dice and IoU of the weights that would be kept, in evaluation mode.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        with self.weights_to_keep(), self.fast():
            self.network.eval()
            self.model.eval()
            tally = self.new_tally()
            for batch in batches:
                with autocast(self.device, self.precision):
                    logits = self.network(*self._inputs(batch))
                tally.add(self.loss(logits.float(), batch.target), logits, batch, self.threshold_logit)
        figures = tally.figures()
        if not math.isfinite(figures["loss"]):
            raise TrainingDiverged(f"the validation loss became {figures['loss']}; try a lower lr")
        return figures

    def weights_to_keep(self) -> "Swapped":
        """Within this context the model holds its averaged weights, where the recipe averages."""
        return Swapped(self.model, self.average)

    def state(self) -> dict[str, Any]:
        """All that the next epoch needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if not callable(v)},
            "average": self.average.state_dict() if self.average is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _check(finite: Tensor, loss: Tensor, names: list[str]) -> None:
    """Raise TrainingDiverged, with the images of the batch, where its step was not finite."""
    if not finite:
        what = "a gradient is not finite" if torch.isfinite(loss) else f"the loss became {loss.item()}"
        raise TrainingDiverged(f"{what}, try a lower lr; it was on the images {', '.join(names)}")


class Swapped:
    """Puts averaged weights into the model and takes them out again."""

    def __init__(self, model: nn.Module, average: AveragedModel | None) -> None:
        self.model, self.average = model, average
        self.own: list[Tensor] = []

    def __enter__(self) -> nn.Module:
        if self.average is not None:
            self.own = [p.detach().clone() for p in self.model.parameters()]
            self._put([p.detach() for p in self.average.module.parameters()])
        return self.model

    def __exit__(self, *_: object) -> None:
        if self.average is not None:
            self._put(self.own)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.model.parameters(), values, strict=True):
            parameter.copy_(value)
