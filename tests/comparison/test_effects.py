"""What a comparison finds, and the answer in words."""

import numpy as np
import pytest
from scored import some_run

from isic_smp.comparison.cases import pick_cases
from isic_smp.comparison.effects import compare_groups
from isic_smp.comparison.groups import Group, group_runs
from isic_smp.comparison.text import caveats


def compared(*scores, recipes=None):
    recipes = recipes or [{"freeze": True}] + [{"lr": 0.1 * n} for n in range(1, len(scores))]
    runs = [some_run(f"run{n}", s, recipe=r) for n, (s, r) in enumerate(zip(scores, recipes, strict=True))]
    return compare_groups(group_runs(runs), metric="dice")


def noise(seed, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 0.01, 60)


BASE = np.random.default_rng(0).uniform(0.6, 0.9, 60)
HIGHER = BASE + noise(1, mean=0.02)


def test_the_answer_names_the_better_one_whatever_the_order():
    [one], [other] = compared(BASE, HIGHER), compared(HIGHER, BASE)
    gain = f"{(HIGHER - BASE).mean():.4f} Dice (95 % interval 0.01"
    assert one.answer().startswith(f"fine-tuned is better than frozen by {gain}")
    assert other.answer().startswith(f"frozen is better than fine-tuned by {gain}")
    assert one.answer().endswith(") on 60 images; Wilcoxon p < 0.0001.")


def test_no_difference_is_said_to_be_none():
    [same] = compared(BASE, BASE + noise(2))
    assert same.answer().startswith("No difference between fine-tuned and frozen can be shown: ")


def test_a_mean_carried_by_a_few_images_is_said_to_be():
    few = np.arange(60) % 6 == 0
    [found] = compared(BASE, BASE + np.where(few, 0.3, noise(3, mean=-0.004)))
    assert "; that is the mean, and the bulk of the images does not confirm it (" in found.answer()
    [found] = compared(BASE, BASE + np.where(few, 0.3, -0.002))
    assert found.answer().startswith("fine-tuned is better than frozen by 0.0483")
    assert "; that is the mean, and the bulk of the images points the other way (" in found.answer()


def test_a_shift_that_the_mean_does_not_show_is_named():
    [found] = compared(BASE, BASE + np.where(np.arange(60) == 0, -1.2, 0.01))
    assert found.answer().startswith("No difference")
    assert "though, a shift is seen (Wilcoxon p < 0.0001)." in found.answer()


def test_several_comparisons_are_corrected():
    found = compared(BASE, HIGHER, BASE + noise(4, mean=0.003))
    raw = [c.overall.p_value for c in found]
    assert found[0].p_holm == pytest.approx(2 * raw[0])
    assert found[1].p_holm == raw[1]
    assert "after Holm's correction" in found[0].answer()


def test_of_many_comparisons_one_that_is_barely_shown_alone_is_not():
    change = noise(5)
    barely = BASE + 0.003 + change - change.mean()
    [alone] = compared(BASE, barely)
    assert alone.answer().startswith("fine-tuned is better than frozen")
    among = compared(BASE, barely, *(BASE + noise(n) for n in range(10, 18)))[0]
    assert (among.overall.ci_low, among.overall.ci_high) == (alone.overall.ci_low, alone.overall.ci_high)
    assert among.answer().startswith("No difference")
    assert "(95 % interval, 9 comparisons at once, " in among.answer()


def test_seeds_widen_the_interval():
    frozen = [
        some_run(f"f{n}", BASE + shift, recipe={"freeze": True, "seed": n})
        for n, shift in enumerate((-0.05, 0, 0.05))
    ]
    tuned = [some_run(f"t{n}", HIGHER, recipe={"seed": n}) for n in range(3)]
    [found] = compare_groups(group_runs([*frozen, *tuned]), metric="dice")
    assert found.overall.ci_low < 0 < found.overall.images_ci_low
    assert found.answer().startswith("No difference")


def test_a_run_that_is_there_twice_is_not_taken_for_another_seed_unsaid():
    def notes(second_seed: int) -> list[str]:
        frozen = [some_run(f"f{seed}", recipe={"freeze": True, "seed": seed}) for seed in (0, second_seed)]
        return [line for line in caveats(group_runs([*frozen, some_run("tuned")])) if "have the seed" in line]

    [note] = notes(second_seed=0)
    assert note.startswith("Several runs of frozen have the seed 0: ")
    assert notes(second_seed=1) == []


def test_what_few_seeds_leave_open_is_said():
    def notes(*counts: int) -> list[str]:
        runs = [
            some_run(f"{group}{seed}", recipe={"lr": group, "seed": seed})
            for group, count in enumerate(counts, 1)
            for seed in range(count)
        ]
        return caveats(group_runs(runs))

    [note] = notes(1, 1)
    assert note.startswith("One run each: ")
    assert notes(3, 2) == []
    [note] = notes(3, 1)
    assert note.startswith("Only one run of lr 2: other seeds of it are taken to differ")
    [note, between] = notes(1, 1, 3)
    assert note.startswith("Only one run of lr 1 and lr 2: ")
    assert between == "Between lr 1 and lr 2 the interval leaves out what other seeds would give."


def test_first_weights_that_may_know_what_was_kept_from_training_are_noted():
    def notes(division: str, **recipe) -> list[str]:
        data = {"name": "isic2016", "fingerprint": "0" * 64 + division, "description": "…"}
        groups = group_runs([some_run("a", data=data), some_run("b", data=data, recipe=recipe)])
        return [line for line in caveats(groups) if "scores flatter" in line]

    [note] = notes("-without-hard", encoder_weights="isic2016")
    assert note.startswith("encoder_weights isic2016 starts from weights that were trained on lesions")
    assert len(notes("-without-hard", init_from="runs/x")) == 1
    assert notes("", encoder_weights="isic2016") == notes("-without-hard", lr=0.2) == []


def test_cases_are_the_largest_gains_then_the_largest_losses_of_the_typical_seed():
    a = Group("a", (some_run("a0", [0.5] * 5),))
    b = Group(
        "b",
        tuple(some_run(f"b{n}", scores) for n, scores in enumerate(
            ([0.9, 0.6, 0.5, 0.4, 0.0], [0.1, 0.6, 0.5, 0.4, 0.2], [0.6, 0.6, 0.5, 0.4, 0.1])
        )),
    )  # fmt: skip
    [found] = compare_groups([a, b], metric="dice")
    assert [(c.index, c.runs[1].name) for c in pick_cases(found, 2)] == [
        (1, "b0"),
        (0, "b2"),
        (4, "b2"),
        (3, "b0"),
    ]


@pytest.mark.parametrize(
    ("other_seeds", "is_paired"), [((0, 1, 2), True), ((3, 4, 5), False), ((0, 1), False)]
)
def test_runs_are_paired_by_seed_only_where_the_seeds_are_the_same(other_seeds, is_paired):
    def group(label, scores, seeds):
        luck = np.linspace(-0.05, 0.05, len(seeds))  # of a seed, shared by all that begin with it
        runs = [
            some_run(f"{label}{s}", scores + x, recipe={"seed": s}) for s, x in zip(seeds, luck, strict=True)
        ]
        return Group(label, tuple(runs))

    groups = [group("a", BASE, (0, 1, 2)), group("b", HIGHER, other_seeds)]
    [found] = compare_groups(groups, metric="dice", paired_seeds=True)
    assert (found.overall.ci_high - found.overall.ci_low < 0.01) == is_paired
