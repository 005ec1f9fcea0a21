"""A prepared view of an experiment in MLflow's UI: columns of the runs table, pictures side by side.

By itself the UI shows no metric in the runs table, and puts all of a run's parameters above each
picture, which pushes the picture out of its card. What a user sets with "Share view" is kept by the
UI as an experiment tag, and opened by a key in the address; the same is written here
(layout as of MLflow 3.17; a UI that does not know it shows its own defaults).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VIEW_KEY = "isic_smp"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
PICTURES = "pictures"
SECTIONS = ("test", PICTURES, "val", "train")
"""From top to bottom; the UI puts the chart of a metric into the section of its prefix."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What the runs table and the chart view show first; charts of all metrics follow by themselves.

    Metrics logged at step 0 become bars, one a run; others become curves.
    """

    metrics: Sequence[str] = ()
    """Columns of the runs table."""
    params: Sequence[str] = ()
    """More columns."""
    grid: Sequence[str] = ()
    """Image keys, all logged at step 0, of one table: a row a key, a column a run."""
    pictures: Mapping[str, int] = field(default_factory=dict)
    """Image keys with a card of their own, and the step at which each starts."""

    def to_tag(self) -> str:
        """The value of the experiment tag `VIEW_TAG`; MLflow takes up to 5000 characters."""
        charts = [_images(key, [key], step) for key, step in self.pictures.items()]
        if self.grid:
            charts.insert(0, _images("grid", list(self.grid), 0))
        # The UI makes a card for each key that has none; one that was "deleted" stays away.
        charts += [
            _images(key, [key], 0) | {"deleted": True} for key in self.grid if key not in self.pictures
        ]
        state = {
            "selectedColumns": [f"metrics.`{m}`" for m in self.metrics]
            + [f"params.`{p}`" for p in self.params],
            "compareRunCharts": charts,
            "compareRunSections": [_section(name) for name in SECTIONS],
            "isAccordionReordered": True,
            "runsHiddenMode": "FIRST_10_RUNS",
            "hideEmptyCharts": True,
            "useGroupedValuesInCharts": True,
            "autoRefreshEnabled": True,
        }
        return json.dumps(state, separators=(",", ":"))


def _section(name: str) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": name != PICTURES,
    }


def _images(name: str, keys: list[str], step: int) -> dict[str, Any]:
    return {
        "uuid": name,
        "type": "IMAGE",
        "runsCountToCompare": 10,
        "metricSectionId": PICTURES,
        "deleted": False,
        "isGenerated": False,
        "imageKeys": keys,
        "step": step,
        "showRunParams": False,
    }
