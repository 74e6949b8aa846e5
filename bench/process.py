"""The consumer as the real command, in a process of its own, on a core of its own."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench import machine

LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Usage:
    """What a consumer took from its start to its end.

    Attributes:
        lines: Of its log.
        assigned_at: When partitions were assigned, seconds since the epoch.
        cpu_s: User and system time after that.
        peak_rss: Bytes.
    """

    lines: Sequence[Mapping[str, Any]]
    assigned_at: float
    cpu_s: float
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
        "GENESYS_LOGIN_URL": sink,
        "GENESYS_API_URL": sink,
        "GENESYS_REQUESTS_PER_MINUTE": "100000",
        "STATE_DIR": directory,
        "HTTP_ADDRESS": "127.0.0.1:0",
        "LOG_FORMAT": "json",
    }


def run_until_caught_up(environ: Mapping[str, str], log: Path) -> Usage:
    """Let the consumer run to its end, and look how it does."""
    with log.open("wb") as out:
        process = machine.started(
            machine.CONSUMER_CORE, "consumer", "run", "--until-caught-up", environ=environ, stdout=out
        )
    watched = Watched(process)
    assigned_at, before = None, 0.0
    while process.poll() is None:
        watched.look()
        if assigned_at is None and (assigned := moments(_lines(log), "assigned")):
            assigned_at, before = assigned[0], watched.cpu_s
        time.sleep(LOOK_EVERY_S)
    if process.returncode or assigned_at is None:
        raise RuntimeError(f"the consumer failed:\n{log.read_text()}")
    return Usage(_lines(log), assigned_at, watched.cpu_s - before, watched.peak_rss)


class Watched:
    """A process, as it was when it was last looked at.

    Attributes:
        cpu_s: User and system time so far, seconds.
        peak_rss: Bytes at the peak.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._watched = psutil.Process(process.pid)
        self.cpu_s = 0.0
        self.peak_rss = 0

    def look(self) -> None:
        """Look at it; what is known already stays when it is gone."""
        self.cpu_s = _cpu_s(self._watched, self.cpu_s)
        self.peak_rss = peak_rss(self._process, self.peak_rss)


def moments(lines: Sequence[Mapping[str, Any]], event: str) -> list[float]:
    """When the log tells of an event, seconds since the epoch."""
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == event]


def _lines(log: Path) -> list[Mapping[str, Any]]:
    return [orjson.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _cpu_s(process: psutil.Process, last: float) -> float:
    """CPU seconds so far; what is known already when the process is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return last
    return float(times.user + times.system) or last


def peak_rss(process: "subprocess.Popen[bytes]", last: int) -> int:
    """Bytes at the peak of this program: the kernel's own figure at the end counts its parent's before the exec."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return last
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else last
