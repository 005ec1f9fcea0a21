"""Prediction of many files: read ahead and written behind on threads, in flat memory."""

import errno
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isic_smp.data.images import read_image
from isic_smp.data.resize import resize_image, upsample_probabilities
from isic_smp.data.resized import read_reduced
from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.outputs import measure, overlay, shrink_for_overlay, write_picture
from isic_smp.inference.prediction_folder import MASKS, OVERLAYS, PROBABILITIES, PredictionFolder, Row
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.streaming import batches, in_order
from isic_smp.processors import processors


@dataclass(frozen=True)
class _Picture:
    """An image, read: what the network sees of it, and what the overlay shows."""

    path: Path
    small: np.ndarray
    own_size: tuple[int, int]
    shown: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class _Failure:
    path: Path
    reason: str


@dataclass(frozen=True)
class _Work:
    """What is done on other threads to each file, before and after the network."""

    predictor: Predictor
    names: Mapping[Path, str]
    folder: PredictionFolder
    reduced_decoding: bool
    expected_iou: ExpectedIoU | None

    def read(self, path: Path) -> _Picture | _Failure:
        start = time.perf_counter()
        size = self.predictor.preprocessing.input_size
        try:
            image, own_size = _decode(path, size, self.reduced_decoding)
        except UserError as error:
            return _Failure(path, str(error))
        shown = shrink_for_overlay(image) if self.folder.overlays else None
        return _Picture(path, resize_image(image, size), own_size, shown, time.perf_counter() - start)

    def write(self, picture: _Picture, small: np.ndarray, seconds: float) -> Row | _Failure:
        """All that the folder wants of a picture, from its map at the network's size."""
        start = time.perf_counter()
        name = self.names[picture.path]
        paths = self.folder.paths(name)
        threshold = self.predictor.preprocessing.threshold
        probability = upsample_probabilities(small, picture.own_size)
        mask = probability > threshold
        try:
            if PROBABILITIES in paths:
                write_picture(paths[PROBABILITIES], np.rint(probability * 255).astype(np.uint8))
            if OVERLAYS in paths and picture.shown is not None:
                write_picture(paths[OVERLAYS], overlay(picture.shown, probability, threshold))
            write_picture(paths[MASKS], mask.astype(np.uint8) * np.uint8(255))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return _Failure(
                    picture.path, f"the name of {picture.path} is too long for a mask's: shorten it"
                )
            raise UserError(f"cannot write to {self.folder.folder}: {error.strerror or error}") from None
        height, width = picture.own_size
        return Row(
            id=name,
            image=str(picture.path),
            width=width,
            height=height,
            **measure(mask, probability)._asdict(),
            expected_iou=self.expected_iou.of(small, threshold) if self.expected_iou else None,
            seconds=round(picture.seconds + seconds + time.perf_counter() - start, 4),
        )


def predict_files(
    predictor: Predictor,
    names: Mapping[Path, str],
    folder: PredictionFolder,
    *,
    batch_size: int,
    reduced_decoding: bool = False,
    expected_iou: ExpectedIoU | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Predict every file of `names` that `folder` has not yet, and write what the folder wants of it.

    What cannot be read is added to the folder's failures, and the rest goes on. Stopped at any point, also
    by an exception, the folder's record holds no image whose files are not all there.

    Args:
        predictor: the model.
        names: absolute path of each image, and the name of its mask.
        folder: where to.
        batch_size: images in the network at once.
        reduced_decoding: decode large JPEGs at a fraction of their size, as training does
            (`isic_smp.data.resized`): faster, and single pixels of the network's input differ by 1 or 2.
        expected_iou: fitted for the model, where something was.
        progress: told after each batch how many images it held.

    Raises:
        UserError: a file cannot be written.
    """
    work = _Work(predictor, names, folder, reduced_decoding, expected_iou)

    def keep(result: Row | _Failure) -> None:
        if isinstance(result, Row):
            folder.add(result)
        else:
            folder.add_failure(result.path, result.reason)

    waiting = [path for path in names if not folder.is_done(path)]
    being_written: list[Future[Row | _Failure]] = []
    with ThreadPoolExecutor(min(8, processors())) as pool:
        try:
            with closing(in_order(pool, work.read, waiting, ahead=batch_size)) as read_ahead:
                for some in batches(read_ahead, batch_size):
                    pictures = [picture for picture in some if isinstance(picture, _Picture)]
                    start = time.perf_counter()
                    maps = _probabilities(predictor, pictures)
                    seconds = (time.perf_counter() - start) / max(1, len(pictures))
                    # The batch before must be written, or waiting maps would pile up.
                    while being_written:
                        keep(being_written.pop(0).result())
                    being_written = [
                        pool.submit(work.write, picture, small, seconds)
                        for picture, small in zip(pictures, maps, strict=True)
                    ]
                    for failed in some:
                        if isinstance(failed, _Failure):
                            keep(failed)
                    progress(len(some))
        finally:
            for future in being_written:
                keep(future.result())


def _decode(path: Path, size: int, reduced: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """The image, uint8 RGB (H, W, 3), perhaps at a fraction of its size, and its own (H, W)."""
    if reduced and (found := read_reduced(path, size)) is not None:
        return found
    image = read_image(path)
    return image, (image.shape[0], image.shape[1])


def _probabilities(predictor: Predictor, pictures: list[_Picture]) -> np.ndarray:
    if not pictures:
        size = predictor.preprocessing.input_size
        return np.empty((0, size, size), np.float32)
    return predictor.probabilities(np.stack([picture.small for picture in pictures])).cpu().numpy()
