"""Pictures and tables as the files that MLflow's UI looks for.

`MlflowClient.log_image` and `.log_table` draw a new random name at every call, and `log_table` appends
to what is there: repeated after a fault they would double what arrived before it. So the same files
are written here, with names that depend on run, key and step only (layout as of MLflow 3.17).
"""

import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CARD_SIDE = 512
"""Largest side, in pixels, of the small copy that cards show (MLflow's own 256 blurs captions)."""

_KEY = re.compile(r"[A-Za-z0-9_\-./ ]+")
_NAME = re.compile(r"images/(?P<key>[^+]+)\+step\+(?P<step>\d+)\+timestamp\+")


def image_names(key: str, *, step: int, milliseconds: int, run_id: str) -> tuple[str, str]:
    """Artifact paths of a picture and of its small copy.

    Raises:
        ValueError: a key with other characters than MLflow takes.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"an image key may hold letters, digits and _-./ only, got {key!r}")
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{key}/{step}")
    stem = f"images/{key.replace('/', '~')}+step+{step}+timestamp+{milliseconds}+{name}"
    return f"{stem}.png", f"{stem}+compressed.webp"


def image_key(path: str) -> tuple[str, int] | None:
    """`("image:KEY", step)` of a path that `image_names` made, else None."""
    match = _NAME.search(path)
    return (f"image:{match['key'].replace('~', '/')}", int(match["step"])) if match else None


def write_image(image: np.ndarray, folder: Path, full: str, small: str) -> None:
    """Write `image`, uint8 (H, W, 3) RGB, and its small copy to the relative paths `full` and `small`.

    Raises:
        ValueError: another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 picture (H, W, 3), got {image.dtype} {image.shape}")
    picture = Image.fromarray(image)
    (folder / full).parent.mkdir(parents=True, exist_ok=True)
    picture.save(folder / full, compress_level=4)  # 6 takes three times as long for 2 % less
    picture.thumbnail((CARD_SIDE, CARD_SIDE))
    picture.save(folder / small, quality=85, method=2)


def write_table(columns: Mapping[str, Sequence[Any]], folder: Path, name: str) -> list[str]:
    """Write a table as MLflow's JSON, its pictures beside it.

    Returns:
        The relative paths written, the table itself last.

    Raises:
        ValueError: columns of different lengths.
    """
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of table {name!r} differ in length: {lengths}")
    written: list[str] = []

    def cell(value: Any, column: str, row: int) -> Any:
        if isinstance(value, np.ndarray) and value.ndim == 3:
            stem = f"table_images/{name}/{uuid.uuid5(uuid.NAMESPACE_OID, f'{name}/{column}/{row}')}"
            full, small = f"{stem}.png", f"{stem}.webp"
            write_image(value, folder, full, small)
            written.extend((full, small))
            return {"type": "image", "filepath": full, "compressed_filepath": small}
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    rows = [
        [cell(value, column, row) for column, value in zip(columns, values, strict=True)]
        for row, values in enumerate(zip(*columns.values(), strict=True))
    ]
    table = {"columns": list(columns), "data": rows}
    (folder / f"{name}.json").write_text(json.dumps(table, allow_nan=False), encoding="utf-8")
    return [*written, f"{name}.json"]
