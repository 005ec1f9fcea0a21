"""What a run has left behind: its weights, what MLflow and the registry hold, and whether half-written files lie about."""

import contextlib
import hashlib
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """Comparable between runs: times and speeds, which differ, are left out."""

    weights: str
    """Their digest."""
    metrics: dict[str, list]
    """Each metric's history."""
    wrong: list[str]
    """What no run may leave behind."""


def look(folder: Path) -> Outcome:
    """What the run in `folder` has left behind."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    wrong = []
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    if [run.info.status for run in runs] != ["FINISHED"]:
        wrong.append(f"MLflow runs: {[run.info.status for run in runs]}, expected one, finished")
    metrics: dict[str, list] = {}
    for run in runs[:1]:
        noted = json.loads((folder / "out" / "mlflow_run.json").read_text())["run_id"]
        if noted != run.info.run_id:
            wrong.append("the noted run is not the run")
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            values = [0.0] * len(history) if name == "images_per_second" else [m.value for m in history]
            metrics[name] = sorted(zip((m.step for m in history), values, strict=True))
            steps = [m.step for m in history]
            if len(set(steps)) != len(steps):
                wrong.append(f"{name} has steps {steps}")
        pictures = [i.path for i in client.list_artifacts(run.info.run_id, "images")]
        stems = Counter(p.split("+timestamp+")[0] + Path(p).suffix for p in pictures)
        wrong += [f"picture {stem} {count} times" for stem, count in stems.items() if count > 1]
        metrics["pictures"] = sorted([stem, 1] for stem in stems)
        outputs = run.outputs.model_outputs if run.outputs else []
        models = client.search_logged_models([run.info.experiment_id])
        if len(outputs) != 1 or len(models) != 1 or str(models[0].status) != "READY":
            wrong.append(f"{len(outputs)} model outputs, {len(models)} logged models")
    versions = client.search_model_versions("name = 'lesions'")
    if len(versions) != 1:
        wrong.append(f"{len(versions)} registered versions")
    halves = [str(p.relative_to(folder)) for p in folder.rglob("*") if is_half(p)]
    if halves:
        wrong.append(f"left over: {halves}")
    model = folder / "out" / "model" / "model.safetensors"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return Outcome(digest, metrics, wrong)


def is_half(path: Path) -> bool:
    return path.suffix == ".part" or path.name == ".building" or ".tmp" in path.name


def statuses(folder: Path) -> list[str]:
    """The states of all runs in the store; asked of SQLite itself, since MLflow's client may not outlive a fork."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [status for (status,) in database.execute("SELECT status FROM runs")]
