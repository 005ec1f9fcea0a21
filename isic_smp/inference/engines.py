"""What computes the logits: torch, or ONNX Runtime or OpenVINO where these are installed.

An engine is a module that takes the normalised batch, float32 (B, 3, H, W), and gives the logits, float32
(B, 1, H, W), so a `Predictor` runs on any of them. All compute in float32 unless told otherwise, and on as
many threads as torch is set to.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isic_smp.errors import UserError
from isic_smp.inference.extras import require
from isic_smp.inference.fuse import fused_for_inference, with_bf16_weights
from isic_smp.inference.preprocessing import RGB, Preprocessing

EngineName = Literal["torch", "onnxruntime", "openvino"]


class OnnxRuntimeEngine(nn.Module):
    """An ONNX model, as a file or as its bytes, on the CPU."""

    def __init__(self, model: Path | bytes) -> None:
        super().__init__()
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session = runtime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
        self.input_name = self.session.get_inputs()[0].name

    def forward(self, batch: Tensor) -> Tensor:
        """Float32 (B, 3, H, W) to logits (B, 1, H, W)."""
        feed = {self.input_name: batch.contiguous().numpy()}
        return torch.from_numpy(self.session.run(None, feed)[0])


class OpenVinoEngine(nn.Module):
    """An `openvino.Model`, or the .xml or .onnx file of one, on the CPU."""

    def __init__(self, model: Any, *, precision: str = "float32") -> None:
        super().__init__()
        # Named always: left alone, OpenVINO computes in bf16 where the processor can.
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.compiled = require("openvino").Core().compile_model(model, "CPU", hints)

    def forward(self, batch: Tensor) -> Tensor:
        """Float32 (B, 3, H, W) to logits (B, 1, H, W)."""
        return torch.from_numpy(self.compiled(batch.contiguous().numpy())[0].copy())


def make_engine(
    name: EngineName,
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str = "float32",
) -> nn.Module:
    """An engine that computes what `model` does, faster.

    Args:
        name: torch folds BatchNorm into the convolutions; the others also need their extra installed.
        model: a binary smp segmentation model that gives logits; it is copied, not touched.
        preprocessing: says at which size it will run.
        device: only torch knows others than the CPU.
        precision: float32 or bf16. ONNX Runtime has no bf16 on CPUs, and takes float32 then.

    Raises:
        UserError: the engine is not installed, cannot run there, or cannot take this model.
    """
    if name != "torch" and device.type != "cpu":
        raise UserError(f"the engine {name} runs on the CPU only, got device {device}: use --engine torch")
    fused = fused_for_inference(model.to(device), example_input(preprocessing).to(device))
    if name == "torch":
        return with_bf16_weights(fused) if precision == "bf16" else fused
    from isic_smp.inference.conversion import to_onnx, to_openvino

    if name == "onnxruntime":
        return OnnxRuntimeEngine(to_onnx(fused, preprocessing).SerializeToString())
    return OpenVinoEngine(to_openvino(fused, preprocessing), precision=precision)


def example_input(preprocessing: Preprocessing) -> Tensor:
    """One normalised noise picture of the network's size, always the same: float32 (1, 3, size, size)."""
    size = preprocessing.size
    return torch.randn(1, RGB, size, size, generator=torch.Generator().manual_seed(0))
