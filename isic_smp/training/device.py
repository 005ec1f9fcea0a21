"""Where and in which arithmetic a network runs."""

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from isic_smp.errors import UserError
from isic_smp.training.recipe import Precision


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a torch device; of several processes on a host, each has its own GPU.

    Raises:
        UserError: no such kind of device, or CUDA asked for where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type not in {"cpu", "cuda"} or (device.type == "cpu" and device.index):
        raise UserError(f"device {name!r} is not supported: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UserError(
            f"device {str(device)!r}: this machine shows torch {torch.cuda.device_count()} GPUs; use --device cpu"
            + (", or a process a GPU" if local_rank else "")
        )
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bf16"]:
    """`float32` or `bf16`; `auto` is bf16 only where the hardware computes it, for elsewhere it is slower."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    native = any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bf16" if native else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which `device` computes in `precision` (`float32` or `bf16`)."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def make_deterministic(device: torch.device, seed: int) -> None:
    """Seed torch, and let CUDA take only kernels that give the same bits each time where there are such."""
    torch.manual_seed(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
