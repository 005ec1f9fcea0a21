"""Parts of the training images for cross-validation."""

from pathlib import Path

import pytest
from PIL import Image

from isic_smp.data.folds import Fold, parse_fold, take_fold
from isic_smp.data.isic2016 import LesionData, lesions_seen_twice, split_lists
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError


def data_of(train: list[str], val: list[str], name: str = "isic2016") -> LesionData:
    def pairs(ids: list[str]) -> tuple[Pair, ...]:
        return tuple(Pair(id, Path(f"{id}.jpg"), Path(f"{id}.png")) for id in sorted(ids))

    counts = {"train": len(train), "val": len(val), "test": 1}
    return LesionData(name, Path(), pairs(train), pairs(val), pairs(["T"]), "f", counts)


@pytest.fixture
def official() -> LesionData:
    lists = split_lists()
    return data_of(sorted(lists["train"]), sorted(lists["val"]))


def ids(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.id for pair in pairs]


def pictures_of(folder: Path, name: str, frames: dict[str, tuple[int, int]]) -> LesionData:
    """Data of the ids in `frames`, a picture of that width and height each."""
    for id, frame in frames.items():
        Image.new("RGB", frame).save(folder / f"{id}.png")
    pairs = tuple(Pair(id, folder / f"{id}.png", folder / f"{id}.png") for id in sorted(frames))
    return LesionData(name, folder, pairs, (), (), "f", {"train": len(pairs), "val": 0, "test": 0})


def test_each_image_is_validated_on_once_and_never_trained_on_meanwhile(official) -> None:
    everyone = sorted(ids(official.train) + ids(official.val))
    folds = [take_fold(official, Fold(n, 5)) for n in range(1, 6)]
    assert sorted(id for fold in folds for id in ids(fold.val)) == everyone
    for fold in folds:
        assert sorted(ids(fold.train) + ids(fold.val)) == everyone
        assert ids(fold.train) == sorted(ids(fold.train)) and ids(fold.val) == sorted(ids(fold.val))
        assert 176 <= len(fold.val) <= 184 and fold.test == ()
    assert len({fold.fingerprint for fold in folds} | {official.fingerprint}) == 6


def test_images_of_one_lesion_are_in_one_part(official) -> None:
    within = [pair for pair in lesions_seen_twice() if set(pair) <= set(ids(official.train))]
    assert len(within) == 11
    for n in range(1, 6):
        held = set(ids(take_fold(official, Fold(n, 5)).val))
        assert all((one in held) == (other in held) for one, other in within)


def test_an_image_stays_in_its_part_where_others_are_not_at_hand(official) -> None:
    some = data_of(ids(official.train)[::3], ids(official.val)[::2])
    for n in range(1, 6):
        whole = set(ids(take_fold(official, Fold(n, 5)).val))
        assert set(ids(take_fold(some, Fold(n, 5)).val)) == whole & set(ids(some.train) + ids(some.val))


def test_a_camera_is_in_one_part_and_the_parts_are_as_even_as_cameras_allow(tmp_path) -> None:
    frames = {
        f"{camera}{n}": (side, 8) for camera, side in zip("abcd", (10, 20, 30, 40), strict=True) for n in "12"
    }
    made = pictures_of(tmp_path, "made", frames | {"a3": (10, 8), "a4": (8, 10), "e1": (80, 8)})
    folds = [take_fold(made, Fold(n, 3, by_camera=True)) for n in (1, 2, 3)]
    assert [ids(fold.val) for fold in folds] == [
        ["a1", "a2", "a3", "a4"],
        ["b1", "b2", "d1", "d2"],
        ["c1", "c2", "e1"],
    ]
    for fold in folds:
        assert sorted(ids(fold.train) + ids(fold.val)) == ids(made.train) and fold.test == ()
    assert [fold.fingerprint[:-13] for fold in folds] == [f"f-fold-{n}/3:cameras" for n in (1, 2, 3)]
    assert len({fold.fingerprint[-13:] for fold in folds}) == 1


def test_a_lesion_that_two_cameras_saw_is_not_trained_on_where_it_is_validated_on(tmp_path) -> None:
    one, other = lesions_seen_twice()[0]
    made = pictures_of(tmp_path, "isic2016", {one: (10, 8), other: (20, 8), "x": (10, 8), "y": (20, 8)})
    fold = take_fold(made, Fold(1, 2, by_camera=True))
    assert (ids(fold.val), ids(fold.train)) == (sorted([one, "x"]), ["y"])


def test_parts_of_more_cameras_than_there_are_are_refused(tmp_path) -> None:
    made = pictures_of(tmp_path, "made", {"a": (10, 8), "b": (10, 8), "c": (20, 8)})
    with pytest.raises(UserError, match=r"3 parts of whole cameras .* tell 2 apart: ask for fewer parts"):
        take_fold(made, Fold(1, 3, by_camera=True))


def test_other_data_are_dealt_out_evenly() -> None:
    made = data_of([f"a{i}" for i in range(10)], ["b1", "b2"], name="made")
    assert [len(take_fold(made, Fold(n, 4)).val) for n in range(1, 5)] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    "text", ["0/5", "6/5", "1/1", "1/21", "2", "a/b", "1/5/2", "", "1.0/5", "\u0662/5", "1/5:", "1/5:light"]
)
def test_what_is_no_fold_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a fold is like 2/5, the second of five parts"):
        parse_fold(text)


def test_a_fold_reads_as_it_is_written() -> None:
    for text, fold in (("2/5", Fold(2, 5)), ("2/5:cameras", Fold(2, 5, by_camera=True))):
        assert parse_fold(text) == fold and str(fold) == text


def test_more_parts_than_images_are_refused() -> None:
    made = data_of(["a", "b"], ["c"], name="made")
    with pytest.raises(UserError, match="leaves 3 images to train on and 0 to validate on"):
        take_fold(made, Fold(4, 5))
