"""Paired statistics: whether one method's scores on the same images are better than another's, and by how much.

Scores come as one row a trained model (the same recipe under another seed) and one column an image:

    compare_paired(frozen, finetuned)      # (3, 379) and (3, 379): 3 seeds each on 379 images

Two sources of chance are told apart. Other images would give another difference, so images are
resampled (a bootstrap); other seeds would give other models, so where a method was trained several
times, the interval is stretched by what its seeds differ by, and by how few they are, as readers are
counted in where several read the same images. With one seed a method, nothing can be said about seeds.
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
    """Lower end of the difference's interval (95 % unless asked otherwise), over images and, where a method has several,
    seeds."""
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
        paired_seeds: row i of a and of b are of one seed. Where both began with the same weights and saw the same
            pictures in the same order, a seed is good or bad for both, and that is no part of their difference.
        seed: of the resampling.
        resamples: how many bootstrap resamples.
        confidence: of the intervals, between 0 and 1.

    Raises:
        ValueError: fewer than 2 images, numbers of images that differ, `paired_seeds` with other numbers of rows, a
            score that is not finite, no resamples, or a confidence that is none.
    """
    a, b = _scores(a, "a"), _scores(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must score the same images, got {a.shape[1]} and {b.shape[1]}")
    if paired_seeds and len(a) != len(b):
        raise ValueError(f"paired seeds need as many rows of a as of b, got {len(a)} and {len(b)}")
    difference = b.mean(axis=0) - a.mean(axis=0)
    draws = bootstrap_means(difference, seed=seed, resamples=resamples)
    by_images = _Variance(difference.var(ddof=1) / len(difference), len(difference) - 1)
    by_both = by_images + _variance_of_seeds(a, b, paired=paired_seeds)
    images_low, images_high = _stretched(draws, difference.mean(), by_images, confidence)
    low, high = _stretched(draws, difference.mean(), by_both, confidence)
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


def bootstrap_means(values: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Resample images, and take the mean each time (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993).

    Of differences between two methods on the same images, this keeps the pairing (ch. 8 there). Memory does not grow
    with the number of images.

    Args:
        values: one number an image, (N,).
        seed: of the random numbers.
        resamples: at least 1.

    Returns:
        float64 (resamples,).

    Raises:
        ValueError: no resamples.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])  # as published intervals were drawn
    n = len(values)
    size = max(1, CHUNK // n)
    means = np.empty(resamples)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        means[start : start + rows] = values[rng.integers(n, size=(rows, n))].mean(axis=1)
    return means


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


@dataclass(frozen=True)
class _Variance:
    """The squared standard error of a mean difference, and the degrees of freedom it was estimated with."""

    value: float
    freedom: float

    def __add__(self, other: "_Variance") -> "_Variance":
        """Of two independent parts; freedom by Satterthwaite (Biometrics Bulletin 1946)."""
        total = self.value + other.value
        parts = [part.value**2 / part.freedom for part in (self, other) if part.value]
        return _Variance(total, total**2 / sum(parts) if parts else np.inf)


def _variance_of_seeds(a: np.ndarray, b: np.ndarray, *, paired: bool) -> _Variance:
    """How far other seeds would move the mean difference; a and b are (models, images).

    Both methods' seeds are taken to differ alike, so a method of a single seed borrows the spread of the other's. What a
    seed does to single images is in the spread of the images too, so the sum is somewhat too large where seeds hardly
    differ.
    """
    sides = [(b - a).mean(axis=1)] if paired else [a.mean(axis=1), b.mean(axis=1)]
    freedom = sum(len(means) - 1 for means in sides)
    if freedom == 0:
        return _Variance(0.0, np.inf)
    squares = sum(float(((means - means.mean()) ** 2).sum()) for means in sides)
    return _Variance(squares / freedom * sum(1 / len(means) for means in sides), freedom)


def _stretched(draws: np.ndarray, mean: float, variance: _Variance, confidence: float) -> tuple[float, float]:
    """The draws' percentile interval, stretched about `mean` to `variance`, and from the normal's to Student's quantile.

    A percentile interval of few images, or a bootstrap of few seeds, is too narrow (Hesterberg, "What Teachers Should
    Know About the Bootstrap", 2015): over 3 seeds, 95 % intervals held the truth in some 87 % of cases. Images as cases
    and seeds as readers, both of them random, are the model of Dorfman, Berbaum and Metz with Hillis's degrees of
    freedom (Hillis, Berbaum & Metz, Academic Radiology 2008).
    """
    from scipy.stats import norm, t

    low, high = percentile_interval(draws, confidence)
    upper = (1 + confidence) / 2
    half = float(t.ppf(upper, variance.freedom)) * variance.value**0.5
    spread = float(norm.ppf(upper)) * float(draws.std())
    if spread == 0:  # all images differ by the same
        return float(mean - half), float(mean + half)
    return float(mean - half / spread * (mean - low)), float(mean + half / spread * (high - mean))
