"""Sample change events of every kind, with what must become of each.

What becomes of an event does not hang on timing here: a duplicate follows its original, a stale event is older than
what was accepted, a contact that was deleted, suppressed or refused is left alone afterwards. Only whether a change is
delivered or replaced by a newer one before it is sent is open, so these two count as one.
"""

import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from typing import Any, NamedTuple

import fastavro
import orjson

from consumer.settings import packaged_schemas

SCHEMA_ID = 1
"""Id of the native schema in the packaged schemas."""

ATTRIBUTE = "segment"
"""The attribute that sample events carry."""

FIRST_MOMENT_MS = 1_767_225_600_000
"""Time of the first event: 2026-01-01, UTC."""

_REFUSED_ATTRIBUTE = "x" * 600
_GARBAGE = (b"", b"\x01\x00\x00\x00\x01", b"\x00\x00\x00\x00\x01\x02", b"not avro at all")
_BAD_PHONES = ("5550100", "+0155501000", "+1 555 0100", "+1555\u06600100", "tel:+15550100")
_BAD_EMAILS = ("ada", "ada@", "@example.org", "ada@@example.org", "ada@exa mple.org")


class Kind(StrEnum):
    """What an event is a sample of."""

    CREATE = "create"
    UPDATE = "update"
    WITHDRAW = "withdraw"
    DELETE = "delete"
    TOMBSTONE = "tombstone"
    DUPLICATE = "duplicate"
    STALE = "stale"
    BAD_PHONE = "bad phone"
    BAD_EMAIL = "bad e-mail"
    CONFLICT = "conflict"
    UNDECODABLE = "undecodable"
    REFUSED = "refused by Genesys"


_SHARES = {
    Kind.CREATE: 46,
    Kind.UPDATE: 20,
    Kind.WITHDRAW: 6,
    Kind.DELETE: 3,
    Kind.TOMBSTONE: 2,
    Kind.DUPLICATE: 10,
    Kind.STALE: 4,
    Kind.BAD_PHONE: 3,
    Kind.BAD_EMAIL: 3,
    Kind.CONFLICT: 2,
    Kind.UNDECODABLE: 1,
}
_OF_A_CONTACT = {Kind.UPDATE, Kind.WITHDRAW, Kind.DELETE, Kind.TOMBSTONE, Kind.DUPLICATE, Kind.STALE, Kind.CONFLICT}
_LAST_WORD = {Kind.DELETE, Kind.TOMBSTONE, Kind.CONFLICT}
_REFUSED_EVERY = 2000


class Sample(NamedTuple):
    """One record for the source topic.

    Attributes:
        kind: What it is a sample of.
        key: Record key.
        value: Record value, None for a tombstone.
    """

    kind: Kind
    key: bytes
    value: bytes | None


@dataclass
class Expectation:
    """What must have become of the samples, once all are settled.

    Attributes:
        kinds: How many samples of each kind there were.
        contacts: Phone and callable of every contact that must be in the list, by external id.
    """

    kinds: Counter[Kind] = field(default_factory=Counter)
    contacts: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def count(self, *kinds: Kind) -> int:
        """Samples of these kinds."""
        return sum(self.kinds[kind] for kind in kinds)


@dataclass
class _Contact:
    """A contact that further events may follow."""

    external_id: str
    version: int
    event: dict[str, Any]


class Samples:
    """A seeded stream of samples.

    Attributes:
        expected: Grows with every sample taken.
    """

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)  # noqa: S311 -- seeded: the same stream each time
        self._schema = fastavro.parse_schema(
            orjson.loads((packaged_schemas() / "crm_contact_change.avsc").read_bytes())
        )
        self._prefix = f"{seed:x}"
        self._made = 0
        self._open: list[_Contact] = []
        self.expected = Expectation()

    def take(self, records: int) -> Iterator[Sample]:
        """The next samples."""
        for _ in range(records):
            self._made += 1
            kind = self._kind()
            self.expected.kinds[kind] += 1
            yield self._sample(kind)

    def _kind(self) -> Kind:
        if self._made % _REFUSED_EVERY == _REFUSED_EVERY // 2:
            return Kind.REFUSED
        kind = self._dice.choices(list(_SHARES), list(_SHARES.values()))[0]
        return Kind.CREATE if kind in _OF_A_CONTACT and not self._open else kind

    def _sample(self, kind: Kind) -> Sample:
        if kind in _OF_A_CONTACT:
            return self._about_a_contact(kind)
        name = f"CRM-{self._prefix}-{self._made:08d}"
        match kind:
            case Kind.UNDECODABLE:
                return Sample(kind, name.encode(), self._dice.choice(_GARBAGE))
            case Kind.BAD_PHONE:
                return self._encoded(kind, self._event(name, phone=self._dice.choice(_BAD_PHONES)))
            case Kind.BAD_EMAIL:
                return self._encoded(kind, self._event(name, email=self._dice.choice(_BAD_EMAILS)))
            case Kind.REFUSED:
                return self._encoded(kind, self._event(name, attributes={ATTRIBUTE: _REFUSED_ATTRIBUTE}))
            case _:
                event = self._event(name, changeType="CREATE", consent=self._dice.random() < 0.9)  # noqa: PLR2004
                self._open.append(_Contact(name, 1, event))
                self._expect(event)
                return self._encoded(kind, event)

    def _about_a_contact(self, kind: Kind) -> Sample:
        index = self._dice.randrange(len(self._open))
        contact = self._open[index]
        if kind in _LAST_WORD:
            self._open[index] = self._open[-1]
            self._open.pop()
        if kind is Kind.STALE:
            return self._encoded(kind, self._event(contact.external_id, version=contact.version - 1))
        if kind is Kind.DUPLICATE:
            return self._encoded(kind, contact.event)
        contact.version += 1
        if kind is Kind.TOMBSTONE:
            self.expected.contacts.pop(contact.external_id)
            return Sample(kind, contact.external_id.encode(), None)
        return self._changed(kind, contact)

    def _changed(self, kind: Kind, contact: _Contact) -> Sample:
        event = self._event(contact.external_id, version=contact.version, **_CHANGES[kind])
        if kind is Kind.DELETE:
            self.expected.contacts.pop(contact.external_id)
        elif kind is Kind.CONFLICT:
            phone, _ = self.expected.contacts[contact.external_id]
            self.expected.contacts[contact.external_id] = (phone, False)
        else:
            contact.event = event
            self._expect(event)
        return self._encoded(kind, event)

    def _expect(self, event: dict[str, Any]) -> None:
        self.expected.contacts[event["externalId"]] = (event["phone"], event["consent"] and not event["doNotCall"])

    def _event(self, external_id: str, **said: object) -> dict[str, Any]:
        return {
            "eventId": f"{self._prefix}-{self._made}",
            "changeType": "UPDATE",
            "externalId": external_id,
            "occurredAt": FIRST_MOMENT_MS + self._made,
            "version": 1,
            "phone": f"+1555{self._dice.randrange(10**7):07d}",
            "email": f"{external_id.lower()}@example.org",
            "consent": True,
            "doNotCall": False,
            "attributes": {ATTRIBUTE: self._dice.choice(("gold", "silver", "bronze"))},
        } | said

    def _encoded(self, kind: Kind, event: dict[str, Any]) -> Sample:
        out = BytesIO()
        fastavro.schemaless_writer(out, self._schema, event)
        framed = struct.pack(">bI", 0, SCHEMA_ID) + out.getvalue()
        return Sample(kind, event["externalId"].encode(), framed)


_CHANGES: dict[Kind, dict[str, object]] = {
    Kind.UPDATE: {},
    Kind.WITHDRAW: {"consent": False},
    Kind.DELETE: {"changeType": "DELETE"},
    Kind.CONFLICT: {"doNotCall": True},
}
