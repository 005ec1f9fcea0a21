"""A data set's identity: one digest over the content of its files, whatever their folder is called."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError
from isic_smp.files import state_of, write_text
from isic_smp.folder_lock import one_at_a_time

DIGITS = 64
"""Of a fingerprint, before what a division appends."""


def fingerprint(splits: Mapping[str, Sequence[Pair]], *, cache_dir: Path | None = None) -> str:
    """SHA-256, as 64 hex digits, over every split's name, ids, and contents of images and masks.

    Moving or renaming the folder leaves it as it is; another byte in a file, another id, or a pair
    in another split changes it.

    Args:
        splits: pairs by split name.
        cache_dir: keeps the digests of files there (`digests_of`).

    Raises:
        UserError: a file that cannot be read.
    """
    files = [path for pairs in splits.values() for pair in pairs for path in (pair.image, pair.mask)]
    digests = digests_of(files, cache_dir=cache_dir)
    total = hashlib.sha256()
    for name in sorted(splits):
        for pair in sorted(splits[name], key=lambda pair: pair.id):
            total.update(f"{name} {pair.id} {digests[pair.image]} {digests[pair.mask]}\n".encode())
    return total.hexdigest()


def parted(fingerprint: str) -> tuple[str, str]:
    """The fingerprint of the data as they come, and what follows it where they were divided (`division`)."""
    return fingerprint[:DIGITS], fingerprint[DIGITS:]


def shortened(fingerprint: str) -> str:
    """Twelve digits of a fingerprint, and the fold or the group that was left out, if any: to be read by people."""
    digest, dash, part = fingerprint.partition("-")
    return f"{digest[:12]}…{dash}{part}"


def digest(division: Mapping[str, int]) -> str:
    """Twelve digits that tell one division of ids from another: the part that each is in, or whether it belongs."""
    return hashlib.sha256(repr(sorted(division.items())).encode()).hexdigest()[:12]


def digests_of(files: Sequence[Path], *, cache_dir: Path | None = None) -> dict[Path, str]:
    """SHA-256, as 64 hex digits, of each file's content.

    Args:
        files: to be read.
        cache_dir: keeps digests by path, length and times in `file_digests.json` there, so that files are read again only
            when they have been written to, replaced or moved.

    Raises:
        UserError: a file that cannot be read.
    """
    cache = cache_dir / "file_digests.json" if cache_dir else None
    known = _load(cache)
    keys = {path: _key(path) for path in files}
    new = [path for path in files if keys[path] not in known]
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
        known.update(zip((keys[path] for path in new), pool.map(_digest, new), strict=True))
    if cache and new:
        _save(cache, known)
    return {path: known[key] for path, key in keys.items()}


def _key(path: Path) -> str:
    try:
        state = " ".join(map(str, state_of(path)))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return f"{os.path.abspath(path)} {state}"  # noqa: PTH100 (10 × faster, no resolving)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _load(cache: Path | None) -> dict[str, str]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8")) if cache else {}
    except (OSError, ValueError):
        return {}  # not there yet, or damaged: it is made again
    return known if isinstance(known, dict) else {}


def _save(cache: Path, known: Mapping[str, str]) -> None:
    # A folder that cannot be written costs time at the next start, nothing else; who needs it says so.
    with contextlib.suppress(UserError), one_at_a_time(cache.parent, lock=".digests.lock"):
        write_text(cache, json.dumps(known), option="--cache-dir")
