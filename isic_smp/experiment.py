"""One experiment, from a recipe to a result: the parts of the project put together.

`run.py` and a sweep's trial call `run_experiment`; everything below it can be used alone.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import isic_smp.plugin
from isic_smp.data.augment import Augmenter
from isic_smp.data.cache import PixelCache, open_pixel_cache
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair
from isic_smp.data.source import default_cache_dir, resolve_data
from isic_smp.errors import UserError
from isic_smp.inference.load import save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.scoring import Scores, score
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.progress import EpochBars
from isic_smp.tracking.experiment_log import ExperimentLog
from isic_smp.training.batches import Batches, Order, PixelBatches
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.device import choose_device, make_deterministic, resolve_precision
from isic_smp.training.distributed import Ranks, join_ranks
from isic_smp.training.feature_bank import BankBatches, FromFeatures, Unbankable, bank_views, open_feature_bank
from isic_smp.training.fit import Fit, fit
from isic_smp.training.losses import make_loss
from isic_smp.training.recipe import Recipe

T = TypeVar("T")

MODEL_FOLDER = "model"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where an experiment finds its data and leaves its results; nothing here changes what is learned."""

    data: str = "auto"
    data_dir: Path | None = None
    binarize_masks: bool = False
    output_dir: Path | None = None
    cache_dir: Path | None = None
    experiment: str | None = None
    run_name: str | None = None
    tracking_uri: str | None = None
    parent_run_id: str | None = None
    device: str = "auto"
    resume: bool = False
    score_test: bool = True


@dataclass(frozen=True)
class Result:
    """What an experiment gives back on rank 0."""

    output_dir: Path
    run_id: str
    fit: Fit
    validation: Scores
    test: Scores | None
    test_loss: float
    ui_hint: str


def run_experiment(recipe: Recipe, setup: Setup, *, say: Callable[[str], None] = print) -> Result | None:
    """Train, evaluate and log one recipe; None on every rank but the first.

    Raises:
        UserError: data, weights, device, folders or tracking server that cannot be used.
    """
    with join_ranks() as ranks:
        return _run(recipe, setup, ranks, say if ranks.is_main else _silent)


def _silent(_: str) -> None:
    """What the other ranks say."""


def _run(recipe: Recipe, setup: Setup, ranks: Ranks, say: Callable[[str], None]) -> Result | None:
    device = choose_device(setup.device, local_rank=ranks.local_rank)
    cache_dir = setup.cache_dir or default_cache_dir()
    data, is_fallback = _main_first(
        ranks,
        lambda: resolve_data(setup.data, setup.data_dir, cache_dir=cache_dir),
    )
    say(f"data: {data.describe()}")
    if not data.train or not data.val:
        raise UserError(f"{data.describe()}: need images to train on and images to validate on")
    make_deterministic(device, recipe.seed)
    model, weights_used = _main_first(ranks, lambda: _build_model(recipe, is_fallback))
    model.to(device, memory_format=torch.channels_last if recipe.channels_last else torch.preserve_format)
    say(_describe_model(model, recipe, device))

    def cached(pairs: tuple[Pair, ...]) -> PixelCache:
        return _main_first(
            ranks,
            lambda: open_pixel_cache(
                pairs, recipe.size, cache_dir=cache_dir, binarize_masks=setup.binarize_masks, progress=ranks.is_main
            ),
        )

    caches = cached(data.train), cached(data.val)
    network, train, validation = _batches(recipe, model, caches, ranks, device, cache_dir, say)
    preprocessing = Preprocessing(
        size=recipe.size,
        mean=model.mean,
        std=model.std,
        threshold=recipe.threshold,
        test_time_flips=recipe.test_time_flips,
    )
    output_dir = ranks.share(setup.output_dir or _new_output_dir(recipe))
    log = None
    if ranks.is_main:
        log = ExperimentLog.start(
            recipe,
            data,
            preprocessing,
            validation=caches[1],
            binarize_masks=setup.binarize_masks,
            output_dir=output_dir,
            experiment=setup.experiment or ("isic_smp-demo-synthetic" if data.name == "synthetic" else data.name),
            run_name=setup.run_name or output_dir.name,
            tracking_uri=setup.tracking_uri,
            parent_run_id=setup.parent_run_id,
            resume=setup.resume,
            tags={"encoder_weights_used": weights_used, "device": str(device), "world_size": str(ranks.world)},
        )
        say(log.hint())
    try:
        fitted = fit(
            model,
            recipe,
            train,
            validation,
            device=device,
            network=network,
            ranks=ranks,
            checkpoints=Checkpoints(output_dir),
            fingerprint=data.fingerprint,
            resume=setup.resume,
            on_epoch=log.epoch if log else _no_log,
            progress=EpochBars(recipe.epochs),
        )
        if log is None:
            return None
        return _finish(recipe, setup, model, preprocessing, data, fitted, log, device, output_dir, weights_used, say)
    except BaseException as error:
        if log is not None:
            log.fail(error)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"go on with the same command, --output-dir {output_dir} and --resume"
            ) from None
        raise


def _no_log(*_: object) -> None:
    """What the other ranks log."""


def _main_first(ranks: Ranks, make: Callable[[], T]) -> T:
    """`make` on rank 0, which may download or write a cache, then on the others, which find it there."""
    if ranks.is_main:
        made = make()
        ranks.wait()
        return made
    ranks.wait()
    return make()


def _build_model(recipe: Recipe, is_fallback: bool) -> tuple[UpConvNet, str]:
    """The recipe's network, and where its encoder weights came from.

    In a demo on drawn pictures, and only there, ImageNet weights that cannot be had are done without.
    """
    isic_smp.plugin.register()

    def build(weights: str) -> UpConvNet:
        torch.manual_seed(recipe.seed)
        return UpConvNet(
            encoder_name=recipe.encoder,
            encoder_depth=recipe.encoder_depth,
            encoder_weights=weights,
            decoder_depth=recipe.decoder_depth,
            decoder_channels=recipe.decoder_channels,
            decoder_norm=recipe.decoder_norm,
            skip_connections=recipe.skip_connections,
        )

    try:
        return build(recipe.encoder_weights), recipe.encoder_weights
    except UserError as error:
        if not (is_fallback and recipe.encoder_weights == "imagenet"):
            raise
        print(f"!!! NO IMAGENET WEIGHTS, the encoder starts from chance (demo only): {error}", file=sys.stderr)
        return build("none"), "none"


def _batches(
    recipe: Recipe,
    model: UpConvNet,
    caches: tuple[PixelCache, PixelCache],
    ranks: Ranks,
    device: torch.device,
    cache_dir: Path,
    say: Callable[[str], None],
) -> tuple[nn.Module, Batches, Batches]:
    """What is trained on which batches: the whole model on pixels, or its decoder on banked features."""
    train_cache, val_cache = caches
    order = Order(len(train_cache), recipe.batch_size, shuffle=True, seed=recipe.seed, ranks=ranks)
    straight = Order(len(val_cache), recipe.batch_size, shuffle=False)
    try:
        views = bank_views(recipe)
        model.freeze_encoder()
        precision = resolve_precision(recipe.precision, device)

        def bank(cache: PixelCache, views: int) -> BankBatches:
            opened = _main_first(
                ranks,
                lambda: open_feature_bank(
                    model, cache, views=views, cache_dir=cache_dir, device=device, precision=precision
                ),
            )
            return BankBatches(opened, cache, order if cache is train_cache else straight)

        say(f"feature bank: {views} view(s) of each training image")
        return FromFeatures(model), bank(train_cache, views), bank(val_cache, 1)
    except Unbankable as reason:
        if recipe.freeze and recipe.feature_bank != "off":
            say(f"no feature bank, every step goes through the encoder: {reason}")
    augmenter = Augmenter(flips=recipe.flips, affine=recipe.affine, colour=recipe.colour)
    norm = {"mean": model.mean, "std": model.std}
    return model, PixelBatches(train_cache, order, augmenter=augmenter, **norm), PixelBatches(val_cache, straight, **norm)


def _finish(
    recipe: Recipe,
    setup: Setup,
    model: UpConvNet,
    preprocessing: Preprocessing,
    data: LesionData,
    fitted: Fit,
    log: ExperimentLog,
    device: torch.device,
    output_dir: Path,
    weights_used: str,
    say: Callable[[str], None],
) -> Result:
    """Score the kept weights, save the model, and close the log."""
    predictor = Predictor(
        model, preprocessing, device=device, precision=resolve_precision(recipe.precision, device)  # type: ignore[arg-type]
    )
    loss = make_loss(recipe.loss).to(device)

    def scored(pairs: tuple[Pair, ...]) -> Scores:
        return score(predictor, pairs, loss=loss, batch_size=recipe.batch_size, binarize_masks=setup.binarize_masks)

    validation = scored(data.val)
    test = scored(data.test) if setup.score_test and data.test else None
    info: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "description": data.describe()},
        "encoder_weights_used": weights_used,
        "kept_epoch": fitted.kept_epoch,
        "validation": validation.summary(),
        "test": test.summary() if test else None,
    }
    save_bundle(model, preprocessing, info, output_dir / MODEL_FOLDER)
    history = [dataclasses.asdict(record) for record in fitted.history]
    (output_dir / "history.json").write_text(json.dumps(history, indent=1))
    log.finish(model, predictor, fitted, validation=validation, test=test, model_folder=output_dir / MODEL_FOLDER)
    return Result(
        output_dir, log.run_id, fitted, validation, test, test.loss if test else float("nan"), log.hint()
    )


def _describe_model(model: UpConvNet, recipe: Recipe, device: torch.device) -> str:
    count = sum(p.numel() for p in model.parameters())
    trained = "decoder only" if recipe.freeze else "encoder and decoder"
    if recipe.freeze_epochs:
        trained = f"decoder, from epoch {recipe.freeze_epochs + 1} on encoder and decoder"
    precision = resolve_precision(recipe.precision, device)
    return f"model: {model.name}, {count / 1e6:.2f} M parameters, training {trained}, {device} {precision}"


def _new_output_dir(recipe: Recipe) -> Path:
    way = "frozen" if recipe.freeze else "gradual" if recipe.freeze_epochs else "finetuned"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{stamp}-{way}-seed{recipe.seed}"
    # Two runs that start in the same second each get a folder of their own.
    for n in range(1, 1000):
        tried = folder if n == 1 else folder.with_name(f"{folder.name}-{n}")
        try:
            tried.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make {tried}: {error.strerror}; choose another --output-dir") from None
        return tried
    raise UserError(f"too many folders named {folder}: choose an --output-dir")
