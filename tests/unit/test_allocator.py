"""What the process keeps of memory that it has freed."""

import ctypes
import subprocess
import sys

import pytest

RESIDENT = """
import ctypes
from consumer.adapters.allocator import return_large_blocks

return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.free(libc.malloc(16 << 20))  # from here on glibc, by itself, takes a megabyte from the heap
blocks = [libc.malloc(1 << 20) for _ in range(100)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
for block in blocks[:-1]:  # the last one stands at the heap's end
    libc.free(block)
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_large_blocks_go_back_to_the_system() -> None:
    """Of 100 MB of which 99 are freed, the process does not keep most."""
    told = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)  # noqa: S603 -- ours
    assert int(told.stdout) / 1024 < 60
