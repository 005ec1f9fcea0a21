"""What a study sends to MLflow where the store fails on the way."""

from pathlib import Path

import optuna
import pytest
import torch
from mlflow import MlflowClient

import isic_smp
from isic_smp.data.source import resolve_data
from isic_smp.data.synthetic import make_synthetic
from isic_smp.errors import UserError
from isic_smp.inference.load import OUTPUT_FOLDER, save_bundle
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.store import experiment_id, prepare_store
from isic_smp.sweeping.final_scores import FILE, score_tests
from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.results import TEST, TrialResult
from isic_smp.sweeping.study_run import StudyRun
from isic_smp.training.recipe import PRESETS


@pytest.fixture
def store(tmp_path):
    """A store's address, its client, and an experiment in it."""
    uri = prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
    return uri, MlflowClient(uri), experiment_id("sweeps", tracking_uri=uri)


@pytest.fixture
def trial(tmp_path, store) -> TrialResult:
    """A complete one of a tiny network."""
    torch.manual_seed(0)
    model = isic_smp.UpConvNet("trunc-mobilenetv2_035-s1", encoder_weights=None).eval()
    preprocessing = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    info = {"recipe": {"loss": "bce", "batch_size": 2}}
    save_bundle(model, preprocessing, info, tmp_path / "trial" / OUTPUT_FOLDER)
    _, client, experiment = store
    return TrialResult(
        number=3,
        params={},
        seed=0,
        folder=tmp_path / "trial",
        run_id=client.create_run(experiment).info.run_id,
        val_iou=0.5,
        val_dice=0.6,
        test_iou=None,
        test_dice=None,
        parameters=1,
        gmacs=0.1,
        seconds=1.0,
    )


def test_test_scores_that_did_not_reach_mlflow_are_sent_again_and_not_computed_again(store, trial, tmp_path):
    uri, client, experiment = store
    make_synthetic(tmp_path / "drawn", train=1, val=1, test=2, size=32)
    data, _ = resolve_data("synthetic", tmp_path / "drawn", cache_dir=tmp_path)
    study = optuna.create_study()

    def visit(address: str) -> None:
        run = StudyRun("parent", experiment, address)
        score_tests(study, [trial], data, run=run, binarize_masks=False, device="cpu")

    def sent() -> list[str]:
        return [file.path for file in client.list_artifacts(trial.run_id, "scores")]

    visit("http://127.0.0.1:9")  # where nobody listens
    table = trial.folder / FILE
    scored = table.stat().st_mtime_ns
    assert f"{TEST}3" in study.user_attrs and sent() == []
    visit(uri)
    assert sent() == [f"scores/{FILE}"] and table.stat().st_mtime_ns == scored
    assert "test/iou_per_image_own" in client.get_run(trial.run_id).data.metrics
    table.write_text("changed since")  # would be sent if it were sent once more
    visit(uri)
    assert Path(client.download_artifacts(trial.run_id, f"scores/{FILE}")).read_text() != "changed since"
    assert len(client.get_metric_history(trial.run_id, "test/iou_per_image_own")) == 1


def test_an_answer_whose_files_do_not_arrive_is_one_line(store, tmp_path):
    uri, client, experiment = store
    parent = client.create_run(experiment).info
    (tmp_path / "answer.md").write_text("an answer")
    Path(parent.artifact_uri).parent.mkdir(parents=True)
    Path(parent.artifact_uri).touch()  # a file where the run's folder should be
    run = StudyRun(parent.run_id, experiment, uri)
    with pytest.raises(UserError, match=r"did not reach .*same command again"):
        run.finish("FINISHED", files=[tmp_path / "answer.md"], metrics={}, answer="")


def test_the_study_s_last_figures_stand_at_the_end_of_their_curves(store):
    uri, client, experiment = store
    run = StudyRun(client.create_run(experiment).info.run_id, experiment, uri)
    study, plan = (
        optuna.create_study(direction="maximize"),
        Plan(base=PRESETS["report"], distributions={}, cells=()),
    )
    for iou in (0.3, 0.5):
        study.add_trial(optuna.create_trial(value=iou, user_attrs={"val_iou": iou, "val_dice": iou}))
        run.progress(study, plan)
    # Of the third trial MLflow did not hear when it ended.
    run.finish(
        "FINISHED",
        files=[],
        metrics={"best/val_iou": 0.7, "trials/complete": 3, "best/test_iou": 0.6},
        answer="",
    )
    shown = client.get_run(run.run_id).data.metrics
    assert (shown["best/val_iou"], shown["trials/complete"], shown["best/test_iou"]) == (0.7, 3, 0.6)
    curve = client.get_metric_history(run.run_id, "best/val_iou")
    assert [(point.step, point.value) for point in curve if point.step < 2] == [(1, 0.3)]
    assert {point.step for point in client.get_metric_history(run.run_id, "best/test_iou")} == {0}
