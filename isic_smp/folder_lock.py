"""An output folder held by one process at a time."""

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
        UserError: it cannot be written.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        held = FileLock(output_dir / lock, timeout=0)
        held.acquire()
    except Timeout:
        raise FolderInUse(
            f"another run is going on in {output_dir}: wait for it, or choose another --output-dir"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write to {output_dir}: {error.strerror or error}; choose another --output-dir"
        ) from None
    try:
        yield
    finally:
        held.release()
