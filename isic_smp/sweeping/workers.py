"""Several workers on one machine: this command, once more for each, with its share of the cores."""

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from isic_smp.errors import UserError
from isic_smp.processors import processors
from isic_smp.sweeping.orphans import die_with_parent

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

    A worker that dies is not replaced: the others take its trial over, and others may join. However this
    ends, no worker is left: each gets one SIGTERM, gives its trial back, and is waited for.

    Raises:
        UserError: all workers have ended and trials still wait.
        KeyboardInterrupt: this process was interrupted.
    """
    threads = max(1, processors() // count)
    processes: list[subprocess.Popen] = []
    shown: set[int] = set()
    try:
        for number in range(count):
            environment = os.environ | {WORKER_VARIABLE: str(number)}
            environment.setdefault("OMP_NUM_THREADS", str(threads))
            # A group of its own, since a terminal's Ctrl-C reaches all of this process's: with the SIGTERM below the
            # worker would be interrupted twice. The terminal's end does not reach it either, hence the other.
            process = subprocess.Popen(
                [sys.executable, *sys.argv], env=environment, process_group=0, preexec_fn=die_with_parent
            )
            processes.append(process)
        while any(process.poll() is None for process in processes):
            session.show_new(shown)
            time.sleep(POLL_SECONDS)
        session.show_new(shown)
    finally:
        for process in processes:
            process.terminate()  # does nothing to one that has ended
        for process in processes:
            process.wait()
    if not session.is_over():
        codes = ", ".join(str(process.returncode) for process in processes)
        raise UserError(
            f"all {count} workers have ended (exit codes {codes}) and trials still wait; "
            "give the same command again to go on"
        )
