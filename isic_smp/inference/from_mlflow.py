"""Models that MLflow keeps: from a run id, `runs:/` or `models:/` to a model folder on this machine."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from isic_smp.errors import UserError
from isic_smp.store import existing_store, one_line, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_FOLDER = "smp_model"
"""Artifact folder of an MLflow run that holds the files of a saved model folder (`inference.load`)."""

RUN = re.compile(r"(?:runs:/)?(?P<run_id>[0-9a-f]{32})/?")
RUN_PATH = re.compile(rf"runs:/(?P<run_id>[^/]+)(?:/(?:model|{MODEL_FOLDER}))?/?")
ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[0-9]+)")
LOGGED = re.compile(r"models:/(?P<model_id>m-[0-9a-f]{32})")


def names_mlflow_model(spec: str) -> bool:
    """Whether `spec` has the form of a run or of a registered model."""
    return any(form.fullmatch(spec) for form in (RUN, RUN_PATH, ALIAS, VERSION, LOGGED))


def fetch_model(spec: str, into: Path, *, tracking_uri: str | None = None) -> Path:
    """Download the model folder of a run, or of the run that a registered model came from.

    Args:
        spec: a run id, `runs:/ID`, `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/m-ID`.
        into: folder to download to.
        tracking_uri: MLflow store. Default: MLFLOW_TRACKING_URI, else ./mlruns.

    Returns:
        The model folder, inside `into`.

    Raises:
        UserError: the store cannot be reached, or holds no such run or model.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = existing_store(tracking_uri)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    try:
        run_id = _run_id(client, spec)
        if run_id and any(item.path == MODEL_FOLDER for item in client.list_artifacts(run_id)):
            return Path(client.download_artifacts(run_id, MODEL_FOLDER, str(into)))
    except Exception as error:  # MLflow raises its own and those of whatever stores the artifacts
        raise UserError(f"cannot get {spec} from {without_password(uri)}: {one_line(error)}") from None
    raise UserError(
        f"{spec} has no {MODEL_FOLDER} artifact in {without_password(uri)}: the run did not finish, was not made by isic_smp, "
        "or is a study, whose trials have the models"
    )


def _run_id(client: "MlflowClient", spec: str) -> str | None:
    """The id of the run that made the model, where MLflow knows it."""
    if named := RUN.fullmatch(spec) or RUN_PATH.fullmatch(spec):
        return named["run_id"]
    if named := LOGGED.fullmatch(spec):
        return client.get_logged_model(named["model_id"]).source_run_id
    if named := ALIAS.fullmatch(spec):
        return client.get_model_version_by_alias(named["name"], named["alias"]).run_id
    if named := VERSION.fullmatch(spec):
        return client.get_model_version(named["name"], named["version"]).run_id
    raise ValueError(f"{spec!r} names no MLflow run or model")
