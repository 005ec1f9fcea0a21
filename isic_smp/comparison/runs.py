"""Finished runs with the scores of each image, from an output folder or from MLflow."""

import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isic_smp.data.fingerprint import shortened
from isic_smp.errors import UserError
from isic_smp.inference.from_mlflow import MODEL_FOLDER, RUN
from isic_smp.store import existing_store, one_line, without_password
from isic_smp.tracking.run_note import RUN_FILE
from isic_smp.training.recipe import completed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Metric = Literal["dice", "iou"]
Split = Literal["test", "validation"]

MODEL_FILE = "isic_smp.json"  # `inference.load.BUNDLE`, whose import takes seconds


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run and one score for each image of a split, sorted by image id."""

    name: str
    run_id: str | None
    """In MLflow, where known."""
    model: str
    """Its saved model, as `inference.load.load_bundle` takes it."""
    recipe: dict[str, Any]
    data: dict[str, str]
    """`name`, `fingerprint` and `description` of the data; `fold` of one of several folds, `folds` of all of them."""
    ids: tuple[str, ...]
    sizes: np.ndarray
    """Height and width of each image, int (N, 2)."""
    lesion_area: np.ndarray
    """Share of lesion pixels in each true mask, (N,), 0 to 1."""
    scores: np.ndarray
    """Score of each image at its own size, (N,), 0 to 1."""
    parts: "tuple[ScoredRun, ...]" = ()
    """The runs that this one was put together from (`folds.join_folds`), each with the images it scored."""

    @property
    def members(self) -> "tuple[ScoredRun, ...]":
        """The runs that were trained: itself, or its parts."""
        return self.parts or (self,)

    def member_for(self, image_id: str) -> "ScoredRun":
        """The run that scored the image."""
        return next(run for run in self.members if image_id in run.ids)

    def score_of(self, image_id: str) -> float:
        """The image's score."""
        return float(self.scores[self.ids.index(image_id)])

    @property
    def seed(self) -> int | None:
        """The seed it was trained with."""
        return self.recipe.get("seed")


def find_runs(
    specs: Sequence[str], *, metric: Metric, split: Split, tracking_uri: str | None = None
) -> list[ScoredRun]:
    """The runs that `specs` name, in order.

    Args:
        specs: each a run's --output-dir, an MLflow run id or `runs:/ID`, or an MLflow run name.
        metric: which score.
        split: of which images.
        tracking_uri: MLflow store. Default: MLFLOW_TRACKING_URI, else ./mlruns.

    Raises:
        UserError: no such run, a run without these scores, or one named twice.
    """
    found: list[ScoredRun] = []
    for spec in specs:
        if Path(spec).is_dir():
            run = _from_folder(Path(spec), metric, split)
        else:
            run = _from_mlflow(spec, metric, split, tracking_uri)
        same = [r for r in found if r.model == run.model or (run.run_id and r.run_id == run.run_id)]
        if same:
            raise UserError(f"{spec} is named twice (also as {same[0].name}): name each run once")
        found.append(run)
    return found


def check_comparable(runs: Sequence[ScoredRun], *, any_size: bool = False) -> None:
    """Refuse runs whose scores do not stand side by side.

    Args:
        runs: at least one.
        any_size: accept networks that see pictures of different sizes; scores are at own size anyway.

    Raises:
        UserError: other data, other images, images of other sizes, or networks of other sizes.
    """
    first = runs[0]
    for run in runs[1:]:
        pair = f"cannot compare {first.name} with {run.name}"
        if _fingerprint(first) != _fingerprint(run):
            raise UserError(
                f"{pair}: they worked on different data ({_describe(first)} with fingerprint "
                f"{shortened(_fingerprint(first))}, {_describe(run)} with {shortened(_fingerprint(run))}); "
                "run both on the same data"
            )
        if odd := sorted(set(first.ids) ^ set(run.ids)):
            raise UserError(
                f"{pair}: {len(odd)} images were scored in only one of them, {odd[0]} for one; score both again"
            )
        if not np.array_equal(first.sizes, run.sizes):
            at = int(np.flatnonzero((first.sizes != run.sizes).any(axis=1))[0])
            height, width = first.sizes[at]
            raise UserError(
                f"{pair}: {first.ids[at]} was scored at {height} × {width} pixels in one and at "
                f"{run.sizes[at][0]} × {run.sizes[at][1]} in the other; score both on the same files"
            )
        network = [r.recipe.get("size") for r in (first, run)]
        if network[0] != network[1] and not any_size:
            raise UserError(
                f"{pair}: their networks see pictures of {network[0]} and {network[1]} pixels; "
                "if that is what you want to compare, add --any-size"
            )


def _fingerprint(run: ScoredRun) -> str:
    """Of all the data, with the fold or the group that was left out, if any."""
    return run.data.get("fingerprint", "unknown")


def _describe(run: ScoredRun) -> str:
    return run.data.get("description") or "unknown data"


def _from_folder(folder: Path, metric: Metric, split: Split) -> ScoredRun:
    run_file = folder / RUN_FILE
    run_id = _read_json(run_file).get("run_id") if run_file.is_file() else None
    name = folder.resolve().name
    table, model = folder / f"{split}_scores.csv", folder / "model" / MODEL_FILE
    for file in (table, model):
        if not file.is_file():
            others = split == "test" and (folder / "validation_scores.csv").is_file()
            raise UserError(
                f"{folder} has no {file.relative_to(folder)}: expected the --output-dir of a finished run "
                f"with {split} scores" + "; it has validation scores, add --split validation" * others
            )
    return _read(name, run_id, str(folder), table=table, model=model, metric=metric)


def _from_mlflow(spec: str, metric: Metric, split: Split, tracking_uri: str | None) -> ScoredRun:
    if "/" in spec and not RUN.fullmatch(spec):
        raise UserError(f"no folder {spec}: expected a run's --output-dir, a run id or runs:/ID")
    uri = existing_store(tracking_uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        run = _find_in_mlflow(client, spec, without_password(uri))
        with tempfile.TemporaryDirectory() as folder:
            files = [f"scores/{split}_scores.csv", f"{MODEL_FOLDER}/{MODEL_FILE}"]
            for file in files:
                place = file.rpartition("/")[0]
                if file not in {item.path for item in client.list_artifacts(run.info.run_id, place)}:
                    raise UserError(
                        f"the run {spec} has no artifact {file} in {without_password(uri)}: expected a "
                        f"finished run of isic_smp with {split} scores"
                    )
            table, model = (Path(client.download_artifacts(run.info.run_id, file, folder)) for file in files)
            name = run.info.run_name or run.info.run_id[:8]
            return _read(name, run.info.run_id, run.info.run_id, table=table, model=model, metric=metric)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"cannot get the run {spec} from {without_password(uri)}: {one_line(error)}"
        ) from None


def _find_in_mlflow(client: "MlflowClient", spec: str, store: str) -> "Run":
    if named := RUN.fullmatch(spec):
        return client.get_run(named["run_id"])
    experiments = [e.experiment_id for e in client.search_experiments()]
    # A quote would end the text in MLflow's filter language; no run that isic_smp named has one.
    found = (
        [] if {'"', "'"} & set(spec) else client.search_runs(experiments, f'attributes.run_name = "{spec}"')
    )
    if not found:
        raise UserError(
            f"no run {spec!r}: expected a run's --output-dir, or the id or name of a run in {store} "
            "(--tracking-uri names another store)"
        )
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found[:4])
        raise UserError(
            f"{len(found)} runs are named {spec!r}: name one by its id ({ids}{', …' * (len(found) > 4)})"
        )
    return found[0]


def _read(name: str, run_id: str | None, spec: str, *, table: Path, model: Path, metric: Metric) -> ScoredRun:
    info = _read_json(model).get("info", {})
    rows = _read_table(table, metric)
    rows.sort(key=lambda row: row[0])
    return ScoredRun(
        name=name,
        run_id=run_id,
        model=spec,
        recipe=completed(info["recipe"]) if info.get("recipe") else {},
        data=info.get("data", {}),
        ids=tuple(row[0] for row in rows),
        sizes=np.array([row[1:3] for row in rows], dtype=int),
        lesion_area=np.array([row[3] for row in rows]),
        scores=np.array([row[4] for row in rows]),
    )


def _read_table(path: Path, metric: Metric) -> list[tuple[str, int, int, float, float]]:
    """Rows of (id, height, width, share of lesion pixels, score)."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                (
                    r["id"],
                    int(r["height"]),
                    int(r["width"]),
                    float(r["lesion_area"]),
                    float(r[f"{metric}_own"]),
                )
                for r in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        problem = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"cannot read the scores {path.name} ({problem}): score the run again") from None
    if (
        len(rows) < 2
        or len({row[0] for row in rows}) < len(rows)
        or not np.isfinite([r[3:] for r in rows]).all()
    ):
        raise UserError(
            f"{path.name} must score at least 2 images once each, in finite numbers, got {len(rows)} rows: "
            "score the run again"
        )
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    return values if isinstance(values, dict) else {}
