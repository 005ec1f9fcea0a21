"""Sending a run's journal after the run is over."""

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path

from isic_smp.errors import UserError
from isic_smp.store import one_line, prepare_store, without_password
from isic_smp.tracking.journal import Entry, Journal
from isic_smp.tracking.opening import RunRequest, open_run
from isic_smp.tracking.run_note import JOURNALS, RunNote
from isic_smp.tracking.sending import RunAway, send_pending


def find_journals(folders: Iterable[Path]) -> list[Path]:
    """All journals in `folders`, each an output folder, a folder of journals, or a journal itself.

    Raises:
        UserError: a folder without any.
    """
    found = []
    for folder in folders:
        here = sorted(path.parent for path in folder.rglob("journal.jsonl"))
        if not here:
            raise UserError(f"no journal in {folder}: expected the --output-dir of a run")
        found += here
    return found


def check_all_sent(output_dir: Path) -> None:
    """Refuse to begin another run in a folder where an earlier one has left files that MLflow has not got yet.

    The other would write its own in their place, and both would be sent as the first one's.

    Raises:
        UserError: so it is, or a journal is in use or damaged.
    """
    for folder in sorted(path.parent for path in (output_dir / JOURNALS).glob("*/journal.jsonl")):
        with Journal(folder) as journal:
            waits = any(
                entry["kind"] == "file" and not entry["own"] for entry, _ in journal.entries(journal.sent)
            )
        if waits:
            raise UserError(
                f"{output_dir} holds files of an earlier run that have not been sent to MLflow: send them by python -m "
                f"isic_smp.sync {shlex.quote(str(output_dir))}, or choose another --output-dir"
            )


def sync_journal(folder: Path, *, tracking_uri: str | None) -> tuple[int, int]:
    """Send what the journal in `folder` still holds.

    Args:
        folder: The journal.
        tracking_uri: Where to; None: the store that the run was started with
            (offline: MLFLOW_TRACKING_URI, else SQLite in ./mlruns).

    Returns:
        How many entries were sent, and how many of them MLflow refused.

    Raises:
        UserError: the journal is in use or names no run, or the store does not have the run or does not take it.
    """
    with Journal(folder) as journal:
        start = journal.start()
        if start is None:
            raise UserError(f"the journal {folder} names no run: it was not written by isic_smp")
        uri = prepare_store(tracking_uri or start.get("tracking_uri"))
        run_id = journal.run_id or _make_run(journal, start, uri)
        waiting = sum(1 for _ in journal.entries(journal.sent))
        refused = journal.count_refused()
        from mlflow import MlflowClient

        try:
            send_pending(journal, MlflowClient(uri), run_id)
        except RunAway as error:
            begun, here = start.get("tracking_uri"), without_password(uri)  # as the journal has it
            elsewhere = (
                f"; it was begun in {begun}: name that by --tracking-uri" if begun not in (None, here) else ""
            )
            raise UserError(
                f"cannot send {folder} to {here}: {error}{elsewhere}; the journal keeps it all"
            ) from None
        except Exception as error:  # MLflow raises its own and those of whatever stores the artifacts
            raise UserError(
                f"MLflow at {without_password(uri)} did not take all of {folder}: {one_line(error)}; "
                "what has arrived is noted, so try again later"
            ) from None
        return waiting, journal.count_refused() - refused


def _make_run(journal: Journal, start: Entry, uri: str) -> str:
    """The run of a journal that was written offline; made once, however often its sending breaks off."""
    fields = {field.name: start[field.name] for field in dataclasses.fields(RunRequest)}
    _, run_id = open_run(RunRequest(**fields), uri)
    journal.name_run(run_id)
    RunNote(journal.folder.parent.parent).replace(journal.folder.name, run_id)
    return run_id
