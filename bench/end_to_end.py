"""The whole consumer on real Kafka with an instant sink: events per second, CPU per event, memory.

The consumer is the real command in a process of its own, on a core of its own; broker and sink share the other one.
The clock runs from the assignment of the partitions to the last audit event; start and end of the process do not count.
"""

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
import psutil

from bench import events, machine
from tests.kafka_clients import read
from tests.kafka_cluster import KafkaCluster

PARTITIONS = 4
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Run:
    """One run of one workload.

    Attributes:
        workload: Which events.
        events: How many.
        events_per_s: From the assignment to the last audit event.
        cpu_us_per_event: User and system time of the consumer after the assignment.
        peak_rss_mb: Of the consumer.
        outcomes: How the records ended.
    """

    workload: str
    events: int
    events_per_s: int
    cpu_us_per_event: float
    peak_rss_mb: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True)
class _Usage:
    """What the consumer took: seconds since the epoch of the assignment, CPU seconds after it, bytes at the peak."""

    assigned_at: float
    cpu_s: float
    peak_rss: int


def measure(kafka: KafkaCluster, sink: str, workload: str, count: int) -> Run:
    """Produce the events, then let the consumer catch up."""
    topic = kafka.create_topic("bench", partitions=PARTITIONS)
    events.produce(kafka.bootstrap, topic, events.WORKLOADS[workload](count))
    with tempfile.TemporaryDirectory() as directory:
        usage = _consume(_environ(kafka.bootstrap, topic, sink, directory), Path(directory) / "consumer.log")
    audit = read(kafka.bootstrap, f"{topic}.audit", partitions=PARTITIONS)
    records = [event for message in audit if (event := orjson.loads(message.value() or b""))["type"] == "record"]
    if len(records) != count:
        raise RuntimeError(f"{len(records)} audit events for {count} records")
    seconds = max(_epoch(event["timestamp"]) for event in records) - usage.assigned_at
    return Run(
        workload,
        count,
        round(count / seconds),
        round(usage.cpu_s / count * 1e6, 1),
        round(usage.peak_rss / 2**20),
        dict(Counter(event["outcome"] for event in records)),
    )


def _environ(bootstrap: str, topic: str, sink: str, directory: str) -> dict[str, str]:
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


def _consume(environ: Mapping[str, str], log: Path) -> _Usage:
    """Let the consumer run to its end, and look how it does."""
    with log.open("wb") as out:
        process = machine.started(
            machine.CONSUMER_CORE, "consumer", "run", "--until-caught-up", environ=environ, stdout=out
        )
    watched = psutil.Process(process.pid)
    assigned_at, before, cpu_s, peak = None, 0.0, 0.0, 0
    while process.poll() is None:
        cpu_s, peak = _cpu_s(watched, cpu_s), _peak_rss(process, peak)
        if assigned_at is None:
            assigned_at, before = _assigned_at(log), cpu_s
        time.sleep(LOOK_EVERY_S)
    if process.returncode or assigned_at is None:
        raise RuntimeError(f"the consumer failed:\n{log.read_text()}")
    return _Usage(assigned_at, cpu_s - before, peak)


def _cpu_s(process: psutil.Process, last: float) -> float:
    """CPU seconds so far; what is known already when the process is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return last
    return float(times.user + times.system) or last


def _peak_rss(process: "subprocess.Popen[bytes]", last: int) -> int:
    """Bytes at the peak of this program: the kernel's own figure at the end counts its parent's before the exec."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return last
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else last


def _assigned_at(log: Path) -> float | None:
    for line in log.read_bytes().splitlines():
        event = orjson.loads(line)
        if event["event"] == "assigned":
            return _epoch(event["timestamp"])
    return None


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
