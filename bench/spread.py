"""What an event costs as its records are spread over more partitions, end to end on real Kafka.

Consumers of topics with as many partitions as are compared run at the same time on the same core, so that all meet the
same noise. The CPU of each counts from when a tenth of its records is settled, until all are: its start, with a store
for each partition, is measured elsewhere.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import events, machine, process
from bench.end_to_end import WITHIN_S, Group, task
from bench.programs import OURS
from tests.kafka_cluster import KafkaCluster

PARTITIONS = (1, 4, 16, 64)
RUNS = 5
WARM = 0.1
"""Share of the records that is settled before the clock starts."""


@dataclass(frozen=True)
class Spread:
    """CPU of the consumer, all threads, of new contacts.

    Attributes:
        partitions: That the records are spread over.
        events: In the topic.
        us_per_event: CPU microseconds, the median of the runs.
        times_first: The median of the ratios to the first row, run by run.
    """

    partitions: int
    events: int
    us_per_event: float
    times_first: float


class _Consumer:
    """A consumer at work, and what it has taken at the two moments that count."""

    def __init__(self, watch: process.Watched, group: Group, topic: str, partitions: int, records: int) -> None:
        self._watch, self._group = watch, group
        self._topic, self._partitions, self._records = topic, partitions, records
        self._begun: tuple[int, float] | None = None
        self.us_per_event = 0.0

    @property
    def done(self) -> bool:
        return self.us_per_event > 0

    def look(self) -> None:
        if self._watch.ended:
            raise RuntimeError("it ended")
        self._watch.look()
        settled = self._group.committed(self._topic, self._partitions)
        if self._begun is None and settled >= WARM * self._records:
            self._begun = settled, self._watch.samples[-1].cpu_s
        if self._begun is not None and settled == self._records:
            before, cpu_s = self._begun
            self.us_per_event = (self._watch.samples[-1].cpu_s - cpu_s) / (settled - before) * 1e6


def measure(kafka: KafkaCluster, count: int) -> list[Spread]:
    """So many events on each topic, some times."""
    topics = {partitions: _filled(kafka, partitions, count) for partitions in PARTITIONS}
    runs = [_run(kafka, topics, count) for _ in range(RUNS)]
    return [
        Spread(
            partitions,
            count,
            round(statistics.median(run[place] for run in runs), 1),
            round(statistics.median(run[place] / run[0] for run in runs), 2),
        )
        for place, partitions in enumerate(PARTITIONS)
    ]


def _filled(kafka: KafkaCluster, partitions: int, count: int) -> str:
    topic = kafka.create_topic("spread", partitions=partitions)
    events.produce(kafka.bootstrap, topic, events.all_new(count))
    return topic


def _run(kafka: KafkaCluster, topics: dict[int, str], count: int) -> Sequence[float]:
    """CPU microseconds per event, by partitions."""
    deadline = time.monotonic() + WITHIN_S
    with ExitStack() as stack:
        consumers = [stack.enter_context(_at_work(kafka, topic, each, count)) for each, topic in topics.items()]
        while not all(consumer.done for consumer in consumers):
            if time.monotonic() > deadline:
                raise RuntimeError("they did not get there")
            for consumer in consumers:
                consumer.look()
            time.sleep(machine.LOOK_EVERY_S)
    return [consumer.us_per_event for consumer in consumers]


@contextmanager
def _at_work(kafka: KafkaCluster, topic: str, partitions: int, count: int) -> Iterator[_Consumer]:
    with tempfile.TemporaryDirectory() as directory, machine.sink() as server:
        given = task(kafka, server, directory, topic, events.WORKLOADS[0].attributes)
        group = Group(given)
        with process.watched(OURS, given, Path(directory, "program.log")) as watch:
            yield _Consumer(watch, group, topic, partitions, count)
        group.close()
