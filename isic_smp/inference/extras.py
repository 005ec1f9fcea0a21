"""Packages that only an extra of isic_smp brings, asked for where they are needed."""

import importlib
from typing import Any

from isic_smp.errors import UserError

_EXTRA = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "openvino": "openvino"}


def require(package: str) -> Any:
    """An optional package.

    Raises:
        UserError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = _EXTRA[package]
        raise UserError(
            f"{package} cannot be loaded ({error}): install it with pip install 'isic-smp[{extra}]'"
        ) from None
