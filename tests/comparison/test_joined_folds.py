"""Runs on folds, taken together."""

import numpy as np
import pytest
from scored import some_run

from isic_smp.comparison.folds import join_folds
from isic_smp.comparison.groups import group_runs
from isic_smp.comparison.runs import check_comparable
from isic_smp.errors import UserError

IDS = [("c", "a"), ("d",), ("b",)]


def fold(n: int, name: str = "r", data: str = "f", by: str = "", **recipe):
    ids = IDS[n - 1]
    part = f"{n}/3{by}"
    return some_run(
        f"{name}{n}",
        scores=[ord(id) / 1000 for id in ids],
        ids=ids,
        lesion_area=np.array([ord(id) / 500 for id in ids]),
        data={
            "name": "made",
            "fingerprint": f"{data}-fold-{part}{'-0a1b' if by else ''}",
            "description": "…",
            "fold": part,
        },
        recipe=recipe,
    )


def test_folds_of_a_recipe_become_one_run_of_all_images_in_order():
    plain = some_run("plain")
    runs = [
        fold(2),
        fold(1, "z", lr=0.2),
        plain,
        fold(3),
        fold(2, "z", lr=0.2),
        fold(1),
        fold(3, "z", lr=0.2),
    ]
    whole, other, same = join_folds(runs)
    assert same is plain
    assert whole.ids == other.ids == ("a", "b", "c", "d")
    assert whole.scores.tolist() == [0.097, 0.098, 0.099, 0.1]
    assert whole.lesion_area.tolist() == [0.194, 0.196, 0.198, 0.2]
    assert whole.data == {
        "name": "made",
        "fingerprint": "f",
        "description": "made: 4 training images in 3 folds",
        "folds": "3",
    }
    assert other.recipe["lr"] == 0.2 and whole.recipe["lr"] == 0.1
    assert [run.name for run in whole.members] == ["r2", "r3", "r1"]
    assert [whole.member_for(id).name for id in "abcd"] == ["r1", "r3", "r1", "r2"]


def test_folds_of_whole_cameras_are_taken_together_and_held_against_others():
    runs = [fold(n, name, by=by) for n in (1, 2, 3) for name, by in (("r", ""), ("c", ":cameras"))]
    plain, by_camera = join_folds(runs)
    check_comparable([plain, by_camera])
    assert [run.name for run in by_camera.members] == ["c1", "c2", "c3"]
    assert by_camera.data["description"] == "made: 4 training images in 3 folds of whole cameras"
    other = join_folds([fold(n, "z", lr=0.2) for n in (1, 2, 3)])
    assert [len(group.runs) for group in group_runs([plain, by_camera, *other])] == [1, 1, 1]
    labels = [group.label for group in group_runs([plain, by_camera])]
    assert labels == ["3 folds", "3 folds of whole cameras"]
    with pytest.raises(UserError, match=r"train the others \(run --fold 2/3:cameras"):
        join_folds([fold(n, by=":cameras") for n in (1, 3)])


def test_seeds_stay_apart():
    runs = [fold(n, name, seed=seed) for name, seed in (("r", 0), ("s", 1)) for n in (1, 2, 3)]
    assert [run.seed for run in join_folds(runs)] == [0, 1]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([fold(1), fold(3)], r"needs all 3 .* of r1's there are 1, 3: train the others \(run --fold 2/3"),
        ([fold(1), fold(2), fold(3), fold(2, "s")], "fold 2/3 is there twice, as r2 and s2"),
        ([fold(1), fold(2), fold(3, data="g")], "of r1's there are 1, 2"),
    ],
)
def test_what_is_no_whole_cross_validation_is_refused(runs, message):
    with pytest.raises(UserError, match=message):
        join_folds(runs)


def test_folds_that_share_images_are_refused():
    odd = some_run("r3", ids=("a", "x", "y"), data=fold(3).data)
    with pytest.raises(UserError, match="the folds of r1 share images"):
        join_folds([fold(1), fold(2), odd])
