"""The journal of one run: everything to be logged, appended to a local file before it is sent anywhere.

A folder with
- `journal.jsonl`  one JSON object a line, in the order it was logged; never changed, only appended to
- `sent`           how many bytes of it have reached MLflow; replaced atomically
- `run_id`         the run that an offline journal was given when it was first sent
- `refused.jsonl`  entries that MLflow will never take, with its reason
- `lock`           held while a process logs to it or sends it
- `files/`         pictures and tables on their way; deleted once they have arrived

What is written survives a kill of the process (it is in the page cache); after a power cut the last
seconds may be missing. Sending an entry twice changes nothing: times, steps and names are the entry's own.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from isic_smp.errors import UserError

Entry = dict[str, Any]


class Journal:
    """The journal in `folder`, created where it is missing, and locked until it is closed.

    Raises:
        UserError: it is locked already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.files = self.folder / "files"
        try:
            self.files.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the journal {self.folder}: {error.strerror}") from None
        self._lock = FileLock(self.folder / "lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"the journal {self.folder} is in use: its run is still going on, or being sent"
            ) from None
        self.path = self.folder / "journal.jsonl"
        self._sent_path = self.folder / "sent"
        try:
            self._drop_half_line()
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            # A power cut may have taken lines that had arrived, and left the note that they had.
            if self.sent > self.size:
                self.mark_sent(self.size)
        except OSError:
            self._lock.release()
            raise

    def append(self, *entries: Entry) -> None:
        """Add entries, in one write: a kill leaves all of them or none.

        Raises:
            OSError: the disk is full or the folder is gone; the file stays readable.
        """
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries).encode()
        written = os.write(self._descriptor, lines)
        if written != len(lines):  # the disk is full: take the half line back
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(28, "No space left on device", str(self.path))

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, int]]:
        """Each complete entry from byte `start` on, with the byte after it.

        Raises:
            UserError: a line is no entry: a disk or an editor has damaged the file.
        """
        with self.path.open("rb") as lines:
            end = lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # being written at this moment
                end += len(line)
                yield self._entry(line, end), end

    def _entry(self, line: bytes, end: int) -> Entry:
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise TypeError
        except (ValueError, TypeError):
            number = self.path.read_bytes()[:end].count(b"\n")
            raise UserError(
                f"line {number} of {self.path} is damaged: expected an entry in JSON, got {line[:40]!r}; to do without "
                f"it, delete the line and the file {self._sent_path.name!r} beside it"
            ) from None
        return entry

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size

    @property
    def sent(self) -> int:
        """Bytes that have reached MLflow."""
        try:
            return int(self._sent_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0  # sending all again does no harm

    @property
    def run_id(self) -> str | None:
        """The MLflow run that this journal belongs to; None while an offline one has not been sent."""
        path = self.folder / "run_id"
        if path.exists():
            return path.read_text().strip()
        start = self.start()
        return start["run_id"] if start else None

    def start(self) -> Entry | None:
        """The entry that says whose journal this is; None in a new one."""
        return next((entry for entry, _ in self.entries() if entry["kind"] == "run"), None)

    def name_run(self, run_id: str) -> None:
        """Note the run that was made for an offline journal."""
        part = self.folder / "run_id.part"
        part.write_text(run_id)
        part.replace(self.folder / "run_id")

    def mark_sent(self, offset: int) -> None:
        """Remember that everything before byte `offset` has arrived."""
        part = self._sent_path.with_suffix(".part")
        try:
            part.write_text(str(offset))
            part.replace(self._sent_path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def refuse(self, entry: Entry, reason: str) -> None:
        """Put aside an entry that MLflow will never take, so that the rest can go on."""
        with (self.folder / "refused.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({**entry, "reason": reason}) + "\n")

    def count_refused(self) -> int:
        """How many entries were put aside."""
        path = self.folder / "refused.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def close(self) -> None:
        """Let others have the journal."""
        os.close(self._descriptor)
        self._lock.release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_half_line(self) -> None:
        """Cut off what a writer that died mid-write, on a full disk, left behind."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
