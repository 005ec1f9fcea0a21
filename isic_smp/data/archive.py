"""Unpacking a zip archive that came over the network, without trusting what its directory says."""

import errno
import lzma
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from isic_smp.errors import UserError

MAX_FILES = 10_000
MAX_BYTES = 20 * 10**9
_BAD_NAMES = {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL}
"""What a system answers to names that are too long, or to a file that is a folder too."""
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)
"""What zipfile and its decoders raise at bytes that make no sense; bz2's word for it is an OSError without a number."""
MAX_RATIO = 200
"""Bytes out for a byte in; JPEG and PNG files pack to about their own size."""


def unpack(archive: Path, folder: Path) -> None:
    """Check the zip file `archive` and place the files of its folder of the same name at `folder`.

    Only plain files are taken: from inside a folder called as `folder` is, or from the top of the
    archive. `folder` appears when all of them are there; the checksum of each is verified.

    Raises:
        UserError: not a zip file, or a damaged one (it is deleted then, so that the next download
            starts anew); absolute paths, `..`, links; far too much content; no room on the disk.
    """
    for left in folder.parent.glob(".unpacking-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as name:
        staging = Path(name) / folder.name
        staging.mkdir()
        try:
            with zipfile.ZipFile(archive) as source:
                members = _checked(source, archive)
                if sum(member.file_size for member in members) > shutil.disk_usage(staging).free:
                    raise UserError(f"no room on the disk to unpack {archive}")
                for member in members:
                    _write(source, member, staging / _inside(member, folder.name))
        except (OSError, *_DAMAGED) as error:
            number = getattr(error, "errno", None)
            if number in _BAD_NAMES:
                raise UserError(f"{archive} is refused: {os.strerror(number)}, in an entry's name") from None
            if number is not None:
                raise
            archive.unlink(missing_ok=True)
            raise UserError(
                f"{archive} is not a complete zip archive ({error}) and has been deleted: download it again"
            ) from None
        staging.rename(folder)


def _checked(source: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The archive's plain files, after all its entries have been found harmless."""
    entries = source.infolist()
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
            raise UserError(
                f"{archive} is refused: its entry {entry.filename!r} points outside of its folder"
            )
        if not path.parts and not entry.is_dir():
            raise UserError(f"{archive} is refused: its entry {entry.filename!r} is no file's name")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive} is refused: its entry {entry.filename!r} is a link or a device")
    files = [entry for entry in entries if not entry.is_dir()]
    size, packed = (
        sum(entry.file_size for entry in files),
        max(sum(entry.compress_size for entry in files), 1),
    )
    if len(files) > MAX_FILES or size > MAX_BYTES or size / packed > MAX_RATIO:
        raise UserError(
            f"{archive} is refused: {len(files)} files of {size} bytes, packed to {packed}, "
            "cannot be an archive of ISIC 2016"
        )
    return files


def _inside(entry: zipfile.ZipInfo, folder: str) -> PurePosixPath:
    """The entry's path below the archive's own top folder, where it has one."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    return path.relative_to(folder) if path.parts[0] == folder and len(path.parts) > 1 else path


def _write(source: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    # Read through zipfile's stream, which stops at the size the directory states and checks the CRC.
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(entry) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
