"""A program in a process of its own, on a core of its own: what it is told, and what it takes."""

import os
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil

from bench import machine
from bench.programs import OURS, Program
from bench.sink import LIST_ID

ENDS_WITHIN_S = 30.0


class Sample(NamedTuple):
    """What a process has taken by a moment: user and system seconds, and bytes."""

    at: float
    cpu_s: float
    rss: int


class Watched:
    """A process with samples of what it takes, of which there is at least one; times are seconds since the epoch.

    Attributes:
        samples: In order.
        peak_rss: Bytes.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._psutil = psutil.Process(process.pid)
        self.samples: list[Sample] = []
        self.peak_rss = 0
        self.look()

    def look(self) -> None:
        """Take a sample, unless the process has just ended."""
        self.peak_rss = peak_rss(self._process, self.peak_rss)
        try:
            times, rss = self._psutil.cpu_times(), self._psutil.memory_info().rss
        except psutil.Error:
            return
        if times.user + times.system:  # nothing left of a process that has ended and is not waited for
            self.samples.append(Sample(time.time(), times.user + times.system, rss))

    def until(self, holds: Callable[[], object], within_s: float) -> None:
        """Look until this holds, which must be before the process ends."""
        deadline = time.monotonic() + within_s
        while not holds():
            if self.ended:
                raise RuntimeError("it ended")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not get there within {within_s:.0f} s")
            self.look()
            time.sleep(machine.LOOK_EVERY_S)

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def cpu_s(self, begin: float, end: float) -> float:
        """User and system seconds between two moments, all threads."""
        return cpu_s_at(self.samples, end) - cpu_s_at(self.samples, begin)


def cpu_s_at(samples: Sequence[Sample], moment: float) -> float:
    """What was taken by a moment, between two of some samples in order of time."""
    after = min(max(bisect_left(samples, (moment,)), 1), len(samples) - 1)
    earlier, later = samples[after - 1], samples[after]
    share = min(max((moment - earlier.at) / (later.at - earlier.at), 0.0), 1.0)
    return earlier.cpu_s + share * (later.cpu_s - earlier.cpu_s)


@dataclass(frozen=True)
class Usage:
    """What a consumer took from its start to its end.

    Attributes:
        lines: Of its log.
        assigned_at: When partitions were assigned, seconds since the epoch.
        peak_rss: Bytes.
    """

    lines: Sequence[Mapping[str, Any]]
    assigned_at: float
    peak_rss: int


def environ(bootstrap: str, topic: str, sink: str, directory: str) -> dict[str, str]:
    """Settings for a group of its own on one source topic."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "GENESYS_", "OTEL_"))},
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_GROUP_ID": topic,
        "KAFKA_SOURCE_TOPICS": topic,
        "KAFKA_AUDIT_TOPIC": f"{topic}.audit",
        "KAFKA_DEAD_LETTER_TOPIC": f"{topic}.dead-letters",
        "GENESYS_OAUTH_CLIENT_ID": "bench",
        "GENESYS_OAUTH_CLIENT_SECRET": "bench",
        "GENESYS_CONTACT_LIST": "bench",
        "BENCH_CONTACT_LIST_ID": LIST_ID,
        "GENESYS_LOGIN_URL": sink,
        "GENESYS_API_URL": sink,
        "GENESYS_REQUESTS_PER_MINUTE": "100000",
        "STATE_DIR": directory,
        "HTTP_ADDRESS": "127.0.0.1:0",
        "LOG_FORMAT": "json",
    }


@contextmanager
def watched(program: Program, environ: Mapping[str, str], log: Path) -> Iterator[Watched]:
    """The program on its core, until the block ends."""
    with log.open("wb") as out:
        process = machine.started(machine.CONSUMER_CORE, program, environ, out, out)
    try:
        yield Watched(process)
    except RuntimeError as error:
        error.add_note(f"{program.name} wrote:\n{log.read_text()}")
        raise
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:  # it is past what is measured, and there are more
        process.kill()
        process.wait()


def run_until_caught_up(environ: Mapping[str, str], log: Path) -> Usage:
    """Let the consumer run to its end, and look how it does."""
    with log.open("wb") as out:
        program = Program(OURS.name, (*OURS.module, "--until-caught-up"))
        process = machine.started(machine.CONSUMER_CORE, program, environ, out)
    watch = Watched(process)
    while not watch.ended:
        watch.look()
        time.sleep(machine.LOOK_EVERY_S)
    assigned = moments(_lines(log), "assigned")
    if process.returncode or not assigned:
        raise RuntimeError(f"the consumer failed:\n{log.read_text()}")
    return Usage(_lines(log), assigned[0], watch.peak_rss)


def moments(lines: Sequence[Mapping[str, Any]], event: str) -> list[float]:
    """When the log tells of an event, seconds since the epoch."""
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == event]


def _lines(log: Path) -> list[Mapping[str, Any]]:
    return [orjson.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def peak_rss(process: "subprocess.Popen[bytes]", last: int) -> int:
    """Bytes at the peak of this program: the kernel's own figure at the end counts its parent's before the exec."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return last
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else last
