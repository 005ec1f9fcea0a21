"""A process that has imported everything and forks: a run starts in a second instead of ten, and can be killed."""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

HUNG = 1000
"""Stands for an exit code where a child was still at it when its time was over."""


def import_what_a_run_needs() -> None:
    """All but what a run imports as it goes along; see `import_all`."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from isic_smp.cli import quiet_libraries

    quiet_libraries()
    import mlflow.db
    import mlflow.models
    import mlflow.pyfunc
    import mlflow.pytorch
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import isic_smp.experiment
    import isic_smp.run
    import isic_smp.tracking.mlflow_model
    import isic_smp.tracking.registry  # noqa: F401


def import_all(modules: Iterable[str]) -> None:
    """Import by name, where that can be done: some modules only come with those that they belong to."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def fork(work: Callable[[], object], *, output: Path, seconds: float) -> int:
    """Do `work` in a child that prints into `output`.

    Returns:
        its exit code; minus a signal's number; or `HUNG` where it had to be killed after `seconds`.
    """
    pid = os.fork()
    if pid == 0:
        _live(work, output)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HUNG


def _live(work: Callable[[], object], output: Path) -> NoReturn:
    code = 70
    try:
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
