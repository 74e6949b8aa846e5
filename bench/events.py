"""The change events that are measured, by workload, and what the contact list must hold after them."""

import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any, NamedTuple

import fastavro
import orjson
from confluent_kafka import Producer

from consumer.settings import packaged_schemas

FIRST_MOMENT_MS = 1_767_225_600_000
WIDE_ATTRIBUTES = {f"field_{number:02d}": f"value of field {number:02d}" for number in range(35)}
"""With the five columns of every contact these are 40 fields."""

_FRAME = struct.pack(">bI", 0, 1)
_SCHEMA = fastavro.parse_schema(orjson.loads((packaged_schemas() / "crm_contact_change.avsc").read_bytes()))
_ATTRIBUTES = {"segment": "gold", "language": "en"}
_REPLAYS = 10
_CHANGES_OF_A_HOT_CONTACT = 100
_BAD_PHONE = "5550100"

Event = dict[str, Any]


class Workload(NamedTuple):
    """What is measured.

    Attributes:
        name: Of it.
        events: Makes so many of its events.
        attributes: Names of those that every contact has.
        delay_ms: What the endpoint takes for an answer.
        times: How many times as many events as of the others, so that beginning and end count little.
    """

    name: str
    events: Callable[[int], Iterator[Event]]
    attributes: Iterable[str] = tuple(_ATTRIBUTES)
    delay_ms: int = 0
    times: int = 1


def all_new(count: int) -> Iterator[Event]:
    """Valid events, each of another contact."""
    return (event(number) for number in range(count))


def everyday(count: int) -> Iterator[Event]:
    """A tenth are duplicates, a twentieth break a rule, the others are new."""
    dice = random.Random(1)  # noqa: S311 -- seeded: the same events each time
    for number in range(count):
        face = dice.randrange(20)
        if face == 0:
            yield event(number, phone=_BAD_PHONE)
        elif face in {1, 2} and number:
            yield event(dice.randrange(number))
        else:
            yield event(number)


def replayed(count: int) -> Iterator[Event]:
    """The same events ten times over: nine in ten are duplicates."""
    for _ in range(_REPLAYS):
        yield from all_new(count // _REPLAYS)


def hot_keys(count: int) -> Iterator[Event]:
    """Every other event is of a new contact, the others are all of the hundredth part of the contacts."""
    hot = max(1, count // 2 // _CHANGES_OF_A_HOT_CONTACT)
    for number in range(count):
        if number % 2:
            yield event(count + number // 2 % hot, version=number, phone=_phone(number))
        else:
            yield event(number)


def wide(count: int) -> Iterator[Event]:
    """Valid events of 40 fields, each of another contact."""
    return (event(number, attributes=WIDE_ATTRIBUTES) for number in range(count))


WORKLOADS = (
    Workload("all new", all_new),
    Workload("everyday", everyday),
    Workload("replayed", replayed),
    Workload("hot keys", hot_keys),
    Workload("wide", wide, tuple(WIDE_ATTRIBUTES)),
    Workload("25 ms endpoint", all_new, delay_ms=25),
    Workload("250 ms endpoint", all_new, delay_ms=250, times=3),
)


def event(number: int, **said: object) -> Event:
    """A valid change event of the contact with this number, and what else it says."""
    return {
        "eventId": f"event-{number:012d}",
        "changeType": "CREATE",
        "externalId": f"003{number:015d}",
        "occurredAt": FIRST_MOMENT_MS + number,
        "version": 1,
        "phone": _phone(number),
        "email": f"person.{number}@example.org",
        "consent": True,
        "doNotCall": False,
        "attributes": _ATTRIBUTES,
    } | said


def _phone(number: int) -> str:
    return f"+1415{number % 10_000_000:07d}"


def contacts_after(events: Iterable[Event]) -> dict[str, tuple[str, str]]:
    """Phone and consent of each contact that the list must hold in the end, by external id."""
    return {
        each["externalId"]: (each["phone"], str(each["consent"]).lower())
        for each in events
        if each["phone"] != _BAD_PHONE
    }


def unsent_of(events: Iterable[Event]) -> Counter[str]:
    """How many of the events ask for nothing, by outcome: they break a rule, or repeat the contact's last valid one."""
    unsent = Counter(duplicate=0, rejected=0)
    last: dict[str, Event] = {}
    for each in events:
        if each["phone"] == _BAD_PHONE:
            unsent["rejected"] += 1
        else:
            unsent["duplicate"] += last.get(each["externalId"]) == each
            last[each["externalId"]] = each
    return unsent


def records(events: Iterable[Event]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each event's record."""
    for each in events:
        out = BytesIO(_FRAME)
        out.seek(len(_FRAME))
        fastavro.schemaless_writer(out, _SCHEMA, each)
        yield each["externalId"].encode(), out.getvalue()


def produce(bootstrap: str, topic: str, events: Iterable[Event]) -> None:
    """Put the events on the topic, by key."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for key, value in records(events):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(1)
        producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take all events")
