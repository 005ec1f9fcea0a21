"""What a study sends to MLflow where the server fails on the way."""

from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import requests

from isic_smp.errors import UserError
from isic_smp.sweeping import final_scores
from isic_smp.sweeping.results import TEST
from isic_smp.sweeping.study_run import StudyRun


class Client:
    """An MLflow client whose server takes no files while it `fails`."""

    def __init__(self) -> None:
        self.fails = True
        self.files: list[str] = []

    def log_batch(self, run_id: str, metrics: list) -> None:
        pass

    def log_artifact(self, run_id: str, path: str, folder: str | None = None) -> None:
        if self.fails:
            raise requests.ConnectionError("Connection aborted.")
        self.files.append(f"{run_id}/{folder}/{Path(path).name}")


@pytest.fixture
def client(monkeypatch) -> Client:
    made = Client()
    monkeypatch.setattr("mlflow.MlflowClient", lambda uri: made)
    return made


def test_test_scores_that_did_not_reach_mlflow_are_sent_again_and_not_computed_again(
    client, tmp_path, monkeypatch
):
    scored = []

    def score(result, *_, **__):
        scored.append(result.number)
        return SimpleNamespace(
            to_csv=lambda path: path.write_text("id\n"), summary=lambda: {"iou_per_image_own": 0.5}
        )

    monkeypatch.setattr(final_scores, "_score", score)
    study, trial = optuna.create_study(), SimpleNamespace(number=3, folder=tmp_path, run_id="r")

    def visit() -> None:
        run = StudyRun("parent", "0", "http://localhost:1")
        final_scores.score_tests(study, [trial], None, run=run, binarize_masks=False, device="cpu")

    visit()
    assert f"{TEST}3" in study.user_attrs and client.files == []
    client.fails = False
    visit()
    visit()
    assert client.files == ["r/scores/test_scores.csv"]
    assert scored == [3]


def test_an_answer_whose_files_do_not_arrive_is_one_line(client, tmp_path):
    run = StudyRun("parent", "0", "http://localhost:1")
    with pytest.raises(UserError, match=r"did not reach .*Connection aborted.*same command again"):
        run.finish("FINISHED", files=[tmp_path / "answer.md"], metrics={}, answer="")
