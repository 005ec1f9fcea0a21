"""Send to MLflow what runs had to keep in their journals while the server was away.

    python -m isic_smp.sync OUTPUT_DIR...

A folder may be a run's --output-dir or one journal in it. Sending twice does no harm.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from isic_smp.cli import command, parse

PROG = "python -m isic_smp.sync"


@dataclass(frozen=True)
class Options:
    """What to send, and where to."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Output folders of runs, or journals in them."""
    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, else the one each run was started with."""


def main() -> int:
    """Send the journals one after the other; 1 where something is left."""
    options = parse(Options, prog=PROG, description=str(__doc__))
    from isic_smp.tracking.sync import find_journals, sync_journal

    left = 0
    for folder in find_journals(options.folders):
        sent, refused = sync_journal(
            folder, tracking_uri=options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        )
        left += refused
        note = f", {refused} refused (see {folder / 'refused.jsonl'})" if refused else ""
        print(f"{folder}: {sent} entries sent{note}")
    return 1 if left else 0


if __name__ == "__main__":
    command(main, prog=PROG)
