"""What groups are called, as a comparison's pictures say it: whole where there is room, else as much as tells them apart."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from isic_smp.comparison.effects import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT = 12
"""Size of the pictures' font."""
WIDEST_ROW = 0.45
"""Share of the picture's width that the rows' names may take, so that the intervals keep theirs."""
LINE = 1.35
"""Height of a line of text in font sizes."""


def name_sides(
    figure: "Figure",
    axes: "Axes",
    left: str,
    right: str,
    unit: str,
    *,
    size: int,
    among: Iterable[str] = (),
) -> None:
    """Say under the axis which end means that which one is better, and in the middle below what it measures.

    Comes last, when the room under the axis is known.

    Args:
        figure: with one axes.
        axes: all else is drawn in it.
        left: label of the one that is better where the difference is negative.
        right: of the other.
        unit: what the axis measures.
        size: of the font.
        among: further labels in the picture.
    """
    room, labels = _room(figure, axes), {left, right, *among}

    def fits(words: str) -> bool:
        return _width(figure, words, size) <= room

    # Side by side where both can be read whole, otherwise each with the axis's full width to itself.
    lines = 1 if fits(f"← {left} better      {right} better →") else 2
    left = _shorten(left, labels, lambda label: fits(f"← {label} better"))
    right = _shorten(right, labels, lambda label: fits(f"{label} better →"))
    below_ticks = 2.1 * (TEXT - 1)  # marks, their numbers and a little air
    for words, x, side, line in (
        (f"← {left} better", 0, "left", 0),
        (f"{right} better →", 1, "right", lines - 1),
    ):
        axes.annotate(
            words,
            (x, 0),
            xycoords="axes fraction",
            xytext=(0, -below_ticks - line * LINE * size),
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=size,
        )
    axes.set_xlabel(unit, fontsize=size, labelpad=4 + lines * LINE * size)
    heighten(figure, lines * LINE * size)


def minus(figure: "Figure", axes: "Axes", a: str, b: str) -> list[str]:
    """The words "b minus a" in the lines that they take above the axes, for which the picture is made higher."""
    room = _room(figure, axes)

    def fits(words: str) -> bool:
        return _width(figure, words, TEXT) <= room

    if fits(whole := f"{b} minus {a}"):
        return [whole]
    heighten(figure, LINE * TEXT)
    return [_shorten(b, [a], fits), "minus " + _shorten(a, [b], lambda label: fits(f"minus {label}"))]


def worded(figure: "Figure", axes: "Axes", words: str, label: str, other: str, *, share: float = 0.92) -> str:
    """`words` with the label in place of its `{}`, where needed with a part left out, to fit along the axes.

    Args:
        figure: with the axes laid out but for some words beside them.
        axes: as wide as high, or wider.
        words: that are said.
        label: of a group.
        other: of the group that it must be told apart from.
        share: of the axes' width that it may take.
    """
    room = share * _room(figure, axes)
    return words.format(_shorten(label, [other], lambda it: _width(figure, words.format(it), TEXT) <= room))


def row_name(figure: "Figure", comparison: Comparison, labels: Iterable[str], rest: str) -> str:
    """Name of a comparison's main row: the second group's label and the rest, where needed with a part left out."""
    ending = f"{rest} ({comparison.overall.n_images})"
    room = WIDEST_ROW * figure.bbox.width
    return (
        _shorten(
            comparison.b.label,
            labels,
            lambda label: _width(figure, label + ending, TEXT - 1, weight="bold") <= room,
        )
        + rest
    )


def _shorten(label: str, others: Iterable[str], fits: Callable[[str], bool]) -> str:
    """The label, with no more replaced by an ellipsis than needed to fit.

    What is left is nearest to its start, to its end and to where it parts from each of the others: labels of
    one setting often differ in a few characters only, and without these nobody could tell one from the other.
    """
    if fits(label):
        return label
    last = len(label) - 1
    parting = {min(last, _parting(label, other)) for other in others if other != label}
    nearest = sorted(range(len(label)), key=lambda i: min(abs(i - kept) for kept in {0, last} | parting))
    for count in range(last, 0, -1):
        kept = sorted(nearest[:count])
        short = "".join(
            label[i] if i == previous + 1 else f"…{label[i]}"
            for previous, i in zip([-1, *kept], kept, strict=False)
        )
        if fits(short):
            return short
    return "…"


def _parting(one: str, other: str) -> int:
    """Where two labels first differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _width(figure: "Figure", words: str, size: int, *, weight: str = "normal") -> float:
    """Of the words in pixels of the picture."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    width, _, _ = RendererAgg(1, 1, figure.dpi).get_text_width_height_descent(
        words, FontProperties(size=size, weight=weight), ismath=False
    )
    return width


def _room(figure: "Figure", axes: "Axes") -> float:
    """Width of the axes in pixels as laid out so far, less a little: ticks that move may yet take some."""
    figure.draw_without_rendering()
    return 0.97 * axes.bbox.width


def heighten(figure: "Figure", points: float) -> None:
    """Make the picture higher by so many points, as place for more, so that it takes none from what is there."""
    figure.set_figheight(figure.get_figheight() + points / 72)
