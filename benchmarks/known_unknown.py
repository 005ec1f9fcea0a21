"""IoU of pictures by networks that know their like and by networks that do not: rows of a table, and a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import as_score, with_error

FAILED = 0.65


def as_row(what: str, name: str, scores: np.ndarray) -> dict[str, Any]:
    """What such pictures have, known and unknown.

    Args:
        what: kind of what is known or not: the first column's head.
        name: which of them.
        scores: IoU of each picture, known and unknown, (2, N).
    """
    known, unknown = scores
    return {
        what: name,
        "pictures": len(known),
        "known": as_score(known.mean()),
        "unknown": as_score(unknown.mean()),
        "difference": with_error(unknown - known),
        "failed, known": f"{(known < FAILED).mean():.1%}",
        "failed, unknown": f"{(unknown < FAILED).mean():.1%}",
    }


def draw(scores: Mapping[str, np.ndarray], *, what: str, picture: Path) -> None:
    """The difference that it makes to each of them, with a 95 % interval by the standard error, as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 0.4 * len(scores) + 1.2), layout="constrained")
    for row, (known, unknown) in enumerate(scores.values()):
        change = unknown - known
        error = 1.96 * change.std() / len(change) ** 0.5
        axis.errorbar(change.mean(), row, xerr=error, fmt="o", color="C0", capsize=3)
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_yticks(range(len(scores)), [f"{name} ({its.shape[1]})" for name, its in scores.items()])
    axis.invert_yaxis()
    axis.set_xlabel(f"IoU with the {what} unknown, minus with it known")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(picture, dpi=110)
