"""Files that are whole or not there: written beside their name, synced, renamed. And what a disk's refusal is called."""

import errno
import os
import shutil
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


def write_atomically(path: Path, write: Callable[[Path], None], *, option: str = "--output-dir") -> None:
    """Call `write` on a neighbour of `path`, then move it into place: a kill at any moment leaves the former file.

    Args:
        path: the file's final name; its folder is made where it is missing.
        write: writes a whole file at the path it is given.
        option: names the folder in the message.

    Raises:
        UserError: the disk is full or the folder cannot be written; the former file is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        write(partial)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except Exception as error:
        # torch and safetensors report a failed write as errors of their own, not as OSError.
        partial.unlink(missing_ok=True)
        if not isinstance(error, OSError | RuntimeError) and type(error).__name__ != "SafetensorError":
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"cannot write {path}: {reason}; free some space or choose another {option}"
        ) from error
    except BaseException:  # an interruption
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, option: str = "--output-dir") -> None:
    """Write `text` as UTF-8; as `write_atomically`."""
    write_atomically(path, lambda part: _write_text(part, text), option=option)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of `.NAME.PID.part` (a file or a folder) beside `path`."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        number = left.name.split(".")[-2]
        if number.isdigit() and int(number) != os.getpid() and not _is_alive(int(number)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
