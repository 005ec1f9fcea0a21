"""What kinds of bad data are made of."""

import io
import struct
import zlib
from collections.abc import Callable
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
