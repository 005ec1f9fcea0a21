"""What `networks.py` measured, command after command, and its picture: docs/networks.json, docs/images/networks.png.

A run of 100 epochs takes from a quarter of an hour to an hour on two cores, so hardly ever is everything measured at
once. Each network's figures are kept with their date and machine, and the picture shows every network by its newest
preset; hollow where that is not today's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import as_score

DOCS = Path(__file__).parent.parent / "docs"
KEPT = DOCS / "networks.json"
PICTURE = DOCS / "images" / "networks.png"
ONE_LOOK = "one look"
_MARKERS = "os*^vDXP<"

Row = dict[str, Any]
"""network; without (what today's preset has and it had not); epochs, seeds; date, cpu; parameters, multiply_adds;
test: way of asking → {dice, dice_std, iou, iou_std}, the deviations 0 of one seed."""


def keep(rows: Sequence[Row]) -> list[Row]:
    """Put rows in the place of those of the same network, preset, length and number of seeds; all that are kept."""
    new = {_key(row): row for row in rows}
    old: dict[Any, Row] = {_key(row): row for row in json.loads(KEPT.read_text())} if KEPT.exists() else {}
    kept = list((old | new).values())
    lines = ",\n".join(json.dumps(row) for row in kept)
    KEPT.write_text(f"[\n{lines}\n]\n")
    return kept


def _key(row: Row) -> tuple[str, tuple[str, ...], int, int]:
    return row["network"], tuple(row["without"]), row["epochs"], row["seeds"]


def as_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows as they are printed."""
    return [
        {
            "network": row["network"],
            "parameters, M": f"{row['parameters'] / 1e6:.3f}",
            "multiply-adds, M": f"{row['multiply_adds'] / 1e6:.0f}",
            **{
                f"{way}: {name}": as_score(scores[name.lower()], scores[f"{name.lower()}_std"])
                for way, scores in row["test"].items()
                for name in ("Dice", "IoU")
            },
        }
        for row in rows
    ]


def draw(kept: Sequence[Row]) -> None:
    """Test IoU in one look against parameters and against multiply-adds, a point a network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    newest: dict[str, Row] = {}
    for row in sorted(kept, key=lambda row: (-len(row["without"]), row["epochs"], row["date"], row["seeds"])):
        newest[row["network"]] = row
    shown = [newest[name] for name in dict.fromkeys(row["network"] for row in kept)]

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), sharey=True, layout="constrained")
    for axis, cost in zip(axes, ("parameters", "multiply_adds"), strict=True):
        for row, marker in zip(shown, _MARKERS, strict=True):
            scores = row["test"][ONE_LOOK]
            axis.errorbar(
                row[cost] / 1e6,
                scores["iou"],
                yerr=scores["iou_std"],
                marker=marker,
                markerfacecolor="white" if row["without"] else None,
                linestyle="none",
                capsize=3,
                label=_label(row),
            )
        axis.set(xscale="log", xlabel=f"{cost.replace('_', '-')}, M")
        for set_formatter in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            set_formatter(FuncFormatter(_one_two_five))
        axis.margins(x=0.15, y=0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test IoU in one look, 331 images")
    if any(row["without"] for row in shown):
        figure.suptitle("hollow: trained before the newest settings of the presets", fontsize=9)
    # Not beside the points: several networks of nearly one size lie upon each other.
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=110)


def _label(row: Row) -> str:
    """A network's name and how it was trained."""
    few = {1: ", one seed", 2: ", two seeds"}
    return f"{row['network']}, {row['epochs']} epochs" + few.get(row["seeds"], "")


def _one_two_five(value: float, _: object) -> str:
    """The labels of a logarithmic axis that are worth their room: 0.2, 0.5, 1, 2, 5, 10, …"""
    return f"{value:g}" if f"{value:g}".lstrip("0.")[:1] in ("1", "2", "5") else ""
