"""A trained network in other formats. All take float32 (B, 3, H, W) and give logits, float32 (B, 1, H, W).

Batch, height and width are free, height and width being multiples of the encoder's output stride. What
belongs to the network (`facts`) is kept inside each file, so nothing can be lost on the way.
"""

import contextlib
import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

import isic_smp
from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.extras import require
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.source_paths import drop_source_paths, no_source_paths

if TYPE_CHECKING:
    import onnx
    import openvino

Format = Literal["onnx", "torch-export", "torchscript", "openvino"]
ENDINGS: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".pt", "openvino": ".xml"}

FACTS = "isic_smp.json"
"""Name of the file with the facts in the zip that a .pt2 or .pt file is."""
SECTION = "isic_smp"
"""Name of the section with the facts in OpenVINO's file."""
INPUT, OUTPUT = "image", "logits"
_OPSET = 20


def facts(preprocessing: Preprocessing, expected_iou: ExpectedIoU | None = None) -> dict[str, Any]:
    """What goes into each file beside the network, as plain JSON values."""
    return {
        "isic_smp": isic_smp.__version__,
        **preprocessing.to_dict(),
        **(expected_iou.to_facts() if expected_iou else {}),
        "input": "float32 (B, 3, H, W), RGB, (pixel / 255 - mean) / std, trained at H = W = size",
        "output": "logits (B, 1, H, W): lesion where sigmoid(logits) > threshold",
    }


def preprocessing_of(values: dict[str, Any]) -> Preprocessing:
    """The reverse of `facts`.

    Raises:
        UserError: they are not there, or of something else.
    """
    return Preprocessing.from_dict(
        {name: values[name] for name in Preprocessing.__dataclass_fields__ if name in values}
    )


def save_as(
    kind: Format,
    network: nn.Module,
    preprocessing: Preprocessing,
    path: Path,
    *,
    expected_iou: ExpectedIoU | None = None,
) -> None:
    """Write `network` in one of the formats.

    Args:
        kind: the format.
        network: as `fused_for_inference` makes it, float32 on the CPU.
        preprocessing: what belongs to it.
        path: the file. OpenVINO puts the weights beside it, in a .bin file.
        expected_iou: what was fitted for the model, where something was.

    Raises:
        UserError: the format's packages are not installed, the network cannot be converted, or the file
            cannot be written.
    """
    try:
        if kind == "onnx":
            path.write_bytes(to_onnx(network, preprocessing, expected_iou).SerializeToString())
        elif kind == "openvino":
            model = to_openvino(network, preprocessing, expected_iou)
            require("openvino").save_model(model, str(path), compress_to_fp16=False)
        else:
            extra = {FACTS: json.dumps(facts(preprocessing, expected_iou), indent=2)}
            if kind == "torch-export":
                program = to_program(network, preprocessing)
                program.example_inputs = None  # would be kept as a pickle
                torch.export.save(program, path, extra_files=extra)
            else:
                buffer = to_torchscript(network, preprocessing).save_to_buffer(_extra_files=extra)
                path.write_bytes(_without_debug_files(buffer))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def to_program(network: nn.Module, preprocessing: Preprocessing) -> torch.export.ExportedProgram:
    """`network` as a torch.export program: a graph of torch's own operators, no code and no pickle."""
    free = torch.export.Dim.DYNAMIC
    with _converting("torch.export"):
        program = torch.export.export(
            network, (_example(preprocessing),), dynamic_shapes=({0: free, 2: free, 3: free},)
        )
    drop_source_paths(program)
    return program


def to_torchscript(network: nn.Module, preprocessing: Preprocessing) -> torch.jit.ScriptModule:
    """`network` as a TorchScript program."""
    with _converting("torch.jit"):
        return torch.jit.trace(network, _example(preprocessing), check_trace=False)


def to_onnx(
    network: nn.Module, preprocessing: Preprocessing, expected_iou: ExpectedIoU | None = None
) -> "onnx.ModelProto":
    """`network` as an ONNX model, the facts as JSON values in its metadata_props."""
    require("onnx"), require("onnxscript")
    with _converting("onnx"):
        program = torch.onnx.export(
            to_program(network, preprocessing),
            (_example(preprocessing),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    for node in (*model.graph.node, *(n for f in model.functions for n in f.node)):
        del node.metadata_props[:]  # which line of which file on this machine it comes from
    for name, value in facts(preprocessing, expected_iou).items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    return model


def to_openvino(
    network: nn.Module, preprocessing: Preprocessing, expected_iou: ExpectedIoU | None = None
) -> "openvino.Model":
    """`network` as an OpenVINO model, the facts as JSON values in its rt_info section `isic_smp`."""
    openvino = require("openvino")
    with _converting("openvino"):
        model = openvino.convert_model(network, example_input=_example(preprocessing), input=[-1, 3, -1, -1])
    model.inputs[0].set_names({INPUT})
    model.outputs[0].set_names({OUTPUT})
    for name, value in facts(preprocessing, expected_iou).items():
        model.set_rt_info(json.dumps(value), [SECTION, name])
    return model


def _without_debug_files(program: bytes) -> bytes:
    """A TorchScript file less its `.debug_pkl` entries, which name this machine's source files."""
    lean = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as old, zipfile.ZipFile(lean, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry.filename, old.read(entry))
    return lean.getvalue()


def _example(preprocessing: Preprocessing) -> Tensor:
    """Two images, or torch.export would fix the batch; unequal sides, or it would tie them."""
    size = preprocessing.size  # a multiple of whatever output stride the network has
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, size, 2 * size, generator=generator)


@contextlib.contextmanager
def _converting(what: str) -> Iterator[None]:
    """Without the converters' chatter and this machine's source paths; what they fail at in one line."""
    try:
        with warnings.catch_warnings(), torch.no_grad(), no_source_paths():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # whatever an operator that a format lacks makes its converter stumble over
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{what} cannot convert this model: {words}") from None
