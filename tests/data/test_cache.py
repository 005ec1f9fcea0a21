"""The pixel cache: right pixels, made once, by one process, or not at all."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from isic_smp.data.cache import open_pixel_cache
from isic_smp.data.pairs import Pair, find_pairs, read_pair
from isic_smp.data.resize import resize_image, resize_mask
from isic_smp.data.resized import read_reduced, read_resized
from isic_smp.errors import UserError


def write_pairs(root: Path, count: int, *, shape: tuple[int, int] = (60, 80), seed: int = 0) -> list[Pair]:
    """Noise with a filled rectangle as the lesion; each pair with a size of its own."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        height, width = shape[0] + i % 5, shape[1]
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2, width // 3 : width // 2 + i % 7] = 255
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"ISIC_{i:07}.jpg")
        Image.fromarray(mask).save(root / "masks" / f"ISIC_{i:07}_Segmentation.png")
    return find_pairs(root / "images", root / "masks")


def open_quietly(pairs: list[Pair], size: int, cache_dir: Path):
    return open_pixel_cache(pairs, size, cache_dir=cache_dir, progress=False)


def run_python(code: str, *arguments: object) -> subprocess.Popen:
    prelude = "from pathlib import Path; import sys\nfrom tests.data.test_cache import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def folders(cache_dir: Path) -> list[str]:
    return sorted(path.name for path in cache_dir.iterdir() if path.is_dir())


def test_reads_the_resized_pixels_in_any_order(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 40)
    cache = open_quietly(pairs, 32, tmp_path / "cache")
    assert len(cache) == 40 and cache.size == 32 and cache.ids == tuple(pair.id for pair in pairs)
    order = [7, 8, 9, 3, 3, 39, 0, 1, 2, 20, 19]
    images, masks = cache.read(np.array(order))
    assert images.shape == (11, 32, 32, 3) and masks.shape == (11, 32, 32)
    assert images.dtype == masks.dtype == np.uint8
    for row, index in enumerate(order):
        image, mask = read_pair(pairs[index])
        np.testing.assert_array_equal(images[row], resize_image(image, 32))
        np.testing.assert_array_equal(masks[row], resize_mask(mask, 32))
        assert tuple(cache.original_sizes[index]) == mask.shape
    np.testing.assert_array_equal(cache.read_masks(order), masks)
    everything, _ = cache.read(range(40))
    np.testing.assert_array_equal(everything[order], images)


def test_indices_outside_are_refused_rather_than_wrapped(tmp_path: Path) -> None:
    cache = open_quietly(write_pairs(tmp_path, 3), 16, tmp_path / "cache")
    for indices in ([0, 3], [-1]):
        with pytest.raises(IndexError, match="holds 3"):
            cache.read(indices)
    images, masks = cache.read([])
    assert images.shape == (0, 16, 16, 3) and masks.shape == (0, 16, 16)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("width_height", [(1600, 1200), (1601, 1577)])
def test_large_jpegs_come_out_as_from_a_full_decode(
    tmp_path: Path, width_height: tuple[int, int], orientation: int
) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(width_height, 2)
    noisy = np.clip(np.array(coarse) + rng.normal(0, 8, (*width_height[::-1], 1)), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noisy).save(tmp_path / "a.jpg", quality=90, exif=exif)
    upright = width_height if orientation == 1 else width_height[::-1]
    Image.new("L", upright, 255).save(tmp_path / "a.png")
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "a.png")
    image, mask, own = read_resized(pair, 64)
    full, _ = read_pair(pair)
    assert own == full.shape[:2] == upright[::-1] and mask.all()
    assert np.abs(image.astype(int) - resize_image(full, 64)).max() <= 2


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    found: list[object] = []
    reading = threading.Thread(target=lambda: found.append(read_reduced(tmp_path / "a.jpg", 64)), daemon=True)
    reading.start()
    reading.join(timeout=20)
    assert found == [None]


def test_is_made_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path, 4), tmp_path / "cache"
    before, _ = open_quietly(pairs, 16, cache_dir).read(range(4))
    again = open_quietly(pairs, 16, cache_dir)
    assert list(cache_dir.glob("pixels-*")) == [again.folder]
    victim = pairs[2].image
    Image.new("RGB", (80, 62), (200, 10, 10)).save(victim)
    changed, _ = open_quietly(pairs, 16, cache_dir).read(range(4))
    assert np.abs(changed[2].astype(int) - (200, 10, 10)).max() < 5
    np.testing.assert_array_equal(changed[[0, 1, 3]], before[[0, 1, 3]])


def test_other_masks_of_the_same_length_and_time_are_others(tmp_path: Path) -> None:
    """As uncompressed ones of a second annotator, unpacked from an archive of fixed times, are."""
    [pair] = write_pairs(tmp_path, 1)
    for annotator, value in (("one", 0), ("another", 255)):
        mask = tmp_path / f"{annotator}.bmp"
        Image.new("L", (80, 60), value).save(mask)
        os.utime(mask, (1.6e9, 1.6e9))
        cache = open_quietly([Pair(pair.id, pair.image, mask)], 16, tmp_path / "cache")
        assert (cache.read_masks([0]) == value // 255).all()


def test_a_moved_data_set_keeps_its_cache_and_a_subset_has_its_own(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path / "here", 4), tmp_path / "cache"
    open_quietly(pairs, 16, cache_dir)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = find_pairs(tmp_path / "there" / "images", tmp_path / "there" / "masks")
    open_quietly(moved, 16, cache_dir)
    assert len(folders(cache_dir)) == 1
    assert len(open_quietly(moved[1:], 16, cache_dir)) == 3
    open_quietly(moved, 24, cache_dir)
    assert len(folders(cache_dir)) == 3


def test_grey_masks_need_to_be_asked_for(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path, 2), tmp_path / "cache"
    Image.fromarray(np.tile(np.arange(80, dtype=np.uint8) * 3, (61, 1))).save(pairs[1].mask)
    with pytest.raises(UserError, match=pairs[1].mask.name):
        open_quietly(pairs, 16, cache_dir)
    cache = open_pixel_cache(pairs, 16, cache_dir=cache_dir, binarize_masks=True, progress=False)
    _, masks = cache.read([1])
    assert set(np.unique(masks)) == {0, 1}
    with pytest.raises(UserError, match=pairs[1].mask.name):  # not served from the lenient cache
        open_quietly(pairs, 16, cache_dir)


def test_a_broken_file_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path, 40), tmp_path / "cache"
    pairs[33].image.write_bytes(pairs[33].image.read_bytes()[:200])
    with pytest.raises(UserError, match=r"ISIC_0000033\.jpg"):
        open_quietly(pairs, 16, cache_dir)
    assert folders(cache_dir) == []
    pairs[5].mask.unlink()
    with pytest.raises(UserError, match="ISIC_0000005_Segmentation"):
        open_quietly(pairs, 16, cache_dir)
    with pytest.raises(UserError, match="no images"):
        open_quietly([], 16, cache_dir)


def test_a_killed_build_leaves_no_cache_and_is_cleared_away(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path, 60, shape=(300, 400)), tmp_path / "cache"
    code = "open_quietly(find_pairs(*map(Path, sys.argv[1:3])), 256, Path(sys.argv[3]))"
    process = run_python(code, tmp_path / "images", tmp_path / "masks", cache_dir)
    deadline = time.monotonic() + 60
    while not (cache_dir / ".building" / "pixels.u8").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert folders(cache_dir) == [".building"]
    assert len(open_quietly(pairs, 256, cache_dir)) == 60
    assert [name.split("-")[0] for name in folders(cache_dir)] == ["pixels"]


def test_processes_that_build_at_once_share_one_cache(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path, 40), tmp_path / "cache"
    code = (
        "c = open_quietly(find_pairs(*map(Path, sys.argv[1:3])), 64, Path(sys.argv[3]));"
        "import hashlib; print(hashlib.sha256(c.read(range(40))[0]).hexdigest())"
    )
    processes = [run_python(code, tmp_path / "images", tmp_path / "masks", cache_dir) for _ in range(3)]
    results = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in results}) == 1 and all(out.strip() for out, _ in results), results
    assert len(folders(cache_dir)) == 1
    assert len(open_quietly(pairs, 64, cache_dir)) == 40


def test_no_room_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    write_pairs(tmp_path, 8)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the system's answer is that of a full disk
try:
    open_quietly(find_pairs(*map(Path, sys.argv[1:3])), 64, Path(sys.argv[3]))
except UserError as error:
    print(error)
"""
    out, err = run_python(code, tmp_path / "images", tmp_path / "masks", tmp_path / "cache").communicate()
    assert "cannot write the pixel cache" in out and out.count("\n") == 1, out + err
    assert folders(tmp_path / "cache") == []


def test_a_cache_folder_that_cannot_be_is_a_user_error(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 1)
    with pytest.raises(UserError, match="choose another --cache-dir"):
        open_quietly(pairs, 16, pairs[0].image / "cache")


def test_a_truncated_cache_is_refused(tmp_path: Path) -> None:
    pairs, cache_dir = write_pairs(tmp_path, 3), tmp_path / "cache"
    pixels = open_quietly(pairs, 16, cache_dir).folder / "pixels.u8"
    pixels.write_bytes(pixels.read_bytes()[:-1])
    with pytest.raises(UserError, match="delete that folder"):
        open_quietly(pairs, 16, cache_dir)


def test_travels_to_other_processes(tmp_path: Path) -> None:
    cache = open_quietly(write_pairs(tmp_path, 6), 16, tmp_path / "cache")
    expected, _ = cache.read([4, 1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).read([4, 1])[0], expected)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(cache.read, [4, 1]).result()[0], expected)


def test_memory_stays_flat_while_building_and_reading(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, 400, shape=(16, 16))
    process = psutil.Process()
    before = process.memory_info().rss
    cache = open_quietly(pairs, 256, tmp_path / "cache")
    for start in range(0, 400, 20):
        cache.read(range(start, start + 20))
    length = (cache.folder / "pixels.u8").stat().st_size
    assert length > 100e6
    assert process.memory_info().rss - before < length / 2
