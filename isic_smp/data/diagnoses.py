"""Diagnoses of images, where a table beside them or elsewhere names them."""

import csv
from pathlib import Path

from isic_smp.errors import UserError

MANIFEST = "manifest.csv"
"""Looked for in the folder of the data; other columns than id and diagnosis are passed over."""


def read_diagnoses(root: Path) -> dict[str, str] | None:
    """Diagnosis of each image id from `manifest.csv` in `root`; None where there is none, or none with both columns.

    Raises:
        UserError: a manifest that cannot be read.
    """
    path = root / MANIFEST
    return _read(path) if path.is_file() else None


def read_diagnosis_table(path: Path) -> dict[str, str]:
    """Diagnosis of each image id from a CSV file with the columns id and diagnosis.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    found = _read(path)
    if found is None:
        raise UserError(f"{path} must be a CSV file with the columns id and diagnosis")
    return found


def _read(path: Path) -> dict[str, str] | None:
    """None where a column is missing."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"id", "diagnosis"} <= set(rows.fieldnames or ()):
                return None
            return {row["id"]: (row["diagnosis"] or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}; mend or remove it") from None
