"""Send to MLflow what runs had to keep in their journals while the server was away.

    python -m isic_smp.sync OUTPUT_DIR...

A folder may be a run's --output-dir or one journal in it. Sending twice does no harm.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from isic_smp.cli import EXIT_BAD_INPUT, command, parse
from isic_smp.errors import UserError

PROG = "python -m isic_smp.sync"


@dataclass(frozen=True)
class Options:
    """What to send, and where to."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT_DIR...")]
    """Output folders of runs, or journals in them."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, else the one each run was started with."""


def main() -> int:
    """Send the journals one after the other; 1 where MLflow refuses something, 2 where a journal cannot be sent."""
    options = parse(Options, prog=PROG, description=str(__doc__))
    if not options.folders:
        raise UserError(
            "nothing named to send: expected the --output-dir of one or more runs, such as runs/NAME"
        )
    from isic_smp.tracking.sync import find_journals, sync_journal

    code = 0
    for folder in find_journals(options.folders):
        try:
            sent, refused = sync_journal(
                folder, tracking_uri=options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
            )
        except UserError as error:  # of a run that still goes on, say: the others need not wait for it
            print(f"{PROG}: error: {error}", file=sys.stderr)
            code = EXIT_BAD_INPUT
            continue
        code = max(code, int(refused > 0))
        note = f", {refused} refused (see {folder / 'refused.jsonl'})" if refused else ""
        print(f"{folder}: {sent} entries sent{note}")
    return code


if __name__ == "__main__":
    command(main, prog=PROG)
