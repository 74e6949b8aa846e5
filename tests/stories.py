"""Streams of change events with what must become of them, and a checker that knows nothing of the pipeline.

A `Story` makes records for a source topic and remembers, for each, what it is. `Model` replays a story naively, event
by event, and says what the contact list must hold. `check` compares a world after the fact with both.
"""

import random
import struct
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import orjson

from consumer.model import Headers, Record, TopicPartition

TOPIC = "crm.contacts.changes"
SCHEMA = fastavro.parse_schema(
    orjson.loads((Path(__file__).parent.parent / "schemas" / "crm_contact_change.avsc").read_bytes())
)

WITHDRAWN = {"consent": False, "do_not_call": True}
"""What the flags say of somebody who must not be called."""

PARTIAL = "partial"
"""An attribute that makes a native event a partial one, for want of an envelope."""


@dataclass(frozen=True)
class Event:
    """One change as the CRM means it, and its defects.

    Attributes:
        external_id: The contact.
        version: Source order; None for a stream without versions.
        consent: As said.
        do_not_call: As said.
        phone: As said.
        delete: A DELETE event.
        tombstone: A null value instead of an event.
        garbage: Bytes that are sent instead of an event.
        reasons: Why our rules reject it; empty when they do not.
        occurred_at: Milliseconds since the epoch.
        partial: It tells only what changed: whatever is None did not. It takes the fixture `partial_events`.
    """

    external_id: str
    version: int | None
    consent: object = True
    do_not_call: object = False
    phone: str | None = "+15550100"
    delete: bool = False
    tombstone: bool = False
    garbage: bytes | None = None
    reasons: tuple[str, ...] = ()
    occurred_at: int = 1_700_000_000_000
    partial: bool = False

    @property
    def removes(self) -> bool:
        """Whether the contact is to go."""
        return self.delete or self.tombstone

    @property
    def callable(self) -> bool:
        """Whether the contact may be called after it."""
        return self.consent is True and self.do_not_call is False

    @property
    def suppresses(self) -> bool:
        """Whether it is rejected and still takes the contact out of calling."""
        return bool(self.reasons) and self.garbage is None and not self.removes and self.withdraws

    @property
    def withdraws(self) -> bool:
        """Whether it says that the person must not be called."""
        return self.consent is False or self.do_not_call is True

    @property
    def told_flags(self) -> list[str]:
        """Names of the flags that it tells, if only by being all there is: a rejected one tells what it withdraws."""
        if self.suppresses:
            return [flag for flag, value in WITHDRAWN.items() if getattr(self, flag) is value]
        return [flag for flag in WITHDRAWN if self.removes or getattr(self, flag) is not None]

    @property
    def tells_nothing(self) -> bool:
        """Whether it is partial, and nothing changed that the list has."""
        return self.partial and self.phone is None and self.consent is None and self.do_not_call is None

    def value(self) -> bytes | None:
        """The bytes on the topic."""
        if self.tombstone or self.garbage is not None:
            return self.garbage
        return encode(self.fields())

    def fields(self) -> dict[str, object]:
        """The fields of the native change event."""
        return {
            "eventId": "e",
            "changeType": "DELETE" if self.delete else "UPDATE",
            "externalId": self.external_id,
            "occurredAt": self.occurred_at,
            "version": self.version,
            "phone": self.phone,
            "email": None,
            "consent": self.consent,
            "doNotCall": self.do_not_call,
            "attributes": {PARTIAL: ""} if self.partial else {},
        }


def partly(external_id: str, version: int | None, **carried: Any) -> Event:
    """A change of which only these fields are told."""
    return Event(external_id, version, partial=True, **{"phone": None, "consent": None, "do_not_call": None} | carried)


def encode(event: dict[str, object], schema_id: int = 1) -> bytes:
    """An event in the Confluent wire format."""
    out = BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, event)
    return struct.pack(">bI", 0, schema_id) + out.getvalue()


@dataclass
class Story:
    """Events of several partitions, in order."""

    events: dict[TopicPartition, list[Event]] = field(default_factory=dict)
    topic: str = TOPIC

    def tell(self, partition: int, *events: Event) -> "Story":
        """Append events to a partition."""
        self.events.setdefault(TopicPartition(self.topic, partition), []).extend(events)
        return self

    def records(self) -> list[Record]:
        """Every record told, partition by partition, with headers that no other one has."""
        return [
            Record(*key, offset, event.occurred_at, event.external_id.encode(), event.value(), _headers(offset))
            for key, told in self.events.items()
            for offset, event in enumerate(told)
        ]

    def event(self, position: tuple[str, int, int]) -> Event:
        """The event at a position."""
        topic, partition, offset = position
        return self.events[TopicPartition(topic, partition)][offset]

    def positions(self) -> list[tuple[str, int, int]]:
        """Every position of the story."""
        return [(*key, offset) for key, told in self.events.items() for offset in range(len(told))]


def _headers(offset: int) -> Headers:
    """A name may come twice, and a value may be null or empty."""
    return (("crm-change", b"%d" % offset), ("crm-change", None), ("crm-tenant", b""))


class Model:
    """What the contact list must hold, by the naive reading of the rules."""

    def __init__(self, poison: set[str]) -> None:
        self._contacts: dict[str, Event] = {}
        self._accepted: dict[str, int] = {}
        self._flags_told: dict[tuple[str, str], int] = {}
        self._poison = poison

    @property
    def list(self) -> dict[str, tuple[str | None, bool]]:
        """Phone and callable, by external id."""
        return {name: (event.phone, event.callable) for name, event in self._contacts.items()}

    def replay(self, story: Story) -> "Model":
        """Take in every event of a story in its order."""
        for told in story.events.values():
            for event in told:
                self._take(event)
        return self

    def _take(self, event: Event) -> None:
        if (event.reasons and not event.suppresses) or event.tells_nothing:
            return
        accepted = self._accepted.get(event.external_id, -1)
        if event.version is not None and event.version < accepted:
            self._withdraw_late(event, event.version)
        elif self._applies(event):
            self._accepted[event.external_id] = max(accepted, event.version or 0)
            told = event.told_flags
            self._flags_told |= {(event.external_id, flag): self._accepted[event.external_id] for flag in told}

    def _withdraw_late(self, event: Event, version: int) -> None:
        """Of what is older than the last change, flags are withdrawn of which nothing newer was told."""
        held = self._contacts.get(event.external_id)
        if held is None or event.removes:
            return
        withdrawn = {flag: value for flag, value in WITHDRAWN.items() if getattr(event, flag) is value}
        flags = {
            flag: value
            for flag, value in withdrawn.items()
            if version >= self._flags_told.get((event.external_id, flag), -1)
        }
        self._contacts[event.external_id] = replace(held, **flags)

    def _applies(self, event: Event) -> bool:
        """Change the contact, and tell whether the event counts as accepted."""
        name = event.external_id
        held = self._contacts.get(name)
        if event.suppresses or (event.partial and not event.removes):
            return self._amend(event, held)
        if event.removes or (name in self._poison and not event.callable):
            self._contacts.pop(name, None)
        elif name in self._poison:
            return False
        else:
            self._contacts[name] = event
        return True

    def _amend(self, event: Event, held: Event | None) -> bool:
        """What a partial event tells, or the flags of a rejected one; nobody who is not there can be amended."""
        told: dict[str, Any] = {"phone": event.phone, "consent": event.consent, "do_not_call": event.do_not_call}
        if event.suppresses:
            told = {"consent": None if event.consent else event.consent, "do_not_call": event.do_not_call or None}
        if held is not None:
            self._contacts[event.external_id] = replace(held, **{k: v for k, v in told.items() if v is not None})
        return held is not None or event.withdraws


_GOOD = encode(Event("xyz", 1).fields())

BAD_RECORDS = {
    "empty value": (b"", "not_decodable"),
    "wrong magic byte": (b"\1\0\0\0\1junk", "not_decodable"),
    "too short for a schema id": (b"\0\0", "not_decodable"),
    "unknown schema id": (b"\0\0\0\0\x63" + _GOOD[5:], "schema_unknown"),
    "truncated body": (_GOOD[:-4], "not_decodable"),
    "trailing bytes": (_GOOD + b"!", "not_decodable"),
    "enum index -1": (_GOOD.replace(b"\x02e\x02", b"\x02e\x01", 1), "not_decodable"),
    "union index -1": (_GOOD.replace(b"\x02\x12+1555", b"\x01\x12+1555", 1), "not_decodable"),
    "invalid UTF-8": (_GOOD.replace(b"\x06xyz", b"\x06\xff\xfe\xfd", 1), "not_decodable"),
    "integer overflow": (
        _GOOD.replace(b"\x02\x02\x02\x12+1555", b"\x02" + b"\xff" * 9 + b"\x7f\x02\x12+1555", 1),
        "not_decodable",
    ),
    "1 MB": (b"\0\0\0\0\1" + bytes(999_995), "not_decodable"),
    "a phone of 10,000 characters": (encode(Event("xyz", 1, phone="+" + "1" * 10_000).fields()), "phone_not_e164"),
}
"""Every kind of bad input: bytes, and the reason that they are rejected for."""


def random_story(
    seed: int, *, contacts: int = 30, events: int = 120, partitions: int = 2, topic: str = TOPIC
) -> tuple[Story, set[str]]:
    """A story with every kind of event, and the contacts whose data Genesys will refuse.

    Poison contacts hear one grant only: what a refused change leaves behind is another story.
    """
    dice = random.Random(seed)
    story = Story(topic=topic)
    versions = dict.fromkeys(range(contacts), 0)
    last: dict[int, Event] = {}
    for number in range(events):
        contact = dice.randrange(contacts)
        event = _random_event(dice, contact, f"+1555{number:06d}", versions, last)
        if not event.reasons and not event.tombstone:
            last[contact] = event
        story.tell(contact % partitions, event)
    for n, (value, reason) in enumerate(BAD_RECORDS.values()):
        story.tell(n % partitions, Event(f"bad-{n}", 1, garbage=value, reasons=(reason,)))
    poison = {f"poison-{n}" for n in range(2)}
    for n, name in enumerate(sorted(poison)):
        story.tell(n % partitions, Event(name, 1))
        story.tell(n % partitions, Event(f"next-to-{n}", 1))
    return story, poison


def _random_event(
    dice: random.Random, contact: int, phone: str, versions: dict[int, int], last: dict[int, Event]
) -> Event:
    """An event of a contact, with a number that no other one has: what is told twice is told on purpose."""
    name = f"contact-{contact}"
    kind = dice.choices(
        ["change", "withdraw", "delete", "duplicate", "stale", "rejected", "suppress", "garbage"],
        [40, 15, 8, 12, 8, 6, 6, 5],
    )[0]
    if kind == "duplicate" and contact in last:
        return last[contact]
    if kind == "stale" and versions[contact] > 1:
        return Event(name, dice.randrange(1, versions[contact]), phone=phone)
    if kind == "garbage":
        return Event(name, None, garbage=dice.choice([b"", b"\x01junk", b"\x00\x00\x00\x00\x01\x02"]),
                     reasons=("not_decodable",))  # fmt: skip
    versions[contact] += 1
    event = Event(name, versions[contact], phone=phone)
    return replace(event, **_DEFECTS.get(kind, {}))


_DEFECTS: dict[str, dict[str, Any]] = {
    "withdraw": {"consent": False},
    "delete": {"delete": True},
    "rejected": {"phone": "not a phone", "reasons": ("phone_not_e164",)},
    "suppress": {"do_not_call": True, "reasons": ("consent_conflicts_with_do_not_call",)},
}
