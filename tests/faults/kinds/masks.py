"""Masks: of other values, other modes, and broken."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .made import REFUSED, RGB, TRUTH, Kind, Maker, encoded, equals, png


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
            mask(picture, yes if value > 128 else REFUSED, binarize=True),
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
