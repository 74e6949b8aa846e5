import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from consumer.core import changes
from consumer.core.connect_json import JsonReader
from consumer.core.envelopes.native import native
from consumer.core.mapping_tables import CHANGE_TYPES
from consumer.core.moments import MAX_MS
from consumer.core.validate import validate
from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType, Reason, Record

NATIVE = json.loads((Path(__file__).parents[2] / "schemas/crm_contact_change.avsc").read_text())
RECORD = Record("crm.contacts.changes", 0, 0, 1_700_000_000_000, b"c-1", b"")
MISSING = object()


PROMISED = [
    ("eventId", "string"),
    ("changeType", {"type": "enum", "name": "ChangeType", "symbols": ["CREATE", "UPDATE", "DELETE", "UNDELETE"]}),
    ("externalId", "string"),
    ("occurredAt", {"type": "long", "logicalType": "timestamp-millis"}),
    ("version", ["null", "long"], None),
    ("phone", ["null", "string"], None),
    ("email", ["null", "string"], None),
    ("consent", ["null", "boolean"], None),
    ("doNotCall", ["null", "boolean"], None),
    ("attributes", {"type": "map", "values": "string"}, {}),
]
"""Name, type and default of each field, on which every producer of change events relies."""


def test_the_native_change_event_is_what_producers_were_promised():
    """A default that goes makes a reader refuse what was written without the field."""
    told = ("name", "type", "default")
    assert (NATIVE["type"], NATIVE["namespace"], NATIVE["name"]) == ("record", "crm.contacts", "ContactChange")
    assert [tuple(field[key] for key in told if key in field) for field in NATIVE["fields"]] == PROMISED


def schema_with(**types):
    """The native schema with other types for some fields; MISSING takes a field out, a new name adds one."""
    fields = {field["name"]: field["type"] for field in NATIVE["fields"]} | types
    return NATIVE | {"fields": [{"name": name, "type": kind} for name, kind in fields.items() if kind is not MISSING]}


def fields_with(**changes):
    """Decoded fields of a good event."""
    fields = {
        "eventId": "e-1",
        "changeType": "UPDATE",
        "externalId": "c-1",
        "occurredAt": 1_700_000_000_000,
        "version": 3,
        "phone": "+14155550100",
        "email": "jane@example.com",
        "consent": True,
        "doNotCall": False,
        "attributes": {"city": "Zürich"},
    } | changes
    return {name: value for name, value in fields.items() if value is not MISSING}


EVENT = ChangeEvent(
    ChangeType.UPDATE,
    "c-1",
    1_700_000_000_000,
    3,
    "+14155550100",
    "jane@example.com",
    True,
    False,
    {"city": "Zürich"},
)


def test_a_native_event_is_mapped_field_by_field():
    """Every field of the native schema arrives where it belongs."""
    assert native(NATIVE)(fields_with(), RECORD) == EVENT


@pytest.mark.parametrize("change_type", CHANGE_TYPES.values())
def test_every_change_type_is_known(change_type):
    """The four symbols of the native enum become the four change types."""
    assert native(NATIVE)(fields_with(changeType=str(change_type)), RECORD).change_type is change_type


CHANGE_TYPE = {"type": "enum", "name": "Kind", "symbols": ["UPDATE", "MERGE"]}
NULLABLE = {
    "eventId": ["null", "string"],
    "changeType": [CHANGE_TYPE, "null"],
    "externalId": ["null", "string"],
    "occurredAt": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
    "attributes": ["null", {"type": "map", "values": ["null", "string"]}],
}

RESOLVED: dict[str, tuple[dict[str, object], dict[str, object], dict[str, object]]] = {
    "ints where longs are expected": ({"version": "int", "occurredAt": "int"}, {"occurredAt": 9}, {"occurred_at": 9}),
    "local time": ({"occurredAt": {"type": "long", "logicalType": "local-timestamp-millis"}}, {}, {}),
    "version never null": ({"version": "long"}, {}, {}),
    "version always null": ({"version": "null"}, {"version": None}, {"version": None}),
    "version of either integer": ({"version": ["null", "int", "long"]}, {}, {}),
    "all may be null, and are not": (NULLABLE, {}, {}),
    "all may be null, and some are": (
        NULLABLE,
        {"eventId": None, "externalId": None, "attributes": None},
        {"external_id": None, "attributes": {}},
    ),
    "an attribute is null": (NULLABLE, {"attributes": {"city": None, "zip": "1"}}, {"attributes": {"zip": "1"}}),
    "bytes where text is expected": (
        {
            "eventId": "bytes",
            "externalId": "bytes",
            "phone": ["null", "bytes", "string"],
            "email": ["null", "bytes"],
            "attributes": {"type": "map", "values": "bytes"},
        },
        {"externalId": b"c-1", "phone": b"+14155550100", "email": None, "attributes": {"city": "Zürich".encode()}},
        {"email": None},
    ),
    "bytes in one field alone": ({"email": "bytes", "attributes": MISSING}, {"email": b"\x41"}, {"email": "A"}),
    "optional fields missing": (
        dict.fromkeys(["version", "phone", "email", "consent", "doNotCall", "attributes"], MISSING),
        dict.fromkeys(["version", "phone", "email", "consent", "doNotCall", "attributes"], MISSING),
        dict.fromkeys(["version", "phone", "email", "consent", "do_not_call"]) | {"attributes": {}},
    ),
    "more fields": ({"firstName": "string", "score": ["null", "double"]}, {"firstName": "Jane", "score": 0.5}, {}),
    "consent in text": ({"consent": "string"}, {"consent": "yes"}, {"consent": "yes"}),
    "do-not-call as a number": ({"doNotCall": "int"}, {"doNotCall": 1}, {"do_not_call": 1}),
    "a phone number as a number": ({"phone": "long"}, {"phone": 14155550100}, {"phone": 14155550100}),
    "e-mail in a list": ({"email": {"type": "array", "items": "string"}}, {"email": ["a@b.de"]}, {"email": ["a@b.de"]}),
    "a phone of fixed length": (
        {"phone": {"type": "fixed", "name": "Phone", "size": 2}},
        {"phone": b"+1"},
        {"phone": b"+1"},
    ),
}


@pytest.mark.parametrize(("types", "changes", "expected"), RESOLVED.values(), ids=RESOLVED)
def test_a_writer_may_differ_as_avro_resolution_allows(types, changes, expected):
    """Promotions, nullable, missing, further and oddly typed fields are read; judging the values is for validation."""
    fields = fields_with(**changes)
    assert native(schema_with(**types))(fields, RECORD) == replace(EVENT, **expected)


def test_the_order_of_fields_and_the_names_of_types_do_not_matter():
    """A writer is free in how it calls its record and its enum, and in how it sorts its fields."""
    fields = [
        field | {"type": CHANGE_TYPE} if field["name"] == "changeType" else field
        for field in reversed(NATIVE["fields"])
    ]
    definition = {"type": "record", "name": "com.example.Change", "fields": fields}
    assert native(definition)(fields_with(), RECORD) == EVENT


def test_a_type_may_be_named_where_it_is_used():
    """An enum that an earlier field defines is found by its name, with and without its namespace."""
    for name in ("Kind", "crm.contacts.Kind"):
        types = {"previous": CHANGE_TYPE} | {field["name"]: field["type"] for field in NATIVE["fields"]}
        fields = [{"name": field, "type": kind} for field, kind in (types | {"changeType": name}).items()]
        assert native(NATIVE | {"fields": fields})(fields_with(), RECORD) == EVENT


UNKNOWN: dict[str, tuple[dict[str, object], str]] = {
    "no eventId": ({"eventId": MISSING}, "eventId"),
    "no changeType": ({"changeType": MISSING}, "changeType"),
    "no externalId": ({"externalId": MISSING}, "externalId"),
    "no occurredAt": ({"occurredAt": MISSING}, "occurredAt"),
    "externalId always null": ({"externalId": "null"}, "externalId"),
    "eventId a number": ({"eventId": "long"}, "eventId"),
    "changeType a number": ({"changeType": "long"}, "changeType"),
    "externalId a number": ({"externalId": ["null", "string", "long"]}, "externalId"),
    "occurredAt in text": ({"occurredAt": "string"}, "occurredAt"),
    "occurredAt a double": ({"occurredAt": "double"}, "occurredAt"),
    "occurredAt in microseconds": ({"occurredAt": {"type": "long", "logicalType": "timestamp-micros"}}, "occurredAt"),
    "occurredAt in days": ({"occurredAt": ["null", {"type": "int", "logicalType": "date"}]}, "occurredAt"),
    "version in text": ({"version": ["null", "string"]}, "version"),
    "version of mixed types": ({"version": ["null", "long", "string"]}, "version"),
    "version a double": ({"version": "double"}, "version"),
    "attributes in text": ({"attributes": "string"}, "attributes"),
    "attributes in a list": ({"attributes": {"type": "array", "items": "string"}}, "attributes"),
    "attributes of numbers": ({"attributes": {"type": "map", "values": "long"}}, "attributes"),
    "attributes of mixed types": ({"attributes": {"type": "map", "values": ["string", "long"]}}, "attributes"),
}


@pytest.mark.parametrize(("types", "field"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_schema_that_is_no_contact_change_is_named_by_its_first_fault(types, field):
    """What Avro resolution to the native schema forbids is refused once, at the schema, with the field's name."""
    with pytest.raises(DecodeError) as caught:
        native(schema_with(**types))
    assert caught.value.reasons == (Reason.ENVELOPE_UNKNOWN,)
    assert f"field {field}" in caught.value.detail


IN_RECORD = {"type": "record", "name": "Attributes", "fields": [{"name": "city", "type": ["null", "string", "long"]}]}


@pytest.mark.parametrize(
    ("value", "attributes", "flawed"),
    [({"city": "Zürich"}, {"city": "Zürich"}, False), ({"city": None}, {}, False), ({"city": 8000}, {}, True)],
)
@pytest.mark.parametrize("change_type", ["UPDATE", "DELETE"])
def test_attributes_may_be_a_record(value, attributes, flawed, change_type):
    """As objects in JSON without a schema are; the flags are told whatever it holds, and a delete needs none of it."""
    fields = fields_with(attributes=value, changeType=change_type, consent=False)
    event = native(schema_with(attributes=["null", IN_RECORD]))(fields, RECORD)
    assert (event.attributes, event.consent) == (attributes, False)
    assert bool(event.flaw) == (flawed and change_type == "UPDATE")


@pytest.mark.parametrize("attributes", [{}, {"reason": "call centre"}, {"age": 42}, {"address": {"city": None}}])
def test_a_withdrawal_in_json_may_have_attributes(attributes):
    """They were a schema of another kind, and the person stayed callable."""
    value = json.dumps(fields_with(attributes=attributes, consent=False)).encode()
    event = JsonReader(native)(value, RECORD)
    assert isinstance(event, ChangeEvent)
    (judged,) = validate([event], [])
    change = changes.of(event, judged, 0, "list")
    assert change is not None
    assert change.withdrawal is True


def test_another_envelope_is_unknown():
    """A Debezium envelope is a good schema, and no native change event."""
    path = Path(__file__).parents[1] / "data/avro/debezium_mysql_customers_envelope.avsc"
    with pytest.raises(DecodeError) as caught:
        native(json.loads(path.read_text()))
    assert caught.value.reasons == (Reason.ENVELOPE_UNKNOWN,)


@pytest.mark.parametrize("occurred_at", [0, MAX_MS])
def test_times_from_1970_to_9999_are_times(occurred_at):
    """Both ends of the range belong to it."""
    assert native(NATIVE)(fields_with(occurredAt=occurred_at), RECORD).occurred_at == occurred_at


@pytest.mark.parametrize("change_type", ["MERGE", None], ids=["of a later version", "null"])
def test_a_record_without_a_known_change_is_not_decodable(change_type):
    """One record's values are no fault of its schema: that record alone is refused, and the field is named."""
    with pytest.raises(DecodeError) as caught:
        native(schema_with(**NULLABLE))(fields_with(changeType=change_type), RECORD)
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)
    assert "changeType" in caught.value.detail


def test_what_happened_may_be_told_in_text():
    """As in JSON, which has no enums."""
    assert native(schema_with(changeType="string"))(fields_with(), RECORD) == native(NATIVE)(fields_with(), RECORD)


BAD_TIMES = {"null": None, "before 1970": -1, "in microseconds": 1_700_000_000_000_000, "after 9999": MAX_MS + 1}


@pytest.mark.parametrize("time", BAD_TIMES.values(), ids=BAD_TIMES)
@pytest.mark.parametrize("change_type", ["UPDATE", "DELETE"])
def test_a_record_without_a_time_has_that_of_kafka_and_a_flaw(time, change_type):
    """The flags are told all the same; whether a contact is gone that was deleted nobody knows when is not sure."""
    event = native(schema_with(**NULLABLE))(fields_with(occurredAt=time, changeType=change_type, consent=False), RECORD)
    assert "occurredAt" in event.flaw
    assert (event.occurred_at, event.consent) == (RECORD.timestamp_ms, False)
    assert event.change_type is (ChangeType.GAP if change_type == "DELETE" else ChangeType.UPDATE)


@pytest.mark.parametrize("changes", [{"externalId": b"\xff"}, {"attributes": {"city": b"\xff"}}], ids=str)
def test_bytes_that_are_not_text_are_not_decodable(changes):
    """A text sent as bytes must be UTF-8; the error does not carry the bytes along."""
    mapper = native(schema_with(externalId="bytes", attributes={"type": "map", "values": "bytes"}))
    with pytest.raises(DecodeError) as caught:
        mapper(fields_with(**{"externalId": b"c-1", "attributes": {}} | changes), RECORD)
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("types", [{}, {"attributes": MISSING}, NULLABLE], ids=["native", "missing", "nullable"])
def test_events_share_no_attributes(types):
    """What is done to one event's attributes is not seen in another's, also where the writer sent none."""
    mapper = native(schema_with(**types))
    attributes = MISSING if types.get("attributes") is MISSING else None
    first, second = (mapper(fields_with(attributes=attributes), RECORD) for _ in range(2))
    assert first.attributes == second.attributes == {}
    assert first.attributes is not second.attributes


@pytest.mark.parametrize(
    ("kafka_ms", "expected"), [(-1, 0), (1_700_000_000_000, 1_700_000_000_000), (1_700_000_000_000_000, MAX_MS)]
)
def test_a_record_without_any_usable_time_is_flawed_and_no_more(kafka_ms, expected):
    """Kafka's own time is what a producer gave, or none."""
    event = native(NATIVE)(
        fields_with(occurredAt=1_700_000_000_000_000, consent=False), replace(RECORD, timestamp_ms=kafka_ms)
    )
    assert (event.occurred_at, event.consent, event.flaw) == (
        expected,
        False,
        "occurredAt is not a time in milliseconds since the epoch",
    )
