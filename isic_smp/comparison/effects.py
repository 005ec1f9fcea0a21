"""What a comparison finds: the effect on all images and on kinds of them, and the answer in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isic_smp.assessment.subgroups import by_diagnosis, size_thirds
from isic_smp.comparison.groups import Group
from isic_smp.comparison.runs import Metric
from isic_smp.stats import CONFIDENCE, PairedComparison, compare_paired, holm

SIGNIFICANT = 0.05
METRIC_NAMES: Mapping[Metric, str] = {"dice": "Dice", "iou": "IoU"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Group b against group a, the first one."""

    a: Group
    b: Group
    metric: Metric
    overall: PairedComparison
    p_holm: float
    """The Wilcoxon p, corrected for the number of groups compared with a."""
    comparisons: int
    """How many groups are compared with a."""
    joint: PairedComparison
    """As `overall`, its interval widened by Bonferroni: 95 % that all groups' differences lie in theirs."""
    parts: Mapping[str, PairedComparison]
    """The same for each third of the lesion sizes and, where known, each diagnosis."""

    @property
    def difference(self) -> np.ndarray:
        """B's score minus a's, averaged over seeds, of each image (N,)."""
        return self.b.per_image - self.a.per_image

    def answer(self) -> str:
        """The result in one sentence.

        A difference counts as shown where its 95 % interval, over all comparisons at once, leaves out zero;
        where the signed-rank test does not agree, that is said: the mean and the bulk of the images tell
        different stories.
        """
        found, unit = self.joint, METRIC_NAMES[self.metric]
        interval = "95 % interval" + f", {self.comparisons} comparisons at once," * (self.comparisons > 1)
        where = f"on {found.n_images} images"
        p = f"Wilcoxon p {say_p(self.p_holm)}" + " after Holm's correction" * (self.comparisons > 1)
        significant = self.p_holm < SIGNIFICANT
        if found.ci_low <= 0 <= found.ci_high:
            doubt = f"in these very images, though, a shift is seen ({p})" if significant else p
            return (
                f"No difference between {self.b.label} and {self.a.label} can be shown: {found.difference:+.4f} {unit} "
                f"({interval} {found.ci_low:+.4f} to {found.ci_high:+.4f}) {where}; {doubt}."
            )
        above = found.difference > 0
        better, worse = (self.b, self.a) if above else (self.a, self.b)
        low, high = (found.ci_low, found.ci_high) if above else (-found.ci_high, -found.ci_low)
        doubt = p
        if not significant:
            doubt = f"that is the mean, and the bulk of the images does not confirm it ({p})"
        elif found.rank_effect * found.difference < 0:
            doubt = f"that is the mean, and the bulk of the images points the other way ({p})"
        return (
            f"{better.label} is better than {worse.label} by {abs(found.difference):.4f} {unit} "
            f"({interval} {low:.4f} to {high:.4f}) {where}; {doubt}."
        )


def compare_groups(
    groups: Sequence[Group],
    *,
    metric: Metric,
    diagnosis: Mapping[str, str] | None = None,
    paired_seeds: bool = False,
    seed: int = 0,
) -> list[Comparison]:
    """Every group against the first.

    Args:
        groups: at least two, scored on the same images.
        metric: what their scores are.
        diagnosis: of each image id, where known.
        paired_seeds: resample runs of one seed together, where a group has the first one's seeds in the same order.
        seed: of the bootstrap.
    """
    first = groups[0]

    def compared(
        group: Group, images: np.ndarray | slice = slice(None), *, confidence: float = CONFIDENCE
    ) -> PairedComparison:
        pairs = paired_seeds and [run.seed for run in group.runs] == [run.seed for run in first.runs]
        a, b = first.scores[:, images], group.scores[:, images]
        return compare_paired(a, b, paired_seeds=pairs, seed=seed, confidence=confidence)

    kinds = size_thirds(first.runs[0].lesion_area) | by_diagnosis(first.runs[0].ids, diagnosis or {})
    overall = [compared(group) for group in groups[1:]]
    together = 1 - (1 - CONFIDENCE) / len(overall)
    joint = [compared(group, confidence=together) for group in groups[1:]]
    corrected = holm([found.p_value for found in overall])
    return [
        Comparison(
            first,
            group,
            metric,
            found,
            p_holm,
            len(overall),
            widened,
            {
                name: compared(group, chosen)
                for name, chosen in kinds.items()
                if np.count_nonzero(chosen) > 1  # one image has no interval
            },
        )
        for group, found, widened, p_holm in zip(groups[1:], overall, joint, corrected, strict=True)
    ]


def say_p(p: float) -> str:
    """`= 0.031`, or below what is worth telling apart."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}" if p < 0.01 else f"= {p:.2f}"
