"""Where and how the benchmarks run: this machine, its cores, and processes that stay on one of them."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from socket import create_server
from typing import IO

MEASURED = ("confluent-kafka", "fastavro", "msgspec", "orjson", "rocksdict", "aiohttp")

CORES = len(os.sched_getaffinity(0))
CONSUMER_CORE, OTHER_CORE = (min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0)))
"""The consumer has a core to itself where there are two; everything else is on the other one."""


def described() -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    libraries = ", ".join(f"{name} {version(name)}" for name in MEASURED)
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": str(CORES),
        "python": platform.python_version(),
        "libraries": libraries,
    }


def stay_on(core: int) -> None:
    """Keep this process, and those that it starts, on one core."""
    os.sched_setaffinity(0, {core})


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def started(
    core: int,
    module: str,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    """A module of this Python as a process on one core."""
    command: Sequence[str] = ("taskset", "-c", str(core), sys.executable, "-m", module, *arguments)
    return subprocess.Popen(command, env=environ, stdout=stdout)  # noqa: S603 -- our own modules


@contextmanager
def sink() -> Iterator[str]:
    """The instant Genesys, at its address."""
    port = free_port()
    process = started(OTHER_CORE, "bench.sink", str(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
