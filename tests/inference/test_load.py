import json
import os
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

import isic_smp
from isic_smp.errors import UserError
from isic_smp.inference.from_mlflow import MODEL_FOLDER
from isic_smp.inference.load import load, load_bundle, save_bundle

ENCODER = "trunc-mobilenetv3_small_050-s1"
INFO = {"recipe": {"lr": 0.001}, "data": {"fingerprint": "abc"}, "test": {"dice_per_image_own": 0.9}}


def upconvnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return isic_smp.create_model("upconvnet", encoder_name=ENCODER, encoder_weights=None).eval()


def same_output(one: nn.Module, other: nn.Module) -> bool:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.equal(one(pixels), other(pixels))


@pytest.fixture
def saved(tmp_path, preprocessing) -> Path:
    folder = tmp_path / "run" / "model"
    save_bundle(upconvnet(), preprocessing, INFO, folder)
    return folder


def test_a_saved_model_comes_back_whole(saved, preprocessing):
    bundle = load_bundle(saved)
    assert same_output(bundle.model, upconvnet())
    assert not any(module.training for module in bundle.model.modules())
    assert (bundle.preprocessing, bundle.info) == (preprocessing, INFO)
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "isic_smp.json", "model.safetensors"]


@pytest.mark.parametrize("spec", [".", "..", "model.safetensors"])
def test_a_folder_its_run_and_a_file_in_it_name_the_same_model(spec, saved):
    assert same_output(load(str(saved / spec)), upconvnet())


@pytest.mark.parametrize("name", ["model.onnx", "best.safetensors", "last.pt", "model/model.onnx"])
def test_another_file_beside_a_model_is_not_taken_for_it(name, saved):
    """Scores that are printed for an exported file or a checkpoint must not be those of the model beside it."""
    file = saved.parent / name
    file.write_bytes(b"another model")
    with pytest.raises(UserError, match=f"^{file} is no file of a saved model.* predict") as refused:
        load(file)
    assert "\n" not in str(refused.value)


def test_smp_reads_the_folder_itself(saved):
    assert same_output(smp.from_pretrained(saved).eval(), upconvnet())


def test_smps_own_architectures_too_and_without_fetching_weights(tmp_path, preprocessing):
    model = smp.Unet(ENCODER, encoder_weights=None, encoder_depth=2, decoder_channels=(8, 4)).eval()
    model.config["encoder_weights"] = "imagenet"  # as a model would say that was built with them
    save_bundle(model, preprocessing, {}, tmp_path / "model")
    assert same_output(load(tmp_path / "model"), model)


def test_saving_again_replaces_the_model_and_leaves_nothing_behind(saved, preprocessing):
    save_bundle(upconvnet(seed=1), preprocessing, INFO, saved)
    assert same_output(load(saved), upconvnet(seed=1))
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_saving_never_replaces_something_else(tmp_path, preprocessing):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no saved model"):
        save_bundle(upconvnet(), preprocessing, INFO, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_failed_save_keeps_the_former_model(saved, preprocessing):
    with pytest.raises(TypeError):
        save_bundle(upconvnet(seed=1), preprocessing, {"bad": object()}, saved)
    assert same_output(load(saved), upconvnet())
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_save_interrupted_between_its_renamings_keeps_the_former_model(saved, preprocessing, monkeypatch):
    replace = Path.replace

    def interrupted(path, target):
        if path.name.endswith(".new.part"):
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(upconvnet(1), preprocessing, INFO, saved)
    assert same_output(load(saved), upconvnet())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "isic_smp.json").unlink(), "holds no model saved by isic_smp"),
        (lambda d: (d / "config.json").unlink(), "cannot read .*config.json: FileNotFoundError"),
        (lambda d: (d / "model.safetensors").unlink(), "cannot load the weights .*: FileNotFoundError"),
        (lambda d: (d / "config.json").write_text("{"), "cannot read .*config.json: JSONDecodeError"),
        (lambda d: (d / "isic_smp.json").write_bytes(b"\xff\xfe"), "cannot read .*: UnicodeDecodeError"),
        (lambda d: (d / "config.json").write_text("[" * 100_000), "cannot read .*: RecursionError"),
        (lambda d: (d / "config.json").write_text("[]"), "must hold a JSON object, got list"),
        (lambda d: edit(d / "isic_smp.json", format=2), "has format 2, expected 1"),
        (lambda d: edit(d / "isic_smp.json", preprocessing=3), "lacks preprocessing or info"),
        (lambda d: edit(d / "isic_smp.json", preprocessing={"size": 3}), "must have the fields"),
        (
            lambda d: edit(d / "config.json", _model_class="from_pretrained"),
            "the model class 'from_",
        ),
        (lambda d: edit(d / "config.json", encoder_name="trunc-vgg-s1"), "cannot build UpConvNet"),
        (lambda d: edit(d / "config.json", colour="red"), "cannot build UpConvNet"),
        (lambda d: edit(d / "config.json", classes=2), "cannot load the weights .*size mismatch"),
        (lambda d: os.truncate(d / "model.safetensors", 5000), "cannot load the weights .*: SafetensorError"),
        (lambda d: os.truncate(d / "model.safetensors", 0), "cannot load the weights .*: SafetensorError"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(spoil, message, saved):
    spoil(saved)
    with pytest.raises(UserError, match=message) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["no/such", "models:/", "models:/a/b", "runs:/", "x" * 32, "models:/a@b@c"])
def test_what_names_no_model_is_told_what_would(spec):
    with pytest.raises(UserError, match=r"expected isic2016 .*, a saved model folder, a run"):
        load(spec)


@pytest.fixture(scope="module")
def store(tmp_path_factory, preprocessing) -> dict[str, str]:
    """An MLflow store with a run whose model is registered, and a run that has none."""
    mlflow = pytest.importorskip("mlflow")
    from isic_smp.store import prepare_store

    root = tmp_path_factory.mktemp("store")
    uri = prepare_store(f"sqlite:///{root}/mlflow.db")
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=str(root / "artifacts"))
    with_model, without = (client.create_run(experiment).info.run_id for _ in range(2))
    save_bundle(upconvnet(), preprocessing, INFO, root / "model")
    client.log_artifacts(with_model, str(root / "model"), MODEL_FOLDER)
    client.create_registered_model("lesions")
    for run_id in (with_model, without):
        client.create_model_version("lesions", source=str(root / "model"), run_id=run_id)
    client.set_registered_model_alias("lesions", "champion", "1")
    return {"uri": uri, "run": with_model, "empty": without}


@pytest.mark.parametrize(
    "spec", ["{run}", "runs:/{run}", "runs:/{run}/model", "models:/lesions@champion", "models:/lesions/1"]
)
def test_models_that_mlflow_keeps(spec, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store["uri"])
    bundle = load_bundle(spec.format(**store))
    assert same_output(bundle.model, upconvnet())
    assert bundle.info == INFO


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{empty}", "has no smp_model artifact"),
        ("models:/lesions/2", "has no smp_model artifact"),
        ("models:/lesions/3", "cannot get models:/lesions/3 from"),
        ("models:/lesions@challenger", "challenger"),
        ("models:/moles@champion", "moles"),
        ("0123456789abcdef0123456789abcdef", "cannot get 0123"),
    ],
)
def test_what_mlflow_does_not_have_is_said_in_one_line(spec, message, store):
    with pytest.raises(UserError, match=message) as caught:
        load(spec.format(**store), tracking_uri=store["uri"])
    assert "\n" not in str(caught.value)
