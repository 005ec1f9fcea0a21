"""Pictures of a study: Optuna's own, and the trade of accuracy against cost."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.queue import ended, first_number
from isic_smp.sweeping.results import Cell

DOTS_PER_INCH = 110
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")  # Okabe and Ito
MARKS = "os^Dv"


def draw_study(study: optuna.Study, plan: Plan, folder: Path) -> list[Path]:
    """Optuna's pictures as PNG files: history, importances, parallel coordinates, slices, front, timeline.

    One that cannot be drawn of this study (importances of a single trial, say) is left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as draw

    ours = _counted_once(study)
    iou: dict[str, Any] = (
        {"target": lambda trial: trial.values[0], "target_name": "validation IoU"}
        if len(plan.objectives) > 1
        else {"target_name": "validation IoU"}
    )
    wanted: dict[str, Callable[[], Any]] = {
        "history": lambda: draw.plot_optimization_history(ours, **iou),
        "importances": lambda: draw.plot_param_importances(ours, **iou),
        "parallel_coordinates": lambda: draw.plot_parallel_coordinate(ours, **iou),
        "slices": lambda: draw.plot_slice(ours, **iou),
        "timeline": lambda: draw.plot_timeline(study),
    }
    if len(plan.objectives) > 1:
        wanted["pareto_front"] = lambda: draw.plot_pareto_front(ours, target_names=list(plan.objectives))
    else:
        wanted["learning_curves"] = lambda: draw.plot_intermediate_values(ours)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, picture in wanted.items():
        path = folder / f"{name}.png"
        if _save(picture, path):
            made.append(path)
    return made


def _counted_once(study: optuna.Study) -> optuna.Study:
    """The study in memory, every trial once: those taken over from dead workers under their first number."""
    copy = optuna.create_study(directions=study.directions)
    for trial in ended(study):
        # What has one value in the whole study only takes room in a picture.
        varied = {name: d for name, d in trial.distributions.items() if not d.single()}
        trial = optuna.trial.create_trial(
            state=trial.state,
            values=trial.values,
            params={name: trial.params[name] for name in varied},
            distributions=varied,
            user_attrs=trial.user_attrs | {"number": first_number(trial)},
            intermediate_values=trial.intermediate_values,
        )
        if trial.state != optuna.trial.TrialState.PRUNED or trial.intermediate_values:
            copy.add_trial(trial)
    return copy


def _save(picture: Callable[[], Any], path: Path) -> bool:
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = picture()
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            figure = first.figure
            figure.set_size_inches(max(8.0, figure.get_size_inches()[0]), 6.0)
            figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight")
        return True
    except (ValueError, RuntimeError, ImportError, AssertionError):
        return False
    finally:
        pyplot.close("all")


def draw_trade(
    cells: Sequence[Cell],
    path: Path,
    *,
    cost: Callable[[Cell], float],
    cost_name: str,
    label: Callable[[Cell], str],
    group: Callable[[Cell], str],
) -> None:
    """Validation IoU over cost, a point a cell with its deviation over seeds; the front is joined by a line.

    Args:
        cells: the points.
        path: PNG file to write.
        cost: x of a cell, above 0; drawn on a logarithmic axis.
        cost_name: with its unit.
        label: written beside a cell.
        group: cells of one group share colour and mark.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9, 6.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    groups = list(dict.fromkeys(group(cell) for cell in cells))
    for n, name in enumerate(groups):
        members = [cell for cell in cells if group(cell) == name]
        axes.errorbar(
            [cost(cell) for cell in members],
            [_iou(cell) for cell in members],
            yerr=[cell.spread("val_iou") or 0.0 for cell in members],
            fmt=MARKS[n % len(MARKS)],
            color=COLOURS[n % len(COLOURS)],
            label=name,
            capsize=3,
            markersize=8,
        )
    for cell in cells:
        axes.annotate(
            label(cell),
            (cost(cell), _iou(cell)),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=9,
        )
    front = pareto(cells, cost=cost)
    axes.plot(
        [cost(cell) for cell in front],
        [_iou(cell) for cell in front],
        color="black",
        linewidth=1,
        linestyle="--",
        zorder=0,
        label="none is better and cheaper",
    )
    axes.set_xscale("log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(cost_name)
    axes.set_ylabel("validation IoU, mean over seeds ± standard deviation")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)  # never over a point
    FigureCanvasAgg(figure).print_png(path)


def pareto(cells: Sequence[Cell], *, cost: Callable[[Cell], float]) -> list[Cell]:
    """The cells that no other beats in both validation IoU and cost, from the cheapest on."""
    front: list[Cell] = []
    for cell in sorted(cells, key=lambda cell: (cost(cell), -_iou(cell))):
        if not front or _iou(cell) > _iou(front[-1]):
            front.append(cell)
    return front


def _iou(cell: Cell) -> float:
    return cell.mean("val_iou") or 0.0
