"""An image and its mask together, and the folders that hold them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .made import HEIGHT, REFUSED, RGB, WIDTH, Kind, Maker, encoded, equals


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
