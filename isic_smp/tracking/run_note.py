"""Which MLflow run an output folder belongs to, so that a resumed experiment goes on with it and makes no second one.

- `mlflow_run.json`    the run's id, once it exists
- `journal/key`        written before the run is asked for, and a tag of it: a process that is killed
                       between the two leaves a run that is found again by its key
"""

import json
import uuid
from pathlib import Path

from isic_smp.errors import UserError
from isic_smp.files import write_text

RUN_FILE = "mlflow_run.json"
JOURNALS = "journal"
KEY_TAG = "isic_smp.key"
OFFLINE = "offline-"
"""Begins the stand-in for the id of a run that MLflow does not know yet."""


class RunNote:
    """The note in `output_dir`. Call `begin` once."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.journals = output_dir / JOURNALS
        self._file, self._key_file = output_dir / RUN_FILE, self.journals / "key"
        self.run_id: str | None = None
        self.key = ""

    def begin(self, *, resume: bool) -> bool:
        """Find the run to go on with (`run_id`, None where there is none), or begin another one.

        Returns:
            Whether what lies in the folder is another run's.

        Raises:
            UserError: the note is damaged, or cannot be written.
        """
        if resume:
            self.key = self._key_file.read_text().strip() if self._key_file.exists() else ""
            noted = self._read()
            if noted is not None and noted.get("key", "") == self.key:
                self.run_id = noted["run_id"]
            if self.run_id is not None or self.key:
                # A key without its note: the process was killed while it began, after another run perhaps.
                return self.run_id is None
        self.key = uuid.uuid4().hex
        write_text(self._key_file, self.key + "\n")
        return not resume

    def write(self, run_id: str) -> None:
        """Note the run.

        Raises:
            UserError: the folder cannot be written.
        """
        self.run_id = run_id
        write_text(self._file, json.dumps({"run_id": run_id, **({"key": self.key} if self.key else {})}))

    def replace(self, stand_in: str, run_id: str) -> None:
        """Note the id of the run that `stand_in` stood for, where the note is about it."""
        noted = self._read()
        if noted is not None and noted["run_id"] == stand_in:
            self.key = noted.get("key", "")
            self.write(run_id)

    def _read(self) -> dict[str, str] | None:
        if not self._file.exists():
            return None
        try:
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            if not isinstance(noted["run_id"], str):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{self._file} does not say which MLflow run is meant; choose another --output-dir"
            ) from None
        return noted
