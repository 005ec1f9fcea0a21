"""Optuna's dashboard on the study database of ISIC_SMP_STORAGE, opened as the workers open it.

python docker/dashboard.py [HOST] [PORT]

The dashboard's own command takes the database's password as an argument, which any process can read, and
creates missing tables without regard to workers that do so at the same moment.
"""

import os
import sys

from optuna_dashboard import run_server

from isic_smp import cli
from isic_smp.errors import UserError
from isic_smp.sweeping.options import STORAGE_VARIABLE
from isic_smp.sweeping.storage import open_storage


def main() -> None:
    """Serve until interrupted."""
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    url = os.environ.get(STORAGE_VARIABLE)
    if not url:
        raise UserError(f"no study database: set {STORAGE_VARIABLE}")
    storage = open_storage(url, heartbeat=60)
    cli.end_on_sigterm()
    run_server(storage, host=host, port=port)


if __name__ == "__main__":
    cli.command(main, prog="python docker/dashboard.py")
