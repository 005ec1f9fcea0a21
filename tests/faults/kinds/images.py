"""Pictures that are broken, odd or no pictures at all."""

import gzip
import os
import pickle
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .made import (
    EITHER,
    FORMATS,
    REFUSED,
    RGB,
    Kind,
    Maker,
    close_to,
    encoded,
    equals,
    png,
)


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
