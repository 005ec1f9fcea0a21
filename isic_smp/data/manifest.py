"""The table that may lie beside the images and say more of them: one row an image, told by its id."""

import csv
from collections.abc import Sequence
from pathlib import Path

from isic_smp.errors import UserError

MANIFEST = "manifest.csv"
"""Looked for in the folder of the data."""


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """These columns of each id's row, without spaces around them; None where the table lacks one of them, or ids.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"id", *columns} <= set(rows.fieldnames or ()):
                return None
            return {row["id"]: tuple((row[name] or "").strip() for name in columns) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}; mend or remove it") from None
