"""Files that are meant to run code when they are opened: refused, and the code did not run."""

import io
import json
import pickle
import shutil
import sqlite3
import struct
import zipfile

import pytest
import torch

from isic_smp.errors import UserError


class Evil:
    """Makes the folder `owned` when it is unpickled."""

    def __init__(self, owned):
        self.owned = owned

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.owned),)


@pytest.fixture
def owned(tmp_path):
    yield tmp_path / "owned"
    assert not (tmp_path / "owned").exists(), "the code ran"


def payloads(owned):
    """A pickle in every coat that torch and its friends know."""
    saved, old = io.BytesIO(), io.BytesIO()
    torch.save({"format": 1, "model": Evil(owned)}, saved)
    torch.save({"format": 1, "model": Evil(owned)}, old, _use_new_zipfile_serialization=False)
    return {
        "plain": pickle.dumps(Evil(owned)),
        "zip": saved.getvalue(),
        "legacy": old.getvalue(),
        "behind a header": struct.pack("<Q", 2) + b"{}" + pickle.dumps(Evil(owned)),
    }


@pytest.mark.parametrize("coat", ["plain", "zip", "legacy", "behind a header"])
def test_a_pickle_as_checkpoint_weights_or_model(tmp_path, owned, coat):
    import isic_smp
    from isic_smp.models.weights import resolve_encoder_weights
    from isic_smp.training.checkpoint import Checkpoints

    content = payloads(owned)[coat]
    kept = Checkpoints(tmp_path)
    kept.last.write_bytes(content)
    with pytest.raises(UserError, match="cannot resume from"):
        kept.load_last()
    kept.best.write_bytes(content)
    if coat != "behind a header":  # which is a safetensors file of no tensors, with more behind it
        with pytest.raises(UserError, match="cannot read"):
            kept.load_best()
    import hashlib

    for ending in ("safetensors", "pth", "bin"):
        weights = tmp_path / f"mobilenetv2_100.{ending}"
        weights.write_bytes(content)
        about = {"timm_model": "mobilenetv2_100", "mean": [0.5] * 3, "std": [0.5] * 3}
        about["sha256"] = hashlib.sha256(content).hexdigest()
        weights.with_suffix(".json").write_text(json.dumps(about))
        with pytest.raises(UserError):
            isic_smp.load_encoder_weights(
                isic_smp.UpConvNet("trunc-mobilenetv2_100-s2", encoder_weights=None), weights
            )
    with pytest.raises(UserError):
        resolve_encoder_weights(tmp_path / "mobilenetv2_100.pth", "mobilenetv2_100")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A tiny torch.export file, as `isic_smp.export` writes it."""
    import isic_smp
    from isic_smp.inference.conversion import save_as
    from isic_smp.inference.preprocessing import Preprocessing

    model = isic_smp.UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None, decoder_channels=(8, 8, 8))
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    save_as("torch-export", model.eval(), Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), path)
    return path


def rewritten(source, target, change):
    """`source` with `change(name, content)` for its records; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return root


@pytest.mark.slow
def test_an_exported_program_opens(program):
    from isic_smp.inference.exported import open_exported

    network = open_exported(program).network
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    ["weight", "opaque", "legacy weights", "library", "twice", "size", "argument", "operator", "packed"],
)
def test_code_in_an_exported_program(program, tmp_path, owned, place):
    from isic_smp.inference.exported import open_exported

    evil = payloads(owned)["zip"]
    path = tmp_path / "evil.pt2"

    def change(name, content):
        if place in ("size", "argument", "operator") and "/models/" in name:
            return with_code(content, place, owned)
        if place == "weight" and name.endswith("weight_0"):
            return evil
        if place == "weight" and name.endswith("weights_config.json"):
            config = json.loads(content)
            for payload in config["config"].values():
                payload["use_pickle"] = payload["path_name"] == "weight_0"
            return json.dumps(config).encode()
        if place == "opaque" and name.endswith("constants_config.json"):
            payload = {
                "path_name": "opaque_obj_0",
                "is_param": False,
                "use_pickle": True,
                "tensor_meta": None,
            }
            return json.dumps({"config": {"x": payload}}).encode()
        return content

    root = rewritten(program, path, change)
    with zipfile.ZipFile(path, "a") as archive:
        if place == "opaque":
            archive.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(Evil(owned)))
        if place == "legacy weights":
            archive.writestr(f"{root}/data/weights/model.pt", evil)
        if place == "library":
            archive.writestr(f"{root}/data/aotinductor/model/a.so", b"\x7fELF")
        if place == "twice":
            archive.writestr(f"{root}/archive_format", b"pt2")
        if place == "packed":
            archive.writestr(f"{root}/extra/zeros", bytes(10**7), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"may run code|twice|compressed"):
        open_exported(path)


def with_code(graph, place, owned):
    """The graph with a call of `os.mkdir` for the size of a tensor, an argument's name, or an operator."""
    made = json.loads(graph)
    network = made["graph_module"]
    if place == "size":
        network["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = call(owned)
    if place == "argument":
        network["module_call_graph"][0]["signature"]["forward_arg_names"] = [f"x={call(owned)}"]
    if place == "operator":
        network["graph"]["nodes"][0]["target"] = "torch.os.mkdir"
    return json.dumps(made).encode()


def call(owned):
    return f"__import__('os').mkdir({str(owned)!r})"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["inputs", "guards", "another archive"])
def test_what_an_exported_program_does_not_need_is_left_out(program, tmp_path, owned, place):
    """It opens, as torch by itself would not without running the code."""
    from isic_smp.inference.exported import open_exported

    examples = io.BytesIO()
    torch.save(((torch.zeros(2, 3, 32, 64),), {}), examples)
    path = tmp_path / "evil.pt2"

    def change(name, content):
        if "sample_inputs" in name:
            return payloads(owned)["zip"] if place == "inputs" else examples.getvalue()
        if place == "guards" and "/models/" in name:
            return json.dumps({**json.loads(content), "guards_code": [f"{call(owned)} is None"]}).encode()
        return content

    if place == "another archive":
        path.write_bytes(two_in_one(program, tmp_path, owned))
    else:
        rewritten(program, path, change)
    assert open_exported(path).network(torch.zeros(2, 3, 32, 64)).shape == (2, 1, 32, 64)


def two_in_one(program, folder, owned):
    """A good archive behind an evil one of the same length: torch reads the first, Python the second."""

    def padded(change):
        def longer(name, content):
            return change(content).ljust(10**6) if "/models/" in name else content

        rewritten(program, folder / "padded.zip", longer)
        return (folder / "padded.zip").read_bytes()

    evil, good = padded(lambda graph: with_code(graph, "size", owned)), padded(lambda graph: graph)
    end_of_archive = 22
    return evil[:-end_of_archive] + good


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Add(Mul(Integer(8), FloorDiv(Symbol('s0', positive=True), Integer(8))), Integer(-1))", True),
        ("Max(Integer(0), ToFloat(Symbol('u3', integer=True)))", True),
        ("true", True),
        ("exit()", False),
        ("sympify('exit()')", False),
        ("Symbol('exit()')", False),
        ("Symbol('s0').func('s1')", False),
        ("Integer(1)[exit()]", False),
        ("Add(*exit)", False),
        ("Integer.__class__", False),
        ("(lambda: 0)()", False),
        ("Add(Symbol('s0'), [exit() for _ in 'a'])", False),
        ("f'{exit()}'", False),
    ],
)
def test_sizes_are_calls_of_torch_s_own_names(text, plain):
    """Of a tensor in a program: torch has them evaluated."""
    from isic_smp.inference.program_file import is_size

    assert is_size(text) == plain


@pytest.mark.slow
def test_an_mlflow_artifact_and_a_registered_model_with_a_pickle(place, tmp_path, owned):
    import isic_smp
    from isic_smp.inference.load import save_bundle
    from isic_smp.inference.preprocessing import Preprocessing

    shutil.copy(place / "empty.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run_id = client.create_run(
        client.create_experiment("e", artifact_location=str(tmp_path / "artifacts"))
    ).info.run_id
    model = isic_smp.UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None, decoder_channels=(8, 8, 8))
    folder = tmp_path / "smp_model"
    save_bundle(model, Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), {}, folder)
    (folder / "model.safetensors").write_bytes(payloads(owned)["zip"])
    (folder / "pytorch_model.bin").write_bytes(payloads(owned)["zip"])
    client.log_artifacts(run_id, str(folder), "smp_model")
    client.create_registered_model("m")
    client.create_model_version("m", f"runs:/{run_id}/smp_model", run_id=run_id)
    for spec in (run_id, "models:/m/1"):
        with pytest.raises(UserError, match="cannot load the weights"):
            isic_smp.load(spec, tracking_uri=uri)


def test_a_study_s_database_with_pickles_in_it(tmp_path, owned):
    import optuna

    from isic_smp.sweeping.storage import open_storage

    path = tmp_path / "study.db"
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{path}")
    study.set_user_attr("plan", {"a": 1})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    evil = pickle.dumps(Evil(owned))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE study_user_attributes SET value_json = ?", (evil,))
        database.execute("UPDATE trial_params SET distribution_json = ?", (evil,))
    with pytest.raises(ValueError):  # of Optuna's own reader of JSON
        optuna.load_study(
            study_name="s", storage=open_storage(f"sqlite:///{path}", heartbeat=15)
        ).get_trials()
    rubbish = tmp_path / "rubbish.db"
    rubbish.write_bytes(evil * 50)
    with pytest.raises(UserError, match="cannot keep a study in"):
        open_storage(f"sqlite:///{rubbish}", heartbeat=15)
