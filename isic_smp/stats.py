"""Paired statistics: whether one method's scores on the same images are better than another's, and by how much.

Scores come as one row a trained model (the same recipe under another seed) and one column an image:

    compare_paired(frozen, finetuned)      # (3, 379) and (3, 379): 3 seeds each on 379 images

Two sources of chance are told apart. Other images would give another difference, so images are
resampled; other seeds would give other models, so where a method was trained several times, its seeds
are resampled too (a hierarchical bootstrap). With one seed a method, nothing can be said about seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Differences up to this are rounding errors of a mean over seeds, and count as equal."""
_PLACES = 11
"""Decimal places that no such error reaches."""

CHUNK = 1 << 20  # image draws held at once: 8 MB, however many images and resamples there are


@dataclass(frozen=True)
class PairedComparison:
    """How far method b stands above method a on the same images. Positive differences favour b."""

    mean_a: float
    """Mean score of a over images and seeds."""
    mean_b: float
    """Mean score of b over images and seeds."""
    difference: float
    """mean_b - mean_a."""
    ci_low: float
    """Lower end of the difference's interval (95 % unless asked otherwise), over images and, where there are several, seeds."""
    ci_high: float
    """Upper end."""
    images_ci_low: float
    """Lower end of the interval over images alone, for just these trained models."""
    images_ci_high: float
    """Upper end."""
    p_value: float
    """Two-sided Wilcoxon signed-rank test of the per-image differences, each averaged over seeds."""
    rank_effect: float
    """Which way that test points and how clearly: -1 (all ranks favour a) to 1 (all favour b)."""
    better: float
    """Share of images that b scores higher, 0 to 1."""
    worse: float
    """Share of images that b scores lower."""
    equal: float
    """Share of images scored the same."""
    n_images: int
    n_seeds: tuple[int, int]
    """Trained models of a and of b."""


def compare_paired(
    a: np.ndarray,
    b: np.ndarray,
    *,
    paired_seeds: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> PairedComparison:
    """Compare two methods by their scores on the same images. Deterministic for a given `seed`.

    Args:
        a: scores of the one method, float (S_a, N): trained models × images; (N,) is one model.
        b: scores of the other, (S_b, N), images in the same order.
        paired_seeds: row i of a and of b are of one seed, and share what chance decided (`paired_bootstrap`).
        seed: of the resampling.
        resamples: how many bootstrap resamples.
        confidence: of the intervals, between 0 and 1.

    Raises:
        ValueError: fewer than 2 images, numbers of images that differ, or a score that is not finite.
    """
    a, b = _scores(a, "a"), _scores(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must score the same images, got {a.shape[1]} and {b.shape[1]}")
    difference = b.mean(axis=0) - a.mean(axis=0)
    draws = paired_bootstrap(a, b, paired_seeds=paired_seeds, seed=seed, resamples=resamples)
    low, high = percentile_interval(draws.images_and_seeds, confidence)
    images_low, images_high = percentile_interval(draws.images, confidence)
    p_value, rank_effect = signed_rank(difference)
    return PairedComparison(
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=float(difference.mean()),
        ci_low=low,
        ci_high=high,
        images_ci_low=images_low,
        images_ci_high=images_high,
        p_value=p_value,
        rank_effect=rank_effect,
        better=float(np.mean(difference > ROUNDING)),
        worse=float(np.mean(difference < -ROUNDING)),
        equal=float(np.mean(np.abs(difference) <= ROUNDING)),
        n_images=a.shape[1],
        n_seeds=(a.shape[0], b.shape[0]),
    )


@dataclass(frozen=True)
class Draws:
    """Mean differences (b - a) of bootstrap resamples, float64 (resamples,) each."""

    images: np.ndarray
    """Images resampled, all seeds kept."""
    images_and_seeds: np.ndarray
    """The same resamples of images, and seeds resampled within each method."""


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    *,
    paired_seeds: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Draws:
    """Resample images, and seeds within each method, and take the mean difference each time.

    An image is drawn with the scores of all models, which keeps the pairing (Efron & Tibshirani,
    "An Introduction to the Bootstrap", 1993, ch. 8); resampling each level of nested data is the
    hierarchical bootstrap (Saravanan, Berman & Sober, "Application of the hierarchical bootstrap to
    multi-level data in neuroscience", 2020). Of S seeds, S - 1 are drawn: with S draws the variance
    would come out too small by (S - 1) / S, a third for three seeds (Rao & Wu, "Resampling inference
    with complex survey data", 1988). Memory does not grow with the number of images.

    Args:
        a: scores, (S_a, N).
        b: scores, (S_b, N).
        paired_seeds: draw row i of a and of b together. Where both began with the same weights and saw the same
            pictures in the same order, a seed is good or bad for both, and that is no part of their difference.
            Three pairs are few: where seeds differ more by what is not shared, a 95 % interval holds the truth in
            some 87 % of cases.
        seed: of the random numbers.
        resamples: at least 1.

    Raises:
        ValueError: `paired_seeds` with other numbers of rows, or no resamples.
    """
    a, b = _scores(a, "a"), _scores(b, "b")
    if paired_seeds and len(a) != len(b):
        raise ValueError(f"paired seeds need as many rows of a as of b, got {len(a)} and {len(b)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    image_rng, a_rng, b_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    n = a.shape[1]
    size = max(1, CHUNK // n)
    means_a, means_b = np.empty((resamples, len(a))), np.empty((resamples, len(b)))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = image_rng.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means_a[start : start + rows] = counts @ a.T / n
        means_b[start : start + rows] = counts @ b.T / n
    if paired_seeds:
        by_seeds = _resample_seeds(means_b - means_a, a_rng)
    else:
        by_seeds = _resample_seeds(means_b, b_rng) - _resample_seeds(means_a, a_rng)
    return Draws(images=means_b.mean(axis=1) - means_a.mean(axis=1), images_and_seeds=by_seeds)


def percentile_interval(draws: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The bootstrap percentile interval (Efron & Tibshirani 1993, ch. 13): the middle `confidence` of the draws."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def signed_rank(difference: np.ndarray) -> tuple[float, float]:
    """The Wilcoxon signed-rank test (Wilcoxon, "Individual comparisons by ranking methods", 1945).

    It asks whether differences above 0 outweigh those below by rank, so a few images with large
    differences count little, unlike in the mean, and the two may point opposite ways. Zeros are left
    out, as Wilcoxon did; equal differences share their mean rank, also where rounding has parted them.

    Args:
        difference: one number an image, (N,).

    Returns:
        The two-sided p, and the matched-pairs rank-biserial correlation (Kerby 2014): the positive
        differences' share of the rank sum less the negative ones', -1 to 1. All zeros give 1 and 0.
    """
    from scipy.stats import rankdata, wilcoxon

    difference = np.round(difference, _PLACES)
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0, 0.0
    ranks = rankdata(np.abs(difference))
    effect = float((ranks * np.sign(difference)).sum() / ranks.sum())
    return float(wilcoxon(difference).pvalue), effect


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    Each may be held against the usual bound (0.05); the chance of any false finding stays below it.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Raises:
        ValueError: a number outside of 0 to 1.
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():  # also catches nan
        raise ValueError(f"p-values must lie from 0 to 1, got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    corrected = np.empty_like(p)
    corrected[order] = stepped
    return [float(value) for value in corrected]


def _scores(scores: np.ndarray, name: str) -> np.ndarray:
    array = np.atleast_2d(np.asarray(scores, dtype=float))
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(f"{name} must be (models, images) with at least 2 images, got {np.shape(scores)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {np.count_nonzero(~np.isfinite(array))} scores that are not finite")
    return array


def _resample_seeds(means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each resample, the mean over S - 1 seeds drawn from its S; (R, S) to (R,)."""
    resamples, seeds = means.shape
    if seeds == 1:
        return means[:, 0]
    drawn = rng.integers(seeds, size=(resamples, seeds - 1))
    return np.take_along_axis(means, drawn, axis=1).mean(axis=1)
