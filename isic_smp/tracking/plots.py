"""Pictures of numbers: learning curves and score histograms, as square PNG files of 768 pixels.

Drawn with matplotlib's Agg canvas directly: no pyplot, so no state shared between runs or threads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_INCHES, DOTS_PER_INCH = 6.4, 120
TEXT = 14  # points: legible on a card of half the size
TRAIN, VALIDATION = "#0072B2", "#D55E00"  # blue and vermillion, of the palette of Okabe and Ito


def curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss, and Dice and IoU, over the epochs, of training and validation.

    Args:
        history: An epoch each, with the keys epoch (from 0; drawn from 1), train_loss, val_loss, train_dice, val_dice,
            train_iou and val_iou.
        path: PNG file to write.
    """
    from matplotlib.ticker import MaxNLocator

    figure = square_figure()
    loss, score = figure.subplots(2, 1, sharex=True)
    _draw(loss, history, "loss")
    loss.set_title("loss", loc="left", fontsize=TEXT + 1)
    loss.set_ylim(bottom=0)
    _draw(score, history, "dice")
    _draw(score, history, "iou", style="--")
    score.set_title("Dice (solid) and IoU (dashed), per-image mean", loc="left", fontsize=TEXT + 1)
    score.set_xlabel("epoch", fontsize=TEXT)
    lowest = min((min(row["train_iou"], row["val_iou"]) for row in history), default=0.0)
    score.set_ylim(max(0.0, np.floor(lowest * 10 - 0.5) / 10), 1.0)
    score.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (loss, score):
        axes.legend(loc="best", frameon=False, fontsize=TEXT)
    save_figure(figure, path)


def dice_histogram(
    values: Sequence[float] | np.ndarray, path: Path, *, title: str = "Dice of each test image"
) -> None:
    """Draw how the images' Dice scores spread; mean and median are marked.

    Args:
        values: Dice an image, 0 to 1.
        path: PNG file to write.
        title: Of the picture.
    """
    scores = np.asarray(values, dtype=float)
    figure = square_figure()
    axes = figure.subplots()
    axes.hist(scores, bins=np.linspace(0, 1, 41).tolist(), color=TRAIN, edgecolor="white", linewidth=0.5)
    mean, median = scores.mean(), np.median(scores)
    axes.axvline(mean, color=VALIDATION, linewidth=2, label=f"mean {mean:.3f}")
    axes.axvline(median, color="black", linewidth=2, linestyle="--", label=f"median {median:.3f}")
    axes.plot([], [], " ", label=f"below 0.7: {np.mean(scores < 0.7):.1%}")
    axes.set_title(f"{title} ({scores.size})", loc="left", fontsize=TEXT + 1)
    axes.set_xlabel("Dice", fontsize=TEXT)
    axes.set_ylabel("images", fontsize=TEXT)
    axes.set_xlim(0, 1)
    axes.legend(loc="upper left", frameon=False, fontsize=TEXT)
    save_figure(figure, path)


def square_figure() -> "Figure":
    """An empty one."""
    from matplotlib.figure import Figure

    return Figure(figsize=(SIDE_INCHES, SIDE_INCHES), dpi=DOTS_PER_INCH, layout="constrained")


def _draw(axes: "Axes", history: Sequence[Mapping[str, float]], what: str, style: str = "-") -> None:
    epochs = [row["epoch"] + 1 for row in history]  # as MLflow's steps
    marker = "o" if len(epochs) == 1 else None  # a single epoch is a point, which a line does not show
    for split, colour, name in (("train", TRAIN, "train"), ("val", VALIDATION, "validation")):
        values = [row[f"{split}_{what}"] for row in history]
        label = None if style == "--" else f"{name} {values[-1]:.3f}" if values else name
        axes.plot(epochs, values, style, color=colour, marker=marker, linewidth=2, label=label)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write it as PNG, its axes all in one style."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=TEXT - 1)
    FigureCanvasAgg(figure).print_png(path)
