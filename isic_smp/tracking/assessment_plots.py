"""Pictures of an assessment, as square PNG files."""

from pathlib import Path

import numpy as np

from isic_smp.assessment.assess import Assessment
from isic_smp.assessment.calibration import BINS
from isic_smp.inference.expected_iou import FAILURE_IOU
from isic_smp.tracking.plots import TEXT, TRAIN, VALIDATION, save_figure, square_figure

GREY = "#777777"


def draw_assessment(found: Assessment, folder: Path, split: str) -> list[Path]:
    """Draw all that there is to draw, each a file named after the split; the files."""
    drawn = {"reliability": reliability, "groups": groups}
    if found.review is not None:
        drawn["review"] = review
    paths = []
    for name, draw in drawn.items():
        paths.append(folder / f"{name}_{split}.png")
        draw(found, paths[-1])
    return paths


def reliability(found: Assessment, path: Path) -> None:
    """Probability said against frequency found, before and after the temperature, and where the pixels are."""
    figure = square_figure()
    curve, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="as said")
    kinds = [("as it is", 1.0, VALIDATION, "o-")]
    if found.fitted is not None:
        temperature = found.fitted.temperature
        kinds.append((f"temperature {temperature:.2f}", temperature, TRAIN, "s--"))
    for name, temperature, colour, style in kinds:
        bins = found.observed.logits.reliability(temperature)
        error = found.observed.logits.calibration_error(temperature)
        curve.plot(
            bins.probability,
            bins.frequency,
            style,
            color=colour,
            linewidth=2,
            label=f"{name}, error {error:.4f}",
        )
    curve.set_title("Pixels that are lesion, by the probability said", loc="left", fontsize=TEXT + 1)
    curve.set_ylabel("share that is lesion", fontsize=TEXT)
    curve.set_ylim(0, 1)
    curve.legend(loc="upper left", frameon=False, fontsize=TEXT)
    edges = np.linspace(0, 1, BINS + 1)
    bins = found.observed.logits.reliability()
    shares.bar(edges[:-1], bins.share, width=1 / BINS, align="edge", color=VALIDATION, edgecolor="white")
    shares.set_yscale("log")
    shares.set_ylabel("of all pixels", fontsize=TEXT)
    shares.set_xlabel("probability of lesion", fontsize=TEXT)
    shares.set_xlim(0, 1)
    save_figure(figure, path)


def review(found: Assessment, path: Path) -> None:
    """Expected against true IoU of each image, and the risk that is left when the least trusted are looked at."""
    assert found.review is not None
    judged = found.review
    figure = square_figure()
    scatter, risk = figure.subplots(2, 1)
    failed = judged.iou < FAILURE_IOU
    scatter.scatter(judged.expected[~failed], judged.iou[~failed], s=12, color=TRAIN, alpha=0.6)
    scatter.scatter(judged.expected[failed], judged.iou[failed], s=16, color=VALIDATION, marker="^")
    lowest = max(0.0, np.floor(min(judged.expected.min(), judged.iou.min()) * 10) / 10)
    scatter.plot([lowest, 1], [lowest, 1], color=GREY, linewidth=1)
    scatter.set_xlim(lowest, 1)
    scatter.set_ylim(lowest, 1)
    border = np.sort(judged.expected)[judged.looked_at() - 1]
    scatter.axvline(
        border, color="black", linewidth=1, linestyle=":", label="worst-ranked tenth: left of here"
    )
    scatter.set_title(f"True IoU over expected IoU ({len(judged.iou)} images)", loc="left", fontsize=TEXT + 1)
    scatter.legend(loc="upper left", frameon=False, fontsize=TEXT)
    coverage = np.arange(1, len(judged.iou) + 1) / len(judged.iou)
    for values, style, colour, name in (
        (np.full(len(coverage), judged.random_risk()), ":", GREY, "at random"),
        (judged.curve(), "-", VALIDATION, "by expected IoU"),
        (judged.best_curve(), "--", TRAIN, "by true IoU"),
    ):
        risk.plot(
            coverage, values, style, color=colour, linewidth=2, label=f"{name}, mean {values.mean():.3f}"
        )
    risk.set_title("Mean 1 - IoU of the most trusted share", loc="left", fontsize=TEXT + 1)
    risk.set_xlabel("share of the images", fontsize=TEXT)
    risk.set_xlim(0, 1)
    risk.set_ylim(0, 1.7 * max(judged.random_risk(), judged.curve().max(), 0.01))
    risk.legend(loc="upper left", frameon=False, fontsize=TEXT - 2)
    save_figure(figure, path)


def groups(found: Assessment, path: Path) -> None:
    """Mean IoU of each group with its count; the worst one stands out."""
    figure = square_figure()
    axes = figure.subplots()
    mean = float(found.scores.own["iou"].mean())
    for n, group in enumerate(found.groups):
        colour = VALIDATION if group is found.worst else TRAIN
        axes.barh(n, group.iou, height=0.42, color=colour)
        axes.text(0, n - 0.27, f"{group.name} ({group.images})", fontsize=TEXT - 1, va="bottom")
        axes.text(0.01, n, f"{group.iou:.3f}", fontsize=TEXT - 1, va="center", color="white")
    axes.axvline(mean, color="black", linewidth=1.5, linestyle="--")
    axes.set_title(
        f"IoU by group; dashed: {mean:.3f}, mean of {len(found.scores.ids)}", loc="left", fontsize=TEXT + 1
    )
    axes.set_ylim(len(found.groups) - 0.5, -0.75)
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.set_xlabel("IoU, mean over images", fontsize=TEXT)
    save_figure(figure, path)
