"""The pictures of a comparison, whatever the groups are called."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from scored import some_run

from isic_smp.comparison import figures
from isic_smp.comparison.effects import compare_groups
from isic_smp.comparison.groups import Group

SHORT = ("frozen", "fine-tuned")
WEIGHTS = "encoder_weights mobilenetv2_100.keras160_in1k.safetensors"
DEEP = "encoder_weights /data/" + "models/" * 12
LONG = [
    (WEIGHTS, "encoder_weights isic2016"),
    ("encoder_weights isic2016", WEIGHTS),
    (WEIGHTS, WEIGHTS.replace("160", "224")),
    (DEEP + "one" + "/last" * 20, DEEP + "two" + "/last" * 20),
    ("W" * 200, "W" * 199 + "M"),
]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The texts that a picture shows, by what they say, with the pixels (left, bottom, right, top) of each."""
    figures_drawn = []
    real = FigureCanvasAgg.print_png

    def print_png(canvas, *args, **kwargs):
        real(canvas, *args, **kwargs)
        figures_drawn.append(canvas.figure)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", print_png)

    def draw(make, compared):
        make(compared, tmp_path / "drawn.png")
        figure = figures_drawn.pop()
        assert (tmp_path / "drawn.png").stat().st_size
        [axes] = figure.axes
        beyond = [  # a tick outside of the axis has its text, too, but shows it not
            tick.label1
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        shown = [
            text
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in beyond
        ]
        return figure, {text.get_text(): text.get_window_extent() for text in shown}

    return draw


def compared(*labels):
    base = np.random.default_rng(0).uniform(0.6, 0.9, 60)
    changes = np.random.default_rng(1).normal(0.005, 0.01, (len(labels), 60))
    runs = [some_run(f"run{n}", base + change) for n, change in enumerate(changes)]
    return compare_groups(
        [Group(label, (run,)) for label, run in zip(labels, runs, strict=True)], metric="dice"
    )


def differences(comparisons, path):
    figures.differences(comparisons[0], path)


def scatter(comparisons, path):
    figures.scatter(comparisons[0], path)


def assert_readable(figure, texts):
    width, height = figure.bbox.size
    for words, box in texts.items():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"cut off: {words}"
    for (one, box), (other, box_of_other) in combinations(texts.items(), 2):
        assert not box.overlaps(box_of_other), f"{one!r} runs into {other!r}"


def ends(texts):
    [left] = [words for words in texts if words.startswith("← ") and words.endswith(" better")]
    [right] = [words for words in texts if words.endswith(" better →")]
    return left.removeprefix("← ").removesuffix(" better"), right.removesuffix(" better →")


@pytest.mark.parametrize("make", [differences, figures.effects])
@pytest.mark.parametrize("labels", [SHORT, *LONG])
def test_which_side_is_better_can_be_read_whatever_the_labels_length(drawn, make, labels):
    figure, texts = drawn(make, compared(*labels))
    assert_readable(figure, texts)
    said = ends(texts)
    assert said[0] != said[1]
    for whole, short in zip(labels, said, strict=True):
        assert short == whole or ("…" in short and (short[0], short[-1]) == (whole[0], whole[-1]))


@pytest.mark.parametrize("labels", [SHORT, LONG[0], *LONG[2:]])
def test_the_axes_of_the_scores_are_named_whatever_the_labels_length(drawn, labels):
    figure, texts = drawn(scatter, compared(*labels))
    assert_readable(figure, texts)
    named = {words.removeprefix("Dice, ") for words in texts if words.startswith("Dice, ")}
    assert len(named) == 2 and (named == set(labels) or any("…" in name for name in named))


def test_labels_that_fit_are_said_whole(drawn):
    for make in (differences, figures.effects):
        assert ends(drawn(make, compared(*SHORT))[1]) == SHORT
    _, texts = drawn(differences, compared(*LONG[0]))
    assert ends(texts) == LONG[0]
    assert any(words.startswith(f"{LONG[0][1]}\nminus {LONG[0][0]}\n") for words in texts)


@pytest.mark.parametrize("many", [2, 6])
def test_rows_of_several_long_labels_leave_room_and_can_be_told_apart(drawn, many):
    labels = [DEEP + f"{n}" + "/last" * 20 for n in range(many + 1)]
    figure, texts = drawn(figures.effects, compared(*labels))
    assert_readable(figure, texts)
    assert figure.axes[0].bbox.width > 0.4 * figure.bbox.width
    rows = [words for words in texts if words.startswith("enc")]
    assert len(rows) == many
    for n, row in enumerate(rows, start=1):
        assert f"/{n}/" in row
    assert "/0/" in ends(texts)[0]
