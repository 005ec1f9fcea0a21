"""Whether a torch.export file (.pt2) is what it should be: a graph and tensors, nothing that runs when it is read.

`torch.export.load` unpickles whatever an archive says is pickled, and loads compiled libraries from it. So the
archive is looked at first, record by record: only records that hold no pickle are known here, all others are refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from isic_smp.errors import UserError

_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|(\.data/)?version|\.data/serialization_id|\.format_version"
    r"|\.storage_alignment|models/[^/]+\.json|extra/[^/]+|data/weights/weight_\d+|data/constants/tensor_\d+"
)
_CONFIG = re.compile(r"data/(weights|constants)/[^/]+_config\.json")
_INPUTS = re.compile(r"data/sample_inputs/[^/]+\.pt")


def refuse_pickles(path: Path) -> None:
    """Refuse the file `path` if loading it could run code.

    Raises:
        UserError: it holds a pickle, a compiled library, or a record that is not known.
        Exception: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise UserError("it holds a record twice, so that readers may see different ones")
        if len({name.partition("/")[0] for name in names}) > 1:
            raise UserError("it holds more than one archive")
        for full in names:
            name = full.partition("/")[2]
            if _CONFIG.fullmatch(name):
                safe = _all_raw(json.loads(archive.read(full)))
            elif _INPUTS.fullmatch(name):
                safe = _only_tensors(archive.read(full))
            else:
                safe = _PLAIN.fullmatch(name) is not None
            if not safe:
                raise UserError(f"its record {name} may run code when it is loaded: export the model again")


def _all_raw(config: Mapping[str, Any]) -> bool:
    """Whether every tensor is kept as plain bytes."""
    payloads = config["config"].values()
    return all(
        not payload["use_pickle"] and re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"])
        for payload in payloads
    )


def _only_tensors(content: bytes) -> bool:
    if not content:
        return True
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # whatever its restricted reader does not take
        return False
    return True
