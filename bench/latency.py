"""How long a change takes from the topic to the contact list, where records come in at a steady rate.

The program runs before the first record counts. Every tenth record withdraws the consent of a contact that was new a
second before; withdrawals are told apart. A change counts from when it is produced, without linger, to the answer.
"""

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer

from bench import events, machine, process, sink
from bench.end_to_end import PARTITIONS, task
from bench.programs import Program
from tests.kafka_cluster import KafkaCluster

EVENTS_PER_S = 200
WITHDRAWAL_EVERY = 10
LINGER_MS = 100
SETTLE_S = 5.0
WITHIN_S = 60.0

Change = tuple[str, str]
"""External id, and what it says of consent."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from append to applied.

    Attributes:
        program: That did it.
        events: That were measured, withdrawals among them.
        p50_ms: Of all but withdrawals.
        p99_ms: Of all but withdrawals.
        withdrawal_p50_ms: Of withdrawals.
        withdrawal_p99_ms: Of withdrawals.
        cpu_percent: Of a core, while it was measured.
    """

    program: str
    events: int
    p50_ms: float
    p99_ms: float
    withdrawal_p50_ms: float
    withdrawal_p99_ms: float
    cpu_percent: float


def measure(kafka: KafkaCluster, program: Program, seconds: float) -> Latency:
    """Let the program run into its stride, then measure."""
    topic = kafka.create_topic("latency", partitions=PARTITIONS)
    with tempfile.TemporaryDirectory() as directory, machine.sink(log=Path(directory, "requests.log")) as server:
        log = Path(directory, "requests.log")
        given = task(kafka, server, directory, topic, events.WORKLOADS[0].attributes)
        given["BATCH_LINGER_MS"] = str(LINGER_MS)
        with process.watched(program, given, Path(directory, "program.log")) as watch:
            with _load(kafka.bootstrap, topic) as produced:
                watch.until(lambda: log.exists() and log.stat().st_size, WITHIN_S)
                begin = time.time() + SETTLE_S
                end = begin + seconds
                watch.until(lambda: time.time() > end, SETTLE_S + seconds + WITHIN_S)
            wanted = {change for change, at in produced.items() if begin <= at < end}
            watch.until(lambda: wanted <= applied_at(sink.requests(log)).keys(), WITHIN_S)
        applied = applied_at(sink.requests(log))
    waits = {change: (applied[change] - produced[change]) * 1000 for change in wanted}
    return _figures(program, waits, watch.cpu_s(begin, end) / seconds)


def applied_at(requests: Iterator[sink.Request]) -> dict[Change, float]:
    """When each change was answered first, seconds since the epoch."""
    applied: dict[Change, float] = {}
    for request in requests:
        for contact in request.contacts:
            applied.setdefault((contact["data"]["external_id"], contact["data"]["consent_flag"]), request.answered)
    return applied


@contextmanager
def _load(bootstrap: str, topic: str) -> Iterator[Mapping[Change, float]]:
    """Records come in until the block ends; yields when each was produced."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    stop, produced = threading.Event(), dict[Change, float]()

    def produce() -> None:
        began = time.time()
        for number, event in enumerate(_events()):
            if stop.wait(max(began + number / EVENTS_PER_S - time.time(), 0)):
                return
            ((key, value),) = events.records([event])
            produced[event["externalId"], str(event["consent"]).lower()] = time.time()
            producer.produce(topic, value, key)
            producer.poll(0)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield produced
    finally:
        stop.set()
        thread.join()
        producer.flush(30)


def _events() -> Iterator[events.Event]:
    number = 0
    while True:
        if number % WITHDRAWAL_EVERY == 0 and number >= EVENTS_PER_S:
            yield events.event(number - EVENTS_PER_S + 1, consent=False, version=2)
        else:
            yield events.event(number)
        number += 1


def _figures(program: Program, waits: Mapping[Change, float], cpu_share: float) -> Latency:
    others = sorted(wait for (_, consent), wait in waits.items() if consent == "true")
    withdrawals = sorted(wait for (_, consent), wait in waits.items() if consent == "false")
    return Latency(
        program.name,
        len(waits),
        percentile(others, 50),
        percentile(others, 99),
        percentile(withdrawals, 50),
        percentile(withdrawals, 99),
        round(cpu_share * 100, 1),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The least figure that so many percent do not exceed, of some in ascending order; to a tenth."""
    return round(ordered[max(-(-len(ordered) * percent // 100) - 1, 0)], 1)
