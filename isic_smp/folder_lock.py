"""A folder held by one process at a time, of whatever host: a run's output, or a cache that processes share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from isic_smp.errors import FolderInUse, UserError


@contextlib.contextmanager
def alone_in(output_dir: Path, *, lock: str = ".lock") -> Iterator[None]:
    """Hold an output folder for this process, making it where it is missing; the lock ends with the process.

    Args:
        output_dir: the folder.
        lock: name of the file in it that is locked. A worker and the group it starts each have one of their own.

    Raises:
        FolderInUse: another process holds it.
        UserError: it cannot be written, or its file system knows no locks.
    """
    try:
        held = _acquire(output_dir, lock, wait=False, option="--output-dir")
    except Timeout:
        raise FolderInUse(
            f"another run is going on in {output_dir}: wait for it, or choose another --output-dir"
        ) from None
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def one_at_a_time(cache_dir: Path, *, lock: str = ".lock") -> Iterator[None]:
    """Hold a folder of a cache, making it where it is missing; waits for whoever holds it now.

    The lock ends with its process, however that ends, and counts on other hosts too. So what lies half-made
    in the folder, when it is held, was abandoned.

    Args:
        cache_dir: the folder.
        lock: name of the file in it that is locked.

    Raises:
        UserError: it cannot be written, or its file system knows no locks.
    """
    held = _acquire(cache_dir, lock, wait=True, option="--cache-dir")
    try:
        yield
    finally:
        held.release()


def _acquire(folder: Path, lock: str, *, wait: bool, option: str) -> FileLock:
    """The lock, held; `Timeout` where another process holds it and `wait` is False.

    Raises:
        UserError: the folder, which `option` names, cannot be written, or its file system knows no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / lock, timeout=-1 if wait else 0)
        held.acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {folder}: {reason}; choose another {option}") from None
    return held
