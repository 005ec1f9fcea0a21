"""The MLflow model folder of a trained network: one folder, two ways to load it, and nothing of isic_smp in either.

- `mlflow.pytorch.load_model` gives a torch.export program for normalised tensors, with free batch,
  height and width;
- `mlflow.pyfunc.load_model` and `mlflow models serve` take images as people have them and give masks
  (`isic_smp.inference.pyfunc`).

Both stand on the same file, artifacts/model.pt2. Neither needs smp, timm or pickle.
"""

import base64
import contextlib
import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.received import COLUMN
from isic_smp.inference.source_paths import drop_source_paths_from_file, no_source_paths
from isic_smp.inference.standalone import standalone_source

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

CODE_FILE = "segment_lesions.py"
PROGRAM = "model.pt2"
PROGRAM_IO = "normalised float32 (B, 3, H, W) to logits, float32 (B, 1, H, W)"


def save_mlflow_model(
    model: nn.Module, preprocessing: Preprocessing, info: Mapping[str, Any], folder: Path
) -> None:
    """Write an MLflow model folder that serves images, and holds the network as a program.

    Args:
        model: An smp model, on any device and in any mode; it is copied, not touched.
        preprocessing: What its inputs went through, and its threshold.
        info: Recipe, data and scores, as `save_bundle` takes them; kept in the metadata.
        folder: A folder that does not exist yet.
    """
    import mlflow
    from mlflow.models import Model

    expected_iou = ExpectedIoU.from_facts(info)
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own calls of pandas
        exported, code = Path(temporary) / "exported", Path(temporary) / CODE_FILE
        save_program(model, exported)
        code.write_text(standalone_source(), encoding="utf-8")
        with _quiet_mlflow():
            mlflow.pyfunc.save_model(
                str(folder),
                python_model=str(code),
                artifacts={"program": str(exported / "data" / PROGRAM)},
                model_config={
                    **preprocessing.to_dict(),
                    **(expected_iou.to_facts() if expected_iou else {}),
                    "read_files": "auto",
                },
                signature=_signature(),
                input_example=_example_request(preprocessing.size),
                # Given, since MLflow would find them out by loading the model in a process of its own (10 s).
                pip_requirements=_requirements(),
                metadata={"preprocessing": preprocessing.to_dict(), "program": PROGRAM_IO, **info},
            )
        description, network = Model.load(str(folder)), Model.load(str(exported))
        description.add_flavor("pytorch", **{**network.flavors["pytorch"], "model_data": "artifacts"})
        served = description.flavors["python_function"]
        # MLflow notes where it copied these from; it finds them beside the MLmodel file.
        served["model_code_path"], served["artifacts"]["program"]["uri"] = CODE_FILE, f"artifacts/{PROGRAM}"
        description.save(str(folder / "MLmodel"))


def save_program(model: nn.Module, folder: Path) -> None:
    """Write an MLflow model folder with `model` as a torch.export program, in evaluation mode on the CPU.

    Its input is float32 (B, 3, H, W), normalised as (pixel / 255 - mean) / std, H and W multiples of
    the encoder's output stride and at least twice it; its output are the logits, float32 (B, 1, H, W).
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    frozen = (
        copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).requires_grad_(False)
    )
    for module in frozen.modules():
        module.training = False  # smp's own eval() leaves a frozen encoder as it was
    free = TensorSpec(np.dtype("float32"), (-1, 3, -1, -1))
    logits = TensorSpec(np.dtype("float32"), (-1, 1, -1, -1))
    with warnings.catch_warnings(), no_source_paths():
        warnings.simplefilter("ignore")  # torch.export's own deprecations
        mlflow.pytorch.save_model(
            frozen,
            str(folder),
            signature=ModelSignature(Schema([free]), Schema([logits])),
            input_example=_example(getattr(model.encoder, "output_stride", 32)),
            serialization_format="pt2",
            pip_requirements=_requirements(),
        )
    drop_source_paths_from_file(folder / "data" / PROGRAM)


def _signature() -> "ModelSignature":
    """What the served model gives, and its parameters.

    Not what it takes: MLflow turns a list into a table to hold it against a schema, and fails where the
    list holds arrays. The model looks at its input itself (`isic_smp.inference.received`).
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    columns: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.long, name) for name in ("height", "width", "lesion_pixels")
    ]
    columns += [ColSpec(DataType.double, name) for name in ("lesion_share", "confidence")]
    columns.append(ColSpec(DataType.double, "expected_iou", required=False))
    columns += [ColSpec(AnyType(), name) for name in ("mask", "probability")]
    params = [ParamSpec("threshold", DataType.double, None), ParamSpec("output", DataType.string, "auto")]
    return ModelSignature(outputs=Schema(columns), params=ParamSchema(params))


def _example_request(size: int) -> "pd.DataFrame":
    """A drawn lesion as a request holds it, in the model's folder ready to be sent by curl."""
    import pandas as pd

    rows, columns = np.mgrid[:size, : size * 4 // 3]
    lesion = (rows - size / 2) ** 2 + (columns - size * 2 / 3) ** 2 < (size / 4) ** 2
    drawn = np.where(lesion[..., None], [110, 70, 60], [220, 180, 165]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    return pd.DataFrame({COLUMN: [base64.b64encode(file.getvalue()).decode("ascii")]})


def _requirements() -> list[str]:
    """The packages that the model's two flavours import, at these versions."""
    packages = ("mlflow", "torch", "numpy", "pandas", "pillow", "opencv-python-headless")
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


@contextlib.contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Without MLflow's words on steps that nobody asked for, and without a uv project's files.

    MLflow would copy uv.lock and pyproject.toml of the folder that the command was called in.
    """
    logger = logging.getLogger("mlflow.pyfunc")
    level, before = logger.level, os.environ.get("MLFLOW_UV_AUTO_DETECT")
    logger.setLevel(logging.WARNING)
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
    try:
        yield
    finally:
        logger.setLevel(level)
        if before is None:
            del os.environ["MLFLOW_UV_AUTO_DETECT"]
        else:
            os.environ["MLFLOW_UV_AUTO_DETECT"] = before


def _example(stride: int) -> np.ndarray:
    """Small; two images, or torch.export would fix the batch; unequal sides, or it would tie them."""
    height, width = 2 * stride, 3 * stride
    ramp = np.linspace(-2, 2, height * width, dtype=np.float32).reshape(height, width).round(1)
    return np.broadcast_to(ramp, (2, 3, height, width)).copy()
