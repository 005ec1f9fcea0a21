"""What trained models see in the training pictures, computed once, for another model to learn from."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from isic_smp.data.cache import PixelCache
from isic_smp.data.division import warning_of_seen
from isic_smp.data.taught import LEVELS, TaughtPixels
from isic_smp.files import write_atomically
from isic_smp.folder_lock import one_at_a_time
from isic_smp.inference.load import Bundle, load_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.training.device import resolve_precision
from isic_smp.training.recipe import Precision

FORMAT = 1
_BATCH = 32


def open_taught(
    pixels: PixelCache,
    teachers: Sequence[str],
    *,
    cache_dir: Path,
    device: torch.device,
    precision: Precision = "auto",
    fingerprint: str,
    tracking_uri: str | None = None,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> TaughtPixels:
    """`pixels` with half of each mask taken from the mean of the teachers, which see each image in all eight views.

    The maps are kept under `cache_dir`, by pixels and teachers, so trials of a sweep share them.

    Args:
        pixels: the training images.
        teachers: models, as `load_bundle` takes them.
        cache_dir: folder of all caches.
        device: where the teachers predict.
        precision: in which they do.
        fingerprint: of the data; a teacher that was trained on others is warned of.
        tracking_uri: MLflow store of models that teachers name.
        say: called with each warning.
        progress: show a bar meanwhile.

    Raises:
        UserError: a teacher that cannot be had, or no room on the disk.
    """
    bundles = [load_bundle(teacher, tracking_uri=tracking_uri) for teacher in teachers]
    for teacher, bundle in zip(teachers, bundles, strict=True):
        data = bundle.info.get("data") or {}
        if data.get("fingerprint") != fingerprint:
            say(warning_of_seen(f"the teacher {teacher}", data))
    maps = cache_dir / "teachers" / f"{_key(pixels, bundles)}.u8"
    if not maps.exists():
        predictors = [_predictor(bundle, device, precision) for bundle in bundles]
        with one_at_a_time(maps.parent):
            if not maps.exists():
                ask = partial(_ask, predictors, pixels, maps.with_suffix(".asked"), progress=progress)
                try:
                    write_atomically(maps, ask, option="--cache-dir")
                except KeyboardInterrupt:
                    kept = "what the teachers have said is kept, and the same command goes on from there"
                    raise KeyboardInterrupt(kept) from None
    return TaughtPixels(pixels, maps)


def _ask(
    predictors: Sequence[Predictor], pixels: PixelCache, asked: Path, part: Path, *, progress: bool
) -> None:
    """Write the mean of what the predictors see in each image of `pixels` to `part`: uint8 (N, S, S), 0 to `LEVELS`.

    It grows in `asked`, which an interruption leaves to be gone on with.
    """
    batch_bytes = _BATCH * pixels.size**2
    done = asked.stat().st_size // batch_bytes if asked.exists() else 0
    starts = range(0, len(pixels), _BATCH)
    with asked.open("ab") as stream:
        stream.truncate(done * batch_bytes)
        bar = tqdm(
            total=len(starts), initial=done, desc="ask the teachers", unit=" batches", disable=not progress
        )
        with bar:
            for start in starts[done:]:
                images, _ = pixels.read(np.arange(start, min(start + _BATCH, len(pixels))))
                seen = [np.stack(predictor.predict(list(images))) for predictor in predictors]
                stream.write(np.rint(np.mean(seen, axis=0) * LEVELS).astype(np.uint8).tobytes())
                bar.update()
    asked.replace(part)


def _predictor(bundle: Bundle, device: torch.device, precision: Precision) -> Predictor:
    # The mean over the views is the better judgement; smaller pieces are doubts, which are worth learning. The pictures
    # have no more pixels than the network takes, so a second look would see nothing new.
    preprocessing = dataclasses.replace(bundle.preprocessing.of_the_network(), test_time_flips=True)
    return Predictor(
        bundle.model, preprocessing, device=device, precision=resolve_precision(precision, device)
    )


def _key(pixels: PixelCache, bundles: Sequence[Bundle]) -> str:
    """A hash of all that decides the maps, but for the arithmetic."""
    digest = hashlib.sha256(f"{FORMAT} {pixels.folder.name}".encode())
    for bundle in bundles:
        digest.update(repr(sorted(bundle.preprocessing.to_dict().items())).encode())
        for name, value in bundle.model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
