"""A run's trained model in MLflow: one model that loads anywhere in two ways, and the smp folder to go on from.

- The MLflow model `model`: see `isic_smp.tracking.mlflow_model`.
- The artifact folder `smp_model`: what `isic_smp.load` reads, for fine-tuning further.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from isic_smp.files import write_atomically
from isic_smp.inference.from_mlflow import MODEL_FOLDER
from isic_smp.inference.load import BUNDLE
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.tracking.journal import Entry, Journal
from isic_smp.tracking.mlflow_model import save_mlflow_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from isic_smp.tracking.run_log import RunLog

MODEL_NAME = "model"


def log_segmentation_model(
    run_log: "RunLog", model: nn.Module, preprocessing: Preprocessing, model_folder: Path
) -> None:
    """Export `model` and log it, and its saved folder, with the run.

    Takes some seconds here (the export); the upload is the journal's. A resumed run that has logged its
    model before leaves it: it may be on its way at this moment.

    Args:
        run_log: The run.
        model: An smp model, on any device and in any mode; it is copied, not touched.
        preprocessing: What its inputs went through; kept in the MLflow model's metadata.
        model_folder: The model saved by `isic_smp.inference.load.save_bundle`.
    """
    if not run_log.has_model(MODEL_NAME):
        folder = run_log.journal.files / MODEL_NAME
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while exporting
        info = json.loads((model_folder / BUNDLE).read_text(encoding="utf-8"))["info"]
        save_mlflow_model(model, preprocessing, info, folder)
        run_log.log_model(folder, MODEL_NAME)
    run_log.log_artifact(model_folder, MODEL_FOLDER)


def send_model(entry: Entry, journal: Journal, client: "MlflowClient", run_id: str) -> None:
    """Upload a saved MLflow model as an output of the run; what is there already is not made twice."""
    folder = journal.folder / entry["path"]
    if not folder.exists():
        return  # it has arrived before, and was deleted then
    known = logged_models(client, run_id, entry["name"])
    upload_model(client, run_id, folder, known[0] if known else None, name=entry["name"])
    shutil.rmtree(folder)


def logged_models(client: "MlflowClient", run_id: str, name: str = MODEL_NAME) -> "list[LoggedModel]":
    """The models of a run that carry `name`, begun or complete."""
    experiment_id = client.get_run(run_id).info.experiment_id
    return list(
        client.search_logged_models(
            [experiment_id], filter_string=f"name = '{name}' AND source_run_id = '{run_id}'"
        )
    )


def upload_model(
    client: "MlflowClient",
    run_id: str,
    folder: Path,
    logged: "LoggedModel | None" = None,
    *,
    name: str = MODEL_NAME,
) -> str:
    """Make the MLflow model in `folder` an output of the run, or go on with `logged`, which was begun; its id."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if logged is None:
        experiment_id = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment_id, name, source_run_id=run_id)
    if str(logged.status) != "READY":
        description = Model.load(str(folder))
        description.run_id, description.model_id = run_id, logged.model_id
        description.model_uuid, description.artifact_path = logged.model_id, name
        # Whole or as it was: a kill here must leave a model that the next sender can read.
        write_atomically(folder / "MLmodel", lambda part: description.save(str(part)))
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)
