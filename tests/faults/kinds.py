"""Kinds of bad data: each a name, a way to make it in a folder, what is then called, and what must come of it.

A kind is `(call, expected)`. `call` takes no argument. `expected` is
- REFUSED: exactly one UserError, on one line;
- EITHER: that, or any result, for what decoders of different versions may or may not see through;
- a function: of the result, true where it is right.
"""

import gzip
import io
import json
import os
import pickle
import random
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REFUSED, EITHER = "refused", "either"
Kind = tuple[Callable[[], Any], Any]
Maker = Callable[[Path], Kind]

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 24, 36
rows, columns = np.mgrid[:HEIGHT, :WIDTH]
TRUTH = ((rows - 10) ** 2 + (columns - 20) ** 2 < 60).astype(np.uint8)
RGB = np.where(TRUTH[..., None], [120, 70, 60], [220, 180, 165]).astype(np.uint8)
FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "webp": "WEBP",
    "ppm": "PPM",
}


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, colour: int, body: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG put together by hand, so that it can be wrong."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def close_to(expected: np.ndarray, tolerance: float) -> Callable[[np.ndarray], bool]:
    def is_close(found: np.ndarray) -> bool:
        return found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() <= tolerance

    return is_close


def equals(expected: Any) -> Callable[[Any], bool]:
    return lambda found: np.array_equal(found, expected)


# --- images


def image(content: bytes, expected: Any, name: str = "a.png") -> Maker:
    def make(folder: Path) -> Kind:
        from isic_smp.data.images import read_image

        (folder / name).write_bytes(content)
        return lambda: read_image(folder / name), expected

    return make


def images() -> Iterator[tuple[str, Maker]]:
    for ending, kind in FORMATS.items():
        whole = encoded(Image.fromarray(RGB), kind)
        right = close_to(RGB, 8)
        name = f"a.{ending}"
        breaks = {
            "of zero bytes": (b"", REFUSED),
            "of one byte": (whole[:1], REFUSED),
            "cut in its header": (whole[:9], REFUSED),
            "cut in the middle": (whole[: len(whole) // 2], REFUSED),
            "without its last bytes": (whole[:-3], EITHER),
            "overwritten with zeros": (bytes(len(whole)), REFUSED),
            "its body overwritten with zeros": (whole[:20] + bytes(len(whole) - 20), EITHER),
            "with rubbish after it": (whole + b"rubbish" * 99, right),
            "twice in a row": (whole + whole, right),
        }
        for words, (content, expected) in breaks.items():
            yield f"a {kind} {words}", image(content, expected, name)
        for seed in range(3):
            spoilt = bytearray(whole)
            for _ in range(6):
                at = random.Random(seed * 1000 + len(spoilt)).randrange(len(spoilt))
                spoilt[at] ^= 1 << random.Random(at + seed).randrange(8)
            yield f"a {kind} with flipped bits ({seed})", image(bytes(spoilt), EITHER, name)
        other = "png" if ending == "jpg" else "jpg"
        yield f"a {kind} under the ending of another", image(whole, right, f"a.{other}")
    picture = Image.fromarray(RGB)
    grey = np.repeat(np.array(picture.convert("L"))[..., None], 3, axis=-1)
    for mode, kind, expected in (
        ("1", "PNG", lambda found: set(np.unique(found)) <= {0, 255}),
        ("L", "PNG", equals(grey)),
        ("LA", "PNG", equals(grey)),
        ("P", "PNG", equals(np.array(picture.convert("P").convert("RGB")))),
        ("RGBA", "PNG", equals(RGB)),
        ("CMYK", "JPEG", close_to(RGB, 12)),
        ("CMYK", "TIFF", close_to(RGB, 12)),
        ("YCbCr", "TIFF", EITHER),
        ("LAB", "TIFF", EITHER),
        ("RGBA", "TIFF", equals(RGB)),
        ("RGBA", "WEBP", close_to(RGB, 12)),
        ("I;16", "TIFF", EITHER),
        ("I", "PNG", EITHER),
        ("F", "TIFF", REFUSED),
    ):
        converted = picture if mode == "LAB" else picture.convert("L" if mode in ("I;16", "I", "F") else mode)
        if mode in ("I;16", "I", "F"):
            kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
            converted = Image.fromarray(np.array(converted).astype(kinds[mode]))
        if mode == "LAB":
            from PIL import ImageCms

            profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            converted = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
        yield f"a {kind} in mode {mode}", image(encoded(converted, kind), expected, f"a.{kind.lower()}")
    for turn in range(10):
        exif = Image.Exif()
        exif[0x0112] = turn
        undo = {
            2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
            6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB, 1),
        }  # fmt: skip
        content = encoded(picture, "PNG", exif=exif)
        yield f"EXIF orientation {turn}", image(content, equals(undo.get(turn, RGB)))
    for words, rubbish in (("empty", b""), ("rubbish", b"Exif\0\0" + b"\xff" * 40), ("huge", b"\0" * 60_000)):
        yield (
            f"{words} EXIF",
            image(encoded(picture, "JPEG", exif=rubbish, quality=95), close_to(RGB, 8), "a.jpg"),
        )
    frames = [picture, Image.new("RGB", picture.size)]
    for kind, ending in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png"), ("TIFF", "tif")):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        yield f"an animated {kind}", image(content, close_to(RGB, 8), f"a.{ending}")
    for width, height in ((1, 1), (1, 50), (50, 1), (60_000, 1), (1, 60_000)):
        plain = Image.new("RGB", (width, height), (9, 8, 7))
        right = (lambda w, h: lambda found: found.shape == (h, w, 3) and found[0, 0].tolist() == [9, 8, 7])(
            width, height
        )
        yield f"{width} × {height} pixels", image(encoded(plain, "PNG"), right)
    some = zlib.compress(bytes(100))
    yield "a PNG that says 60,000 × 60,000 pixels", image(png(60_000, 60_000, 8, 2, some), REFUSED)
    yield "a PNG that says 2 000 000 000 pixels a side", image(png(2**31 - 1, 2**31 - 1, 8, 2, some), REFUSED)
    yield "a PNG of no pixels", image(png(0, 0, 8, 2, some), REFUSED)
    yield "a PNG of no height", image(png(5, 0, 8, 2, some), REFUSED)
    yield "a PNG of 3 bits", image(png(5, 5, 3, 2, some), REFUSED)
    yield "a PNG of an unknown kind of colour", image(png(5, 5, 8, 9, some), REFUSED)
    yield "a PNG with too few rows", image(png(50, 50, 8, 2, some), REFUSED)
    yield "a PNG with far too many bytes", image(png(5, 5, 8, 2, zlib.compress(bytes(10**7))), EITHER)
    yield "a PNG palette without its palette", image(png(5, 5, 8, 3, some), EITHER)
    bomb = zlib.compress(bytes(20_000_000), 9)
    yield (
        "a PNG with a bomb in its text",
        image(png(5, 5, 8, 2, zlib.compress(bytes(80)), (b"zTXt", b"k\0\0" + bomb)), EITHER),
    )
    yield (
        "a PNG with a bomb in its profile",
        image(png(5, 5, 8, 2, zlib.compress(bytes(80)), (b"iCCP", b"k\0\0" + bomb)), EITHER),
    )
    whole = encoded(picture, "PNG")
    yield "a PNG with a wrong checksum", image(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:], REFUSED)
    bmp = bytearray(encoded(picture, "BMP"))
    yield (
        "a BMP of 60,000 × 60,000",
        image(bytes(bmp[:18]) + struct.pack("<ii", 60_000, 60_000) + bytes(bmp[26:]), REFUSED),
    )
    yield (
        "a BMP of negative width",
        image(bytes(bmp[:18]) + struct.pack("<ii", -36, 24) + bytes(bmp[26:]), REFUSED),
    )
    yield "a GIF of 65,535 × 65,535", image(b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20), REFUSED)
    yield "a PPM of 10^9 × 10^9", image(b"P6 1000000000 1000000000 255\n" + bytes(50), REFUSED)
    yield "a PPM of letters", image(b"P6 wide high 255\n" + bytes(50), REFUSED)
    yield (
        "a progressive JPEG",
        image(encoded(picture, "JPEG", progressive=True, quality=95), close_to(RGB, 8), "a.jpg"),
    )
    for words, content in {
        "text": b"no picture", "HTML": b"<!doctype html><html><body>404</body></html>",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        "a PDF": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "a program": b"\x7fELF" + bytes(60), "a zip archive": b"PK\x03\x04" + bytes(60),
        "a packed picture": gzip.compress(whole), "a pickle": pickle.dumps({"a": 1}),
        "JSON": b'{"image": [1, 2]}', "a NumPy array": b"\x93NUMPY\x01\x00" + bytes(80),
        "DICOM": bytes(128) + b"DICM" + bytes(50), "a byte order mark": b"\xef\xbb\xbf" + whole,
        "an icon": encoded(picture.resize((16, 16)), "ICO"), "a link of git-lfs": b"version https://git-lfs.github.com/spec/v1\n",
    }.items():  # fmt: skip
        yield f"{words} under an image's ending", image(content, REFUSED)


def special_files() -> Iterator[tuple[str, Maker]]:
    def special(prepare: Callable[[Path], object], expected: Any = REFUSED) -> Maker:
        def make(folder: Path) -> Kind:
            from isic_smp.data.images import read_image

            prepare(folder / "a.png")
            return lambda: read_image(folder / "a.png"), expected

        return make

    yield "no file", special(lambda path: None)
    yield "a folder called as an image", special(lambda path: path.mkdir())
    yield "a link to itself", special(lambda path: path.symlink_to(path))
    yield "a link to nothing", special(lambda path: path.symlink_to("nothing"))
    yield "a pipe that nobody writes to", special(os.mkfifo)
    yield "a device without end", special(lambda path: path.symlink_to("/dev/zero"))
    yield "an empty device", special(lambda path: path.symlink_to("/dev/null"))
    yield (
        "a name of 300 letters",
        lambda folder: (
            lambda: __import__("isic_smp.data.images").data.images.read_image(folder / ("a" * 300 + ".png")),
            REFUSED,
        ),
    )

    def linked(path: Path) -> None:
        (path.parent / "real.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
        path.symlink_to("real.png")

    yield "a link to an image", special(linked, equals(RGB))
    for words, name in {
        "spaces": "a  b .png", "quotes": "it's \"so\".png", "an emoji": "läsion 🩺.png", "a newline": "a\nb.png",
        "an escape sequence": "\x1b[31mred.png", "a leading dash": "-rf.png", "stars": "*?[a].png",
        "a percent sign": "%s%d{x}.png", "two endings": "a.jpg.png", "a right-to-left mark": "a\u202egnp.png",
        "bytes that are no UTF-8": os.fsdecode(b"a\xff\xfe.png"), "a backslash": "a\\b.png",
    }.items():  # fmt: skip
        for content, expected in ((encoded(Image.fromarray(RGB), "PNG"), equals(RGB)), (b"", REFUSED)):
            state = "a broken" if expected is REFUSED else "an"
            yield f"{state} image with {words} in its name", image(content, expected, name)


# --- masks


def mask(
    picture: Image.Image | bytes, expected: Any, *, kind: str = "PNG", binarize: bool = False, **options: Any
) -> Maker:
    def make(folder: Path) -> Kind:
        from isic_smp.data.images import read_mask

        content = picture if isinstance(picture, bytes) else encoded(picture, kind, **options)
        (folder / "m.png").write_bytes(content)
        return lambda: read_mask(folder / "m.png", binarize=binarize), expected

    return make


def masks() -> Iterator[tuple[str, Maker]]:
    white = Image.fromarray(TRUTH * np.uint8(255))
    yes = equals(TRUTH)
    for value, dtype in ((1, np.uint8), (255, np.uint8), (65535, np.uint16), (1, np.uint16)):
        yield (
            f"a mask of 0 and {value} in {np.dtype(dtype)}",
            mask(Image.fromarray(TRUTH.astype(dtype) * dtype(value)), yes),
        )
    for mode in ("1", "P", "RGB", "RGBA", "LA"):
        yield f"a mask in mode {mode}", mask(white.convert(mode), yes)
    yield "a mask as CMYK", mask(white.convert("CMYK"), yes, kind="TIFF")
    yield "a mask as GIF", mask(white, yes, kind="GIF")
    yield "a mask as TIFF, white is zero", mask(white.convert("1"), yes, kind="TIFF", tiffinfo={262: 0})
    yield (
        "a mask turned by EXIF",
        mask(
            white,
            equals(np.rot90(TRUTH, -1)),
            exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
        ),
    )
    for value in (2, 127, 128, 129, 254):
        picture = Image.fromarray(TRUTH * np.uint8(value))
        yield f"a mask of 0 and {value}", mask(picture, REFUSED)
        yield (
            f"a mask of 0 and {value}, binarised",
            mask(picture, equals(TRUTH if value > 128 else TRUTH * 0), binarize=True),
        )
    soft = Image.fromarray((TRUTH * 200 + 20).astype(np.uint8))
    yield "a soft mask", mask(soft, REFUSED)
    yield "a mask as JPEG", mask(white, REFUSED, kind="JPEG", quality=60)
    yield "a mask as JPEG, binarised", mask(white, yes, kind="JPEG", quality=95, binarize=True)
    yield "an empty mask", mask(Image.new("L", white.size), equals(TRUTH * 0))
    yield "a full mask", mask(Image.new("L", white.size, 255), equals(TRUTH * 0 + 1))
    yield "a mask of one pixel", mask(Image.new("L", (1, 1), 255), equals(np.ones((1, 1))))
    yield "an inverted palette", mask(palette([255] * 3 + [0] * 3, 1 - TRUTH), yes)
    yield "a mask in red and black", mask(palette([0, 0, 0, 255, 0, 0], TRUTH), REFUSED)
    yield "a coloured mask", mask(Image.fromarray(RGB), REFUSED)
    yield "a mask of floats", mask(Image.fromarray(TRUTH.astype(np.float32)), REFUSED, kind="TIFF")
    yield "a mask of negative numbers", mask(Image.fromarray(-TRUTH.astype(np.int32)), REFUSED, kind="TIFF")
    yield (
        "a mask of numbers beyond 16 bits",
        mask(Image.fromarray(TRUTH.astype(np.int32) * 70_000), REFUSED, kind="TIFF"),
    )
    yield "a mask of 60,000 × 60,000", mask(png(60_000, 60_000, 8, 0, zlib.compress(b"1")), REFUSED)
    yield "a mask of zero bytes", mask(b"", REFUSED)
    whole = encoded(white, "PNG")
    yield "half a mask", mask(whole[: len(whole) // 2], REFUSED)
    yield "text for a mask", mask(b"lesion", REFUSED)
    alpha = np.dstack([np.full_like(TRUTH, 255)] * 3 + [TRUTH * 255])
    yield "a mask in the alpha channel", mask(Image.fromarray(alpha), yes)


def palette(colours: list[int], indices: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette(colours)
    return picture


# --- pairs: image and mask together, and the folders that hold them


def pair(size: tuple[int, int], *, turned: int = 1, kind: str = "PNG", expected: Any = REFUSED) -> Maker:
    """An image of the truth with a mask of `size` (width, height)."""

    def make(folder: Path) -> Kind:
        from isic_smp.data.pairs import Pair
        from isic_smp.data.resized import read_resized

        exif = Image.Exif()
        exif[0x0112] = turned
        (folder / "a.img").write_bytes(encoded(Image.fromarray(RGB), kind, exif=exif))
        Image.new("L", size, 255).save(folder / "m.png")
        return lambda: read_resized(Pair("a", folder / "a.img", folder / "m.png"), 16)[1], expected

    return make


def folders(
    expected: Any,
    images: list[str],
    masks: list[str],
    prepare: Callable[[Path], object] = lambda folder: None,
) -> Maker:
    def make(folder: Path) -> Kind:
        from isic_smp.data.pairs import find_pairs

        for name, files in (("images", images), ("masks", masks)):
            (folder / name).mkdir()
            for file in files:
                (folder / name / file).touch()
        prepare(folder)
        return lambda: [p.id for p in find_pairs(folder / "images", folder / "masks")], expected

    return make


def pairs() -> Iterator[tuple[str, Maker]]:
    ones = equals(np.ones((16, 16), np.uint8))
    yield "a mask of its image's size", pair((WIDTH, HEIGHT), expected=ones)
    for words, size in {
        "one column less": (WIDTH - 1, HEIGHT), "one row more": (WIDTH, HEIGHT + 1), "turned": (HEIGHT, WIDTH),
        "of half the size": (WIDTH // 2, HEIGHT // 2), "of one pixel": (1, 1), "of a long line": (60_000, 1),
    }.items():  # fmt: skip
        yield f"a mask {words}", pair(size)
    for kind in ("PNG", "JPEG"):
        yield (
            f"a {kind} turned by EXIF with an upright mask",
            pair((HEIGHT, WIDTH), turned=6, kind=kind, expected=ones),
        )
        yield (
            f"a {kind} turned by EXIF with a mask as it was taken",
            pair((WIDTH, HEIGHT), turned=6, kind=kind),
        )
    fine = equals(["a"])
    yield "an image without a mask", folders(REFUSED, ["a.jpg", "b.jpg"], ["a.png"])
    yield "a mask without an image", folders(REFUSED, ["a.jpg"], ["a.png", "b.png"])
    yield "no images", folders(REFUSED, [], ["a.png"])
    yield "no masks", folders(REFUSED, ["a.jpg"], [])
    yield "nothing at all", folders(REFUSED, [], [])
    yield "an image twice, with two endings", folders(REFUSED, ["a.jpg", "a.png"], ["a.png"])
    yield (
        "a mask twice, with and without suffix",
        folders(REFUSED, ["a.jpg"], ["a.png", "a_Segmentation.png"]),
    )
    yield "names that differ in case only", folders(REFUSED, ["A.jpg"], ["a.png"])
    yield "endings in capitals", folders(fine, ["a.JPG"], ["a_SEGMENTATION.PNG"])
    yield "hidden files beside", folders(fine, ["a.jpg", ".b.jpg", "._a.jpg"], ["a.png", ".DS_Store"])
    yield "other files beside", folders(fine, ["a.jpg", "Thumbs.db", "notes.txt"], ["a.png", "b.csv"])
    yield "superpixels beside", folders(fine, ["a.jpg", "a_superpixels.png"], ["a.png"])
    yield (
        "folders called as images",
        folders(fine, ["a.jpg"], ["a.png"], lambda f: (f / "images" / "b.jpg").mkdir()),
    )
    yield (
        "a link to itself beside",
        folders(fine, ["a.jpg"], ["a.png"], lambda f: (f / "images" / "b.jpg").symlink_to("b.jpg")),
    )
    yield (
        "a link to nothing beside",
        folders(fine, ["a.jpg"], ["a.png"], lambda f: (f / "images" / "b.jpg").symlink_to("nothing")),
    )
    yield (
        "a pipe called as an image",
        folders(fine, ["a.jpg"], ["a.png"], lambda f: os.mkfifo(f / "images" / "b.jpg")),
    )
    yield (
        "a folder that links to itself",
        folders(REFUSED, ["a.jpg"], [], lambda f: [(f / "masks").rmdir(), (f / "masks").symlink_to("masks")]),
    )
    yield (
        "a file where a folder should be",
        folders(REFUSED, ["a.jpg"], [], lambda f: [(f / "masks").rmdir(), (f / "masks").touch()]),
    )
    yield "no such folder", folders(REFUSED, ["a.jpg"], [], lambda f: (f / "masks").rmdir())
    for words, name in {
        "spaces": "a b ", "quotes": "it's \"so\"", "an emoji": "läsion 🩺", "a newline": "a\nb",
        "an escape sequence": "\x1b[31mred", "dots": "a.b.c", "no UTF-8": os.fsdecode(b"a\xff"),
    }.items():  # fmt: skip
        yield (
            f"a pair with {words} in its name",
            folders(equals([name]), [f"{name}.jpg"], [f"{name}_Segmentation.png"]),
        )
        yield (
            f"an image without mask, {words} in its name",
            folders(REFUSED, ["a.jpg", f"{name}.jpg"], ["a.png"]),
        )
    yield "an umlaut in two spellings", folders(REFUSED, ["\u00e4.jpg"], ["a\u0308.png"])


# --- archives


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


# --- settings


def recipe(text: str | bytes, expected: Any = REFUSED, name: str = "r.yaml") -> Maker:
    def make(folder: Path) -> Kind:
        from isic_smp.training.recipe import load_recipe

        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return lambda: load_recipe(str(folder / name)), expected

    return make


def settings() -> Iterator[tuple[str, Maker]]:
    yield "a good recipe", recipe("recipe: report\nlr: 0.002\n", lambda r: r.lr == 0.002 and r.epochs == 25)
    yield (
        "a whole number for a fraction",
        recipe("lr: 1\n", lambda r: r.lr == 1.0 and isinstance(r.lr, float)),
    )
    for words, text in {
        "an unknown setting": "learning_rate: 1\n", "a setting in capitals": "LR: 0.1\n", "a number as its name": "3: 4\n",
        "nothing as its name": "null: 4\n", "a list as its name": "[1, 2]: 4\n", "no recipe of that name": "recipe: nix\n",
        "a list for the recipe": "recipe: [default]\n", "a mapping for the recipe": "recipe: {a: 1}\n",
        "an empty file": "", "a comment only": "# nothing\n", "a list": "- lr\n- 0.1\n", "a word": "default\n",
        "a tab": "\tlr: 0.1\n", "an open bracket": "lr: [0.1\n", "an open quote": 'loss: "bce\n', "two documents": "lr: 1\n---\nlr: 2\n",
        "an object of Python": "lr: !!python/object/apply:os.system ['true']\n", "an unknown tag": "lr: !x 3\n",
        "an anchor that is not there": "lr: *x\n", "nan": "lr: .nan\n", "inf": "lr: .inf\n", "minus inf": "lr: -.inf\n",
        "a huge whole number": f"lr: 1{'0' * 400}\n", "a huge size": f"size: 1{'0' * 30}\n", "a huge seed": f"seed: 1{'0' * 30}\n", "a negative seed": "seed: -1\n",
        "a date": "lr: 2026-01-02\n", "a time": "epochs: 12:30:15x\n", "binary": "loss: !!binary aGVsbG8=\n", "a set": "lr: !!set {a}\n",
        "no channels": "decoder_channels: []\n", "a channel of zero": "decoder_channels: [8, 0, 8, 8]\n",
        "a negative depth": "encoder_depth: -1\n", "a depth of zero": "encoder_depth: 0\n", "a depth of 99": "decoder_depth: 99\n",
        "a size that does not divide": "size: 100\n", "an unknown encoder": "encoder: resnet50\n", "an encoder cut at 99": "encoder: trunc-mobilenetv2_100-s99\n",
        "freeze twice": "freeze: true\nfreeze_epochs: 3\n", "a threshold of 1": "threshold: 1\n", "an ema of 1": "ema: 1.0\n",
        "true for a number": "epochs: true\n", "a fraction of an epoch": "epochs: 2.5\n", "a number in letters": "epochs: ten\n",
        "a list of letters": "decoder_channels: [a, b]\n", "a number for a word": "loss: 3\n", "an unknown loss": "loss: mse\n",
        "yes for a word": "loss: yes\n", "null for a number": "epochs: null\n", "nested settings": "training: {lr: 0.1}\n",
        "JSON cut short": '{"lr": 0.1', "control characters": "lr: 0.1\x07\n", "the same setting twice": "lr: 0.1\nlr: 0.2\n",
    }.items():  # fmt: skip
        yield f"a recipe with {words}", recipe(text)
    bomb = (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
        + "lr: *a59\n"
    )
    yield "a recipe with a bomb of anchors", recipe(bomb)
    yield "a recipe with a mapping in itself", recipe("lr: &x {a: *x}\n")
    yield "a recipe nested 5000 deep", recipe("lr: " + "[" * 5000 + "]" * 5000)
    yield "a recipe of other bytes", recipe(b"\xff\xfe\x00lr")
    yield "a recipe of zeros", recipe(bytes(100))
    yield "a recipe in Latin-1", recipe("# Läsion\nlr: 1\n".encode("latin-1"))
    yield "a recipe in UTF-16", recipe("lr: 0.1\n".encode("utf-16"))
    yield "a recipe with a byte order mark", recipe(b"\xef\xbb\xbfepochs: 3\n", lambda r: r.epochs == 3)
    yield "a recipe as JSON", recipe('{"epochs": 3}', lambda r: r.epochs == 3)
    yield "a recipe of another ending", recipe("lr: 0.1", name="r.toml")
    from isic_smp.training.recipe import Recipe

    for name in Recipe().to_dict():
        yield f"a mapping for {name}", recipe(f"{name}: {{a: 1}}\n")
        yield f"a list of lists for {name}", recipe(f"{name}: [[1]]\n")


def saved(change: Callable[[Path], object], expected: Any = REFUSED) -> Maker:
    """A saved model folder with something changed."""

    def make(folder: Path) -> Kind:
        import isic_smp
        from isic_smp.inference.load import save_bundle
        from isic_smp.inference.preprocessing import Preprocessing

        model = isic_smp.UpConvNet(
            "trunc-mobilenetv2_035-s2", encoder_weights=None, decoder_channels=(8, 8, 8)
        )
        save_bundle(model, Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), {}, folder / "model")
        change(folder / "model")
        return lambda: isic_smp.load(folder / "model"), expected

    return make


def edit(name: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **values}))

    return change


def models() -> Iterator[tuple[str, Maker]]:
    yield "a good model", saved(lambda f: None, lambda model: not model.training)
    for name in ("config.json", "isic_smp.json", "model.safetensors"):
        yield f"a model without {name}", saved(lambda f, name=name: (f / name).unlink())
        yield f"a model with an empty {name}", saved(lambda f, name=name: (f / name).write_bytes(b""))
        yield (
            f"a model with {name} of rubbish",
            saved(lambda f, name=name: (f / name).write_bytes(b"\xff\x00{]")),
        )
        yield (
            f"a model with {name} cut short",
            saved(lambda f, name=name: (f / name).write_bytes((f / name).read_bytes()[:-9])),
        )
        yield (
            f"a model with a folder for {name}",
            saved(lambda f, name=name: [(f / name).unlink(), (f / name).mkdir()]),
        )
    for words, values in {
        "a class that is no model": {"_model_class": "os.system"}, "no class": {"_model_class": None},
        "an unknown argument": {"bomb": 1}, "an unknown encoder": {"encoder_name": "nix"},
        "negative channels": {"decoder_channels": [-1, 8, 8]}, "channels of words": {"decoder_channels": "eight"},
        "other channels": {"decoder_channels": [8, 8, 4]}, "a mean of words": {"mean": "grey"},
    }.items():  # fmt: skip
        yield f"a model config with {words}", saved(edit("config.json", **values))
    good = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "threshold": 0.5, "test_time_flips": False}
    for words, values in {
        "another format": {"format": 99}, "no format": {"format": None}, "a list for preprocessing": {"preprocessing": []},
        "no info": {"info": None}, "a size of zero": {"preprocessing": {**good, "size": 0}},
        "a size in words": {"preprocessing": {**good, "size": "big"}}, "a std of zero": {"preprocessing": {**good, "std": [0, 1, 1]}},
        "a mean of nan": {"preprocessing": {**good, "mean": [float("nan")] * 3}},
        "a mean of two": {"preprocessing": {**good, "mean": [0.5, 0.5]}}, "a threshold of 2": {"preprocessing": {**good, "threshold": 2}},
        "an unknown field": {"preprocessing": {**good, "gamma": 1}},
    }.items():  # fmt: skip
        yield f"a saved model with {words}", saved(edit("isic_smp.json", **values))
    for words, content in {
        "a pickle for its weights": pickle.dumps({"a": 1}), "weights whose header is a lie": struct.pack("<Q", 2**60) + b"{}",
        "weights of nothing": struct.pack("<Q", 2) + b"{}", "weights beyond their end": struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64),
    }.items():  # fmt: skip
        yield (
            f"a model with {words}",
            saved(lambda f, content=content: (f / "model.safetensors").write_bytes(content)),
        )


def all_kinds() -> list[tuple[str, Maker]]:
    sources = (images, special_files, masks, pairs, archives, settings, models)
    return [(f"{source.__name__}: {words}", maker) for source in sources for words, maker in source()]
