"""Scored runs as `find_runs` gives them, made up."""

import numpy as np

from isic_smp.comparison.runs import ScoredRun


def some_run(name="run", scores=(0.5, 0.6, 0.7), **changes) -> ScoredRun:
    n = len(scores)
    recipe = {"freeze": False, "freeze_epochs": 0, "lr": 0.1, "size": 32, "seed": 0}
    values = {
        "name": name,
        "run_id": None,
        "model": name,
        "recipe": recipe | changes.pop("recipe", {}),
        "data": {"name": "isic2016", "fingerprint": "f" * 64, "description": "isic2016: …"},
        "ids": tuple(f"ISIC_{i:07}" for i in range(n)),
        "sizes": np.full((n, 2), 48),
        "lesion_area": np.linspace(0.1, 0.5, n),
        "scores": np.array(scores, dtype=float),
    }
    return ScoredRun(**(values | changes))
