"""`make soak`: hours of everyday work for one consumer, and whether anything grew that must not.

Changes of a fixed number of contacts come in at a steady rate, on a real broker; Genesys is the simulator, which fails
now and then. In the end the list must be what the CRM says, `audit verify` must find every record's one event and whole
chains, and from the second quarter of the time to the last neither memory, nor open files, nor threads may have grown:
in the first one everything is new, and caches fill. The CPU per event is told beside them.

`ARGS="--minutes 30"` is a short one; the integration test takes seconds, and asks only for the list and the audit.
"""

import argparse
import asyncio
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import orjson
import psutil
from confluent_kafka import Producer

from bench import events, machine, process
from bench.end_to_end import PARTITIONS, Group
from bench.memory import slope
from bench.programs import OURS
from consumer.simulator.app import Simulator
from tests.faults import every_kind
from tests.kafka_cluster import KafkaCluster

CONTACTS = 20_000
EVENTS_PER_S = 200
FAULTS, LOST = 0.01, 0.005
SAMPLE_EVERY_S = 1.0
SETTLED_WITHIN_S = 300.0
QUARTERS = 4
SPARE_FILES = 16
"""RocksDB opens and removes files all the time."""

BAD_PHONE = "5550100"
LIST = "soak"

_SAYS: Mapping[int, Mapping[str, object]] = {3: {"consent": False}, 4: {"changeType": "DELETE"}}
"""What one face of twenty says beside a new number: a twentieth each withdraws, and deletes."""

Contacts = dict[str, tuple[str, bool]]
"""Phone, and whether somebody may call, by external id."""


class Sample(NamedTuple):
    """What the consumer has at a moment: seconds since its start, events told to it so far, bytes, seconds of CPU."""

    at: float
    told: int
    rss: int
    files: int
    threads: int
    cpu_s: float


@dataclass(frozen=True)
class Quarter:
    """A quarter of the time.

    Attributes:
        rss_mb: Median.
        files: Open files, median.
        threads: Median.
        cpu_us_per_event: User and system time.
    """

    rss_mb: float
    files: int
    threads: int
    cpu_us_per_event: float


@dataclass(frozen=True)
class Figures:
    """What a run came to; no rule is broken.

    Attributes:
        minutes: For which changes came in.
        events: How many.
        contacts: In the list at the end.
        faults: How often each kind struck.
        quarters: Of the time.
        slope_mb_per_hour: Of a line through the memory of the last half.
        grown: What grew; empty when nothing did.
    """

    minutes: float
    events: int
    contacts: int
    faults: Mapping[str, int]
    quarters: Sequence[Quarter]
    slope_mb_per_hour: float
    grown: Sequence[str]


class Story:
    """Changes without end: most are new, some repeat what is known, withdraw, delete, or break a rule.

    Attributes:
        told: How many events so far.
        expected: What Genesys must hold in the end.
    """

    def __init__(self, contacts: int, seed: int) -> None:
        self._contacts = contacts
        self._dice = random.Random(seed)
        self._last: dict[int, events.Event] = {}
        self.told = 0
        self.expected: Contacts = {}

    def __iter__(self) -> Iterator[events.Event]:
        while True:
            self.told += 1
            yield self._next()

    def _next(self) -> events.Event:
        number, face = self._dice.randrange(self._contacts), self._dice.randrange(20)
        if face == 0:
            return events.event(number, version=self.told, phone=BAD_PHONE)
        if face in {1, 2} and number in self._last:
            return self._last[number]
        says = _SAYS.get(face, {})
        event = events.event(number, version=self.told, phone=f"+1415{self.told % 10_000_000:07d}", **says)
        self._last[number] = event
        self._expect(event)
        return event

    def _expect(self, event: events.Event) -> None:
        if event["changeType"] == "DELETE":
            self.expected.pop(event["externalId"], None)
        else:
            self.expected[event["externalId"]] = event["phone"], event["consent"]


async def soak(kafka: KafkaCluster, minutes: float, *, contacts: int = CONTACTS, seed: int = 1) -> Figures:
    """Let a consumer work for so long, then hold what is left against what was told.

    Raises:
        AssertionError: The list or the audit is wrong, or the consumer ended.
    """
    story = Story(contacts, seed)
    simulator = Simulator(faults=every_kind(FAULTS, LOST), seed=seed)
    async with simulator:
        samples = await asyncio.to_thread(_work, kafka, story, minutes * 60, simulator.url)
        found = {
            contact["data"]["external_id"]: (contact["data"]["phone_number"], contact["callable"])
            for contact in simulator.contacts(LIST).values()
        }
        faults = simulator.stats()["faults"]
    differs = {external_id for external_id, _ in found.items() ^ story.expected.items()}
    assert not differs, f"{len(differs)} contacts are not as the CRM has them: {sorted(differs)[:5]}"
    quarters = by_quarter(samples)
    slope = memory_slope(samples[len(samples) // 2 :])
    return Figures(minutes, story.told, len(found), faults, quarters, slope, grown(quarters))


def _work(kafka: KafkaCluster, story: Story, seconds: float, genesys: str) -> list[Sample]:
    with tempfile.TemporaryDirectory() as directory:
        topic = kafka.create_topic("soak", partitions=PARTITIONS)
        given = process.environ(kafka.bootstrap, topic, genesys, directory) | {"GENESYS_CONTACT_LIST": LIST}
        log = Path(directory, "consumer.log")
        with _consumer(given, log) as consumer:
            with _told(kafka.bootstrap, topic, story):
                samples = list(_samples(consumer, story, seconds))
            _settled(given, topic, story)
        _verify(given)
    return samples


@contextmanager
def _consumer(environ: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    """A consumer that works all the time, and ends well when the block does."""
    with log.open("wb") as out:
        started = machine.started(machine.CONSUMER_CORE, OURS, environ, out, out)
    try:
        yield psutil.Process(started.pid)
    finally:
        started.send_signal(signal.SIGTERM)
        code = started.wait(process.ENDS_WITHIN_S)
    assert code == 0, f"the consumer ended with {code}:\n{log.read_text()[-5000:]}"


@contextmanager
def _told(bootstrap: str, topic: str, story: Story) -> Iterator[None]:
    """The story is told at a steady rate until the block ends, to the end of what was begun."""
    stop = threading.Event()
    thread = threading.Thread(target=_tell, args=(bootstrap, topic, story, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _tell(bootstrap: str, topic: str, story: Story, stop: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    began = time.monotonic()
    for key, value in events.records(iter(story)):
        producer.produce(topic, value, key)
        producer.poll(0)
        if stop.wait(max(began + story.told / EVENTS_PER_S - time.monotonic(), 0)):
            break
    producer.flush(process.ENDS_WITHIN_S)


def _samples(consumer: psutil.Process, story: Story, seconds: float) -> Iterator[Sample]:
    began = time.monotonic()
    while (at := time.monotonic() - began) < seconds:
        with consumer.oneshot():
            cpu, rss = consumer.cpu_times(), consumer.memory_info().rss
            yield Sample(at, story.told, rss, consumer.num_fds(), consumer.num_threads(), cpu.user + cpu.system)
        time.sleep(SAMPLE_EVERY_S)


def _settled(given: Mapping[str, str], topic: str, story: Story) -> None:
    """Wait until the group has committed everything."""
    group, deadline = Group(given), time.monotonic() + SETTLED_WITHIN_S
    while (settled := group.committed(topic)) != story.told:
        assert time.monotonic() < deadline, f"{settled} of {story.told} records are settled"
        time.sleep(SAMPLE_EVERY_S)
    group.close()


def _verify(given: Mapping[str, str]) -> None:
    """Have the program itself check that each record has one event, and that the chains are whole."""
    command = [sys.executable, "-m", "consumer", "audit", "verify"]
    found = subprocess.run(command, env=dict(given), capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    assert found.returncode == 0, f"audit verify: {found.stdout}{found.stderr}"


def by_quarter(samples: Sequence[Sample]) -> list[Quarter]:
    """What each quarter of the time took, of at least eight samples."""
    edges = [round(number * (len(samples) - 1) / QUARTERS) for number in range(QUARTERS + 1)]
    return [_quarter(samples[begin : end + 1]) for begin, end in pairwise(edges)]


def _quarter(samples: Sequence[Sample]) -> Quarter:
    first, last = samples[0], samples[-1]
    return Quarter(
        round(statistics.median(each.rss for each in samples) / 2**20, 1),
        round(statistics.median(each.files for each in samples)),
        round(statistics.median(each.threads for each in samples)),
        round((last.cpu_s - first.cpu_s) / (last.told - first.told) * 1e6, 1),
    )


def memory_slope(samples: Sequence[Sample]) -> float:
    """Megabytes per hour, of the line that fits best."""
    return round(slope([(each.at, each.rss) for each in samples]) * 3600 / 2**20, 2)


def grown(quarters: Sequence[Quarter]) -> list[str]:
    """What has grown from the second quarter to the last; memory, if by more than a twentieth."""
    _, before, _, after = quarters
    grew = {
        "memory": after.rss_mb > 1.05 * before.rss_mb,
        "files": after.files > before.files + SPARE_FILES,
        "threads": after.threads > before.threads,
    }
    return [name for name, more in grew.items() if more]


def main() -> int:
    """Run once, and tell the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=240, help="for which changes come in (default 240)")
    parser.add_argument("--seed", type=int, default=1, help="of the story and of the faults (default 1)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    with KafkaCluster() as kafka:
        figures = asyncio.run(soak(kafka, arguments.minutes, seed=arguments.seed))
    told = orjson.dumps({"machine": machine.described(), **asdict(figures)}, option=orjson.OPT_INDENT_2) + b"\n"
    print(told.decode())
    if arguments.json:
        arguments.json.write_bytes(told)
    return 1 if figures.grown else 0


if __name__ == "__main__":
    sys.exit(main())
