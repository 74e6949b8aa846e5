"""The change events that are measured: all new contacts, or the demo's mix of every kind."""

import struct
from collections.abc import Iterator
from io import BytesIO

import fastavro
import orjson
from confluent_kafka import Producer

from consumer.demo.samples import Samples
from consumer.settings import packaged_schemas

FIRST_MOMENT_MS = 1_767_225_600_000


def all_new(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of valid events, each of another contact."""
    schema = fastavro.parse_schema(orjson.loads((packaged_schemas() / "crm_contact_change.avsc").read_bytes()))
    frame = struct.pack(">bI", 0, 1)
    for number in range(count):
        told = event(number)
        out = BytesIO()
        out.write(frame)
        fastavro.schemaless_writer(out, schema, told)
        yield str(told["externalId"]).encode(), out.getvalue()


def event(number: int) -> dict[str, object]:
    """The fields of a valid event of the contact of this number."""
    return {
        "eventId": f"event-{number:012d}",
        "changeType": "CREATE",
        "externalId": f"003{number:015d}",
        "occurredAt": FIRST_MOMENT_MS + number,
        "version": 1,
        "phone": f"+1415{number % 10_000_000:07d}",
        "email": f"person.{number}@example.org",
        "consent": True,
        "doNotCall": False,
        "attributes": {"segment": "gold", "language": "en"},
    }


def mixed(count: int) -> Iterator[tuple[bytes, bytes | None]]:
    """Keys and values of the demo's sample events: updates, withdrawals, deletes, duplicates, bad input."""
    for sample in Samples(seed=1).take(count):
        yield sample.key, sample.value


WORKLOADS = {"all new": all_new, "mixed": mixed}


def produce(bootstrap: str, topic: str, events: Iterator[tuple[bytes, bytes | None]]) -> None:
    """Put the events on the topic, by key."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for key, value in events:
        producer.produce(topic, value, key)
        producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take all events")
