import numpy as np

from isic_smp.assessment.subgroups import by_border, by_diagnosis, score_groups, size_thirds, worst_group


def test_groups_are_scored_with_their_count_and_the_worst_is_named():
    iou = np.concatenate([np.full(12, 0.9), np.full(12, 0.6), np.full(3, 0.1)])
    kind = np.repeat([0, 1, 2], [12, 12, 3])
    named = {name: kind == n for n, name in enumerate(("easy", "hard", "rare"))}
    groups = score_groups({"kind": named, "none": {"nobody": kind > 5}}, dice=iou + 0.05, iou=iou)
    assert [(g.name, g.images, g.failures) for g in groups] == [
        ("easy", 12, 0),
        ("hard", 12, 12),
        ("rare", 3, 3),
    ]
    assert np.isclose(groups[1].iou, 0.6)
    assert np.isclose(groups[1].dice, 0.65)
    worst = worst_group(groups)
    assert worst is not None
    assert worst.name == "hard"  # three images are too few to be held against a model
    assert worst_group(groups[2:]) is None


def test_images_without_a_diagnosis_are_in_no_group():
    groups = by_diagnosis(("a", "b", "c"), {"a": "naevus", "b": ""})
    assert {name: chosen.tolist() for name, chosen in groups.items()} == {
        "diagnosis naevus": [True, False, False]
    }


def test_border_groups_part_all_images():
    reaches, inside = by_border(np.array([True, False])).values()
    assert (reaches ^ inside).all()
    assert reaches.tolist() == [True, False]


def test_thirds_hold_equally_many_lesions():
    thirds = size_thirds(np.array([0.5, 0.012, 0.3, 0.31, 0.02, 0.7]))
    assert list(thirds) == [
        "small lesions, 1.2–2 % of the image",
        "medium lesions, 30–31 % of the image",
        "large lesions, 50–70 % of the image",
    ]
    assert [mask.sum() for mask in thirds.values()] == [2, 2, 2]
    assert "large lesions, 50–100 % of the image" in size_thirds(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.999]))
