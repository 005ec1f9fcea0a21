"""Whatever people hand to the served model, as pixels: files, bytes, base64, PIL pictures, arrays, tables.

Over HTTP a string never names a file: who may ask for masks must not be able to read what the
server's account can read, or to learn which files exist. In one's own process it may.
"""

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from isic_smp.data.images import MAX_PIXELS, convert_image, decode_image, read_image
from isic_smp.errors import UserError

COLUMN = "image"
LONGEST_PATH = 4096
CHANNELS = (1, 3, 4)  # grey, RGB, RGB with alpha


def is_served() -> bool:
    """Whether this process answers MLflow's HTTP requests.

    MLflow says so in a variable of its own; its server's module, and that of MLServer, tell it too,
    should a later version rename the variable.
    """
    return os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "").lower() in ("true", "1") or bool(
        {"mlflow.pyfunc.scoring_server.app", "mlserver"} & sys.modules.keys()
    )


def list_images(received: Any) -> list[Any]:
    """The images in `received`, still as they came.

    Args:
        received: one image; a list of images or of {"image": …}; a DataFrame or a dict with the column
            `image`; an array (B, H, W, C).

    Raises:
        UserError: a table without that column, nothing at all, or something else.
    """
    if isinstance(received, (pd.DataFrame, dict)):
        if COLUMN not in received:
            names = ", ".join(map(repr, received)) or "no columns"
            raise UserError(f"expected the column {COLUMN!r}, got {names[:200]}")
        received = received[COLUMN]
    if isinstance(received, pd.Series):
        received = received.tolist()
    elif isinstance(received, np.ndarray):
        if received.dtype.kind in "OSU":
            received = received.ravel().tolist()
        else:
            received = list(received) if received.ndim == 4 else [received]
    elif isinstance(received, (str, bytes, bytearray, os.PathLike, Image.Image)):
        received = [received]
    if not isinstance(received, (list, tuple)):
        raise UserError(f"expected images, got {type(received).__name__}")
    if not received:
        raise UserError("expected at least one image, got none")
    return [item[COLUMN] if isinstance(item, dict) and COLUMN in item else item for item in received]


def read_pixels(image: Any, name: str, *, read_files: bool) -> np.ndarray:
    """One image as uint8 RGB (H, W, 3), converted as `read_image` does.

    Args:
        image: a path; bytes of an image file, as they are or as base64 text or `data:` URL; a PIL
            picture; a uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.
        name: stands for the image in error messages.
        read_files: whether a path is followed.

    Raises:
        UserError: anything else, or an image that cannot be decoded.
    """
    if isinstance(image, (bytes, bytearray)):
        return decode_image(io.BytesIO(image), name)
    if isinstance(image, str):
        if read_files and _is_file(image):
            return read_image(Path(image))
        return decode_image(io.BytesIO(_from_base64(image, name, read_files=read_files)), name)
    if isinstance(image, os.PathLike) and read_files:
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return convert_image(image, name)
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    raise UserError(f"{name} is of type {type(image).__name__}: expected {_expected(read_files)}")


def _is_file(text: str) -> bool:
    try:
        return len(text) <= LONGEST_PATH and Path(text).is_file()
    except (OSError, ValueError):  # a name too long, or with a zero in it
        return False


def _from_base64(text: str, name: str, *, read_files: bool) -> bytes:
    head, comma, data = text.partition(",") if text.startswith("data:") else ("", "", text)
    try:
        if comma and not head.endswith(";base64"):
            raise ValueError("another coding")
        return base64.b64decode("".join(data.split()), validate=True)
    except ValueError:  # binascii.Error is one
        shown = repr(text if len(text) <= 60 else text[:59] + "…")
        raise UserError(f"{name}, {shown}, is not base64: expected {_expected(read_files)}") from None


def _expected(read_files: bool) -> str:
    if read_files:
        return "an existing file, an image file's bytes or base64, a PIL picture, or a uint8 array"
    return "an image file's bytes in base64 (files and addresses are not read here)"


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)
    if array.dtype != np.uint8 or not is_image or not array.size:
        raise UserError(
            f"{name} is an array {array.dtype} {array.shape}: expected uint8 (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise UserError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels: scale it down first")
    if array.shape[2:] == (3,):
        return np.ascontiguousarray(array)
    return convert_image(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array), name)
