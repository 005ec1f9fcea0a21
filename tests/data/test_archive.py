"""Unpacking what came over the network: whole archives appear, hostile and damaged ones leave nothing."""

import random
import shutil
import stat
import zipfile

import pytest

from isic_smp.data.archive import unpack
from isic_smp.errors import UserError


def pack(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("top", ["", "Images/"])
def test_files_arrive_with_or_without_a_top_folder_in_the_archive(tmp_path, top):
    archive = pack(tmp_path / "Images.zip", [(f"{top}a.jpg", b"a"), (f"{top}b.jpg", b"b" * 5000)])
    unpack(archive, tmp_path / "Images")
    assert {it.name: it.read_bytes() for it in (tmp_path / "Images").iterdir()} == {
        "a.jpg": b"a",
        "b.jpg": b"b" * 5000,
    }
    assert sorted(it.name for it in tmp_path.iterdir()) == ["Images", "Images.zip"]


def link(target="/etc/passwd"):
    entry = zipfile.ZipInfo("Images/link.jpg")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target


@pytest.mark.parametrize(
    "entry",
    [
        ("../outside.jpg", b"x"),
        ("Images/../../outside.jpg", b"x"),
        ("/outside.jpg", b"x"),
        ("..\\outside.jpg", b"x"),
        link(),
    ],
    ids=["parent", "parent within", "absolute", "backslash", "link"],
)
def test_entries_that_point_elsewhere_are_refused_and_nothing_is_written(tmp_path, entry):
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = pack(inner / "Images.zip", [("Images/fine.jpg", b"x"), entry])
    with pytest.raises(UserError, match="is refused"):
        unpack(archive, inner / "Images")
    assert [it.name for it in tmp_path.iterdir()] == ["inner"]
    assert [it.name for it in inner.iterdir()] == ["Images.zip"]


def test_a_bomb_is_refused_unopened(tmp_path):
    archive = pack(tmp_path / "Images.zip", [("a.jpg", bytes(10**7))], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="cannot be an archive of ISIC 2016"):
        unpack(archive, tmp_path / "Images")
    assert not (tmp_path / "Images").exists()


def test_a_flipped_byte_is_noticed_and_the_archive_deleted_for_the_next_try(tmp_path):
    archive = pack(tmp_path / "Images.zip", [("a.jpg", b"lesion" * 100), ("b.jpg", b"skin" * 100)])
    content = bytearray(archive.read_bytes())
    content[content.index(b"skinskin") + 5] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="download it again"):
        unpack(archive, tmp_path / "Images")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_noticed_whatever_the_archive_is_packed_with(tmp_path, method):
    entries = [(f"Images/{number}.jpg", b"lesion" * 40) for number in range(2)]
    whole = pack(tmp_path / "whole.zip", entries, compression=method).read_bytes()
    archive, rng = tmp_path / "Images.zip", random.Random(0)
    refused = 0
    for _ in range(80):
        content = bytearray(whole)
        content[rng.randrange(len(content))] = rng.randrange(256)
        archive.write_bytes(content)
        try:
            unpack(archive, tmp_path / "Images")
        except UserError:
            refused += 1
        shutil.rmtree(tmp_path / "Images", ignore_errors=True)
    assert refused > 30


def test_a_file_without_a_name_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file's name"):
        unpack(pack(tmp_path / "Images.zip", [("Images/a.jpg", b"a"), (".", b"b")]), tmp_path / "Images")


def test_half_an_archive_is_noticed(tmp_path):
    archive = pack(tmp_path / "Images.zip", [("a.jpg", b"lesion" * 100)])
    archive.write_bytes(archive.read_bytes()[:300])
    with pytest.raises(UserError, match="not a complete zip archive"):
        unpack(archive, tmp_path / "Images")


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".unpacking-left").mkdir()
    unpack(pack(tmp_path / "Images.zip", [("a.jpg", b"a")]), tmp_path / "Images")
    assert not list(tmp_path.glob(".unpacking-*"))
