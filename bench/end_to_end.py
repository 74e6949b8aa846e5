"""The whole consumer on real Kafka with an instant sink: events per second, CPU per event, memory.

The consumer is the real command in a process of its own, on a core of its own; broker and sink share the other one.
The clock runs from the assignment of the partitions to the last audit event; start and end of the process do not count.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from bench import events, process
from tests.kafka_clients import read
from tests.kafka_cluster import KafkaCluster

PARTITIONS = 4


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


def measure(kafka: KafkaCluster, sink: str, workload: str, count: int) -> Run:
    """Produce the events, then let the consumer catch up."""
    topic = kafka.create_topic("bench", partitions=PARTITIONS)
    events.produce(kafka.bootstrap, topic, events.WORKLOADS[workload](count))
    with tempfile.TemporaryDirectory() as directory:
        environ = process.environ(kafka.bootstrap, topic, sink, directory)
        usage = process.run_until_caught_up(environ, Path(directory) / "consumer.log")
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


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
