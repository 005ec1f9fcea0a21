"""The scores of a set of images: each image's, their summary, and a table for others to read."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from isic_smp.training.metrics import METRICS, per_image, summarise

Kind = Literal["worst", "median", "best"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Pixel counts of images, and all that follows from them.

    Two sizes, named in every result: `own` is each image's own size, which the official scorer
    sees; `net` is the square of the model's maps: of one look the network's, which training sees, of two looks
    twice as many pixels along each side.
    """

    ids: tuple[str, ...]
    sizes: np.ndarray
    """Height and width of each image, int (N, 2)."""
    network_counts: np.ndarray
    """True and false positives, false and true negatives in the model's maps, int64 (N, 4)."""
    own_counts: np.ndarray
    """The same at each image's own size."""
    loss: float | None = None
    """Mean loss over the images in the model's maps, where one was asked for."""

    @property
    def map_side(self) -> int:
        """Pixels along each side of the model's maps."""
        return math.isqrt(int(self.network_counts[0].sum()))

    @cached_property
    def own(self) -> dict[str, np.ndarray]:
        """Each image's scores at its own size: metric name to float64 (N,)."""
        return {name: v.numpy() for name, v in per_image(torch.from_numpy(self.own_counts)).items()}

    @cached_property
    def network(self) -> dict[str, np.ndarray]:
        """Each image's scores in the model's maps: metric name to float64 (N,)."""
        return {name: v.numpy() for name, v in per_image(torch.from_numpy(self.network_counts)).items()}

    def summary(self) -> dict[str, float]:
        """One number each: `dice_per_image_own`, `dice_pooled_own`, `dice_per_image_net`, …, and `loss`."""
        numbers = {
            f"{name}_{size}": value
            for size, counts in (("own", self.own_counts), ("net", self.network_counts))
            for name, value in summarise(torch.from_numpy(counts)).items()
        }
        return numbers if self.loss is None else numbers | {"loss": self.loss}

    def table(self) -> dict[str, list]:
        """One row an image, as columns: id, height, width, shares of lesion pixels, and the scores."""
        columns: dict[str, list] = {
            "id": list(self.ids),
            "height": self.sizes[:, 0].tolist(),
            "width": self.sizes[:, 1].tolist(),
        }
        tp, fp, fn, _ = self.own_counts.T
        pixels = self.own_counts.sum(axis=1)
        columns["lesion_area"] = ((tp + fn) / pixels).tolist()
        columns["predicted_area"] = ((tp + fp) / pixels).tolist()
        for size, scores in (("own", self.own), ("net", self.network)):
            columns |= {f"{name}_{size}": scores[name].tolist() for name in METRICS}
        return columns

    def to_csv(self, path: Path) -> None:
        """Write `table()` as CSV."""
        write_columns(self.table(), path)

    def picks(self, kind: Kind, count: int) -> list[str]:
        """Ids of the `count` images of the worst, median or best Dice at own size, worst first.

        Images of equal Dice are taken in the order of their ids.
        """
        order = [id for _, id in sorted(zip(self.own["dice"].tolist(), self.ids, strict=True))]
        count = min(count, len(order))
        start = {"worst": 0, "median": (len(order) - count) // 2, "best": len(order) - count}[kind]
        return order[start : start + count]


def write_columns(columns: Mapping[str, Sequence], path: Path) -> None:
    """Write columns of equal length as CSV, numbers in full, so that they can be compared with other tools'."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
