"""Groups told from pixels, and a group left out of training."""

import cv2
import numpy as np
import pytest
from PIL import Image

from isic_smp.data.groups import GROUPS, hold_out, marks
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError

WARM, COOL = (210, 170, 150), (170, 180, 210)


def picture(
    skin: tuple[int, ...], lesion: tuple[int, ...], radius: float, centre: tuple[int, int] = (64, 64)
) -> tuple[np.ndarray, np.ndarray]:
    mask = cv2.circle(np.zeros((128, 128), np.uint8), centre, round(radius), 1, -1)
    return np.where(mask[..., None] > 0, np.uint8(lesion), np.uint8(skin)), mask


PICTURES = {
    "plain": picture(WARM, (90, 60, 50), 30),
    "faint": picture(WARM, (205, 160, 140), 30),
    "small": picture(WARM, (90, 60, 50), 12),
    "cut": picture(WARM, (90, 60, 50), 40, (20, 64)),
    "cool": picture(COOL, (90, 60, 50), 30),
}


def groups_of(name: str) -> set[str]:
    image, mask = PICTURES[name]
    found = marks(image[None], mask[None])
    return {group for group, belongs in GROUPS.items() if belongs(found)[0]}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_in_the_group_that_it_was_drawn_for(name: str) -> None:
    assert groups_of(name) == (set() if name == "plain" else {name, "hard"})


def test_masks_that_are_empty_or_full_have_a_place_too() -> None:
    image = PICTURES["plain"][0]
    for mask in (np.zeros((128, 128), np.uint8), np.ones((128, 128), np.uint8)):
        found = marks(image[None], mask[None])
        assert all(np.isfinite(values).all() for values in found.values())
        assert GROUPS["faint"](found)[0]  # no skin to be told from


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
