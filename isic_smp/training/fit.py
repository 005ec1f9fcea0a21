"""The training loop: one model, one recipe, batches in, a history out."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from isic_smp.errors import UserError
from isic_smp.training.batches import Batch, Batches
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.cpu_rewrites import rewritten
from isic_smp.training.device import autocast, resolve_precision
from isic_smp.training.distributed import Ranks
from isic_smp.training.losses import make_loss
from isic_smp.training.metrics import confusion, summarise
from isic_smp.training.optimisation import make_average, make_optimizer, make_schedule
from isic_smp.training.parts import part
from isic_smp.training.recipe import Recipe


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; Dice and IoU are per-image means at the network's size."""

    epoch: int
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


class TrainingDiverged(UserError):
    """The loss is no finite number any more."""


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
        model: nn.Module,
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
        self.model.freeze_encoder() if frozen else self.model.unfreeze_encoder()  # type: ignore[operator]
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

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One update; (loss, logits) of the batch before it."""
        with autocast(self.device, self.precision):
            logits = self.stepping(*batch.inputs)
        with part("loss"):
            loss = self.loss(logits.float(), batch.target)
        with part("backward"):
            (loss * batch.share).backward()
        with part("optimizer"):
            self._update()
        return loss, logits

    def _update(self) -> None:
        """The weights, from their gradients."""
        if self.recipe.grad_clip:
            trained = [
                p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            nn.utils.clip_grad_norm_(trained, self.recipe.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def train_epoch(
        self, batches: Iterator[Batch], batch_names: Callable[[Any], list[str]], progress: Progress
    ) -> Tally:
        """Every batch once.

        Raises:
            TrainingDiverged: a loss that is not finite, with the images of that batch.
        """
        self.network.train()
        self.model.train()
        tally = self.new_tally()
        with self.fast():
            for batch in batches:
                loss, logits = self.step(batch)
                # On a GPU, looking at every loss would stall it; its sum shows a NaN at the epoch's end.
                if self.device.type == "cpu" and not torch.isfinite(loss):
                    names = ", ".join(batch_names(batch.samples))
                    raise TrainingDiverged(
                        f"the loss became {loss.item()} on the images {names}; try a lower lr"
                    )
                with part("metrics"):
                    tally.add(loss, logits, batch, self.threshold_logit)
                progress.step(len(batch.samples) * self.ranks.world, tally.figures)
        if not torch.isfinite(tally.loss):
            raise TrainingDiverged(f"the loss became {tally.loss.item()} in this epoch; try a lower lr")
        return tally

    @torch.inference_mode()
    def validate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Loss, Dice and IoU of the weights that would be kept, in evaluation mode."""
        with self.weights_to_keep(), self.fast():
            self.network.eval()
            self.model.eval()
            tally = self.new_tally()
            for batch in batches:
                with autocast(self.device, self.precision):
                    logits = self.network(*batch.inputs)
                tally.add(self.loss(logits.float(), batch.target), logits, batch, self.threshold_logit)
        return tally.figures()

    def weights_to_keep(self) -> "_Swapped":
        """Within this context the model holds its averaged weights, where the recipe averages."""
        return _Swapped(self.model, self.average)

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


class _Swapped:
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


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: Batches,
    validation: Batches,
    *,
    device: torch.device,
    network: nn.Module | None = None,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints,
    fingerprint: str,
    resume: bool = False,
    on_epoch: Callable[[Epoch, nn.Module], None],
    progress: Progress,
) -> Fit:
    """Train `model` by `recipe`, keep checkpoints, and leave the kept weights in `model`.

    Args:
        model: an smp model with `freeze_encoder` and `unfreeze_encoder`, on `device`.
        recipe: how to train.
        train: the training batches; with several ranks, this rank's share of them.
        validation: the validation batches, all of them.
        device: where to compute.
        network: what a batch's inputs are given to; `model` itself, unless features come from a bank.
        ranks: the processes that train together.
        checkpoints: where the run's checkpoints are kept.
        fingerprint: of the data; a checkpoint of other data or of another recipe is not resumed.
        resume: go on from the checkpoint, where there is one.
        on_epoch: called on rank 0 after each epoch, with the model holding the weights that would be kept.
        progress: shown meanwhile.

    Raises:
        TrainingDiverged: the loss is no finite number any more.
        UserError: the checkpoint does not fit.
    """
    ranks = ranks or Ranks()
    trainer = Trainer(model, network or model, recipe, steps=train.steps(), device=device, ranks=ranks)
    result = Fit()
    identity = {"recipe": recipe.to_dict(), "fingerprint": fingerprint}
    state = ranks.share(checkpoints.load_last() if resume and ranks.is_main else None)
    if state is not None:
        _check_same(state, identity, checkpoints)
        trainer.restore(state)
        result = Fit([Epoch(**record) for record in state["history"]], state["best_epoch"])
    best = max((record.val_iou for record in result.history), default=-1.0)

    for epoch in range(len(result.history), recipe.epochs):
        if _patience_over(result, recipe):
            break
        trainer.set_frozen(recipe.freeze or epoch < recipe.freeze_epochs)
        torch.manual_seed(hash((recipe.seed, epoch, ranks.rank)) % 2**63)
        progress.start(epoch, train.steps())
        started = time.perf_counter()
        lr = trainer.optimizer.param_groups[-1]["lr"]
        tally = trainer.train_epoch(train.epoch(epoch, device), train.names, progress)
        images = int(ranks.sum(torch.tensor(tally.images, device=device)))
        figures = _over_ranks(tally, ranks)
        seconds = time.perf_counter() - started
        record = None
        if ranks.is_main:
            scores = trainer.validate(validation.epoch(epoch, device))
            record = Epoch(
                epoch,
                **{f"train_{name}": value for name, value in figures.items()},
                **{f"val_{name}": value for name, value in scores.items()},
                lr=lr,
                images_per_second=images / seconds,
                seconds=seconds,
            )
        record = ranks.share(record)
        result.history.append(record)
        if record.val_iou > best:
            best, result.best_epoch = record.val_iou, epoch
        if ranks.is_main:
            with trainer.weights_to_keep() as kept:
                if result.best_epoch == epoch:
                    checkpoints.save_best(kept.state_dict(), epoch)
                on_epoch(record, kept)
            history = [dataclasses.asdict(past) for past in result.history]
            checkpoints.save_last(
                {**identity, **trainer.state(), "history": history, "best_epoch": result.best_epoch}
            )
            progress.end(record)

    result.stopped_early = len(result.history) < recipe.epochs
    ranks.wait()
    if recipe.keep == "best":
        result.kept_epoch = result.best_epoch
        model.load_state_dict(checkpoints.load_best())
    else:
        result.kept_epoch = len(result.history) - 1
        if trainer.average is not None:
            trainer.weights_to_keep().__enter__()
    model.eval()
    return result


def _over_ranks(tally: Tally, ranks: Ranks) -> dict[str, float]:
    """The tally's figures over all ranks' images."""
    if ranks.world == 1:
        return tally.figures()
    own = tally.figures()
    sums = torch.tensor([own[name] * tally.images for name in own] + [tally.images], dtype=torch.float64)
    *totals, images = ranks.sum(sums.to(tally.loss.device)).tolist()
    return {name: total / images for name, total in zip(own, totals, strict=True)}


def _patience_over(result: Fit, recipe: Recipe) -> bool:
    return (
        bool(recipe.early_stopping) and len(result.history) - 1 - result.best_epoch >= recipe.early_stopping
    )


def _check_same(state: dict[str, Any], identity: dict[str, Any], checkpoints: Checkpoints) -> None:
    if state["fingerprint"] != identity["fingerprint"]:
        raise UserError(f"{checkpoints.last} was made on other data; choose another --output-dir")
    differing = sorted(
        name for name, value in identity["recipe"].items() if state["recipe"].get(name) != value
    )
    if differing:
        said = ", ".join(
            f"{name} {state['recipe'].get(name)} then, {identity['recipe'][name]} now" for name in differing
        )
        raise UserError(
            f"cannot resume {checkpoints.last} with another recipe ({said}); choose another --output-dir"
        )
