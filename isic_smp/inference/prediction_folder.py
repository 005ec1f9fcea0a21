"""The folder that predictions are written to, and the record that lets an interrupted prediction go on.

- masks/: the masks and nothing else, as the official scorer reads them.
- probabilities/, where asked for: 8-bit pictures, 255 times the probability.
- overlays/, where asked for: the image with the mask's outline.
- predictions.csv: one row a mask.
- failures.csv: the files that could not be used, and why, of all calls; absent where there are none.
- predictions.jsonl, the record: the model first, then one line an image as soon as its files are there.
"""

import csv
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import filelock

from isic_smp.errors import UserError
from isic_smp.files import state_of
from isic_smp.inference.mask_files import mask_path

MASKS, PROBABILITIES, OVERLAYS = "masks", "probabilities", "overlays"
RECORD, TABLE, FAILURES = "predictions.jsonl", "predictions.csv", "failures.csv"
_STATE = "file"
"""Beside a row in the record: `_state` of its image."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image's line in the record and in the table. Lengths and areas in pixels of its own size."""

    id: str
    """What its mask's name begins with."""
    image: str
    """Absolute path."""
    width: int
    height: int
    lesion_pixels: int
    lesion_share: float
    left: int | None
    top: int | None
    box_width: int | None
    box_height: int | None
    confidence: float
    expected_iou: float | None = None
    """None where the model has no estimate."""
    seconds: float
    """Reading, its share of its batch in the network, and writing."""


class PredictionFolder:
    """Open for one process; a context manager that leaves the table complete, also after an error.

    Args:
        folder: made where missing.
        identity: what the masks depend on: the model and its settings, as plain JSON values.
        probabilities: whether probability maps are wanted as well.
        overlays: whether overlays are wanted as well.
        table: whether `predictions.csv` is.

    Raises:
        UserError: the folder holds predictions of something else, or other files where masks belong;
            another process writes to it; or it cannot be written to.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], *, probabilities: bool, overlays: bool, table: bool
    ) -> None:
        self.folder, self.table = folder, table
        self.probabilities, self.overlays = probabilities, overlays
        self.rows: dict[Path, Row] = {}
        self._predicted: dict[Path, list[int]] = {}  # which state of each image's file the row is of
        self.failures: dict[Path, str] = {}  # of this process alone
        try:
            (folder / MASKS).mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(folder / ".predictions.lock")
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                f"another process writes to {folder}: wait for it or choose another --out"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error.strerror or error}; choose another --out"
            ) from None
        try:
            self._record = self._open_record(identity)
            self._failed_before = _read_failures(folder / FAILURES)
        except BaseException:
            self._lock.release()
            raise
        for left_over in folder.glob(".*.part"):  # of a process that was killed
            left_over.unlink(missing_ok=True)

    def __enter__(self) -> "PredictionFolder":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._record.close()
            # The record knows masks, too, that went when their images could not be read any more.
            there = [row for row in self.rows.values() if mask_path(self.folder / MASKS, row.id).exists()]
            rows = sorted(there, key=lambda row: row.id)
            if self.table or (self.folder / TABLE).exists():  # an older one would tell of other masks
                names = [field.name for field in dataclasses.fields(Row)]
                self._write_csv(TABLE, names, [dataclasses.astuple(row) for row in rows])
            failures = self._failed_before | {str(image): why for image, why in self.failures.items()}
            failed = sorted((image, why) for image, why in failures.items() if os.path.lexists(image))
            if failed:
                self._write_csv(FAILURES, ["image", "reason"], failed)
            else:
                (self.folder / FAILURES).unlink(missing_ok=True)
        finally:
            self._lock.release()

    def names(self) -> dict[Path, str]:
        """The images that have predictions here, and under which name."""
        return {image: row.id for image, row in self.rows.items()}

    def is_done(self, image: Path) -> bool:
        """Whether all that is wanted of `image` is here, and the file is the very one that it was made of."""
        row, state = self.rows.get(image), _state(image)
        if row is None or not state or self._predicted[image] != state:
            return False
        return all(path.exists() for path in self.paths(row.id).values())

    def paths(self, name: str) -> dict[str, Path]:
        """Where the wanted files of the image called `name` go, by kind."""
        wanted = {MASKS: True, PROBABILITIES: self.probabilities, OVERLAYS: self.overlays}
        return {kind: path for kind, path in self._all_paths(name).items() if wanted[kind]}

    def add(self, row: Row) -> None:
        """Record an image whose files are written; of the kinds not wanted now, older ones that show another mask go."""
        for kind, path in self._all_paths(row.id).items():
            if kind not in self.paths(row.id):
                path.unlink(missing_ok=True)
        image = Path(row.image)
        self.rows[image], self._predicted[image] = row, _state(image)
        self._failed_before.pop(row.image, None)
        self._record.write(json.dumps({**dataclasses.asdict(row), _STATE: self._predicted[image]}) + "\n")
        self._record.flush()

    def add_failure(self, image: Path, reason: str) -> None:
        """Remember an image that cannot be predicted; it is tried again next time.

        What there is of it goes: it comes from a file that was there before.
        """
        self.failures[image] = reason
        if row := self.rows.pop(image, None):
            for path in self._all_paths(row.id).values():
                path.unlink(missing_ok=True)

    def _all_paths(self, name: str) -> dict[str, Path]:
        return {
            MASKS: mask_path(self.folder / MASKS, name),
            PROBABILITIES: self.folder / PROBABILITIES / f"{name}_probability.png",
            OVERLAYS: self.folder / OVERLAYS / f"{name}_overlay.jpg",
        }

    def _open_record(self, identity: dict[str, Any]) -> IO[str]:
        path = self.folder / RECORD
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # cut short by a kill
        if lines:
            before, rows = _read_record(path, lines)
            self._check_same(before, identity)
            for row, state in rows:
                self.rows[Path(row.image)], self._predicted[Path(row.image)] = row, state
        else:
            if strange := next((self.folder / MASKS).iterdir(), None):
                raise UserError(f"{strange} is there already and not from here: choose another --out")
            lines = [json.dumps(identity).encode() + b"\n"]
        partial = self.folder / f".{RECORD}.{os.getpid()}.part"
        partial.write_bytes(b"".join(lines))
        partial.replace(path)
        return path.open("a", encoding="utf-8")

    def _check_same(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Masks of two models or thresholds in one folder would be scored as one's.

        A setting that the record does not know came later, and was off.
        """
        changed = [
            f"{name} {_short(before.get(name))}, now {_short(now.get(name))}"
            for name in dict.fromkeys([*before, *now])
            if before.get(name, False) != now.get(name, False)
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds predictions made otherwise ({'; '.join(changed)}): "
                "choose another --out, or delete that folder first"
            )

    def _write_csv(self, name: str, columns: list[str], rows: list[tuple]) -> None:
        partial = self.folder / f".{name}.{os.getpid()}.part"
        # A file's name may be bytes that are no UTF-8: they are written as they are.
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
        partial.replace(self.folder / name)


def _state(image: Path) -> list[int]:
    """As `state_of`; empty where the file is gone."""
    try:
        return state_of(image)
    except OSError:
        return []


def _read_record(path: Path, lines: list[bytes]) -> tuple[dict[str, Any], list[tuple[Row, list[int]]]]:
    """What the predictions depend on, and those that are there, each with the state of its image's file."""
    try:
        identity, *rows = [json.loads(line) for line in lines]
        states = [row.pop(_STATE, []) for row in rows]
        found = [Row(**row) for row in rows]
        if isinstance(identity, dict) and all(
            isinstance(text, str) for r in found for text in (r.id, r.image)
        ):
            return identity, list(zip(found, states, strict=True))
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(
        f"{path} is no record of isic_smp, or damaged: choose another --out or delete that folder"
    )


def _read_failures(path: Path) -> dict[str, str]:
    """What earlier calls could not use; nothing where the table is not there, or is not one of those."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return {row["image"]: row["reason"] for row in csv.DictReader(file, strict=True)}
    except (FileNotFoundError, KeyError, csv.Error):
        return {}


def _short(value: Any) -> str:
    words = str(value)
    return words if len(words) <= 12 else f"{words[:12]}…"
