import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from isic_smp.inference.load import load, save_bundle
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.tracking.journal import Journal
from isic_smp.tracking.models import log_segmentation_model, logged_models, upload_model
from isic_smp.tracking.run_log import RunLog
from isic_smp.tracking.sending import send_pending

from .conftest import new_store


@pytest.fixture(scope="module")
def model():
    from isic_smp import UpConvNet

    torch.manual_seed(0)
    # Frozen and in training mode, as after a training that keeps its encoder.
    model = UpConvNet("trunc-mobilenetv2_100-s1", encoder_weights=None)
    model.freeze_encoder()
    return model.train()


@pytest.fixture(scope="module")
def logged(started_together, model, tmp_path_factory):
    """The run, its store's client, and the folder that the model was saved in."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("models")
    store = new_store(started_together, folder)
    preprocessing = Preprocessing(size=32, mean=model.mean, std=model.std)
    save_bundle(model, preprocessing, {}, folder / "bundle")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with RunLog.start(
        experiment="models", run_name="a model", params={}, tags={}, journal=folder, tracking_uri=store
    ) as log:
        log_segmentation_model(log, model, preprocessing, folder / "bundle")
    assert model.training and all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    return log, MlflowClient(store), folder / "bundle"


def location(logged) -> str:
    """The folder of the logged MLflow model, in the store's artifacts."""
    log, client, _ = logged
    [output] = client.get_run(log.run_id).outputs.model_outputs
    return client.get_logged_model(output.model_id).artifact_location


def test_the_logged_program_gives_the_networks_logits_at_any_size_and_needs_no_pickle(logged, monkeypatch):
    import mlflow

    _, _, bundle = logged
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    folder = location(logged)
    program, expected = mlflow.pytorch.load_model(folder), load(bundle)
    rng = np.random.default_rng(0)
    for shape in [(1, 3, 32, 32), (2, 3, 48, 80), (5, 3, 64, 40)]:
        x = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        with torch.no_grad():
            assert torch.allclose(program(x), expected(x), atol=1e-4), shape
    described = mlflow.models.Model.load(folder).metadata["preprocessing"]
    assert {"mean", "second_look", "size", "std"} <= set(described)


def test_the_run_holds_the_smp_model_too(logged, model):
    log, _, _ = logged
    again = load(f"runs:/{log.run_id}", tracking_uri=log.tracking_uri)
    assert all(torch.equal(again.state_dict()[n], v) for n, v in model.state_dict().items())


@pytest.mark.oldest
def test_the_logged_program_tells_nothing_of_this_machine(logged):
    with zipfile.ZipFile(f"{location(logged)}/artifacts/model.pt2") as program:
        texts = [program.read(name) for name in program.namelist() if name.endswith(".json")]
    assert texts and not any(b".py" in text for text in texts)


def test_a_model_sent_twice_is_there_once(logged):
    log, client, _ = logged
    (log.journal.folder / "sent").unlink()
    with Journal(log.journal.folder) as journal:
        send_pending(journal, client, log.run_id)
    assert len(client.get_run(log.run_id).outputs.model_outputs) == 1
    assert len(client.search_logged_models([log.experiment_id])) == 1


def test_a_kill_while_the_models_description_is_written_leaves_a_model_that_can_be_sent(
    logged, tmp_path, monkeypatch
):
    from mlflow.models import Model

    log, client, _ = logged
    folder = shutil.copytree(location(logged), tmp_path / "model")
    run_id = client.create_run(log.experiment_id).info.run_id

    def cut_short(self, path):
        Path(path).write_text("")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Model, "save", cut_short)
        upload_model(client, run_id, folder)
    [begun] = logged_models(client, run_id)
    upload_model(client, run_id, folder, begun)
    [output] = client.get_run(run_id).outputs.model_outputs
    assert output.model_id == begun.model_id
    assert str(client.get_logged_model(begun.model_id).status) == "READY"
