"""How long a change takes from the topic to the contact list, where records come in at a steady rate.

The program runs before the first record counts. A change counts from when the broker appended it to the sink's answer.
All changes are of new contacts, or every tenth withdraws the consent of one that was new four seconds before: a
withdrawal waits for nobody, and may take along what would have waited. A run in which a change is never applied is an
error; a program that stands still for less does not let a withdrawal overtake its grant.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from confluent_kafka import Producer

from bench import events, machine, process, sink
from bench.end_to_end import PARTITIONS, Group, task
from bench.peers import job
from bench.programs import Program
from tests.kafka_clients import read
from tests.kafka_cluster import KafkaCluster

EVENTS_PER_S = 200
WITHDRAWAL_EVERY = 10
WITHDRAWN_AFTER = 4 * EVENTS_PER_S
LINGER_MS = 100
SETTLE_S = 5.0
WITHIN_S = 60.0

WORKLOADS = {"with withdrawals": True, "changes alone": False}
"""Whether there are withdrawals."""

Change = tuple[str, str]
"""External id, and what it says of consent."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from append to applied.

    Attributes:
        workload: Whether there were withdrawals.
        program: That did it.
        events: That were measured, withdrawals among them.
        p50_ms: Of all but withdrawals.
        p99_ms: Of all but withdrawals.
        withdrawal_p50_ms: Of withdrawals; None where there were none.
        withdrawal_p99_ms: The same.
        cpu_percent: Of a core, while it was measured.
    """

    workload: str
    program: str
    events: int
    p50_ms: float
    p99_ms: float
    withdrawal_p50_ms: float | None
    withdrawal_p99_ms: float | None
    cpu_percent: float


def measure(kafka: KafkaCluster, workload: str, program: Program, seconds: float) -> Latency:
    """Let the program run into its stride, then measure."""
    topic = kafka.create_topic("latency", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    with tempfile.TemporaryDirectory() as directory, machine.sink(log=Path(directory, "requests.log")) as server:
        log = Path(directory, "requests.log")
        given = task(kafka, server, directory, topic, events.WORKLOADS[0].attributes)
        given["BATCH_LINGER_MS"] = str(LINGER_MS)
        with process.watched(program, given, Path(directory, "program.log")) as watch:
            with _load(kafka.bootstrap, topic, withdrawals=WORKLOADS[workload]) as produced:
                watch.until(lambda: log.exists() and log.stat().st_size, WITHIN_S)
                begin = time.time() + SETTLE_S
                end = begin + seconds
                watch.until(lambda: time.time() > end, SETTLE_S + seconds + WITHIN_S)
            group = Group(given)
            watch.until(lambda: group.committed(topic) == produced(), WITHIN_S)
            group.close()
        applied = applied_at(sink.requests(log))
    waits = waits_ms({change: at for change, at in _appended_at(kafka, topic).items() if begin <= at < end}, applied)
    return _figures(workload, program, waits, watch.cpu_s(begin, end) / seconds)


def waits_ms(appended: Mapping[Change, float], applied: Mapping[Change, float]) -> dict[Change, float]:
    """Milliseconds of each change from one to the other, both in seconds.

    Raises:
        RuntimeError: Some were never applied.
    """
    if missing := appended.keys() - applied.keys():
        raise RuntimeError(f"{len(missing)} of {len(appended)} changes were never applied")
    return {change: (applied[change] - at) * 1000 for change, at in appended.items()}


def applied_at(requests: Iterator[sink.Request]) -> dict[Change, float]:
    """When each change was answered first, seconds since the epoch."""
    applied: dict[Change, float] = {}
    for request in requests:
        for contact in request.contacts:
            applied.setdefault((contact["data"]["external_id"], contact["data"]["consent_flag"]), request.answered)
    return applied


@contextmanager
def _load(bootstrap: str, topic: str, *, withdrawals: bool) -> Iterator[Callable[[], int]]:
    """Records come in until the block ends; yields how many, which is known then."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    stop, produced = threading.Event(), 0

    def produce() -> None:
        nonlocal produced
        began = time.monotonic()
        for key, value in events.records(_events(withdrawals=withdrawals)):
            if stop.wait(max(began + produced / EVENTS_PER_S - time.monotonic(), 0)):
                return
            producer.produce(topic, value, key)
            producer.poll(0)
            produced += 1

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield lambda: produced
    finally:
        stop.set()
        thread.join()
        producer.flush(30)


def _events(*, withdrawals: bool) -> Iterator[events.Event]:
    for number in count():
        if withdrawals and number % WITHDRAWAL_EVERY == 0 and number >= WITHDRAWN_AFTER:
            yield events.event(number - WITHDRAWN_AFTER + 1, consent=False, version=2)
        else:
            yield events.event(number)


def _appended_at(kafka: KafkaCluster, topic: str) -> dict[Change, float]:
    """When the broker appended each change, seconds since the epoch."""
    appended = {}
    for message in read(kafka.bootstrap, topic, partitions=PARTITIONS):
        change = job.decoded(message.value() or b"")
        appended[change["externalId"], str(change["consent"]).lower()] = message.timestamp()[1] / 1000
    return appended


def _figures(workload: str, program: Program, waits: Mapping[Change, float], cpu_share: float) -> Latency:
    others = sorted(wait for (_, consent), wait in waits.items() if consent == "true")
    withdrawals = sorted(wait for (_, consent), wait in waits.items() if consent == "false")
    return Latency(
        workload,
        program.name,
        len(waits),
        percentile(others, 50),
        percentile(others, 99),
        percentile(withdrawals, 50) if withdrawals else None,
        percentile(withdrawals, 99) if withdrawals else None,
        round(cpu_share * 100, 1),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The least figure that so many percent do not exceed, of some in ascending order; to a tenth."""
    return round(ordered[max(-(-len(ordered) * percent // 100) - 1, 0)], 1)
