"""From the name of a model, of any kind, to a predictor that is as fast as this machine allows."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from isic_smp.errors import UserError
from isic_smp.inference.conversion import ENDINGS
from isic_smp.inference.engines import EngineName, make_engine
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.exported import SAFE, open_exported
from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor, check_binary_logits
from isic_smp.training.device import choose_device, resolve_precision


@dataclass(frozen=True)
class Opened:
    """A predictor, and what its masks depend on."""

    predictor: Predictor
    identity: dict[str, Any]
    """SHA-256 of the weights, and the settings, as plain JSON values."""
    expected_iou: ExpectedIoU | None
    """Fitted for the model; None where nothing was."""


def open_predictor(
    spec: str,
    *,
    engine: EngineName = "torch",
    device: str = "auto",
    bf16: bool = False,
    threshold: float | None = None,
    tracking_uri: str | None = None,
) -> Opened:
    """A predictor for inference only: BatchNorm folded away, or another engine in torch's place.

    Args:
        spec: as for `load_bundle`; or an exported .onnx, .xml or .pt2 file, which brings its own engine.
        engine: what computes the network.
        device: auto, cpu, cuda or cuda:N; only torch itself knows others than the CPU.
        bf16: compute the network in bf16 where the machine does so natively and the engine can.
        threshold: in place of the model's own.
        tracking_uri: MLflow store of runs and models. Default: MLFLOW_TRACKING_URI, else ./mlruns.

    Raises:
        UserError: no such model, a model that gives no binary logits, an impossible threshold, or an
            engine that is not installed or cannot run there.
    """
    path = Path(spec)
    is_exported = path.is_file() and path.suffix in ENDINGS.values()
    # Whoever names no device must not be told, on a machine with a GPU, that the engine cannot use it.
    place = choose_device("cpu" if device == "auto" and (is_exported or engine != "torch") else device)
    precision = resolve_precision("auto", place) if bf16 else "float32"
    if is_exported:
        if path.suffix not in SAFE:
            raise UserError(f"{path} is a program that would run here: export to {', '.join(SAFE)} instead")
        if engine != "torch" or place.type != "cpu":
            raise UserError(f"{path} runs as it is, on the CPU: leave out --engine and --device")
        network, preprocessing, expected_iou = open_exported(path, precision=precision)
        weights = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in weights)).hexdigest()
        precision = "float32"  # what it computes in is its engine's affair, not autocast's
    else:
        bundle = load_bundle(spec, tracking_uri=tracking_uri)
        check_binary_logits(bundle.model)
        expected_iou = ExpectedIoU.from_facts(bundle.info)
        preprocessing, digest = bundle.preprocessing, digest_of(bundle.model)
        network = make_engine(engine, bundle.model, preprocessing, device=place, precision=precision)
    if threshold is not None:
        preprocessing = dataclasses.replace(preprocessing, threshold=threshold)
    identity = {"model": digest, **preprocessing.to_dict(), "bf16": bf16}
    if expected_iou is not None:
        identity["expected_iou"] = expected_iou.to_dict()
    predictor = Predictor(
        network, preprocessing, device=place, precision="bf16" if precision == "bf16" else "float32"
    )
    return Opened(predictor, identity, expected_iou)


def digest_of(model: nn.Module) -> str:
    """SHA-256 of a model's weights and arguments."""
    config = cast(dict[str, Any], model.config)
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
