"""Images and masks decoded and resized once, then read back as raw pixels.

A cache is a folder `pixels-<size>-<key>` of three files: `pixels.u8` holds one record per pair, one
after the other (the image, size × size × 3, then the mask, size × size, all uint8), so it can be
memory-mapped as one array; `original_sizes.npy` holds heights and widths; `meta.json` says all this.
The key covers each file's id and content, so a changed file means another cache.
Folders can be deleted at any time.

One process builds at a time, in a folder that is renamed when it is complete: an interrupted build
leaves no cache, and the next build clears away what it left.
"""

import errno
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from isic_smp.data.fingerprint import digests_of
from isic_smp.data.pairs import Pair
from isic_smp.data.resized import read_resized
from isic_smp.errors import UserError
from isic_smp.files import sync
from isic_smp.folder_lock import one_at_a_time
from isic_smp.processors import processors

FORMAT = 1
"""Raised when the same files would give other pixels or another layout."""

_BUILDING = ".building"
_CHUNK = 16  # pairs a task: enough to make its overhead vanish, few enough for a lively progress bar
_LARGEST_RUN = 512  # records a system call: two buffers each, and Linux takes 1024 buffers


class PixelCache:
    """Resized pixels on disk, read a batch at a time so that resident memory does not grow with the data.

    Can be pickled and used from several threads or processes at once.

    Attributes:
        ids: ids of the pairs, in the order given to `open_pixel_cache`.
        size: side of the square, in pixels.
        original_sizes: int32 (N, 2), each image's own height and width in pixels.
        folder: where the cache lies.
        levels: what certain lesion counts in a mask.
    """

    levels = 1

    def __init__(self, folder: Path, ids: tuple[str, ...], size: int) -> None:
        self.folder, self.ids, self.size = folder, ids, size
        self._record = 4 * size * size
        try:
            self.original_sizes: np.ndarray = np.load(folder / "original_sizes.npy")
            self._file = os.open(folder / "pixels.u8", os.O_RDONLY)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot open the pixel cache {folder}: {error}; delete that folder") from None
        weakref.finalize(self, os.close, self._file)
        length = os.fstat(self._file).st_size
        if length != len(ids) * self._record or self.original_sizes.shape != (len(ids), 2):
            raise UserError(
                f"the pixel cache {folder} is damaged: {length} bytes, expected {len(ids) * self._record}; "
                "delete that folder"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple:  # another process opens the file for itself
        return PixelCache, (self.folder, self.ids, self.size)

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the pairs at `indices` (B of them, in any order), in new arrays.

        Returns:
            RGB images, uint8 (B, size, size, 3), and masks, uint8 (B, size, size) of 0 and 1.
        """
        wanted = self._checked(indices)
        images = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
        masks = np.empty((len(wanted), self.size, self.size), np.uint8)
        start = 0
        # Neighbours on disk come in one system call, straight into their places in the batch.
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        for stop in [*breaks.tolist(), len(wanted)]:
            while start < stop:
                until = min(stop, start + _LARGEST_RUN)
                buffers = [part for i in range(start, until) for part in (images[i].data, masks[i].data)]
                self._fill(buffers, int(wanted[start]) * self._record)
                start = until
        return images, masks

    def read_masks(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The masks alone, as `read` returns them."""
        wanted = self._checked(indices)
        masks = np.empty((len(wanted), self.size, self.size), np.uint8)
        for mask, index in zip(masks, wanted.tolist(), strict=True):
            self._fill([mask.data], index * self._record + 3 * self.size**2)
        return masks

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"indices {wanted.min()} to {wanted.max()}: the cache holds {len(self)} pairs")
        return wanted

    def _fill(self, buffers: list[memoryview], offset: int) -> None:
        """Fill the buffers, one after the other, from the file."""
        if os.preadv(self._file, buffers, offset) != sum(buffer.nbytes for buffer in buffers):
            raise UserError(f"the pixel cache {self.folder} was cut short; delete that folder")


def open_pixel_cache(
    pairs: Sequence[Pair],
    size: int,
    *,
    cache_dir: Path,
    binarize_masks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> PixelCache:
    """The cache of `pairs` at `size` × `size` pixels under `cache_dir`, built first where it is missing.

    Processes that want the same cache at once wait for the one that builds it.

    Args:
        pairs: images and masks, in the order they are to be numbered.
        size: side of the square, in pixels.
        cache_dir: folder of all caches; created where missing.
        binarize_masks: accept masks with grey values (see `read_mask`).
        workers: threads that decode; default: one for each processor this process may use.
        progress: show a progress bar while building.

    Raises:
        UserError: a file that is missing or broken (see `read_pair`), no pairs, or no room on the disk.
    """
    if not pairs:
        raise UserError("no images: expected at least one image with its mask")
    if size < 1:
        raise UserError(f"size must be at least 1 pixel, got {size}")
    folder = cache_dir / f"pixels-{size}-{_key(pairs, size, binarize_masks, cache_dir)}"
    ids = tuple(pair.id for pair in pairs)
    if not folder.is_dir():
        try:
            _build_once(folder, pairs, size, binarize_masks, workers or processors(), progress)
        except OSError as error:
            need = len(pairs) * 4 * size * size / 1e6
            raise UserError(
                f"cannot write the pixel cache in {cache_dir} ({need:.0f} MB): {error.strerror or error}; "
                "make room or choose another folder"
            ) from None
    return PixelCache(folder, ids, size)


def _key(pairs: Sequence[Pair], size: int, binarize_masks: bool, cache_dir: Path) -> str:
    """A hash of all that decides the pixels. Paths are not part of it: a moved data set keeps its cache."""
    contents = digests_of([path for pair in pairs for path in (pair.image, pair.mask)], cache_dir=cache_dir)
    digest = hashlib.sha256(f"{FORMAT} {size} {binarize_masks} {len(pairs)}".encode())
    for pair in pairs:
        digest.update(f"\n{pair.id!r} {contents[pair.image]} {contents[pair.mask]}".encode())
    return digest.hexdigest()[:20]


def _build_once(
    folder: Path, pairs: Sequence[Pair], size: int, binarize_masks: bool, workers: int, progress: bool
) -> None:
    with one_at_a_time(folder.parent):
        if folder.is_dir():
            return
        building = folder.parent / _BUILDING
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            _build(building, pairs, size, binarize_masks, workers, progress)
            building.rename(folder)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        sync(folder.parent)


def _build(
    building: Path, pairs: Sequence[Pair], size: int, binarize_masks: bool, workers: int, progress: bool
) -> None:
    """Decode, resize and write each pair at its place: nothing gathers in memory, however many there are."""
    record = 4 * size * size
    original_sizes = np.zeros((len(pairs), 2), np.int32)
    file = os.open(building / "pixels.u8", os.O_WRONLY | os.O_CREAT, 0o666)
    pool = ThreadPoolExecutor(workers)  # Pillow and OpenCV release the interpreter lock

    def decode(start: int) -> int:
        chunk = pairs[start : start + _CHUNK]
        for index, pair in enumerate(chunk, start):
            image, mask, original_sizes[index] = read_resized(pair, size, binarize_masks=binarize_masks)
            pixels = image.tobytes() + mask.tobytes()
            if os.pwrite(file, pixels, index * record) != record:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(chunk)

    try:
        if hasattr(os, "posix_fallocate"):  # a full disk is found now, not after an hour of decoding
            os.posix_fallocate(file, 0, len(pairs) * record)
        with tqdm(total=len(pairs), unit=" images", desc=f"decode to {size} px", disable=not progress) as bar:
            for done in pool.map(decode, range(0, len(pairs), _CHUNK)):
                bar.update(done)
        os.fsync(file)
    finally:
        pool.shutdown(cancel_futures=True)
        os.close(file)
    with (building / "original_sizes.npy").open("wb") as stream:
        np.save(stream, original_sizes)
        os.fsync(stream.fileno())
    meta = {
        "format": FORMAT,
        "pairs": len(pairs),
        "size": size,
        "binarize_masks": binarize_masks,
        "record": f"uint8 image ({size}, {size}, 3) RGB, then uint8 mask ({size}, {size}) of 0 and 1",
    }
    (building / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    sync(building)
