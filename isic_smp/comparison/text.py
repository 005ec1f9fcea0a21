"""The comparison as text for a terminal, and what its answer leaves open."""

from collections.abc import Sequence

from isic_smp.comparison.effects import METRIC_NAMES, Comparison
from isic_smp.comparison.groups import Group
from isic_smp.comparison.runs import ScoredRun, Split
from isic_smp.data.fingerprint import parted
from isic_smp.data.names import ISIC2016
from isic_smp.stats import PairedComparison

OVER_IMAGES = "all, over images alone"


def describe_setting(run: ScoredRun, *, split: Split, metric_name: str) -> str:
    """One line on data, split and metric."""
    data = run.data.get("description", "unknown data")
    return f"{data}; {len(run.ids)} {split} images, {metric_name} at each image's own size"


def table(comparisons: Sequence[Comparison]) -> str:
    """The groups with their means, then each comparison's effects."""
    groups = [comparisons[0].a, *(c.b for c in comparisons)]
    wide = max(len(group.label) for group in groups)
    lines = [f"{'':{wide}}  mean {METRIC_NAMES[comparisons[0].metric]}"]
    for group in groups:
        means = zip(group.runs, group.scores.mean(axis=1), strict=True)
        each = "  ".join(f"{run.name} {mean:.4f}" for run, mean in means)
        lines.append(f"{group.label:{wide}}  {group.scores.mean():.4f}   {each}")
    for comparison in comparisons:
        lines += ["", *_effects(comparison)]
    return "\n".join(lines)


def caveats(groups: Sequence[Group]) -> list[str]:
    """Sentences on what the answer leaves open."""
    return _about_seeds(groups) + _about_repeats(groups) + _about_folds(groups) + _about_first_weights(groups)


def _about_folds(groups: Sequence[Group]) -> list[str]:
    if not any(run.parts for group in groups for run in group.runs):
        return []
    return [
        "The folds' networks share most of their training images, so their scores depend on each other, and the "
        "interval may be too narrow (Bengio and Grandvalet, JMLR 2004)."
    ]


def _about_first_weights(groups: Sequence[Group]) -> list[str]:
    """What begins with weights of lesions may know the images that a division took from its training."""

    def begins_with_lesions(run: ScoredRun) -> bool:
        # The shipped model's encoder has the name of its data.
        return bool(run.recipe.get("init_from")) or run.recipe.get("encoder_weights") == ISIC2016

    def is_divided(run: ScoredRun) -> bool:
        return any(parted(member.data.get("fingerprint", ""))[1] for member in run.members)

    return [
        f"{group.label} starts from weights that were trained on lesions: where the images compared here were among "
        "those, its scores flatter."
        for group in groups
        if begins_with_lesions(group.runs[0]) and is_divided(group.runs[0])
    ]


def _about_seeds(groups: Sequence[Group]) -> list[str]:
    counts = [len(group.runs) for group in groups]
    if max(counts) == 1:
        return [
            "One run each: the interval says what other images would give, not what other seeds would; "
            "name runs under several seeds to have both."
        ]
    singles = [group.label for group in groups if len(group.runs) == 1]
    notes = []
    if singles:
        notes = [
            f"Only one run of {' and '.join(singles)}: other seeds of it are taken to differ as those of the group that it "
            "is held against."
        ]
    if counts[0] == 1 and len(singles) > 1:
        notes.append(
            f"Between {groups[0].label} and {' and '.join(singles[1:])} the interval leaves out what other seeds would give."
        )
    return notes


def _about_repeats(groups: Sequence[Group]) -> list[str]:
    """What is counted as another seed and is none: a run trained twice, or copied."""
    notes = []
    for group in groups:
        seeds = [run.seed for run in group.runs if run.seed is not None]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            notes.append(
                f"Several runs of {group.label} have the seed {twice[0]}: they say nothing of other seeds, but are "
                "counted as if they did; name one run a seed."
            )
    return notes


def _effects(comparison: Comparison) -> list[str]:
    found = comparison.overall
    first = max(map(len, [*comparison.parts, OVER_IMAGES]))
    lines = [
        f"{comparison.b.label} minus {comparison.a.label}",
        f"{'':{first}}{'images':>8}{'difference':>12}{'95 % interval':>20}"
        f"{'Wilcoxon p':>12}{'better':>8}{'worse':>7}{'equal':>7}",
        f"{'all':{first}}{_cells(found)}",
    ]
    if max(found.n_seeds) > 1:
        lines.append(
            f"{OVER_IMAGES:{first}}{'':20}{_interval(found.images_ci_low, found.images_ci_high):>20}"
        )
    lines += [f"{name:{first}}{_cells(part)}" for name, part in comparison.parts.items()]
    if comparison.comparisons > 1:
        lines.append(f"{'all, corrected by Holm':{first}}{'':40}{comparison.p_holm:>12.2g}")
    return lines


def _cells(found: PairedComparison) -> str:
    shares = f"{found.better:>8.0%}{found.worse:>7.0%}{found.equal:>7.0%}"
    interval = _interval(found.ci_low, found.ci_high)
    return f"{found.n_images:>8}{found.difference:>+12.4f}{interval:>20}{found.p_value:>12.2g}{shares}"


def _interval(low: float, high: float) -> str:
    return f"[{low:+.4f}, {high:+.4f}]"
