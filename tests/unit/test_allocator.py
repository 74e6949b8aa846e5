"""What the process keeps of memory that it has freed."""

import ctypes
import subprocess
import sys

import pytest

CALLED = """
from consumer.adapters.allocator import return_large_blocks

return_large_blocks()
"""

STARTED = """
import asyncio, tempfile
from consumer.app import App
from consumer.settings import load
from tests.lives import REQUIRED

async def main():
    stop = asyncio.Event()
    stop.set()
    with tempfile.TemporaryDirectory() as state_dir:
        nowhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "GENESYS_LOGIN_URL": "http://127.0.0.1:1"}
        settings = load({**REQUIRED, **nowhere, "HTTP_ADDRESS": "127.0.0.1:0", "STATE_DIR": state_dir})
        await App(settings).run(stop)

asyncio.run(main())
"""

KEPT = """
import ctypes

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.free(libc.malloc(16 << 20))  # from here on glibc, by itself, takes a megabyte from the heap
before = resident()
blocks = [libc.malloc(1 << 20) for _ in range(100)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
for block in blocks[:-1]:  # the last one stands at the heap's end
    libc.free(block)
print(resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
@pytest.mark.parametrize("begin", [CALLED, STARTED], ids=["called", "a consumer started"])
def test_large_blocks_go_back_to_the_system(begin: str) -> None:
    """Of 100 MB of which 99 are freed, the process does not keep most."""
    told = subprocess.run([sys.executable, "-c", begin + KEPT], capture_output=True, text=True, check=True)  # noqa: S603 -- ours
    assert int(told.stdout.splitlines()[-1]) / 1024 < 40
