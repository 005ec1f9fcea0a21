"""Files that are whole or not there: written beside their name, synced, renamed. Whether one is the same still, and
what a disk's refusal is called.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from isic_smp.errors import UserError

DISK_TROUBLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}
"""What a system answers when a disk is full, read-only, forbidden or failing: never a programming error."""


def state_of(path: Path) -> list[int]:
    """What tells a file from another one that was written, moved or linked to its name: length and both times.

    Whatever time of writing a file brings along, its other time is of when it came to be, or to be called, what it is.

    Raises:
        OSError: there is no such file.
    """
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_disk_trouble(error: BaseException | None) -> bool:
    """Whether a disk's refusal is what led to `error`: nothing is wrong with what was being done.

    Also where the error was raised `from None`, as most lines for a user are.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(path: Path, write: Callable[[Path], None], *, option: str = "--output-dir") -> None:
    """Call `write` on a neighbour of `path`, then move it into place: a kill at any moment leaves the former file.

    The neighbour is `.NAME.part`, so one process writes at a time; callers hold the folder (`folder_lock`).

    Args:
        path: the file's final name; its folder is made where it is missing.
        write: writes a whole file at the path it is given; OSError says that the disk refused.
        option: names the folder in the message.

    Raises:
        UserError: the disk is full or the folder cannot be written; the former file is untouched.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = error.strerror or str(error).splitlines()[0]
        raise UserError(
            f"cannot write {path}: {reason}; free some space or choose another {option}"
        ) from error
    except BaseException:  # an interruption, or a mistake in `write`
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, option: str = "--output-dir") -> None:
    """Write `text` as UTF-8; as `write_atomically`."""
    write_atomically(path, lambda part: _write_text(part, text), option=option)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
