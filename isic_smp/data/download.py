"""The four official archives of ISIC 2016 part 1: fetched with resume, checked, and unpacked safely."""

import shutil
import time
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from isic_smp.data.archive import unpack
from isic_smp.data.isic2016 import FOLDERS
from isic_smp.errors import UserError

OFFICIAL = "https://isic-archive.s3.amazonaws.com/challenges/2016"
"""Where the ISIC challenge archive (challenge.isic-archive.com/data) keeps the archives."""

_TRIES = 4
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


def download_isic2016(
    root: Path, *, base_url: str = OFFICIAL, timeout: float = _TIMEOUT, pause: float = 1.0
) -> list[Path]:
    """Fetch what `root` lacks of the four folders, and return the folders that were added.

    An interrupted download goes on where it stopped when started again. A folder appears under its
    name only when its archive is complete, checked and unpacked; the archive is then deleted.

    Args:
        root: the folder to fill; made where it is missing.
        base_url: a mirror that holds the same four .zip files.
        timeout: seconds without an answer after which a connection is given up.
        pause: seconds before the first new try; doubled with each further one.

    Raises:
        UserError: no connection, no such file there, a damaged or dangerous archive, or a full disk.
    """
    if not base_url.startswith(("http://", "https://")):
        raise UserError(
            f"cannot download from {base_url!r}: expected an address that begins with https:// or http://"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / ".download.lock"):  # two downloads into one folder take turns
            missing = [root / folder for folder in FOLDERS if not (root / folder).is_dir()]
            for folder in missing:
                archive = root / f"{folder.name}.zip"
                fetch(f"{base_url.rstrip('/')}/{archive.name}", archive, timeout=timeout, pause=pause)
                unpack(archive, folder)
                archive.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {root}: {error.strerror or error}") from None
    return missing


def fetch(url: str, target: Path, *, timeout: float = _TIMEOUT, pause: float = 1.0) -> None:
    """Download `url` to the file `target`, through `target`.part, resuming what lies there.

    The server is asked to go on only if its file is still the one that was begun (If-Range, with the
    entity tag noted in `target`.part.etag); otherwise, or where it knows no ranges, it starts anew.
    Lost connections and server errors are tried again, until four in a row have brought nothing new.

    Raises:
        UserError: no connection, an HTTP error, or an incomplete file after the last try.
    """
    if target.is_file():
        return
    part, tag = Path(f"{target}.part"), Path(f"{target}.part.etag")
    failures = 0
    while True:
        before = _size(part)
        try:
            _receive(url, part, tag, timeout)
            break
        except (OSError, HTTPException) as error:
            code = error.code if isinstance(error, urllib.error.HTTPError) else None
            if code == 416:  # what lies there is no beginning of the server's file
                part.unlink(missing_ok=True)
            failures = 0 if _size(part) > before else failures + 1
            final = code is not None and code < 500 and code not in (408, 416, 429)
            if final or failures >= _TRIES:
                kept = f"; {part} keeps what has arrived, start again to go on" if _size(part) else ""
                raise UserError(f"cannot download {url}: {_reason(error)}{kept}") from None
            time.sleep(pause * 2 ** max(failures - 1, 0))
    part.rename(target)
    tag.unlink(missing_ok=True)


def _receive(url: str, part: Path, tag: Path, timeout: float) -> None:
    """One connection's worth of `url`, appended to `part` or written anew; OSError if it ends early."""
    have = _size(part)
    known = tag.read_text(encoding="utf-8") if tag.is_file() else ""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 (http or https)
    if have and known:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known)
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        resumed = answer.status == 206
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError(f"the server went on at another place than byte {have}")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        _keep(answer, part, tag, have, total)
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection ended after {_size(part)} of {total} bytes")


def _keep(answer: HTTPResponse, part: Path, tag: Path, have: int, total: int | None) -> None:
    """Write the answer's body to `part` from byte `have` on; trouble with the disk is a UserError."""
    bar: Any = tqdm(
        total=total, initial=have, unit="B", unit_scale=True, desc=part.name.removesuffix(".zip.part")
    )
    try:
        if total is not None and total - have > (free := shutil.disk_usage(part.parent).free):
            raise UserError(
                f"no room for {part}: {(total - have) / 1e6:.0f} MB are to come, {free / 1e6:.0f} MB are free"
            )
        tag.write_text(_identity(answer.headers), encoding="utf-8")
        file = part.open("ab" if have else "wb")
    except OSError as error:
        raise UserError(f"cannot write {part}: {error.strerror or error}") from None
    with bar, file:
        while chunk := answer.read(_CHUNK):
            try:
                file.write(chunk)
            except OSError as error:
                raise UserError(f"cannot write {part}: {error.strerror or error}") from None
            bar.update(len(chunk))


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _identity(headers: Message) -> str:
    """What tells the server whether its file is still the same: a strong entity tag, or the date."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or error
    return " ".join(f"{reason}".split()) or type(error).__name__
