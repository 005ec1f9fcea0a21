"""The official layout and the fixed split: which images are trained on, chosen by, and reported on."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from isic_smp.data import make_split
from isic_smp.data.fingerprint import fingerprint
from isic_smp.data.isic2016 import FOLDERS, TEST, TRAINING, load_isic2016, split_lists
from isic_smp.data.make_split import LISTS, SEED, VALIDATION, choose_validation
from isic_smp.data.pairs import find_pairs, read_mask
from isic_smp.errors import UserError

LISTED = {name: sorted(ids) for name, ids in split_lists().items()}


@pytest.fixture
def tiny(tmp_path):
    """Three training, two validation and two test pairs of 8 × 6 pixels, in the official layout."""
    root = tmp_path / "isic"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    chosen = {TRAINING: LISTED["train"][:3] + LISTED["val"][:2], TEST: LISTED["test"][:2]}
    for (images, masks), ids in chosen.items():
        for number, id in enumerate(ids):
            Image.new("RGB", (8, 6), (number, 50, 50)).save(root / images / f"{id}.jpg")
            Image.new("L", (8, 6), 255).save(root / masks / f"{id}_Segmentation.png")
    return root


def test_the_lists_are_the_official_split_with_a_tenth_for_validation(isic_dir):
    lists = split_lists()
    assert {name: len(ids) for name, ids in lists.items()} == {"train": 810, "val": 90, "test": 379}
    for name, listed, folders in (
        ("train", lists["train"] | lists["val"], TRAINING),
        ("test", lists["test"], TEST),
    ):
        beside = isic_dir / f"official_{name}_ids.txt"  # of a subset; a whole download says it by its files
        pairs = () if beside.exists() else find_pairs(*(isic_dir / folder for folder in folders))
        assert listed == (set(beside.read_text().split()) if beside.exists() else {pair.id for pair in pairs})
    assert not lists["train"] & lists["val"]


def test_no_lesion_is_on_both_sides_of_training_and_validation():
    lists = split_lists()
    twins = [line.split() for line in (LISTS / "near_duplicates.txt").read_text().splitlines()]
    assert len(twins) == 24
    for pair in twins:
        assert not lists["val"] & set(pair)


def test_the_lists_can_be_made_again_and_have_the_areas_of_all(isic_dir):
    lists = split_lists()
    areas = dict.fromkeys(sorted(lists["train"] | lists["val"]))
    for pair in find_pairs(*(isic_dir / folder for folder in TRAINING)):
        areas[pair.id] = float(read_mask(pair.mask).mean())
    if sum(area is not None for area in areas.values()) != 845:
        pytest.skip("the lists were made from 845 masks, this folder has another number")
    twins = set((LISTS / "near_duplicates.txt").read_text().split())
    assert set(choose_validation(areas, twins, count=VALIDATION, seed=SEED)) == lists["val"]
    known = {name: [areas[id] for id in lists[name] if areas[id] is not None] for name in ("train", "val")}
    quartiles = {name: np.percentile(values, [25, 50, 75]) for name, values in known.items()}
    assert np.abs(quartiles["train"] - quartiles["val"]).max() < 0.01


def test_making_the_lists_again_says_what_differs_and_leaves_the_package_s_own(
    tiny, tmp_path, in_this_process
):
    before = {file.name: file.read_text() for file in LISTS.iterdir()}
    made = in_this_process(make_split, tiny, tmp_path / "lists")
    assert made.returncode == 0, made.stderr
    assert "from 5 of 900 masks" in made.stdout
    assert "others than in the package's lists" in made.stdout
    lists = {
        name: (tmp_path / "lists" / f"isic2016_{name}.txt").read_text().split()
        for name in ("train", "validation")
    }
    assert {name: len(ids) for name, ids in lists.items()} == {"train": 810, "validation": 90}
    assert sorted(lists["train"] + lists["validation"]) == sorted(LISTED["train"] + LISTED["val"])
    over = in_this_process(make_split, tiny, LISTS)
    assert (over.returncode, over.stderr.count("\n")) == (2, 1)
    assert "name another folder" in over.stderr
    assert {file.name: file.read_text() for file in LISTS.iterdir()} == before


def test_images_that_are_not_official_make_no_lists(tiny, tmp_path, in_this_process):
    for folder, name in zip(TRAINING, ("mine.jpg", "mine_Segmentation.png"), strict=True):
        Image.new("L", (8, 6)).save(tiny / folder / name)
    refused = in_this_process(make_split, tiny, tmp_path / "lists")
    assert refused.returncode == 2
    assert "1 training images are not official ones (mine)" in refused.stderr
    assert not (tmp_path / "lists").exists()


def test_a_part_of_the_data_is_loaded_and_says_how_much_it_is(isic_dir):
    data = load_isic2016(isic_dir)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    for name, pairs in splits.items():
        assert [pair.id for pair in pairs] == sorted(pair.id for pair in pairs)
        assert {pair.id for pair in pairs} <= split_lists()[name]
        assert all(pair.mask.name == f"{pair.id}_Segmentation.png" for pair in pairs)
    assert len(data.train) + len(data.val) == len(list((isic_dir / TRAINING[0]).iterdir()))
    counts = [
        f"train {len(data.train)} of 810",
        f"validation {len(data.val)} of 90",
        f"test {len(data.test)} of 379",
    ]
    assert data.describe() == "isic2016: " + ", ".join(counts)


def test_the_fingerprint_knows_content_and_split_but_not_the_place(tiny, tmp_path):
    data = load_isic2016(tiny)
    cached = load_isic2016(tiny, cache_dir=tmp_path / "cache")
    assert (
        data.fingerprint
        == cached.fingerprint
        == load_isic2016(tiny, cache_dir=tmp_path / "cache").fingerprint
    )
    shutil.copytree(tiny, tmp_path / "elsewhere")
    assert load_isic2016(tmp_path / "elsewhere", cache_dir=tmp_path / "cache").fingerprint == data.fingerprint
    pairs = sorted([*data.train, *data.val], key=lambda pair: pair.id)
    assert fingerprint({"train": pairs[:2], "val": pairs[2:]}) != fingerprint(
        {"train": pairs[:3], "val": pairs[3:]}
    )


def test_a_changed_file_of_equal_length_is_read_again(tiny, tmp_path):
    before = load_isic2016(tiny, cache_dir=tmp_path)
    content = bytearray(before.val[0].image.read_bytes())
    content[-3] ^= 1
    before.val[0].image.write_bytes(content)
    assert load_isic2016(tiny, cache_dir=tmp_path).fingerprint != before.fingerprint


def test_a_second_start_reads_no_file_again_but_one_that_changed(tiny, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "isic_smp.data.fingerprint._digest", lambda path: read.append(path) or path.read_bytes().hex()
    )
    expected = load_isic2016(tiny, cache_dir=tmp_path).fingerprint
    assert len(read) == 14
    read.clear()
    assert load_isic2016(tiny, cache_dir=tmp_path).fingerprint == expected
    assert read == []
    changed = next(tiny.rglob("*.jpg"))
    status = changed.stat()
    changed.write_bytes(b"\0" * status.st_size)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))  # of the same length and time
    assert load_isic2016(tiny, cache_dir=tmp_path).fingerprint != expected
    assert read == [changed]


def test_damaged_notes_of_digests_are_made_again(tiny, tmp_path):
    expected = load_isic2016(tiny, cache_dir=tmp_path).fingerprint
    (tmp_path / "file_digests.json").write_text("[half")
    assert load_isic2016(tiny, cache_dir=tmp_path).fingerprint == expected


def test_a_missing_folder_is_named_with_the_way_to_get_it(tiny):
    shutil.rmtree(tiny / TEST[1])
    there = tiny.rename(tiny.with_name("ISIC 2016"))
    way = rf"lacks the folder {TEST[1]}; .*isic_smp\.data download --data-dir '{there}'"
    with pytest.raises(UserError, match=way):
        load_isic2016(there)


def test_an_image_without_mask_is_refused(tiny):
    (tiny / TRAINING[1] / f"{LISTED['train'][0]}_Segmentation.png").unlink()
    with pytest.raises(UserError, match=rf"1 id without a mask \({LISTED['train'][0]}\)"):
        load_isic2016(tiny)


def test_test_images_among_the_training_images_are_refused(tiny):
    for folder, ending in zip(TRAINING, (".jpg", "_Segmentation.png"), strict=True):
        side = TEST[TRAINING.index(folder)]
        shutil.copy(tiny / side / f"{LISTED['test'][0]}{ending}", tiny / folder)
    with pytest.raises(
        UserError, match=rf"1 training images are official test images \({LISTED['test'][0]}\)"
    ):
        load_isic2016(tiny)


def test_images_of_another_set_are_refused(tiny):
    Image.new("RGB", (8, 6)).save(tiny / TEST[0] / "PH2_001.jpg")
    Image.new("L", (8, 6)).save(tiny / TEST[1] / "PH2_001.png")
    with pytest.raises(UserError, match=r"1 test images are not official ones \(PH2_001\)"):
        load_isic2016(tiny)


def test_a_split_without_any_image_is_refused(tiny):
    for id in LISTED["val"][:2]:
        (tiny / TRAINING[0] / f"{id}.jpg").unlink()
        (tiny / TRAINING[1] / f"{id}_Segmentation.png").unlink()
    with pytest.raises(UserError, match="no image of the validation split"):
        load_isic2016(tiny)
