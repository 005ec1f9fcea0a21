"""The training loop: one model, one recipe, batches in, a history out."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import nn

from isic_smp.training.batches import Batches
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.distributed import Ranks
from isic_smp.training.history import Epoch, Fit, Progress
from isic_smp.training.recipe import Recipe
from isic_smp.training.trainer import Tally, Trainer


def fit(
    model: SegmentationModel,
    recipe: Recipe,
    train: Batches,
    validation: Batches,
    *,
    device: torch.device,
    network: nn.Module | None = None,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints,
    fingerprint: str,
    state: dict[str, Any] | None = None,
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
        fingerprint: of the data; kept in the checkpoints.
        state: the checkpoint to go on from (`resumable_state`). Without it those that are there are deleted.
        on_epoch: called on rank 0 after each epoch, with the model holding the weights that would be kept.
        progress: shown meanwhile.

    Raises:
        TrainingDiverged: a loss, a gradient or a weight is no finite number any more. The checkpoints
            are those of the last epoch that was whole.
        UserError: the disk is full.
    """
    ranks = ranks or Ranks()
    trainer = Trainer(model, network or model, recipe, steps=train.steps(), device=device, ranks=ranks)
    identity = {"recipe": recipe.to_dict(), "fingerprint": fingerprint}
    result = Fit()
    if state is not None:
        trainer.restore(state)
        result = Fit([Epoch(**record) for record in state["history"]], state["best_epoch"])
    elif ranks.is_main:
        checkpoints.clear()

    while len(result.history) < recipe.epochs and not _patience_over(result, recipe):
        record = _one_epoch(trainer, train, validation, epoch=len(result.history), progress=progress)
        if record.val_iou > max((past.val_iou for past in result.history), default=-1.0):
            result.best_epoch = record.epoch
        result.history.append(record)
        if ranks.is_main:
            with trainer.weights_to_keep() as kept:
                if result.best_epoch == record.epoch:
                    checkpoints.save_best(kept.state_dict(), record.epoch)
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
        # From the first rank: the others may be on hosts that do not see its folder.
        model.load_state_dict(ranks.share(checkpoints.load_best() if ranks.is_main else None))
    else:
        result.kept_epoch = len(result.history) - 1
        if trainer.average is not None:
            trainer.weights_to_keep().__enter__()  # and never left again
    model.eval()
    return result


def _one_epoch(
    trainer: Trainer, train: Batches, validation: Batches, *, epoch: int, progress: Progress
) -> Epoch:
    """Train for one epoch on all ranks, validate on the first; what came of it, known to all."""
    recipe, ranks, device = trainer.recipe, trainer.ranks, trainer.device
    trainer.set_frozen(recipe.freeze or epoch < recipe.freeze_epochs)
    torch.manual_seed(hash((recipe.seed, epoch, ranks.rank)) % 2**63)
    progress.start(epoch, train.steps())
    started = time.perf_counter()
    lr = trainer.optimizer.param_groups[-1]["lr"]
    tally = trainer.train_epoch(train.epoch(epoch, device), train.names, progress)
    images = int(ranks.sum(torch.tensor(tally.images, device=device)))
    figures = _over_ranks(tally, ranks)
    seconds = time.perf_counter() - started
    trainer.check_weights()
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
    return ranks.share(record)


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
