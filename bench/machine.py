"""Where and how the benchmarks run: this machine, its cores, and processes that stay on one of them."""

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from socket import create_connection, create_server
from typing import IO

from bench.programs import Program

MEASURED = ("confluent-kafka", "fastavro", "msgspec", "orjson", "rocksdict", "aiohttp")

_PROJECT = Path(__file__).resolve().parents[1]
_WRITTEN = (":!bench/*.json", ":!bench/plots")
"""What the benchmarks write themselves."""

LOOK_EVERY_S = 0.05

CORES = len(os.sched_getaffinity(0))
CONSUMER_CORE, OTHER_CORE = (min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0)))
"""The consumer has a core to itself where there are two; everything else is on the other one."""


def described() -> dict[str, str]:
    """Day, commit, machine and versions that the figures belong to; no commit where this is not a git repository."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    libraries = ", ".join(f"{name} {version(name)}" for name in MEASURED)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **_commit(),
        "cpu": model.partition(":")[2].strip(),
        "cores": str(CORES),
        "python": platform.python_version(),
        "libraries": libraries,
    }


def _commit() -> dict[str, str]:
    if not (_PROJECT / ".git").exists():
        return {}
    with suppress(OSError, subprocess.CalledProcessError):  # no git here, or it does not trust who owns the files
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN)
        return {"commit": f"{commit}-dirty" if changed else commit}
    return {}


def _git(*command: str) -> str:
    git = ("git", "-C", str(_PROJECT), *command)
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 -- ours


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
    program: Program,
    environ: Mapping[str, str] | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    """A program as a process on one core, which does not outlive this one."""
    tether = ("setpriv", "--pdeathsig", "KILL")
    command: Sequence[str] = (*tether, "taskset", "-c", str(core), program.python, "-m", *program.module)
    return subprocess.Popen(command, env=environ, stdout=stdout, stderr=stderr)  # noqa: S603 -- our own modules


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Until it listens: the floor has no patience with one that does not."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError), create_connection(("127.0.0.1", port)):
            return
        time.sleep(LOOK_EVERY_S)
    raise RuntimeError("the sink ended")


@dataclass(frozen=True)
class Sink:
    """A Genesys at its address.

    Attributes:
        url: Without a path.
        process: Stop it, and nobody answers.
    """

    url: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def sink(*, log: Path | None = None, delay_ms: int = 0) -> Iterator[Sink]:
    """A Genesys that takes everything, after a delay, and logs each request with contacts."""
    port = free_port()
    options = ("--delay-ms", str(delay_ms), *(() if log is None else ("--log", str(log))))
    process = started(OTHER_CORE, Program("sink", ("bench.sink", str(port), *options)))
    try:
        _wait_for(port, process)
        yield Sink(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()
