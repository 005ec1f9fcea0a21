"""Cameras, told from the size of their frames."""

from pathlib import Path

import pytest
from PIL import Image

from isic_smp.data.cameras import cameras
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError


def pairs_of(folder: Path, **frames: tuple[int, int]) -> list[Pair]:
    for id, frame in frames.items():
        Image.new("RGB", frame).save(folder / f"{id}.png")
    return [Pair(id, folder / f"{id}.png", folder / f"{id}.png") for id in frames]


def manifest(folder: Path, *rows: str) -> None:
    (folder / "manifest.csv").write_text("\n".join(["id,original_width,original_height", *rows, ""]))


def test_frames_of_about_one_size_upright_or_lying_are_one_camera_s(tmp_path):
    pairs = pairs_of(
        tmp_path, c=(200, 100), b=(98, 196), a=(400, 200), d=(200, 150), e=(400, 200), f=(190, 95)
    )
    # f is like b, which is like c; d is only as wide as c
    assert cameras(pairs, tmp_path) == [("b", "c", "f"), ("a", "e"), ("d",)]


def test_a_frame_that_is_like_two_others_makes_them_one(tmp_path):
    assert cameras(pairs_of(tmp_path, a=(110, 100), b=(112, 109)), tmp_path) == [("a",), ("b",)]
    pairs = pairs_of(tmp_path, a=(110, 100), b=(112, 109), like_both=(114, 104))
    assert cameras(pairs, tmp_path) == [("a", "b", "like_both")]


def test_the_size_before_shrinking_counts_where_the_manifest_knows_it(tmp_path):
    manifest(tmp_path, "a,1024,768", "b,3072,2304", "c,,", "gone,7,7")
    pairs = pairs_of(tmp_path, a=(64, 64), b=(64, 64), c=(64, 64), d=(64, 64))
    assert cameras(pairs, tmp_path) == [("c", "d"), ("a",), ("b",)]


def test_a_manifest_without_sizes_says_nothing(tmp_path):
    (tmp_path / "manifest.csv").write_text("id,diagnosis\na,benign\n")
    assert cameras(pairs_of(tmp_path, a=(64, 64), b=(64, 64)), tmp_path) == [("a", "b")]


@pytest.mark.parametrize("row", ["a,1024,", "a,wide,768", "a,0,768", "a,-1024,768", f"a,{'9' * 5000},768"])
def test_a_size_that_is_none_is_refused(tmp_path, row):
    manifest(tmp_path, row)
    with pytest.raises(
        UserError, match=r"gives a an original size of .*: expected two whole numbers of pixels"
    ):
        cameras(pairs_of(tmp_path, a=(64, 64)), tmp_path)


def test_an_image_that_has_two_rows_has_one_of_each_kind(tmp_path):
    manifest(tmp_path, "a,1024,768", " a , 1024,768", "7")
    assert cameras(pairs_of(tmp_path, a=(64, 64)), tmp_path) == [("a",)]
    manifest(tmp_path, "a,1024,768", "a,1024,1024")
    with pytest.raises(UserError, match="has a twice, as 1024, 768 and as 1024, 1024; mend it"):
        cameras(pairs_of(tmp_path, a=(64, 64)), tmp_path)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    pair = Pair("a", tmp_path / "a.png", tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"cannot read the size of the image .*a\.png: empty, or not in a format"
    ):
        cameras([pair], tmp_path)
