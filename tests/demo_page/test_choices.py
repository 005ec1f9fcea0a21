"""Which models a visitor can choose from, and what they are called."""

import pytest

from isic_smp.demo_page.models import named_choices, registered_choices
from isic_smp.errors import UserError

SHIPPED = ("isic2016", "isic2016 (comes with the package)")


def test_only_models_on_offer_are_loaded(models, model_dirs):
    with pytest.raises(UserError, match="none of the models"):
        models.predictor(str(model_dirs[0] / "model"))


def test_names_of_models():
    specs = ["models:/les/3", "models:/les@champion", "a/run-1", "a/run-1/model", "0" * 31 + "a", "b/x"]
    labels = [choice.label for choice in named_choices([*specs, specs[0]])]
    assert labels == ["les, version 3", "les (champion)", "a/run-1", "a/run-1/model", "run 00000000", "x"]


def test_before_the_first_run_there_is_the_model_that_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    choices, start = registered_choices(None)
    assert [(choice.spec, choice.label) for choice in choices] == [SHIPPED] and start == ["isic2016"]
    with pytest.raises(UserError, match=r"no MLflow store .*mistyped\.db: "):
        registered_choices("sqlite:///mistyped.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_registered_versions(tmp_path):
    from isic_smp.store import prepare_store

    uri = prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
    choices, start = registered_choices(uri)
    assert [(choice.spec, choice.label) for choice in choices] == [SHIPPED] and start == ["isic2016"]
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    for name in ("moles", "lesions"):
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, source=str(tmp_path))
    assert registered_choices(uri)[1][0].endswith("/2")  # the newest
    client.set_registered_model_alias("moles", "candidate", "2")
    client.set_registered_model_alias("lesions", "champion", "1")
    choices, start = registered_choices(uri)
    assert [(choice.spec, choice.label) for choice in choices] == [
        ("models:/lesions/2", "lesions, version 2"),
        ("models:/lesions/1", "lesions, version 1 (champion)"),
        ("models:/moles/2", "moles, version 2 (candidate)"),
        ("models:/moles/1", "moles, version 1"),
        SHIPPED,
    ]
    assert start == ["models:/lesions/1"]
