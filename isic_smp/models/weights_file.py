"""Reading and checking a `.safetensors` file of weights and the `.json` that says how they were made."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from isic_smp.errors import UserError

_NEEDED = ("timm_model", "mean", "std", "sha256")


@dataclass(frozen=True)
class Description:
    """What the `.json` beside a weights file says."""

    timm_name: str
    """The network, without a tag of its weights."""
    pads_as_tensorflow: bool
    """Whether the network was made with `pad_type="same"`."""
    mean: tuple[float, float, float]
    """RGB mean of pixels in 0..1."""
    std: tuple[float, float, float]
    """RGB standard deviation of pixels in 0..1."""
    sha256: str
    """Of the weights file, in hexadecimal."""


def described_weights(path: Path) -> tuple[Description, dict[str, torch.Tensor]]:
    """Read a `.safetensors` file together with the `.json` beside it.

    Raises:
        UserError: the `.json` is missing or incomplete, asks for a network that cannot be made here, or is
            not of this file; the file is damaged.
    """
    about = _description(path.with_suffix(".json"))
    sha256 = sha256_of(path)
    if sha256 != about.sha256:
        raise UserError(
            f"{path.name} has SHA-256 {sha256}, but its .json says {about.sha256}: fetch both again"
        )
    return about, read_tensors(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise UserError(f"{path.name} is no safetensors file ({error}): fetch it again") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _description(path: Path) -> Description:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"no {path.name} beside the weights: expected a JSON file with {', '.join(_NEEDED)}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read {path.name} ({error}): expected JSON with {', '.join(_NEEDED)}"
        ) from None
    missing = [name for name in _NEEDED if not isinstance(about, dict) or name not in about]
    if missing:
        raise UserError(f"{path.name} lacks {', '.join(missing)}: say what the weights were trained with")
    options = about.get("create_model_kwargs") or {}
    if options not in ({}, {"pad_type": ""}, {"pad_type": "same"}):
        raise UserError(
            f'{path.name} has create_model_kwargs {options}, expected {{}} or {{"pad_type": "same"}}: '
            "other variants of a network cannot be made here"
        )
    mean, std = _three_numbers(about["mean"], "mean", path), _three_numbers(about["std"], "std", path)
    if min(std) <= 0:
        raise UserError(f"{path.name} has std {about['std']}, expected numbers above 0")
    timm_name = str(about["timm_model"]).partition(".")[0]
    return Description(timm_name, options.get("pad_type") == "same", mean, std, str(about["sha256"]).lower())


def _three_numbers(value: Any, name: str, path: Path) -> tuple[float, float, float]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
        raise UserError(f"{path.name} has {name} {value!r}, expected three numbers for red, green and blue")
    red, green, blue = map(float, numbers)
    return red, green, blue
