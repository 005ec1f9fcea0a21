"""A frozen encoder's features, computed once and read back every epoch.

A frozen encoder in evaluation mode gives the same maps for the same pixels, so its forward pass is
needed once per image and view, not once per epoch. With flips on, all eight views of the dihedral
group are banked, each truly encoded (a convolution with asymmetric padding is not equivariant).
Colour and scale augmentation make new pixels each time and cannot be banked.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from tqdm import tqdm

from isic_smp.data.augment import apply_dihedral, dihedral_codes
from isic_smp.data.cache import PixelCache
from isic_smp.data.taught import TaughtPixels
from isic_smp.errors import UserError
from isic_smp.files import sync
from isic_smp.folder_lock import one_at_a_time
from isic_smp.models.normalise import normalise
from isic_smp.training.batches import Batch, Order, prefetch, target_of
from isic_smp.training.device import autocast
from isic_smp.training.parts import part
from isic_smp.training.recipe import Recipe
from isic_smp.training.recipe_check import AUGMENTATIONS

VIEWS = 8
"""Flips and quarter turns of a square."""

FORMAT = 1
_BUILDING = ".building"


class Unbankable(Exception):
    """Why a recipe goes through the encoder; the message completes «no feature bank: …»."""


def bank_views(recipe: Recipe) -> int:
    """How many views of each training image a bank for `recipe` holds: 1, or 8 with flips.

    Raises:
        Unbankable: the recipe cannot use a bank, or would not gain by it.
    """
    if recipe.feature_bank == "off":
        raise Unbankable("switched off")
    if not recipe.freeze:
        raise Unbankable("the encoder is trained")
    if recipe.makes_new_pixels:
        raise Unbankable(f"{', '.join(AUGMENTATIONS)} and pipeline make new pixels every epoch")
    views = VIEWS if recipe.flips else 1
    if recipe.feature_bank == "auto" and recipe.epochs < views:
        raise Unbankable(f"{views} views of each image cost more than {recipe.epochs} epochs")
    return views


class FromFeatures(nn.Module):
    """The part of an smp model after its encoder, called with the maps that a bank holds."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        self.positions = needed_maps(model)

    def forward(self, *maps: Tensor) -> Tensor:
        """Logits (B, 1, S, S) from `maps`, in the order of `needed_maps`."""
        features: list[Any] = [None] * len(self.model.encoder.out_channels)
        kind = maps[0].device.type
        # Straight from the bank's float16 to what the step computes in: float32 between would cost a pass.
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        for position, banked in zip(self.positions, maps, strict=True):
            features[position] = banked.to(dtype)
        return self.model.segmentation_head(self.model.decoder(features))


def needed_maps(model: SegmentationModel) -> list[int]:
    """Which of the encoder's maps the decoder reads: the last, and where it takes skips one a step; never the image."""
    last = len(model.encoder.out_channels) - 1
    skips = len(model.decoder.steps) if model.config["skip_connections"] else 0
    return list(range(max(1, last - skips), last + 1))


class FeatureBank:
    """Features on disk, float16, one file a map; rows are (sample, view), each (H, W, C)."""

    def __init__(self, folder: Path) -> None:
        try:
            meta = json.loads((folder / "meta.json").read_text())
            self.folder, self.views = folder, meta["views"]
            self.shapes = [tuple(shape) for shape in meta["shapes"]]
            self.files = [os.open(folder / f"map_{i}.bin", os.O_RDONLY) for i in range(len(self.shapes))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot open the feature bank {folder}: {error}; delete that folder") from None

    def __del__(self) -> None:
        for file in getattr(self, "files", []):
            os.close(file)

    def read(self, samples: np.ndarray, codes: np.ndarray) -> tuple[Tensor, ...]:
        """The maps of `samples` (B,) in the views `codes` (B,): (B, C, H, W) float16, channels-last."""
        rows = samples * self.views + codes
        maps = []
        # pread, not mmap: pages of a mapping count as this process's memory and would grow with the data.
        for file, shape in zip(self.files, self.shapes, strict=True):
            block = np.empty((len(rows), *shape), np.float16)
            size = block[0].nbytes
            for row, place in zip(rows, block, strict=True):
                if os.preadv(file, [place], int(row) * size) != size:
                    raise UserError(f"the feature bank {self.folder} was cut short; delete that folder")
            maps.append(torch.from_numpy(block).permute(0, 3, 1, 2))
        return tuple(maps)


def open_feature_bank(
    model: SegmentationModel,
    cache: PixelCache,
    *,
    views: int,
    cache_dir: Path,
    device: torch.device,
    precision: str,
    progress: bool = False,
) -> FeatureBank:
    """The bank of `cache`'s images through `model`'s encoder, built where it is not on disk yet.

    The pixels and the encoder's weights and settings name the bank, so trials of a sweep share it.

    Args:
        model: an smp model whose encoder is frozen.
        cache: the images.
        views: 1, or 8 for the dihedral group.
        cache_dir: folder of all caches.
        device: where the encoder runs.
        precision: float32 or bf16, in which it runs.
        progress: show a bar while building.

    Raises:
        Unbankable: the bank would take more than half of the free disk.
        UserError: the bank cannot be written.
    """
    folder = cache_dir / "banks" / _key(model, cache, views, precision)
    if (folder / "meta.json").exists():
        return FeatureBank(folder)
    with one_at_a_time(folder.parent):
        if (folder / "meta.json").exists():  # another process was quicker
            return FeatureBank(folder)
        building = folder.with_name(_BUILDING)
        shutil.rmtree(building, ignore_errors=True)
        try:
            building.mkdir()
            _build(model, cache, views, building, device, precision, progress)
            building.rename(folder)
        except OSError as error:
            raise UserError(
                f"cannot write the feature bank {folder}: {error.strerror}; free some space, choose another "
                "--cache-dir, or use --feature-bank off"
            ) from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return FeatureBank(folder)


def _key(model: SegmentationModel, cache: PixelCache, views: int, precision: str) -> str:
    digest = hashlib.sha256()
    config = model.config
    names = ("encoder_name", "encoder_depth", "mean", "std")
    settings = [FORMAT, cache.folder.name, views, precision, [config[n] for n in names], needed_maps(model)]
    digest.update(json.dumps(settings, default=list).encode())
    for name, value in model.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


@torch.inference_mode()
def _build(
    model: SegmentationModel,
    cache: PixelCache,
    views: int,
    folder: Path,
    device: torch.device,
    precision: str,
    progress: bool,
) -> None:
    encoder = model.encoder
    training = encoder.training
    encoder.eval()
    positions = needed_maps(model)
    files = [(folder / f"map_{i}.bin").open("wb") for i in range(len(positions))]
    shapes: list[tuple[int, ...]] = []
    per_step = max(1, 64 // views)
    try:
        starts = range(0, len(cache), per_step)
        for start in tqdm(starts, desc="bank the features", unit=" batches", disable=not progress):
            samples = np.arange(start, min(start + per_step, len(cache)))
            images, _ = cache.read(samples)
            codes = np.tile(np.arange(views), len(samples))
            turned = apply_dihedral(np.repeat(images, views, axis=0), codes)
            pixels = normalise(torch.from_numpy(np.ascontiguousarray(turned)).to(device), **_norm(model))
            with autocast(device, precision):
                features = encoder(pixels)
            if not shapes:
                shapes = [_rows(features[p]).shape[1:] for p in positions]
                _check_space(shapes, len(cache) * views, folder)
            for file, position in zip(files, positions, strict=True):
                file.write(_rows(features[position]).tobytes())
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    finally:
        encoder.train(training)
        for file in files:
            file.close()
    (folder / "meta.json").write_text(json.dumps({"views": views, "shapes": shapes}))
    sync(folder / "meta.json")
    sync(folder)


def _norm(model: SegmentationModel) -> dict[str, Any]:
    return {"mean": model.mean, "std": model.std}


def _rows(features: Tensor) -> np.ndarray:
    """(B, C, H, W) on any device as (B, H, W, C) float16; saturated, for a float16 ends at 65,504."""
    limit = torch.finfo(torch.float16).max
    return features.float().clamp(-limit, limit).half().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _check_space(shapes: list[tuple[int, ...]], rows: int, folder: Path) -> None:
    size = sum(2 * int(np.prod(shape)) for shape in shapes) * rows
    free = shutil.disk_usage(folder).free
    if size > free / 2:
        raise Unbankable(
            f"it would take {size / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB free on disk"
        )


class BankBatches:
    """Batches of banked features; the views follow the same draw as the flips of `PixelBatches`."""

    def __init__(self, bank: FeatureBank, cache: PixelCache | TaughtPixels, order: Order) -> None:
        self.bank, self.cache, self.order = bank, cache, order

    def steps(self) -> int:
        """Steps an epoch."""
        return self.order.steps

    def names(self, samples: np.ndarray) -> list[str]:
        """The image ids of sample positions."""
        return [self.cache.ids[i] for i in samples]

    def _read(self, epoch: int) -> Iterator[tuple[tuple[Tensor, ...], Tensor, np.ndarray, float]]:
        for samples, share in self.order.epoch(epoch):
            codes = np.zeros(len(samples), np.int64)
            if self.bank.views == VIEWS:
                codes = dihedral_codes(samples, seed=self.order.seed, epoch=epoch)
            with part("read"):
                masks, maps = self.cache.read_masks(samples), self.bank.read(samples, codes)
            with part("augment"):
                masks = apply_dihedral(masks, codes)
            yield maps, torch.from_numpy(masks), samples, share

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        """The batches of one epoch, on `device`; one (B, C, H, W) float16 input a banked map."""
        for maps, masks, samples, share in prefetch(self._read(epoch)):
            yield Batch(
                tuple(m.to(device, non_blocking=True) for m in maps),
                target_of(masks.to(device, non_blocking=True), self.cache.levels),
                samples,
                share,
            )
