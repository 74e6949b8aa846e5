"""The C library's allocator, under librdkafka, RocksDB and Python alike. Touches the process' own settings of it.

By itself glibc serves blocks of up to 32 MB from its heaps once it has seen some freed, and heaps shrink from their end
only. Memtables and fetched data come in blocks of a megabyte that live for seconds to minutes: 50 MB of holes gathered.
"""

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Their names in malloc.h."""

_LARGE_BYTES = 256 << 10
_FREE_BYTES = 8 << 20
"""Kept at the end of a heap. By itself it would fall to 128 KB with the other, for three times the page faults."""


def return_large_blocks() -> None:
    """Have large blocks go back to the system when they are freed. Other C libraries than glibc do it anyway."""
    with suppress(AttributeError):  # glibc alone has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)
