"""Processes that must not outlive the one that started them."""

import ctypes
import signal

PR_SET_PDEATHSIG = 1

_LIBC = ctypes.CDLL(None)  # loaded here: a fork of a process with threads had better load nothing


def die_with_parent() -> None:
    """For `Popen(preexec_fn=…)`: the new process gets a SIGTERM when its parent ends, even by SIGKILL; Linux only."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
