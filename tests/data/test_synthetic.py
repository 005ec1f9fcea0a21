"""Drawn pictures: repeatable, varied, with true masks, in the official layout, whole or not at all."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isic_smp.data.isic2016 import FOLDERS
from isic_smp.data.pairs import find_pairs, read_pair
from isic_smp.data.synthetic import draw_lesion, load_synthetic, make_synthetic
from isic_smp.errors import UserError


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Sixty pictures and masks, 96 × 96."""
    pictures, masks = zip(*(draw_lesion(0, i, 96) for i in range(60)), strict=True)
    return np.stack(pictures), np.stack(masks)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    make_synthetic(folder, train=5, val=2, test=3, size=64, seed=7)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_pictures_and_masks_are_what_they_say(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, masks = drawn
    assert pictures.shape == (60, 96, 96, 3) and pictures.dtype == np.uint8
    assert masks.shape == (60, 96, 96) and masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1}
    assert all(mask.any() and not mask.all() for mask in masks)
    assert len({picture.tobytes() for picture in pictures}) == 60


def test_lesions_vary_in_size_place_and_contrast(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, masks = drawn
    areas = masks.mean(axis=(1, 2))
    assert areas.min() < 0.05 and areas.max() > 0.3
    edges = [mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any() for mask in masks]
    assert 1 <= sum(edges) <= 30
    contrast = np.array([p[m == 0].mean() - p[m == 1].mean() for p, m in zip(pictures, masks, strict=True)])
    assert np.percentile(contrast, 10) < 25 and np.percentile(contrast, 90) > 60


def test_the_mask_is_where_the_pigment_is(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """Just inside the border it is darker than just outside, by the blue light that melanin takes."""
    from scipy.ndimage import binary_dilation, binary_erosion

    darker = []
    for picture, mask in zip(*drawn, strict=True):
        inside = mask.astype(bool) & ~binary_erosion(mask, iterations=4)
        outside = binary_dilation(mask, iterations=4) & ~mask.astype(bool)
        darker.append(np.median(picture[inside][:, 2]) < np.median(picture[outside][:, 2]))
    assert np.mean(darker) > 0.95


def test_no_other_place_fits_the_mask_better(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    def contrast(move: tuple[int, int]) -> float:
        moved = np.roll(drawn[1], move, axis=(1, 2)).astype(bool)
        return np.mean([p[~m][:, 2].mean() - p[m][:, 2].mean() for p, m in zip(drawn[0], moved, strict=True)])

    moves = [(-2, 0), (2, 0), (0, -2), (0, 2)]  # of 96 pixels
    assert contrast((0, 0)) > max(contrast(move) for move in moves)


def test_a_mask_has_one_piece(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    from scipy.ndimage import label

    assert np.mean([label(mask, np.ones((3, 3)))[1] == 1 for mask in drawn[1]]) > 0.9  # a dark rim may cut it


def test_the_same_arguments_give_the_same_files(root: Path, tmp_path: Path) -> None:
    make_synthetic(tmp_path / "again", train=5, val=2, test=3, size=64, seed=7)
    assert contents(tmp_path / "again") == contents(root)
    make_synthetic(tmp_path / "other", train=5, val=2, test=3, size=64, seed=8)
    assert load_synthetic(tmp_path / "other").fingerprint != load_synthetic(root).fingerprint


def test_files_are_in_the_official_layout(root: Path) -> None:
    assert sorted(f.name for f in root.iterdir() if f.is_dir()) == sorted(FOLDERS)
    pairs = find_pairs(root / FOLDERS[0], root / FOLDERS[1])
    assert [pair.id for pair in pairs] == [f"SYN_{i:07}" for i in range(7)]
    with Image.open(pairs[2].image) as image, Image.open(pairs[2].mask) as mask:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
        assert (mask.format, mask.size, mask.mode) == ("PNG", (64, 64), "L")
        assert set(np.unique(np.array(mask))) == {0, 255}
    picture, mask = read_pair(pairs[2])
    drawn_picture, drawn_mask = draw_lesion(7, 2, 64)
    np.testing.assert_array_equal(mask, drawn_mask)
    assert np.abs(picture.astype(int) - drawn_picture).mean() < 8  # JPEG


def test_the_splits_are_complete_and_apart(root: Path) -> None:
    data = load_synthetic(root)
    assert data.name == "synthetic" and data.root == root
    assert (len(data.train), len(data.val), len(data.test)) == (5, 2, 3)
    assert data.describe() == "synthetic: train 5 of 5, validation 2 of 2, test 3 of 3"
    assert len({pair.id for pair in data.train + data.val + data.test}) == 10


def test_folders_that_cannot_serve_are_user_errors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not empty"):
        make_synthetic(root)
    with pytest.raises(UserError, match="no synthetic pictures"):
        load_synthetic(tmp_path)
    with pytest.raises(UserError, match="0, 1 and 1 pictures"):
        make_synthetic(tmp_path / "none", train=0, val=1, test=1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        make_synthetic(tmp_path / "file", train=1, val=1, test=1, size=16)
    make_synthetic(tmp_path / "part", train=1, val=1, test=1, size=16)
    for file in (tmp_path / "part").rglob("SYN_0000001*"):
        file.unlink()
    with pytest.raises(UserError, match="draw it again"):
        load_synthetic(tmp_path / "part")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "new" / "deep", train=1, val=1, test=1, size=16)
    (tmp_path / "empty").mkdir()
    make_synthetic(tmp_path / "empty", train=1, val=1, test=1, size=16)
    assert contents(tmp_path / "empty") == contents(tmp_path / "new" / "deep")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["empty", "new"]


def test_an_interrupted_call_leaves_no_folder(tmp_path: Path) -> None:
    # A background job's children ignore SIGINT; and so many pictures are not drawn before it arrives.
    code = """
import pathlib, signal, sys
from isic_smp.data.synthetic import make_synthetic
signal.signal(signal.SIGINT, signal.default_int_handler)
make_synthetic(pathlib.Path(sys.argv[1]), train=20_000)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data")], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data-*/*/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert list(tmp_path.iterdir()) == []
