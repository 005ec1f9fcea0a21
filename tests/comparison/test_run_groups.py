"""Runs under several seeds as one group, and what the groups are called."""

import pytest
from scored import some_run

from isic_smp.comparison.groups import group_runs


def seeds(name, count, **recipe):
    return [some_run(f"{name}{n}", recipe={**recipe, "seed": n}) for n in range(count)]


def test_runs_that_differ_only_in_the_seed_are_one_group():
    frozen, tuned = seeds("f", 3, freeze=True), seeds("t", 2)
    groups = group_runs([frozen[0], tuned[0], frozen[1], tuned[1], frozen[2]])
    assert [(g.label, [r.name for r in g.runs]) for g in groups] == [
        ("frozen", ["f0", "f1", "f2"]),
        ("fine-tuned", ["t0", "t1"]),
    ]
    assert groups[0].scores.shape == (3, 3)


def test_two_seeds_of_one_recipe_are_compared_with_each_other():
    assert [g.label for g in group_runs(seeds("run", 2))] == ["run0", "run1"]
    assert [len(g.runs) for g in group_runs([*seeds("f", 2, freeze=True), *seeds("t", 2)], each=True)] == [
        1
    ] * 4


def test_names_of_files_stay_short_and_differ_however_long_the_labels_are():
    name = "x" * 300
    slugs = [group.slug for group in group_runs([some_run(f"{name}{n}") for n in range(2)], each=True)]
    assert len(set(slugs)) == 2
    assert max(map(len, slugs)) <= 100


@pytest.mark.parametrize(
    ("recipes", "labels"),
    [
        ([{"freeze": True}, {"freeze_epochs": 5}, {}], ["frozen", "gradual", "fine-tuned"]),
        ([{}, {"freeze_epochs": 5}], ["fine-tuned", "freeze_epochs 5"]),
        ([{"decoder_depth": None}, {"decoder_depth": 2}], ["decoder_depth default", "decoder_depth 2"]),
        ([{"freeze": True, "lr": 1}, {"lr": 2}], ["frozen, lr 1", "fine-tuned, lr 2"]),
        ([{"encoder_weights": "a/x.safetensors"}, {"encoder_weights": "none"}],
         ["encoder_weights x", "encoder_weights none"]),
        ([dict.fromkeys("abcd", 1), dict.fromkeys("abcd", 2)], ["run0", "run1"]),
    ],
)  # fmt: skip
def test_labels_say_what_differs(recipes, labels):
    runs = [some_run(f"run{n}", recipe=recipe) for n, recipe in enumerate(recipes)]
    assert [group.label for group in group_runs(runs)] == labels
