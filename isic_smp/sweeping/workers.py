"""Several workers on one machine: this command, once more for each, with its share of the cores."""

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from isic_smp.errors import UserError

if TYPE_CHECKING:
    from isic_smp.sweeping.session import Session

WORKER_VARIABLE = "ISIC_SMP_WORKER"
"""Set in the processes that `--workers` starts, to their number from 0 on."""

POLL_SECONDS = 1.0


def worker_number() -> int | None:
    """Which of the processes of `--workers` this is; None for the one that starts them."""
    value = os.environ.get(WORKER_VARIABLE)
    return int(value) if value else None


def start_workers(count: int, session: "Session") -> None:
    """Run `count` workers until the study is over, showing each trial that ends.

    A worker that dies is not replaced: the others take its trial over, and others may join.

    Raises:
        UserError: all workers have ended and trials still wait.
        KeyboardInterrupt: handed on to the workers, which have ended by then.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    processes = []
    for number in range(count):
        environment = os.environ | {WORKER_VARIABLE: str(number)}
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        processes.append(subprocess.Popen([sys.executable, *sys.argv], env=environment))
    shown: set[int] = set()
    try:
        while any(process.poll() is None for process in processes):
            session.show_new(shown)
            time.sleep(POLL_SECONDS)
        session.show_new(shown)
    except KeyboardInterrupt:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        raise
    if not session.is_over():
        codes = ", ".join(str(process.returncode) for process in processes)
        raise UserError(
            f"all {count} workers have ended (exit codes {codes}) and trials still wait; "
            "give the same command again to go on"
        )
