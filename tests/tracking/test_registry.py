"""Registering runs, and letting one version replace another only on evidence."""

import csv
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from isic_smp import UpConvNet
from isic_smp import registry as command
from isic_smp.conclude import Result
from isic_smp.errors import UserError
from isic_smp.inference.from_mlflow import MODEL_FOLDER
from isic_smp.inference.load import load, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.program_file import checked_program
from isic_smp.run import register
from isic_smp.tracking.mlflow_model import save_mlflow_model
from isic_smp.tracking.registry import Registry
from isic_smp.tracking.run_note import OFFLINE, RunNote
from isic_smp.training.metrics import METRICS

from .conftest import WITHOUT_THE_TRAINING_CODE

IMAGES = 40
DICE = np.random.default_rng(0).uniform(0.5, 0.95, IMAGES)
AREAS = np.random.default_rng(1).uniform(0.1, 0.5, IMAGES)
SCORES = {f"{name}_per_image_own": 0.8 for name in METRICS}
INFO = {
    "recipe": {"encoder": "trunc-mobilenetv2_035-s1", "lr": 0.001},
    "data": {"name": "isic2016", "description": "train 9 of 9", "fingerprint": "abc"},
    "validation": SCORES,
    "test": {**SCORES, "dice_per_image_own": 0.7},
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UpConvNet("trunc-mobilenetv2_035-s1", encoder_weights=None).eval()


@pytest.fixture(scope="module")
def preprocessing():
    return Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), threshold=0.4)


@pytest.fixture(scope="module")
def mlflow_model(network, preprocessing, tmp_path_factory) -> Path:
    """Exported once: the runs of these tests all log the same network."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    save_mlflow_model(network, preprocessing, INFO, folder)
    return folder


@pytest.fixture
def finish_run(client, network, preprocessing, mlflow_model, tmp_path):
    """Make a finished run with a model and validation scores; its id."""
    from isic_smp.tracking.models import upload_model

    experiment = client.create_experiment("tests", artifact_location=str(tmp_path / "artifacts"))

    def finish_run(
        name: str = "a run",
        *,
        dice: np.ndarray | None = DICE,
        areas: np.ndarray = AREAS,
        ids: list[str] | None = None,
        fingerprint: str = "abc",
        older: bool = False,
        status: str = "FINISHED",
    ) -> str:
        tags = {"data_fingerprint": fingerprint}
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        save_bundle(network, preprocessing, INFO, tmp_path / "bundle")
        client.log_artifacts(run_id, str(tmp_path / "bundle"), MODEL_FOLDER)
        if not older:
            shutil.copytree(mlflow_model, tmp_path / run_id)
            upload_model(client, run_id, tmp_path / run_id)
        if dice is not None:
            ids = ids or [f"ISIC_{n:07d}" for n in range(IMAGES)]
            with (tmp_path / "validation_scores.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["id", "height", "width", "lesion_area", "dice_own"])
                writer.writerows(zip(ids, [8] * IMAGES, [9] * IMAGES, areas, dice, strict=True))
            client.log_artifact(run_id, str(tmp_path / "validation_scores.csv"), "scores")
        if status == "FINISHED":
            client.set_terminated(run_id)
        return run_id

    return finish_run


@pytest.fixture
def models(store) -> Registry:
    return Registry(store)


@pytest.fixture
def champion(models, finish_run) -> str:
    """A model `lesions` whose version 1 is the champion; its run."""
    run_id = finish_run("the first")
    models.register(run_id, "lesions")
    models.promote("lesions")
    return run_id


def holder(client) -> str:
    return str(client.get_model_version_by_alias("lesions", "champion").version)


def test_a_version_says_what_it_is_and_can_be_trained_further(models, finish_run, client, network, store):
    run_id = finish_run("frozen")
    version = models.register(run_id, "lesions")
    assert version.tags["data_fingerprint"] == "abc"
    assert version.tags["threshold"] == "0.4" and version.tags["mean"] == "[0.5, 0.5, 0.5]"
    assert version.tags["test.dice_per_image_own"] == "0.700000"
    assert '"lr": 0.001' in version.tags["recipe"]
    assert "| Dice | 0.8000 | 0.7000 |" in version.description and "frozen" in version.description
    again = load("models:/lesions/1", tracking_uri=store)
    assert all(torch.equal(again.state_dict()[n], v) for n, v in network.state_dict().items())


ELSEWHERE = """
uri = "models:/lesions@champion"
info = mlflow.models.get_model_info(uri)
assert info.signature is not None and info.metadata["data"]["fingerprint"] == "abc"
pixels = np.load(sys.argv[2])
batch = (torch.from_numpy(pixels)[None].permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
logits = mlflow.pytorch.load_model(uri)(batch)
[row] = mlflow.pyfunc.load_model(uri).predict([pixels]).to_dict("records")
np.savez(sys.argv[3], network=logits.sigmoid()[0, 0].numpy(), served=row["probability"])
assert not [name for name in sys.modules if name.startswith("isic_smp")]
"""


@pytest.mark.slow
@pytest.mark.oldest
def test_the_champion_loads_both_ways_where_isic_smp_was_never_seen(
    champion, store, network, preprocessing, tmp_path
):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    files = [str(tmp_path / name) for name in ("pixels.npy", "out.npz")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_THE_TRAINING_CODE + ELSEWHERE, store, *files],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [expected] = Predictor(network, preprocessing).predict([pixels])
    out = np.load(files[1])
    assert np.abs(out["network"] - expected).max() < 1e-4
    assert np.abs(out["served"] - expected).max() < 1e-4


def test_a_run_is_registered_once_under_a_name(models, champion):
    assert models.register(champion, "lesions").version == 1
    assert models.register(champion, "moles").version == 1
    assert len(models.versions("lesions")) == 1


@pytest.mark.slow
def test_a_model_of_an_older_isic_smp_is_completed_from_its_weights(models, finish_run, client):
    run_id = finish_run(older=True)
    version = models.register(run_id, "lesions")
    [output] = client.get_run(run_id).outputs.model_outputs
    assert version.source == client.get_logged_model(output.model_id).artifact_location
    assert mlflow.pyfunc.load_model(version.source).predict(np.zeros((5, 6, 3), np.uint8))["width"][0] == 6


def test_its_program_is_one_that_passes_for_free_of_code(mlflow_model):
    program = torch.export.load(checked_program(mlflow_model / "artifacts" / "model.pt2")).module()
    assert program(torch.zeros(3, 3, 64, 32)).shape == (3, 1, 64, 32)


def test_a_better_version_takes_over_and_notes_why(models, champion, finish_run, client):
    models.register(finish_run(dice=DICE + 0.02), "lesions")
    done = models.promote("lesions")
    assert (done.version, done.former, holder(client)) == ("2", "1", "2")
    assert "+0.0200 on 40 images (95 % interval" in done.grounds and "not certain" not in done.grounds
    assert client.get_model_version("lesions", "2").tags["promotion.champion"] == done.grounds


def test_an_uncertain_gain_takes_over_and_is_called_so(models, champion, finish_run):
    noise = np.random.default_rng(2).normal(0, 0.1, IMAGES)
    models.register(finish_run(dice=DICE + noise - noise.mean() + 0.001), "lesions")
    assert "holds 0: not certain" in models.promote("lesions").grounds


def test_a_worse_version_is_refused_unless_forced(models, champion, finish_run, client):
    models.register(finish_run(dice=DICE - 0.001), "lesions")
    with pytest.raises(UserError, match=r"version 1 stays: it is worse: .* -0\.0010 on 40"):
        models.promote("lesions")
    assert holder(client) == "1"
    assert "forced, though it is worse" in models.promote("lesions", force=True).grounds
    assert holder(client) == "2"


def test_without_comparable_scores_nobody_takes_over(models, champion, finish_run, client):
    refusals = [
        ({"dice": None}, "no validation scores of version 2"),
        ({"fingerprint": "xyz"}, "runs were on different data .*xyz and abc"),
        ({"ids": [f"OTHER_{n}" for n in range(IMAGES)]}, "not scored on the same validation images"),
        ({"areas": AREAS[::-1]}, "not scored on the same validation images"),
        ({"dice": np.full(IMAGES, np.nan)}, "not finite"),
    ]
    for version, (changes, message) in enumerate(refusals, start=2):
        models.register(finish_run(**changes), "lesions")
        with pytest.raises(UserError, match=f"^version {version} of lesions .*{message}"):
            models.promote("lesions")
        assert holder(client) == "1"


def test_the_first_champion_needs_scores_too(models, finish_run):
    models.register(finish_run(dice=None), "lesions")
    with pytest.raises(UserError, match="no validation scores"):
        models.promote("lesions")
    assert models.promote("lesions", force=True).former is None


def test_images_in_another_order_are_the_same_images(models, champion, finish_run):
    ids = [f"ISIC_{n:07d}" for n in reversed(range(IMAGES))]
    models.register(finish_run(dice=DICE[::-1], areas=AREAS[::-1], ids=ids), "lesions")
    assert "+0.0000" in models.promote("lesions").grounds


def test_any_version_can_get_any_alias(models, champion, finish_run, client):
    models.register(finish_run(dice=DICE - 0.1), "lesions")
    models.promote("lesions", version="2", alias="challenger")
    models.promote("lesions", version="1")
    assert [(v.version, v.aliases) for v in models.versions()] == [(2, ["challenger"]), (1, ["champion"])]


@pytest.mark.parametrize("alias", ["latest", "v1", "a b@", ""])
def test_an_alias_that_cannot_be_given_leaves_no_note_of_a_promotion(models, champion, client, alias):
    with pytest.raises(UserError, match=f"no version can have the alias '{alias}': expected letters, digits"):
        models.promote("lesions", alias=alias)
    tags = client.get_model_version("lesions", "1").tags
    assert [name for name in tags if name.startswith("promotion.")] == ["promotion.champion"]


def test_more_names_than_the_store_tells_at_once_are_all_listed(models, monkeypatch, tmp_path):
    names = [f"model-{n}" for n in range(5)]
    for name in names:
        models.client.create_registered_model(name)
        models.client.create_model_version(name, source=str(tmp_path))
    search = partial(models.client.search_registered_models, max_results=2)
    monkeypatch.setattr(models.client, "search_registered_models", search)
    assert [version.name for version in models.versions()] == names


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a@b", "it's"])
def test_names_that_cannot_be_loaded_by_are_refused(name, models):
    with pytest.raises(UserError, match="cannot be registered as"):
        models.register("0" * 32, name)


def test_what_is_not_there_is_said_in_one_line(models, finish_run, start, champion):
    with pytest.raises(UserError, match=r"cannot register run 0{32}"):
        models.register("0" * 32, "lesions")
    with start() as log:
        pass
    with pytest.raises(UserError, match="has no smp_model artifact"):
        models.register(log.run_id, "lesions")
    with pytest.raises(UserError, match="is RUNNING: only a finished run"):
        models.register(finish_run(status="RUNNING"), "lesions")
    for bad in ({"name": "none"}, {"name": "lesions", "version": "9"}):
        with pytest.raises(UserError) as caught:
            models.promote(**bad)
        assert "\n" not in str(caught.value)


def test_the_command_registers_promotes_lists_and_shows(finish_run, store, tmp_path, capsys, monkeypatch):
    def run(*words: str) -> str:
        command.main([*words, "--tracking-uri", store])
        return capsys.readouterr().out

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert f"no model is registered yet in {store}" in run("list")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlflow_run.json").write_text(f'{{"run_id": "{finish_run("mine")}"}}')
    assert "lesions version 1: models:/lesions/1" in run(
        "register", str(tmp_path / "out"), "--name", "lesions"
    )
    promoted = run("promote", "lesions")
    assert "champion is version 1" in promoted
    [_, export] = promoted.split("with mlflow itself: export ")  # which by itself looks in ./mlflow.db
    environment = {**os.environ, **dict([export.strip().split("=", 1)])}
    load = "import mlflow; mlflow.MlflowClient().get_model_version_by_alias('lesions', 'champion')"
    subprocess.run([sys.executable, "-c", load], check=True, cwd=tmp_path / "out", env=environment)
    assert not (tmp_path / "out" / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert "export" not in run("promote", "lesions")
    assert run("list").splitlines()[1].split() == ["lesions", "1", "champion", "0.8000", "0.7000", "mine"]
    assert "version 1 (champion)" in run("show", "lesions")
    with pytest.raises(UserError, match="no run 'nowhere'"):
        run("register", "nowhere", "--name", "lesions")
    offline = RunNote(tmp_path / "off line")
    offline.begin(resume=False)
    offline.write(f"{OFFLINE}1")
    send = f"python -m isic_smp.sync '{tmp_path / 'off line'}'"
    with pytest.raises(UserError, match=f"trained with --offline .* send it first: {send}$"):
        run("register", str(tmp_path / "off line"), "--name", "lesions")


def test_what_run_says_to_give_next_names_the_same_model_in_the_same_store(
    finish_run, store, tmp_path, capsys, monkeypatch
):
    """A folder or a name with a space, and a store that no variable names: the line is copied as it stands."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    RunNote(Path("my runs")).write(finish_run())
    result = Result(Path("my runs"), "0" * 32, None, None, None, "")
    with pytest.raises(UserError, match="complete, but not registered") as refused:
        register(result, "my lesions", tracking_uri=store)

    def give(line: str) -> str:
        command.main(shlex.split(line.split("python -m isic_smp.registry ")[1]))
        return capsys.readouterr().out

    assert "models:/my lesions/1" in give(str(refused.value))
    said = register(dataclasses.replace(result, run_id=finish_run()), "my lesions", tracking_uri=store)
    assert "my lesions: champion is version 2" in give(said)


def test_help_comes_at_once_without_heavy_imports():
    code = (
        "import sys\nfrom isic_smp import registry\n"
        "try: registry.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'mlflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
