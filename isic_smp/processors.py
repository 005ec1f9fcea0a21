"""How many processors there are to share out."""

import os


def processors() -> int:
    """Those that this process may use, of the machine's; all of them where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
