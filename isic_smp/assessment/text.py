"""An assessment as lines for a terminal."""

from isic_smp.assessment.assess import Assessment
from isic_smp.assessment.review import Review
from isic_smp.assessment.subgroups import ENOUGH
from isic_smp.inference.expected_iou import FAILURE_IOU

_NAME, _COLUMN = 44, 10


def lines(found: Assessment, *, fitted_here: bool = False) -> list[str]:
    """What `Assessment` holds, in the order in which a reader asks.

    Args:
        found: the assessment.
        fitted_here: whether these very images are those that the model's numbers were fitted on.
    """
    parts = [_groups(found), _seen(found), _outlines(found), _calibration(found), _review(found)]
    text = [line for part in parts if part for line in ["", *part]]
    if fitted_here and found.fitted is not None:
        text.append(
            "(temperature and expected IoU were fitted on these very images: look at test for their worth)"
        )
    return text


def _groups(found: Assessment) -> list[str]:
    images, own = len(found.scores.ids), found.scores.own
    under = f"IoU < {FAILURE_IOU}"
    rows = [
        f"{'own size, mean over images':{_NAME}}{'images':>8}{'Dice':>{_COLUMN}}{'IoU':>{_COLUMN}}{under:>16}",
        _row("all", images, float(own["dice"].mean()), float(own["iou"].mean()), found.failures),
    ]
    rows += [_row(group.name, group.images, group.dice, group.iou, group.failures) for group in found.groups]
    if found.worst is not None:
        gap = float(own["iou"].mean()) - found.worst.iou
        rows.append(
            f"worst group (of those with {ENOUGH} images or more): {found.worst.name}, "
            f"IoU {found.worst.iou:.4f}, {gap:.4f} below the mean of all"
        )
    return rows


def _row(name: str, images: int, dice: float, iou: float, failures: int) -> str:
    share = f"{failures} ({failures / images:.1%})"
    return f"{name:{_NAME}}{images:>8}{dice:>{_COLUMN}.4f}{iou:>{_COLUMN}.4f}{share:>16}"


def _seen(found: Assessment) -> list[str]:
    without = found.without_seen()
    if without is None:
        return []
    images = len(found.scores.ids) - len(found.seen)
    return [
        f"without the {len(found.seen)} images whose lesion is in training too ({images} left): "
        f"Dice {without['dice']:.4f}, IoU {without['iou']:.4f}"
    ]


def _outlines(found: Assessment) -> list[str]:
    if found.outlines is None:
        return []
    means = {name: float(values.mean()) for name, values in found.outlines.items()}
    rows = [f"{'outlines, own size, mean over images':{_NAME}}{'pixels':>{_COLUMN}}{'% of diagonal':>16}"]
    for name, words in (
        ("hausdorff95", "Hausdorff distance, 95 %"),
        ("surface_distance", "mean surface distance"),
    ):
        rows.append(f"{words:{_NAME}}{means[f'{name}_px']:>{_COLUMN}.2f}{means[f'{name}_percent']:>16.2f}")
    return [*rows, f"{'boundary IoU':{_NAME}}{means['boundary_iou']:>{_COLUMN}.4f}"]


def _calibration(found: Assessment) -> list[str]:
    error = found.observed.logits.calibration_error()
    words = f"calibration of pixels: expected error {error:.4f}"
    if found.fitted is not None:
        temperature = found.fitted.temperature
        scaled = found.observed.logits.calibration_error(temperature)
        words += (
            f"; with temperature {temperature:.2f}, of {found.fitted.images} validation images, {scaled:.4f}"
        )
    return [words]


def _review(found: Assessment) -> list[str]:
    if found.review is None:
        return [
            "no expected IoU: the model was saved before it was fitted, and its validation images are not here"
        ]
    assert found.fitted is not None
    return [
        f"expected IoU, of {found.fitted.images} validation images: rank correlation with the true one "
        f"{_or_none(found.review.rank_correlation())}, mean error {found.review.mean_error():.4f}",
        _look(found.review),
        f"mean 1 - IoU over all coverages (AURC): {found.review.curve().mean():.4f}; ranked at random "
        f"{found.review.random_risk():.4f}, by the true IoU {found.review.best_curve().mean():.4f}",
    ]


def _look(review: Review) -> str:
    looked, failures = review.looked_at(), review.failures()
    start = f"a look at the worst-ranked tenth ({looked} of {len(review.iou)} masks)"
    if not failures:
        return f"{start} has nothing to find: no mask is under IoU {FAILURE_IOU}"
    found, best = review.found(), min(looked, failures)
    return (
        f"{start} finds {found} of the {failures} masks under IoU {FAILURE_IOU}, {found / failures:.0%}; "
        f"at best {best / failures:.0%}, at random {looked / len(review.iou):.0%}"
    )


def _or_none(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.3f}"
