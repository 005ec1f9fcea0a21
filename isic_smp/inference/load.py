"""Saved models: one folder that holds everything a prediction needs, and all the ways to name one.

    config.json          the smp class and its arguments, as smp's own `save_pretrained` writes it
    model.safetensors    the weights; nothing in the folder is code or pickle
    isic_smp.json        preprocessing, and what the model was trained on and scored

`smp.from_pretrained(folder)` reads the first two as well.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import segmentation_models_pytorch as smp
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import isic_smp
from isic_smp.errors import UserError
from isic_smp.files import sync
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.models.shipped import NAME as SHIPPED
from isic_smp.models.shipped import shipped_folder

CONFIG, WEIGHTS, BUNDLE = "config.json", "model.safetensors", "isic_smp.json"
FORMAT = 1

OUTPUT_FOLDER = "model"
"""The folder in a run's --output-dir."""

SPEC_HELP = (
    f"{SHIPPED} (the model that comes with the package), a saved model folder, a run's --output-dir, a run id, runs:/ID, "
    "models:/NAME@ALIAS or models:/NAME/VERSION"
)


@dataclass(frozen=True)
class Bundle:
    """A model, in evaluation mode on the CPU, with all that belongs to it."""

    model: nn.Module
    preprocessing: Preprocessing
    info: dict[str, Any]
    """What `save_bundle` was given: recipe, data (name, fingerprint, description), scores."""


def save_bundle(model: nn.Module, preprocessing: Preprocessing, info: dict[str, Any], folder: Path) -> None:
    """Save an smp model as a folder, in place of a model folder that is there already.

    All files are written elsewhere first, so nobody ever finds half a model, also after a kill.

    Args:
        model: an smp model (with its `config`).
        preprocessing: what the model was trained with.
        info: plain JSON values; read back by `load_bundle`.
        folder: where to save.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not (
        folder.is_dir() and ((folder / BUNDLE).exists() or not any(folder.iterdir()))
    ):
        raise UserError(f"{folder} exists and is no saved model: choose another place to save to")
    # encoder_weights None: loading must not fetch weights that are then overwritten.
    settings = cast(dict[str, Any], model.config)
    config = {**settings, "_model_class": type(model).__name__, "encoder_weights": None}
    bundle = {
        "format": FORMAT,
        "isic_smp": isic_smp.__version__,
        "preprocessing": preprocessing.to_dict(),
        "info": info,
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    partial, former = (folder.with_name(f".{folder.name}.{end}.part") for end in ("new", "old"))
    try:
        if former.exists() and not folder.exists():  # a process was killed between the two renamings below
            former.replace(folder)
        for left in (partial, former):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
            (partial / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
            (partial / BUNDLE).write_text(json.dumps(bundle, indent=2), encoding="utf-8")
            for file in partial.iterdir():
                sync(file)
            if folder.exists():
                folder.replace(former)
            partial.replace(folder)
            sync(folder.parent)
        finally:
            if former.exists() and not folder.exists():  # interrupted between the two
                former.replace(folder)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(former, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot save the model to {folder}: {error}") from None


def load(spec: str | Path = SHIPPED, *, tracking_uri: str | None = None) -> nn.Module:
    """The smp model behind `spec`, in evaluation mode on the CPU; see `load_bundle`."""
    return load_bundle(spec, tracking_uri=tracking_uri).model


def load_bundle(spec: str | Path, *, tracking_uri: str | None = None) -> Bundle:
    """The model behind `spec`, with its preprocessing.

    Args:
        spec: isic2016, the model that comes with the package; a saved model folder (or a file in it), a run's --output-dir, an MLflow run id,
            `runs:/ID`, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        tracking_uri: MLflow store of runs and models. Default: MLFLOW_TRACKING_URI, else ./mlruns.

    Raises:
        UserError: there is no such model, or its files are damaged or not of this project.
    """
    path = Path(spec)
    if str(spec) == SHIPPED:  # a folder of that name is ./isic2016
        return _load_folder(shipped_folder())
    if path.exists():
        return _load_folder(_find_folder(path))
    from isic_smp.inference.from_mlflow import fetch_model, names_mlflow_model

    if not names_mlflow_model(str(spec)):
        raise UserError(f"no model {str(spec)!r}: expected {SPEC_HELP}")
    with tempfile.TemporaryDirectory() as folder:
        return _load_folder(fetch_model(str(spec), Path(folder), tracking_uri=tracking_uri))


def _find_folder(path: Path) -> Path:
    """The model folder that `path` means."""
    if path.is_file():
        # An exported file or a checkpoint beside a model need not be that model.
        if path.name not in (CONFIG, WEIGHTS, BUNDLE):
            raise UserError(
                f"{path} is no file of a saved model ({CONFIG}, {WEIGHTS}, {BUNDLE}): expected {SPEC_HELP}; "
                "exported files (.onnx, .xml, .pt2) are for predict alone"
            )
        path = path.parent
    for folder in (path, path / OUTPUT_FOLDER):
        if (folder / BUNDLE).is_file():
            return folder
    raise UserError(
        f"{path} holds no model saved by isic_smp ({BUNDLE} is missing, there and in {OUTPUT_FOLDER}/): "
        f"expected {SPEC_HELP}"
    )


def _load_folder(folder: Path) -> Bundle:
    config, bundle = _read_json(folder / CONFIG), _read_json(folder / BUNDLE)
    if bundle.get("format") != FORMAT:
        found = bundle.get("format")
        raise UserError(f"{folder / BUNDLE} has format {found!r}, expected {FORMAT}: update isic_smp")
    if not isinstance(bundle.get("preprocessing"), dict) or not isinstance(bundle.get("info"), dict):
        raise UserError(f"{folder / BUNDLE} lacks preprocessing or info: save the model again")
    preprocessing = Preprocessing.from_dict(bundle["preprocessing"])
    model = _build(config, folder)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"cannot load the weights {folder / WEIGHTS}: {_one_line(error)}") from None
    return Bundle(model.eval(), preprocessing, bundle["info"])


def _build(config: dict[str, Any], folder: Path) -> nn.Module:
    """The model that `config` describes, untrained.

    Only smp's registered architectures are looked up: a name in a file must not reach anything else.
    """
    import isic_smp.plugin  # noqa: F401  (registers our encoders and architecture)

    classes = {cls.__name__: cls for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    name = config.get("_model_class")
    if name not in classes:
        raise UserError(
            f"{folder / CONFIG} names the model class {name!r}: expected one of {', '.join(classes)}"
        )
    arguments = {k: v for k, v in config.items() if not k.startswith("_")}
    try:
        return classes[name](**arguments)
    except Exception as error:  # whatever a wrong argument makes smp or timm stumble over
        raise UserError(f"cannot build {name} from {folder / CONFIG}: {_one_line(error)}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def _one_line(error: Exception) -> str:
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return words if len(words) <= 300 else words[:299] + "…"
