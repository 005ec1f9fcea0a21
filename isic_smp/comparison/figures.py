"""Pictures of a comparison as PNG files: image by image, the spread of differences, effects with intervals.

Colours are of the palette of Okabe and Ito, and size is told by the marker's shape as well, so that
nothing rests on colour vision.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from isic_smp.assessment.subgroups import ENOUGH, SIZES, size_class
from isic_smp.comparison.effects import METRIC_NAMES, Comparison
from isic_smp.comparison.labels import TEXT, heighten, minus, name_sides, row_name, worded
from isic_smp.stats import ROUNDING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110
ORANGE, BLUE, GREEN, VERMILLION = "#E69F00", "#0072B2", "#009E73", "#D55E00"
SIZE_MARKS = (("o", ORANGE), ("s", BLUE), ("^", GREEN))
FAINT = "#666666"
MANY = 4
"""Comparisons that are still drawn with their parts."""


def scatter(comparison: Comparison, path: Path) -> None:
    """Score of each image under b over its score under a, by lesion size; above the diagonal b is better.

    The axes are stretched towards 1 (by the square root of what is missing to 1), where most images lie.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter

    a, b, unit = comparison.a, comparison.b, METRIC_NAMES[comparison.metric]
    figure = _figure(7.2, 7.2)
    axes = _axes(figure)
    lowest = max(0.0, min(a.per_image.min(), b.per_image.min()) - 0.03)
    classes = size_class(a.runs[0].lesion_area)
    for which in ("x", "y"):
        getattr(axes, f"set_{which}scale")("function", functions=(_stretch, _unstretch))
        getattr(axes, f"set_{which}lim")(lowest, 0.999)
        axis = getattr(axes, f"{which}axis")
        ticks = [t for t in (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98) if t >= lowest]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.plot([0, 1], [0, 1], color="black", linewidth=1.2, zorder=1)
    for k, (marker, colour) in enumerate(SIZE_MARKS):
        chosen = classes == k
        axes.scatter(
            a.per_image[chosen],
            b.per_image[chosen],
            s=30,
            marker=marker,
            color=colour,
            edgecolor="white",
            linewidth=0.4,
            alpha=0.8,
            label=f"{SIZES[k]} lesions ({np.count_nonzero(chosen)})",
        )
    axes.set_aspect("equal")
    found = comparison.overall
    axes.set_title(f"{unit} of each of {found.n_images} images", loc="left", fontsize=TEXT + 1)
    axes.set_xlabel(worded(figure, axes, f"{unit}, {{}}", a.label, b.label), fontsize=TEXT)
    axes.set_ylabel(worded(figure, axes, f"{unit}, {{}}", b.label, a.label), fontsize=TEXT)
    b_better, a_better = (
        worded(figure, axes, "{} better", label, other, share=0.55)  # beside the points
        for label, other in ((b.label, a.label), (a.label, b.label))
    )
    axes.text(0.03, 0.83, f"{b_better}\n{found.better:.0%} of images", **_note(axes))
    axes.text(0.97, 0.16, f"{a_better}\n{found.worse:.0%} of images", **_note(axes, right=True))
    axes.legend(loc="upper left", fontsize=TEXT - 1, framealpha=0.9)
    _save(figure, path)


def differences(comparison: Comparison, path: Path) -> None:
    """How the per-image differences spread, with their mean and its interval."""
    found, unit = comparison.overall, METRIC_NAMES[comparison.metric]
    values = comparison.difference[np.abs(comparison.difference) > ROUNDING]
    figure = _figure(7.2, 5.0)
    axes = _axes(figure)
    # Bins meet at 0, so that none holds better and worse images alike; the far tails share the outer ones.
    reach = max(np.abs(values).max(initial=0.0), 0.01)
    shown = max(float(np.quantile(np.abs(values), 0.99)), reach / 20) if len(values) else reach
    edges = np.linspace(-shown, shown, 51)
    counts, _ = np.histogram(values.clip(-shown, shown), edges)
    colours = [VERMILLION if middle < 0 else BLUE for middle in (edges[:-1] + edges[1:]) / 2]
    axes.bar(
        edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor="white", linewidth=0.4
    )
    highest = max(1, counts.max())
    axes.set_ylim(0, highest * 1.28)
    axes.axvline(0, color="black", linewidth=1.2)
    height = highest * 1.1
    axes.errorbar(
        [found.difference],
        [height],
        xerr=[[max(0.0, found.difference - found.ci_low)], [max(0.0, found.ci_high - found.difference)]],
        fmt="D",
        color="black",
        markersize=6,
        capsize=5,
        linewidth=2,
    )
    remarks = [f"outermost bars: all up to ±{reach:.2f}"] if reach > shown else []
    if same := found.n_images - len(values):
        remarks.append(f"{same} images scored the same are left out")
    axes.text(0.99, 0.98, "\n".join(remarks), color=FAINT, **_note(axes, right=True) | {"fontsize": TEXT - 2})
    axes.set_ylabel("images", fontsize=TEXT)
    a, b = comparison.a.label, comparison.b.label
    result = f"mean {found.difference:+.4f} {unit}, 95 % interval [{found.ci_low:+.4f}, {found.ci_high:+.4f}]"
    axes.set_title("\n".join([*minus(figure, axes, a, b), result]), loc="left", fontsize=TEXT)
    name_sides(figure, axes, a, b, f"difference in {unit}", size=TEXT)
    _save(figure, path)


def effects(comparisons: Sequence[Comparison], path: Path) -> None:
    """Mean differences with their intervals: all images, thirds of the lesion sizes, diagnoses.

    Of many comparisons all images alone, so that they are seen at a glance; the table has their parts.
    """
    many = len(comparisons) > MANY
    labels = [comparisons[0].a.label, *(comparison.b.label for comparison in comparisons)]
    figure = _figure(8.6, 1.3)  # heightened once the rows are counted
    rows = []
    for comparison in comparisons:
        name = "all images"
        if len(comparisons) > 1:
            name = row_name(figure, comparison, labels, "" if many else f": {name}")
        rows.append((name, comparison.overall, True))
        rows += [(name, found, False) for name, found in comparison.parts.items() if not many]
    heighten(figure, 0.42 * 72 * len(rows))
    axes = _axes(figure, grid="x")
    axes.axvline(0, color="black", linewidth=1.2)
    for y, (_, found, is_main) in enumerate(rows):
        axes.plot([found.ci_low, found.ci_high], [y, y], color=BLUE, linewidth=3 if is_main else 2)
        axes.plot(found.difference, y, "D" if is_main else "o", color=BLUE, markersize=8 if is_main else 6)
        if is_main and y and not many:
            axes.axhline(y - 0.5, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{name} ({found.n_images})" for name, found, _ in rows])
    told = [found for _, found, is_main in rows if is_main or found.n_images >= ENOUGH]
    ends = [
        0.0,
        *(found.difference for _, found, _ in rows),
        *(end for found in told for end in (found.ci_low, found.ci_high)),
    ]
    margin = 0.05 * (max(ends) - min(ends)) or 1e-3
    # Intervals of a handful of images may be of any length: they run out of the picture, and leave the others readable.
    axes.set_xlim(min(ends) - margin, max(ends) + margin)
    for tick, (_, _, is_main) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if is_main else "normal")
    axes.invert_yaxis()
    axes.locator_params("x", nbins=5)  # beside long names, more numbers like −0.0075 run into each other
    first = comparisons[0]
    other = first.b.label if len(comparisons) == 1 else "the other"
    unit = f"difference in {METRIC_NAMES[first.metric]}, 95 % interval"
    name_sides(figure, axes, first.a.label, other, unit, size=TEXT - 1, among=labels)
    _save(figure, path)


def _stretch(x: np.ndarray) -> np.ndarray:
    return -np.sqrt(np.clip(1 - np.asarray(x, dtype=float), 0, None))


def _unstretch(y: np.ndarray) -> np.ndarray:
    return 1 - np.asarray(y, dtype=float) ** 2


def _note(axes: "Axes", *, right: bool = False) -> dict:
    return {
        "transform": axes.transAxes,
        "ha": "right" if right else "left",
        "va": "top",
        "fontsize": TEXT - 1,
        "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    }


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def _axes(figure: "Figure", *, grid: Literal["both", "x"] = "both") -> "Axes":
    axes = figure.subplots()
    axes.grid(alpha=0.25, axis=grid)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT - 1)
    return axes


def _save(figure: "Figure", path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(path)
