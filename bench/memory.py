"""What memory the consumer takes while it works off a large backlog, for a part of which nobody answers.

The sink is stopped when a third of the records are settled, and goes on later. Memory is bounded by settings: a run
that takes more than it may, or whose memory still rises through its last half, is an error.
"""

import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import events, machine, process
from bench.end_to_end import PARTITIONS, Group, task
from bench.programs import OURS
from tests.kafka_cluster import KafkaCluster

STALL_S = 60.0
WITHIN_S = 3600.0
POINTS = 200
MOST_MB = 250
MOST_MB_PER_MINUTE = 5.0
"""Of the last half: what Bloom filters and indexes take of each contact, at any rate, is a fifth of it."""


@dataclass(frozen=True)
class Memory:
    """One backlog.

    Attributes:
        events: In it, each of another contact.
        stalled_s: The sink did not answer for so long.
        seconds: From the program's start until all records are settled.
        peak_rss_mb: Of all.
        first_half_rss_mb: The peak of the first half of the time.
        last_half_rss_mb: The peak of the last half.
        slope_mb_per_minute: Of a line through the last half.
        rss_mb: Second and megabytes, points of the whole time.
    """

    events: int
    stalled_s: float
    seconds: int
    peak_rss_mb: int
    first_half_rss_mb: int
    last_half_rss_mb: int
    slope_mb_per_minute: float
    rss_mb: Sequence[tuple[float, int]]


def measure(kafka: KafkaCluster, count: int) -> Memory:
    """Make the backlog, then let the consumer work it off."""
    topic = kafka.create_topic("backlog", partitions=PARTITIONS)
    events.produce(kafka.bootstrap, topic, events.all_new(count))
    with tempfile.TemporaryDirectory() as directory, machine.sink() as server:
        given = task(kafka, server, directory, topic, events.WORKLOADS[0].attributes)
        with process.watched(OURS, given, Path(directory, "program.log")) as watch:
            group = Group(given)
            watch.until(lambda: group.committed(topic) >= count // 3, WITHIN_S)
            _stall(server, watch)
            watch.until(lambda: group.committed(topic) == count, WITHIN_S)
            group.close()
    found = _figures(count, watch.samples)
    _check(found)
    return found


def _check(found: Memory) -> None:
    if found.peak_rss_mb > MOST_MB or found.slope_mb_per_minute > MOST_MB_PER_MINUTE:
        raise RuntimeError(f"{found.peak_rss_mb} MB, and {found.slope_mb_per_minute} MB more with each minute")


def _stall(server: machine.Sink, watch: process.Watched) -> None:
    server.process.send_signal(signal.SIGSTOP)
    until = time.monotonic() + STALL_S
    watch.until(lambda: time.monotonic() > until, 2 * STALL_S)
    server.process.send_signal(signal.SIGCONT)


def _figures(count: int, samples: Sequence[process.Sample]) -> Memory:
    begin, end = samples[0].at, samples[-1].at
    first = [each for each in samples if each.at < (begin + end) / 2]
    last = samples[len(first) :]
    return Memory(
        count,
        STALL_S,
        round(end - begin),
        peak_rss_mb=_peak_mb(samples),
        first_half_rss_mb=_peak_mb(first),
        last_half_rss_mb=_peak_mb(last),
        slope_mb_per_minute=round(slope([(each.at, each.rss) for each in last]) * 60 / 2**20, 2),
        rss_mb=[
            (round(each.at - begin, 1), round(each.rss / 2**20)) for each in samples[:: len(samples) // POINTS + 1]
        ],
    )


def _peak_mb(samples: Sequence[process.Sample]) -> int:
    return round(max(each.rss for each in samples) / 2**20)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits the points best."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread: float = sum((x - mean_x) ** 2 for x, _ in points)
    together: float = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return together / spread
