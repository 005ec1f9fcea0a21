"""Diagnoses of images, where a table beside them or elsewhere names them."""

from pathlib import Path

from isic_smp.data.manifest import MANIFEST, read_columns
from isic_smp.errors import UserError


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
    rows = read_columns(path, ["diagnosis"])
    return None if rows is None else {id: diagnosis for id, (diagnosis,) in rows.items()}
