"""The one moment at which a run speaks to MLflow and waits: making the run, or finding it again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isic_smp.errors import UserError
from isic_smp.store import experiment_id, one_line, without_password
from isic_smp.tracking.run_note import KEY_TAG
from isic_smp.tracking.views import VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        UserError: the store refuses or does not answer, or there is no run `run_id`.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri)
    try:
        if run_id is not None:
            run = client.get_run(run_id)
        else:
            number = experiment_id(request.experiment, tracking_uri=tracking_uri)
            run = _made_before(client, number, request.key) or client.create_run(
                number, tags=request.tags, run_name=request.run_name
            )
        if request.view is not None:
            client.set_experiment_tag(run.info.experiment_id, VIEW_TAG, request.view)
    except MlflowException as error:
        what = f"cannot resume run {run_id}" if run_id else "cannot start a run"
        raise UserError(f"{what} in {without_password(tracking_uri)}: {one_line(error)}") from None
    return run.info.experiment_id, run.info.run_id


def _made_before(client: "MlflowClient", number: str, key: str) -> Any:
    if not key:
        return None
    found = client.search_runs([number], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return found[0] if found else None
