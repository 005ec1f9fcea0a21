import tracemalloc

import numpy as np
import pytest
from scipy import stats as reference

from isic_smp.stats import bootstrap_means, compare_paired, holm, signed_rank

EFFECT = 0.01


def scores(rng, *, seeds, images, seed_sd=0.0):
    """Two methods on the same images, b better by EFFECT on average."""
    hardness = rng.normal(0.8, 0.1, images)
    effect = rng.normal(EFFECT, 0.05, images)
    a, b = (
        level + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.02, (seeds, images))
        for level in (hardness, hardness + effect)
    )
    return a, b


def coverage(*, seeds, images, seed_sd=0.0, shared_sd=0.0, paired_seeds=False, trials=250):
    """Shares of 95 % intervals (over seeds and images, over images) that hold the true effect."""
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    for trial in range(trials):
        a, b = scores(rng, seeds=seeds, images=images, seed_sd=seed_sd)
        shared = rng.normal(0, shared_sd, (seeds, 1))
        found = compare_paired(a + shared, b + shared, paired_seeds=paired_seeds, seed=trial, resamples=300)
        hits += found.ci_low <= EFFECT <= found.ci_high, found.images_ci_low <= EFFECT <= found.images_ci_high
    return hits / trials


@pytest.mark.parametrize("images", [3, 100])
def test_intervals_of_few_images_hold_the_truth_as_often_as_they_say(images):
    both, alone = coverage(seeds=1, images=images)
    assert 0.9 <= both <= 0.98
    assert both == alone


@pytest.mark.parametrize("seeds", [2, 3])
def test_only_the_interval_over_seeds_holds_where_few_seeds_differ(seeds):
    both, alone = coverage(seeds=seeds, images=300, seed_sd=0.006)
    assert 0.9 <= both <= 0.99
    assert alone < 0.85  # too sure of itself: it knows nothing of other seeds


def test_a_single_seed_borrows_the_spread_of_the_others():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(250):
        a, b = scores(rng, seeds=3, images=300, seed_sd=0.006)
        found = compare_paired(a[:1], b, seed=trial, resamples=300)
        hits += found.ci_low <= EFFECT <= found.ci_high
    assert 0.87 <= hits / 250 <= 0.99


def test_intervals_of_paired_seeds_hold_the_truth_where_a_seed_is_good_or_bad_for_both():
    both, _ = coverage(seeds=3, images=300, paired_seeds=True, shared_sd=0.02, seed_sd=0.004)
    assert 0.9 <= both <= 0.99


def test_a_seed_that_is_good_or_bad_for_both_widens_no_interval_of_paired_seeds():
    rng = np.random.default_rng(0)
    a, b = scores(rng, seeds=3, images=300)
    shared = np.array([[-0.05], [0.0], [0.05]])
    apart, together = (compare_paired(a + shared, b + shared, paired_seeds=pairs) for pairs in (False, True))
    alike = compare_paired(a, b, paired_seeds=True)
    assert (together.ci_low, together.ci_high) == pytest.approx((alike.ci_low, alike.ci_high))
    assert together.ci_high - together.ci_low < 0.3 * (apart.ci_high - apart.ci_low)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    a, b = scores(rng, seeds=1, images=200)
    paired = compare_paired(a, b)
    shuffled = compare_paired(a, rng.permuted(b, axis=1))
    assert paired.difference == pytest.approx(shuffled.difference)
    assert paired.ci_high - paired.ci_low < 0.6 * (shuffled.ci_high - shuffled.ci_low)


def test_interval_agrees_with_scipy_bootstrap():
    a, b = scores(np.random.default_rng(1), seeds=1, images=150)
    theirs = reference.bootstrap(
        (b[0] - a[0],), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = compare_paired(a, b)
    assert ours.ci_low == pytest.approx(theirs.low, abs=5e-4)
    assert ours.ci_high == pytest.approx(theirs.high, abs=5e-4)
    assert ours.difference == pytest.approx(np.mean(b - a))


def test_identical_scores_show_nothing():
    a = np.random.default_rng(0).random((2, 30))
    same = compare_paired(a, a[::-1])  # the same seeds in another order: equal means, up to rounding
    assert (same.better, same.worse, same.equal, same.p_value) == (0, 0, 1, 1)
    assert same.difference == pytest.approx(0, abs=1e-15)
    alone = compare_paired(a[0], a[0])
    assert (alone.ci_low, alone.ci_high) == (0, 0)


def test_swapping_turns_every_sign():
    a, b = scores(np.random.default_rng(2), seeds=1, images=80)
    one, other = compare_paired(a, b), compare_paired(b, a)
    assert one.difference == -other.difference
    assert (one.mean_a, one.better) == (other.mean_b, other.worse)
    assert one.p_value == pytest.approx(other.p_value)
    assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low))


def test_b_higher_is_better_and_counted():
    compared = compare_paired(np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.9, 0.6, 0.5, 0.4]))
    assert compared.difference == pytest.approx(0.1)
    assert (compared.better, compared.worse, compared.equal) == (0.5, 0.25, 0.25)


def test_seeds_need_not_be_equally_many():
    rng = np.random.default_rng(0)
    compared = compare_paired(rng.random((3, 40)), rng.random(40))
    assert compared.n_seeds == (3, 1)
    assert compared.n_images == 40


def test_the_same_seed_gives_the_same_result_whatever_else_is_drawn():
    a, b = scores(np.random.default_rng(3), seeds=3, images=60)
    first = compare_paired(a, b, seed=4)
    np.random.random(10)  # noqa: NPY002 - what others draw from
    assert compare_paired(a, b, seed=4) == first
    assert compare_paired(a, b, seed=5) != first


def test_memory_stays_flat_with_many_images():
    a = np.random.default_rng(0).random(20_000)
    tracemalloc.start()
    bootstrap_means(a, resamples=300)  # all at once would be 48 MB of draws
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_signed_rank_is_scipys_and_leaves_zeros_out():
    difference = np.array([0.1, -0.02, 0.3, 0.25, 0.07, 0.18, -0.01, 0.4])
    p, effect = signed_rank(difference)
    assert p == pytest.approx(reference.wilcoxon(difference).pvalue)
    # Ranks 1 and 2 of 36 are negative: 5 of the 256 equally likely patterns of signs are as extreme a side.
    assert (p, effect) == pytest.approx((2 * 5 / 256, (33 - 3) / 36))
    assert signed_rank(np.append(difference, [0.0, 1e-17])) == (p, effect)
    assert signed_rank(np.zeros(3)) == (1, 0)


def test_differences_that_rounding_has_parted_share_their_rank():
    equal = np.array([0.3, 0.3, -0.3, -0.3, 0.1, 0.2])
    parted = np.array([0.1 + 0.2, 0.3, -0.3, -(0.1 + 0.2), 0.1, 0.2])  # 0.1 + 0.2 is not 0.3 to the last bit
    assert not np.array_equal(parted, equal)
    assert signed_rank(parted) == signed_rank(equal)


def test_ranks_may_point_the_other_way_than_the_mean():
    few = np.where(np.arange(60) % 6 == 0, 0.3, -0.002)
    compared = compare_paired(np.zeros(60), few)
    assert compared.ci_low > 0 > compared.rank_effect
    assert compared.p_value < 0.01


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04, times 4 3 2 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_paired(np.zeros((2, 5)), np.zeros((2, 6))), "got 5 and 6"),
        (lambda: compare_paired(np.zeros((2, 1)), np.zeros((2, 1))), "at least 2 images"),
        (lambda: compare_paired(np.array([0, np.nan]), np.zeros(2)), "a holds 1 scores that are not finite"),
        (lambda: compare_paired(np.zeros((1, 2, 2)), np.zeros(2)), r"got \(1, 2, 2\)"),
        (lambda: compare_paired(np.zeros(3), np.zeros(3), confidence=95), "between 0 and 1, got 95"),
        (lambda: compare_paired(np.zeros(3), np.zeros(3), resamples=0), "at least 1, got 0"),
        (lambda: holm([0.5, float("nan")]), "from 0 to 1"),
    ],
)
def test_impossible_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
