"""How long a comparison of a whole list takes, what memory, and whether it finds what is planted and nothing else.

The simulator runs in a process of its own, `python -m bench.reconcile PORT CONTACTS`: its list holds the contacts as
they were delivered, but for the planted drifts.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition as Native
from opentelemetry.trace import NoOpTracer

from bench import events, machine, process
from bench.programs import Program
from consumer.adapters.genesys.contact_list import columns
from consumer.adapters.genesys.sink import GenesysSink
from consumer.adapters.kafka.changelog import prefix_of
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import ensure
from consumer.columns import values_of
from consumer.core import fingerprints, state_bytes
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.model import Contact, State, TopicPartition
from consumer.settings import Settings, load
from consumer.simulator.app import Simulator
from consumer.simulator.contacts import Contacts
from tests.kafka_cluster import KafkaCluster

PARTITIONS = 4
PLANTED = {"missing": 125, "drifted": 125, "callable": 125, "foreign": 125}
COMMAND = Program("reconcile", ("consumer", "reconcile", "--output", "json"))
LOOK_EVERY_S = 0.02
SUPPRESSED_EVERY = 1_000
IN_THE_QUEUE = 10_000


@dataclass(frozen=True)
class Run:
    """One comparison.

    Attributes:
        contacts: In the changelog.
        planted: Drifts.
        found: Of those, as the command tells; it told no others.
        seconds: From the command's start to its end.
        peak_rss_mb: Of the command.
    """

    contacts: int
    planted: int
    found: int
    seconds: float
    peak_rss_mb: int


def measure(kafka: KafkaCluster, contacts: int) -> Run:
    """Make a topic, its changelog and a list; then compare."""
    topic = kafka.create_topic("reconcile", partitions=PARTITIONS)
    with _organisation(contacts) as url, tempfile.TemporaryDirectory() as directory:
        environ = process.environ(kafka.bootstrap, topic, url, directory)
        settings = load(environ)
        _prepare(settings, contacts)
        started = time.monotonic()
        command = machine.started(machine.CONSUMER_CORE, COMMAND, environ, subprocess.PIPE)
        peak = 0
        while command.poll() is None:
            peak = process.peak_rss(command, peak)
            time.sleep(LOOK_EVERY_S)
        seconds = time.monotonic() - started
        assert command.stdout is not None  # noqa: S101 -- a pipe
        report: Mapping[str, Any] = orjson.loads(command.stdout.read())
    wrong = {kind: report[kind] for kind in PLANTED if report[kind] != PLANTED[kind]}
    if wrong or report["drift"] != sum(PLANTED.values()) or report["sourceGone"]:
        raise RuntimeError(f"it found something else than was planted: {report}")
    return Run(contacts, sum(PLANTED.values()), report["drift"], round(seconds, 1), round(peak / 2**20))


def _contact(number: int) -> Contact:
    """What the event of this number says."""
    event = events.event(number)
    return Contact(str(event["externalId"]), str(event["phone"]), str(event["email"]), True, False, {})


def _is_suppressed(number: int) -> bool:
    return number % SUPPRESSED_EVERY == 0


async def _list_id(settings: Settings) -> str:
    sink = await GenesysSink.open(settings, on_request=lambda *_: None, tracer=NoOpTracer(), throttle=Throttle(100_000))
    await sink.close()
    return sink.contact_list_id


def _prepare(settings: Settings, contacts: int) -> None:
    """Produce the events, and what a consumer would have left of them: states in the changelog, and offsets."""
    asyncio.run(_topics(settings))
    list_id = asyncio.run(_list_id(settings))
    own = {"linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "enable.idempotence": True, **own})
    (topic,) = settings.kafka_source_topics
    for number, (key, value) in enumerate(events.records(events.all_new(contacts))):
        source = TopicPartition(topic, number % PARTITIONS)
        producer.produce(topic, value, key, source.partition)
        name = prefix_of(source) + fingerprints.identity(key.decode())
        producer.produce(settings.kafka_changelog_topic, _state(number, list_id), name, source.partition)
        if number % IN_THE_QUEUE == 0:
            producer.flush(60)
    if producer.flush(120):
        raise RuntimeError("the broker did not take everything")
    _commit(settings, contacts // PARTITIONS)


async def _topics(settings: Settings) -> None:
    await ensure(Connection.of(settings), settings)


def _state(number: int, list_id: str) -> bytes:
    content = (
        fingerprints.suppressed(list_id, fingerprints.NEITHER)
        if _is_suppressed(number)
        else fingerprints.fingerprint(_contact(number), list_id)
    )
    state = State(content, 1, True, events.FIRST_MOMENT_MS, number // PARTITIONS, False)
    return state_bytes.encode(state, events.FIRST_MOMENT_MS)


def _commit(settings: Settings, offset: int) -> None:
    own = {"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": settings.kafka_group_id}
    (topic,) = settings.kafka_source_topics
    offsets = [Native(topic, number, offset) for number in range(PARTITIONS)]
    Consumer(own).commit(offsets=offsets, asynchronous=False)


# -- the organisation, in its own process


@contextmanager
def _organisation(contacts: int) -> Iterator[str]:
    """A simulated Genesys whose list holds the contacts and the drifts, at its address."""
    port = machine.free_port()
    program = Program("simulator", ("bench.reconcile", str(port), str(contacts)))
    simulator = machine.started(machine.OTHER_CORE, program, stdout=subprocess.PIPE)
    try:
        assert simulator.stdout is not None  # noqa: S101 -- a pipe
        simulator.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        simulator.kill()
        simulator.wait()


async def _organise(port: int, contacts: int) -> None:
    simulator = Simulator()
    await simulator.start(port=port)
    settings = load(process.environ("127.0.0.1:9", "bench", simulator.url, "state"))
    await _list_id(settings)
    held = simulator._lists.look_up(settings.genesys_contact_list).contacts  # noqa: SLF001 -- a million requests less
    for number in range(contacts):
        contact = _contact(number)
        data = dict(zip(columns(settings), values_of(contact), strict=True))
        body = {"data": data, "callable": not _is_suppressed(number)}
        held.put(contact_id(contact.external_id), body, afresh=True)
    _plant(held, contacts)
    print("ready", flush=True)
    await asyncio.Event().wait()


def _plant(held: Contacts, contacts: int) -> None:
    """Differences of each kind, spread over the list."""
    numbers = range(1, contacts, SUPPRESSED_EVERY)
    for number in islice(numbers, PLANTED["missing"]):
        held.remove(_id(number))
    for number in islice(numbers, PLANTED["drifted"]):
        body = held.get(_id(number + 1)) or {}
        held.put(_id(number + 1), {"data": body["data"] | {"phone_number": "+15559"}}, afresh=False)
    for number in islice(numbers, PLANTED["callable"]):
        body = held.get(_id(number - 1)) or {}
        held.put(_id(number - 1), {"data": body["data"], "callable": True}, afresh=False)
    for number in range(PLANTED["foreign"]):
        body = held.get(_id(3)) or {}
        held.put(f"foreign.{number}", {"data": body["data"]}, afresh=True)


def _id(number: int) -> str:
    return contact_id(_contact(number).external_id)


if __name__ == "__main__":
    asyncio.run(_organise(int(sys.argv[1]), int(sys.argv[2])))
