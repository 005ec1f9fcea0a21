"""The one moment at which a run speaks to MLflow and waits: making the run, or finding it again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isic_smp.errors import UserError
from isic_smp.store import experiment_id, one_line, without_password
from isic_smp.tracking.run_note import KEY_TAG
from isic_smp.tracking.views import VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class RunRequest:
    """What a run is made from; plain JSON values."""

    experiment: str
    run_name: str
    tags: dict[str, str]
    key: str
    """Its own tag's value, by which a run is found that was made and not noted; empty: none."""
    view: str | None
    """The experiment's view, as a tag."""


def open_run(request: RunRequest, tracking_uri: str, run_id: str | None = None) -> tuple[str, str]:
    """Make the run, or find `run_id`, or the run that carries the request's key.

    Returns:
        Ids of the experiment and of the run.

    Raises:
        UserError: the store refuses or does not answer, or run `run_id` is not there or was deleted.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri)
    try:
        if run_id is not None:
            run = client.get_run(run_id)
            if why := _deleted(run):
                raise UserError(f"cannot resume in {without_password(tracking_uri)}: {why}")
        else:
            number = experiment_id(request.experiment, tracking_uri=tracking_uri)
            run = _made_before(client, number, request.key) or client.create_run(
                number, tags=request.tags, run_name=request.run_name
            )
        if request.view is not None:
            client.set_experiment_tag(run.info.experiment_id, VIEW_TAG, request.view)
    except MlflowException as error:
        what = f"cannot resume run {run_id}" if run_id else "cannot start a run"
        way_out = "; give the --tracking-uri that it was begun with" if run_id else ""
        raise UserError(f"{what} in {without_password(tracking_uri)}: {one_line(error)}{way_out}") from None
    return run.info.experiment_id, run.info.run_id


def why_away(client: "MlflowClient", run_id: str) -> str | None:
    """Why MLflow takes nothing for a run, whatever it is sent; None where the run is there.

    Raises:
        MlflowException: the store does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _deleted(client.get_run(run_id))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"run {run_id} is not there"


def _deleted(run: "Run") -> str | None:
    if run.info.lifecycle_stage != "deleted":
        return None
    run_id = run.info.run_id
    return f"run {run_id} was deleted (`mlflow runs restore --run-id {run_id}` brings it back)"


def _made_before(client: "MlflowClient", number: str, key: str) -> Any:
    if not key:
        return None
    found = client.search_runs([number], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return found[0] if found else None
