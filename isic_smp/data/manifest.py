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
        UserError: it cannot be read, or says two things of one id.
    """
    found: dict[str, tuple[str, ...]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            places = {name.strip(): place for place, name in enumerate(next(rows, []))}
            if not {"id", *columns} <= places.keys():
                return None
            at = [places[name] for name in ("id", *columns)]
            for row in rows:
                id, *values = (row[place].strip() if place < len(row) else "" for place in at)
                if id and found.setdefault(id, tuple(values)) != tuple(values):
                    said = " and as ".join(", ".join(its) or "nothing" for its in (found[id], values))
                    raise UserError(f"{path} has {id} twice, as {said}; mend it")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}; mend or remove it") from None
    return found
