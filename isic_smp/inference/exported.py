"""Exported model files, opened again: the network as an engine, and what belongs to it."""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isic_smp.errors import UserError
from isic_smp.inference.conversion import FACTS, SECTION, preprocessing_of
from isic_smp.inference.engines import OnnxRuntimeEngine, OpenVinoEngine
from isic_smp.inference.expected_iou import FITTED, ExpectedIoU
from isic_smp.inference.extras import require
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.program_file import checked_program

SAFE = (".onnx", ".xml", ".pt2")
"""Endings of exported files that run no code of their own: a .pt2 is looked through for it before torch reads it.

A TorchScript file (.pt) is a program that runs when it is loaded.
"""


class Exported(NamedTuple):
    """What an exported file holds."""

    network: nn.Module
    preprocessing: Preprocessing
    expected_iou: ExpectedIoU | None
    """None in files of models that have none, and of older versions."""


def open_exported(path: Path, *, precision: str = "float32") -> Exported:
    """The network in an exported file, ready to run on the CPU, and what belongs to it.

    Args:
        path: a file that `isic_smp.export` wrote: .onnx, .xml (OpenVINO), .pt2 or .pt. Load only .pt files
            whose maker you trust.
        precision: float32 or bf16; only OpenVINO computes an exported file in bf16.

    Raises:
        UserError: what runs such files is not installed, or this one is damaged or of something else.
    """
    opener = {".onnx": _open_onnx, ".xml": _open_openvino, ".pt2": _open_program, ".pt": _open_torchscript}
    if path.suffix not in opener:
        raise UserError(f"{path} is no exported model: expected {', '.join(opener)}")
    try:
        network, values = opener[path.suffix](path, precision)
        facts = {name: json.loads(text) for name, text in values.items()}
        return Exported(network, preprocessing_of(facts), ExpectedIoU.from_facts(facts))
    except UserError as error:
        raise UserError(f"cannot use {path}: {error}") from None
    except Exception as error:  # each reader has its own for damaged files
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"cannot open {path}: {words}") from None


class _Program(nn.Module):
    """A torch.export or TorchScript program as a module like any other: it knows no modes."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = [run]  # in a list, so that it is no submodule: a program's cannot be walked through

    def forward(self, batch: Tensor) -> Tensor:
        return self.run[0](batch.contiguous())


def _open_onnx(path: Path, precision: str) -> tuple[nn.Module, dict[str, str]]:
    engine = OnnxRuntimeEngine(path)
    return engine, engine.session.get_modelmeta().custom_metadata_map


def _open_openvino(path: Path, precision: str) -> tuple[nn.Module, dict[str, str]]:
    model = require("openvino").Core().read_model(str(path))
    names = (*Preprocessing.__dataclass_fields__, FITTED)
    values = {
        n: model.get_rt_info([SECTION, n]).astype(str) for n in names if model.has_rt_info([SECTION, n])
    }
    return OpenVinoEngine(model, precision=precision), values


def _open_program(path: Path, precision: str) -> tuple[nn.Module, dict[str, str]]:
    extra = {FACTS: ""}
    program = torch.export.load(checked_program(path), extra_files=extra)
    return _Program(program.module()), _each_as_json(extra)


def _open_torchscript(path: Path, precision: str) -> tuple[nn.Module, dict[str, str]]:
    extra = {FACTS: ""}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # deprecated in favour of torch.export, which this project prefers too
        program = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    return _Program(program), _each_as_json(extra)


def _each_as_json(extra: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in json.loads(extra[FACTS]).items()}
