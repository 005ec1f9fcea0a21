"""Archives that are broken, or that reach beyond their folder."""

import gzip
import io
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .made import (
    EITHER,
    REFUSED,
    Kind,
    Maker,
    equals,
)


def archive(
    content: bytes | Callable[[zipfile.ZipFile], object], expected: Any = REFUSED, **options: Any
) -> Maker:
    def make(folder: Path) -> Kind:
        from isic_smp.data.archive import unpack

        path, inner = folder / "in" / "Images.zip", folder / "in" / "Images"
        path.parent.mkdir()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            with zipfile.ZipFile(path, "w", **options) as target:
                content(target)

        def call() -> list[str]:
            try:
                unpack(path, inner)
            finally:
                stray = [
                    p.name for p in folder.rglob("*") if p.is_file() and p != path and inner not in p.parents
                ]
                assert not stray, f"written elsewhere: {stray}"
            return sorted(str(p.relative_to(inner)) for p in inner.rglob("*") if p.is_file())

        return call, expected

    return make


def entries(*names: str) -> Callable[[zipfile.ZipFile], object]:
    return lambda target: [target.writestr(name, b"x" * 50) for name in names]


def of_kind(kind: int) -> Callable[[zipfile.ZipFile], object]:
    def write(target: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo("Images/a.jpg")
        entry.external_attr = (kind | 0o777) << 16
        target.writestr(entry, "/etc/passwd")

    return write


def archives() -> Iterator[tuple[str, Maker]]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        entries("Images/a.jpg", "Images/b.jpg")(target)
    whole = stream.getvalue()
    both = equals(["a.jpg", "b.jpg"])
    yield "a good archive", archive(whole, both)
    yield "an archive without its folder", archive(entries("a.jpg", "b.jpg"), both)
    yield "an archive with words before it", archive(b"#!/bin/sh\n" + whole, both)
    yield "an archive with a comment", archive(whole[:-2] + struct.pack("<H", 5) + b"hello", both)
    for words, name in {
        "upwards": "../a.jpg", "upwards from within": "Images/../../a.jpg", "from the root": "/tmp/a.jpg",
        "upwards by backslash": "..\\a.jpg", "to a drive": "C:\\a.jpg", "to a network drive": "\\\\host\\a.jpg",
        "to a stream": "Images/a.jpg:b",
    }.items():  # fmt: skip
        yield f"an entry that points {words}", archive(entries("Images/b.jpg", name))
    for words, kind in {
        "link": stat.S_IFLNK, "device": stat.S_IFCHR, "pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK,
    }.items():  # fmt: skip
        yield f"an entry that is a {words}", archive(of_kind(kind))
    yield "an archive of nothing", archive(lambda target: None, EITHER)
    yield "an archive of zero bytes", archive(b"")
    yield "text for an archive", archive(b"404 not found")
    yield "gzip for an archive", archive(gzip.compress(whole))
    for part in (0.1, 0.4, 0.6, 0.9):
        yield f"{part:.0%} of an archive", archive(whole[: int(len(whole) * part)])
    yield "an archive without its last byte", archive(whole[:-1])
    yield "an archive without its beginning", archive(whole[40:])
    yield "a wrong checksum", archive(whole.replace(b"x" * 50, b"y" * 50, 1))
    yield (
        "a bomb",
        archive(lambda t: t.writestr("Images/a.jpg", bytes(10**7)), compression=zipfile.ZIP_DEFLATED),
    )
    yield (
        "twenty thousand files",
        archive(lambda t: [t.writestr(f"Images/{n}.jpg", b"") for n in range(20_000)]),
    )
    yield "a file that is a folder too", archive(entries("Images/a", "Images/a/b.jpg"))
    yield "a name of 300 letters", archive(entries("Images/" + "a" * 300 + ".jpg"))
    yield "a path of 5000 letters", archive(entries("Images/" + "a/" * 2500 + "b.jpg"))
    yield "a name of a single dot", archive(entries("Images/."), EITHER)
    yield "a name with a newline", archive(entries("Images/a\nb.jpg"), equals(["a\nb.jpg"]))
    yield "an encrypted entry", archive(flag_encrypted(whole))
    yield "an unknown way of packing", archive(other_packing(whole))
    with zipfile.ZipFile(big := io.BytesIO(), "w") as target:
        target.writestr("Images/a.jpg", b"x" * 50)
        target.filelist[0].file_size = 10**15
    yield "a size that is a lie", archive(big.getvalue())


def flag_encrypted(whole: bytes) -> bytes:
    at = whole.index(b"PK\x01\x02")
    return whole[:at] + whole[at : at + 8] + b"\x01\x00" + whole[at + 10 :]


def other_packing(whole: bytes) -> bytes:
    at = whole.index(b"PK\x01\x02")
    return whole[:at] + whole[at : at + 10] + b"\x63\x00" + whole[at + 12 :]
