"""Events of an outbox: whom their keys name, in whatever format, and deletes that tell no more than that."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from consumer.formats import SchemaReference
from consumer.model import Headers, Record, TopicPartition
from tests.envelopes import encoded, record_type
from tests.lives import live
from tests.memory_ports import MemorySchemas, World
from tests.stories import TOPIC

PARTITION = TopicPartition(TOPIC, 0)
CONTACT = record_type("Contact", {"phone": "string", "consent": "boolean", "doNotCall": "boolean"})
ROW = {"phone": "+14155550100", "consent": True, "doNotCall": False}
WITHDRAWN = ROW | {"consent": False}
CREATED, UPDATED, DELETED = ([("eventType", f"Contact{kind}".encode())] for kind in ("Created", "Updated", "Deleted"))
SCHEMAS: Mapping[SchemaReference, Sequence[str]] = {
    5: ['"string"'],
    6: ['{"type": "string", "connect.version": 1}'],
    7: [json.dumps(CONTACT)],
    9: ['{"type": "record", "name": "ContactDeleted", "fields": [{"name": "contactId", "type": "string"}]}'],
    10: ['{"type": "record", "name": "Gone", "fields": []}'],
    8: [json.dumps(record_type("ContactId", {"id": "long"}))],
}
KEYS = {
    "string": (b"42", b"42"),
    "avro": (b"\0\0\0\0\5\x0442", b"\0\0\0\0\6\x0442"),
    "an Avro record": (b"\0\0\0\0\x08\x54", b"\0\0\0\0\5\x0442"),
    "json": (b'"42"', b'{"schema": {"type": "string"}, "payload": "42"}'),
    "auto": (b"42", b'"42"'),
}
"""Two keys of one contact, in the format of that name mostly."""


def value(row: dict[str, object] | None) -> bytes | None:
    """The value of a record."""
    return None if row is None else struct.pack(">bI", 0, 7) + encoded(CONTACT, row)


DELETE = record_type("ContactDeleted", {"contactId": "string"})
DELETES = {
    "of the id": struct.pack(">bI", 0, 9) + encoded(DELETE, {"contactId": "42"}),
    "of nothing": struct.pack(">bI", 0, 10) + encoded(record_type("Gone", {}), {}),
    "in JSON": b'{"contactId": "42"}',
}


def comes(world: World, key: bytes, told: bytes | None, headers: Headers = (), **changed: Any) -> Sequence[Any]:
    """One more record; how the records ended so far."""
    offset = len(world.log.setdefault(PARTITION, []))
    world.append([Record(*PARTITION, offset, 1_764_460_800_000 + offset, key, told, headers)])
    quick = {"batch_linger_ms": 20, "settle_interval_ms": 10}
    live(world, MemorySchemas(SCHEMAS), **{"source_envelope": "outbox", **quick, **changed})
    return [(event["outcome"], event["operation"]) for event in world.events()]


def callable_(world: World) -> dict[str, object]:
    """Who of the list may be called."""
    return {name: contact["callable"] for name, contact in world.list.items()}


@pytest.mark.parametrize("key_format", KEYS)
def test_the_key_names_the_contact_whatever_its_format(key_format: str) -> None:
    """Also once keys have another schema: a withdrawal is of the same contact, and a tombstone deletes it."""
    chosen = key_format if key_format in {"string", "json", "auto"} else "avro"
    world, (first, second) = World(), KEYS[key_format]
    comes(world, first, value(ROW), CREATED, source_key=chosen)
    assert callable_(world) == {"42": True}
    comes(world, second, value(WITHDRAWN), UPDATED, source_key=chosen)
    assert callable_(world) == {"42": False}
    assert comes(world, first, None, source_key=chosen)[-1] == ("delivered", "delete")
    assert world.list == {}


@pytest.mark.parametrize("source_key", ["string", "avro"])
@pytest.mark.parametrize("key", [b'{"id": 42, "region": 7}', b"\0\0\0\0\x63\x0442", b"Struct{id=42}"])
def test_a_key_that_names_nobody_for_sure_is_refused(source_key: str, key: bytes) -> None:
    """No contact of that text: no tombstone would ever delete it."""
    world = World()
    assert comes(world, key, value(ROW), CREATED, source_key=source_key, schema_unknown_timeout_s=1) == [
        ("rejected", None)
    ]
    assert world.list == {}


def test_the_key_of_a_cloud_event_is_read_too() -> None:
    """Its header says that there is data, which is so."""
    world = World()
    headers = [("ce_specversion", b"1.0"), *CREATED]
    comes(world, b'"42"', value(ROW), headers, source_framing="cloudevents", source_key="json")
    assert callable_(world) == {"42": True}


def test_the_key_of_json_is_read_too() -> None:
    """With a value that brings no schema."""
    world = World()
    comes(world, b'"42"', json.dumps(ROW).encode(), CREATED, source_framing="json", source_key="json")
    assert callable_(world) == {"42": True}


def test_who_is_not_named_by_the_key_needs_none_that_can_be_read(tmp_path: Any) -> None:
    """The ready-made table, which takes the key, is not for these."""
    path = tmp_path / "mapping.toml"
    fields = {"external_id": "phone", "phone": "phone", "consent": "consent", "do_not_call": "doNotCall"}
    path.write_text("\n".join(["[Contact]", *(f'{name} = "{source}"' for name, source in fields.items())]))
    world = World()
    comes(world, b'{"no": "id"', value(ROW), source_key="avro", source_mapping=path)
    assert callable_(world) == {"+14155550100": True}


@pytest.mark.parametrize("told", DELETES.values(), ids=DELETES)
def test_a_delete_needs_the_external_id_alone(told: bytes) -> None:
    """Its schema has neither a phone number nor flags."""
    world, framing = World(), "auto"
    comes(world, b"42", value(ROW), CREATED, source_framing=framing)
    assert comes(world, b"42", told, DELETED, source_framing=framing)[-1] == ("delivered", "delete")
    assert world.list == {}


@pytest.mark.parametrize("headers", [CREATED, UPDATED])
@pytest.mark.parametrize("told", DELETES.values(), ids=DELETES)
def test_anything_else_of_such_a_schema_is_rejected(told: bytes, headers: Headers) -> None:
    """It lacks what makes a contact."""
    world = World()
    comes(world, b"42", told, headers, source_framing="auto")
    assert [event["reasons"] for event in world.events()] == [["envelope_unknown"]]
