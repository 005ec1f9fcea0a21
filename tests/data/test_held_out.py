"""A group left out of training and validated on."""

import numpy as np
import pytest
from drawn_groups import PICTURES
from PIL import Image

from isic_smp.data.held_out import hold_out
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError


@pytest.fixture
def data(tmp_path) -> LesionData:
    pairs = {}
    for name, (image, mask) in PICTURES.items():
        for i in range(2):
            id = f"{name}{i}"
            Image.fromarray(image).save(tmp_path / f"{id}.png")
            Image.fromarray(mask * np.uint8(255)).save(tmp_path / f"{id}_Segmentation.png")
            pairs[id] = Pair(id, tmp_path / f"{id}.png", tmp_path / f"{id}_Segmentation.png")
    train = tuple(pair for id, pair in sorted(pairs.items()) if id.endswith("0"))
    val = tuple(pair for id, pair in sorted(pairs.items()) if id.endswith("1"))
    return LesionData("made", tmp_path, train, val, val[:1], "f", {"train": 5, "val": 5, "test": 1})


def test_no_picture_of_the_group_is_trained_on_and_all_are_validated_on(data, tmp_path) -> None:
    held = hold_out(data, "faint", cache_dir=tmp_path / "cache")
    assert [pair.id for pair in held.train] == ["cool0", "cut0", "plain0", "small0"]
    assert [pair.id for pair in held.val] == ["faint0", "faint1"]
    assert held.fingerprint != data.fingerprint  # its runs are not comparable with those on all pictures
    assert held.test == () and held.official == {"train": 4, "val": 2, "test": 0}
    hard = hold_out(data, "hard", cache_dir=tmp_path / "cache")
    assert [pair.id for pair in hard.train] == ["plain0"] and len(hard.val) == 8


def test_an_unknown_or_an_empty_group_is_refused(data, tmp_path) -> None:
    with pytest.raises(UserError, match="no group 'odd' to hold out: expected one of faint, small"):
        hold_out(data, "odd", cache_dir=tmp_path / "cache")
    plain = LesionData("made", tmp_path, data.train[3:4], data.val[3:4], (), "f", data.official)
    with pytest.raises(UserError, match="leaves 1 pictures to train on and 0 to validate on"):
        hold_out(plain, "cool", cache_dir=tmp_path / "cache")


DIAGNOSES = {"cool0": "melanoma", "cut1": "melanoma", "faint0": " ", "small0": "basal-cell carcinoma"}
"""Of the pictures that are in the table; all others are nevi but one, which it does not hold."""


def write_diagnoses(data: LesionData) -> None:
    ids = [pair.id for pair in (*data.train, *data.val) if pair.id != "plain0"]
    rows = [f"{id},{DIAGNOSES.get(id, 'nevus')}" for id in ids]
    (data.root / "manifest.csv").write_text("\n".join(["id,diagnosis", *rows]))


def test_a_diagnosis_is_held_out_and_what_has_none_is_on_neither_side(data, tmp_path) -> None:
    write_diagnoses(data)
    held = hold_out(data, "diagnosis:melanoma", cache_dir=tmp_path / "cache")
    assert [pair.id for pair in held.train] == ["cut0", "small0"]
    assert [pair.id for pair in held.val] == ["cool0", "cut1"]
    assert held.test == () and held.official == {"train": 2, "val": 2, "test": 0}
    other = hold_out(data, "diagnosis:basal-cell carcinoma", cache_dir=tmp_path / "cache")
    assert [pair.id for pair in other.val] == ["small0"]
    assert len({each.fingerprint for each in (data, held, other)}) == 3


def test_a_diagnosis_that_no_picture_has_is_refused(data, tmp_path) -> None:
    with pytest.raises(
        UserError,
        match=r"needs a manifest.csv, with commas and the columns id and diagnosis, in .*; there is none$",
    ):
        hold_out(data, "diagnosis:melanoma", cache_dir=tmp_path)
    (tmp_path / "manifest.csv").write_text("id;diagnosis\ncool0;melanoma")
    with pytest.raises(UserError, match=r"there is none with those$"):
        hold_out(data, "diagnosis:melanoma", cache_dir=tmp_path)
    write_diagnoses(data)
    with pytest.raises(
        UserError, match=r"'Melanoma': expected one .*\(basal-cell carcinoma, melanoma, nevus\)"
    ):
        hold_out(data, "diagnosis:Melanoma", cache_dir=tmp_path)
    (tmp_path / "manifest.csv").write_text("id,diagnosis\ncool0,melanoma")
    with pytest.raises(UserError, match="leaves 0 pictures to train on and 1 to validate on"):
        hold_out(data, "diagnosis:melanoma", cache_dir=tmp_path)
