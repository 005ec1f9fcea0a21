"""Memory that a CPU's next step will want again, kept from one step to the next."""

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST_INT = 2**31 - 1
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc takes no more. By itself it comes to this as blocks are freed, and to twice as much for the other."""


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Within this context, glibc keeps freed memory for the next allocation; afterwards it is given back.

    Every step frees its activations and would otherwise return their pages to the system, to have them
    zeroed and mapped anew for the next: a tenth of a step's time. The peak stays what it is. Where the C library
    is another, nothing happens.
    """
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    set_option(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    set_option(_TRIM_THRESHOLD, _LARGEST_INT)
    try:
        yield
    finally:
        set_option(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        trim(0)
