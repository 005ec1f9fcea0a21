"""A run's trained model in MLflow: a code-free program that loads anywhere, and the smp folder to go on from.

- The MLflow model `model` (flavour pytorch, format pt2): a torch.export program with free batch,
  height and width. `mlflow.pytorch.load_model` reads it without isic_smp, smp, timm or pickle.
- The artifact folder `smp_model`: what `isic_smp.load` reads, for fine-tuning further.
"""

import contextlib
import copy
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.fx.config
from torch import nn

from isic_smp.inference.load import MODEL_FOLDER
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.tracking.journal import Entry, Journal
from isic_smp.tracking.run_log import RunLog

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "model"


def log_segmentation_model(
    run_log: RunLog, model: nn.Module, preprocessing: Preprocessing, model_folder: Path
) -> None:
    """Export `model` and log it, and its saved folder, with the run.

    Takes some seconds here (the export); the upload is the journal's.

    Args:
        run_log: The run.
        model: An smp model, on any device and in any mode; it is copied, not touched.
        preprocessing: What its inputs went through; kept in the MLflow model's metadata.
        model_folder: The model saved by `isic_smp.inference.load.save_bundle`.
    """
    folder = run_log.journal.files / MODEL_NAME
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while exporting
    save_program(model, preprocessing, folder)
    run_log.log_model(folder, MODEL_NAME)
    run_log.log_artifact(model_folder, MODEL_FOLDER)


def save_program(model: nn.Module, preprocessing: Preprocessing, folder: Path) -> None:
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
    with warnings.catch_warnings(), _no_source_paths():
        warnings.simplefilter("ignore")  # torch.export's own deprecations
        mlflow.pytorch.save_model(
            frozen,
            str(folder),
            signature=ModelSignature(Schema([free]), Schema([logits])),
            input_example=_example(getattr(model.encoder, "output_stride", 32)),
            serialization_format="pt2",
            # Given, since MLflow would find them out by loading the model in a process of its own (10 s).
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.partition('+')[0]}",
            ],
            metadata={"preprocessing": preprocessing.to_dict(), "output": "logits"},
        )


@contextlib.contextmanager
def _no_source_paths() -> Iterator[None]:
    """Keep torch.export from writing this machine's source paths and lines into the program."""
    before = getattr(torch.fx.config, "do_not_emit_stack_traces", False)
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = before


def send_model(entry: Entry, journal: Journal, client: "MlflowClient", run_id: str) -> None:
    """Upload a saved MLflow model as an output of the run; what is there already is not made twice."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    folder = journal.folder / entry["path"]
    if not folder.exists():
        return  # it has arrived before, and was deleted then
    run = client.get_run(run_id)
    experiment_id, name = run.info.experiment_id, entry["name"]
    known = client.search_logged_models(
        [experiment_id], filter_string=f"name = '{name}' AND source_run_id = '{run_id}'"
    )
    logged = known[0] if known else client.create_logged_model(experiment_id, name, source_run_id=run_id)
    if str(logged.status) != "READY":
        description = Model.load(str(folder))
        description.run_id, description.model_id = run_id, logged.model_id
        description.model_uuid, description.artifact_path = logged.model_id, name
        description.save(str(folder / "MLmodel"))
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    shutil.rmtree(folder)


def _example(stride: int) -> np.ndarray:
    """Small; two images, or torch.export would fix the batch; unequal sides, or it would tie them."""
    height, width = 2 * stride, 3 * stride
    ramp = np.linspace(-2, 2, height * width, dtype=np.float32).reshape(height, width).round(1)
    return np.broadcast_to(ramp, (2, 3, height, width)).copy()
