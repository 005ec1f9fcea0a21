"""What docker/compose.yaml starts, started here: see rehearse.py."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from postgres_server import programs
from rehearse import SECRETS_OF_SERVERS, Rehearsal, rehearse

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rehearsal() -> Iterator[Rehearsal]:
    if programs() is None:
        pytest.skip("needs PostgreSQL's programs (Debian: apt-get install postgresql); .ci/run installs them")
    # Not in tmp_path, which the user postgres may not enter.
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        done = rehearse(Path(folder))
        yield done
        done.stop()
        assert done.left_over() == []


@pytest.fixture
def client(rehearsal, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "isic")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", rehearsal.secret("mlflow_password"))
    return MlflowClient(rehearsal.here("http://mlflow:5000"))


def runs(client, ending: str) -> list:
    names = [e for e in client.search_experiments() if e.name.endswith(ending)]
    return client.search_runs([e.experiment_id for e in names])


def test_the_trainers_run_its_artifacts_and_its_registered_model_are_on_the_server(
    rehearsal, client, tmp_path
):
    [run] = [r for r in runs(client, "synthetic") if r.info.run_name == "one"]
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    file = client.download_artifacts(run.info.run_id, "smp_model/model.safetensors", str(tmp_path))
    trained = rehearsal.folder / "isic/runs/one/model/model.safetensors"
    assert Path(file).read_bytes() == trained.read_bytes()
    assert list((rehearsal.folder / "mlflow/artifacts").rglob("model.safetensors"))
    [version] = client.search_model_versions("name='lesions'")
    assert version.run_id == run.info.run_id


def test_the_workers_share_one_study_under_one_run(rehearsal, client):
    import optuna

    study = optuna.load_study(study_name="rehearsal", storage=rehearsal.secret("study_storage"))
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3
    assert sorted(t.params["way"] for t in study.trials) == ["fine-tuned", "frozen", "gradual"]
    everything = runs(client, "-sweeps")
    [parent] = [r for r in everything if r.info.run_name == "rehearsal"]
    assert parent.info.status == "FINISHED"
    children = {
        r.info.run_id for r in everything if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert children == {t.user_attrs["run_id"] for t in study.trials}
    assert "answer.md" in [a.path for a in client.list_artifacts(parent.info.run_id)]


def test_without_credentials_or_from_another_address_nothing_is_answered(rehearsal):
    url = rehearsal.here("http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1")
    good = ("isic", rehearsal.secret("mlflow_password"))

    def status(auth=None, **headers) -> int:
        return requests.get(url, auth=auth, headers=headers, timeout=60).status_code

    assert (status(), status(("isic", "guessed")), status(good)) == (401, 401, 200)
    assert status(good, Host="mlflow:5000") == 200
    assert status(good, Host="elsewhere.example") == 403
    artifacts = rehearsal.here("http://mlflow:5000/api/2.0/mlflow-artifacts/artifacts")
    assert requests.get(artifacts, timeout=60).status_code == 401


def test_the_dashboard_shows_the_study(rehearsal):
    found = requests.get(rehearsal.here("http://127.0.0.1:8080/api/studies"), timeout=60).json()
    assert [study["study_name"] for study in found["study_summaries"]] == ["rehearsal"]


def test_no_secret_is_on_a_command_line_or_in_a_log(rehearsal):
    lines = rehearsal.command_lines()
    assert "mlflow server" in lines
    said = lines + "".join(path.read_text() for path in rehearsal.folder.glob("*.log"))
    for name in SECRETS_OF_SERVERS:
        assert rehearsal.secret(name) not in said, name
