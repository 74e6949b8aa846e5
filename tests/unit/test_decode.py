import io
import json
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from consumer.core.avro import WriterSchema
from consumer.core.avro_schema import MAX_MEMORY_BYTES, MAX_SCHEMA_CHARACTERS, MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES
from consumer.core.decode import decode as decoded_by
from consumer.core.envelopes.native import native
from consumer.core.envelopes.schema import Fields
from consumer.core.framing import MAX_VALUE_BYTES, form
from consumer.core.mapping_tables import CHANGE_TYPES
from consumer.errors import DecodeError, ReaderFailed
from consumer.formats import Framing, KeyFormat
from consumer.model import ChangeEvent, ChangeType, Reason, Record
from tests.captured import captured
from tests.envelopes import CONFLUENT, TEXT_KEYS

ROOT = Path(__file__).parents[2]
AVRO = ROOT / "tests/data/avro"
NATIVE = (ROOT / "schemas/crm_contact_change.avsc").read_text()
NATIVE_PARSED = fastavro.parse_schema(json.loads(NATIVE))
NATIVE_WRITER = WriterSchema(NATIVE)
NATIVE_MAPPER = native(NATIVE_WRITER.definition)
EMAIL = "jane.doe@example.com"

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NATIVE_FIELDS = st.fixed_dictionaries(
    {
        "eventId": TEXT,
        "changeType": st.sampled_from([str(change_type) for change_type in CHANGE_TYPES.values()]),
        "externalId": TEXT,
        "occurredAt": st.integers(0, 253_402_300_799_999),
        "version": st.none() | INT64,
        "phone": st.none() | TEXT,
        "email": st.none() | TEXT,
        "consent": st.none() | st.booleans(),
        "doNotCall": st.none() | st.booleans(),
        "attributes": st.dictionaries(TEXT, TEXT),
    }
)


def decode(records, readers):
    """What becomes of records in Confluent's framing."""
    return decoded_by(records, TEXT_KEYS | readers, CONFLUENT)


def record_of(*fields, **properties):
    """JSON text of a record schema with these (name, type) fields."""
    return json.dumps(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": name, "type": kind} for name, kind in fields],
            **properties,
        }
    )


def written(schema, fields):
    """Avro body, as any other program would write it."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(schema)), fields)
    return stream.getvalue()


def varint(number):
    """A zigzag varint, of as many bytes as it takes."""
    number = number << 1 if number >= 0 else (-number << 1) - 1
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def framed(payload, identifier=7):
    """A record value in the Confluent wire format."""
    return struct.pack(">bI", 0, identifier) + payload


def polled(value, key=b"c-1"):
    """A record as Kafka hands it over."""
    return Record("crm.contacts.changes", 0, 0, 1_700_000_000_000, key, value)


def read_native(payload, record):
    """The reader that the pipeline puts together for the native envelope."""
    return NATIVE_MAPPER(NATIVE_WRITER.read(payload), record)


def native_fields(**changes):
    """Fields of a good native event."""
    return {
        "eventId": "e-1",
        "changeType": "UPDATE",
        "externalId": "c-1",
        "occurredAt": 1_700_000_000_000,
        "version": 3,
        "phone": "+14155550100",
        "email": EMAIL,
        "consent": True,
        "doNotCall": False,
        "attributes": {"city": "Zürich"},
    } | changes


def native_payload(**changes):
    """Body of a native event."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, NATIVE_PARSED, native_fields(**changes))
    return stream.getvalue()


def result_of(value, key=b"c-1"):
    """What becomes of a single record whose schema is the native one."""
    decoded = decode([polled(value, key)], {7: read_native})
    assert decoded.missing is None
    return decoded.results[0]


def assert_refused(schema, payload):
    """The schema refuses the payload, with an error that carries nothing of it."""
    with pytest.raises(DecodeError) as caught:
        WriterSchema(schema).read(payload)
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)
    assert caught.value.__context__ is None
    assert EMAIL not in str(caught.value)
    return caught.value


BAD_PAYLOADS = {
    "truncated": native_payload()[:-1],
    "no body": b"",
    "trailing bytes": native_payload() + b"\x00",
    "enum -1": native_payload().replace(b"\x06e-1\x02", b"\x06e-1\x01"),
    "enum too large": native_payload().replace(b"\x06e-1\x02", b"\x06e-1\x08"),
    "union -1": native_payload(version=None).replace(b"\x00\x02\x18+1415", b"\x01\x02\x18+1415"),
    "union too large": native_payload(version=None).replace(b"\x00\x02\x18+1415", b"\x04\x02\x18+1415"),
    "boolean 2": native_payload().replace(b"\x02\x01\x02\x00\x02", b"\x02\x02\x02\x00\x02"),
    "invalid UTF-8": native_payload().replace(b"Z\xc3\xbcrich", b"Z\xc3\x28rich"),
    "string of negative length": native_payload().replace(b"\x28jane", b"\x27jane"),
    "string of 2^40 bytes": native_payload().replace(b"\x28jane", varint(2**40) + b"jane"),
    "integer of 65 bits": native_payload(version=2**62).replace(varint(2**62), varint(2**64)),
    "integer without end": native_payload(version=2**62).replace(varint(2**62), b"\xff" * 200_000 + b"\x01"),
    "map of 2^40 entries": native_payload().replace(b"\x02\x08city", varint(2**40) + b"\x08city"),
}


@pytest.mark.parametrize("payload", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS)
def test_a_bad_body_is_not_decodable(payload):
    """Whatever is wrong with a body, the result is a named error that holds nothing of the data."""
    assert payload != native_payload()
    assert_refused(NATIVE, payload)
    error = result_of(framed(payload))
    assert isinstance(error, DecodeError)
    assert error.reasons == (Reason.NOT_DECODABLE,)
    assert error.__traceback__ is None
    assert error.__context__ is None


BAD_VALUES = {
    "empty": (b"", "empty"),
    "wrong magic byte": (b"\x02" + framed(native_payload())[1:], "magic byte"),
    "JSON": (b'{"phone": "+14155550100"}', "magic byte"),
    "header cut": (b"\x00\x00\x00", "too short"),
    "1 MB": (framed(native_payload()).ljust(MAX_VALUE_BYTES, b"\x00"), "1,000,000 bytes"),
}


@pytest.mark.parametrize(("value", "detail"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_frame_is_not_decodable(value, detail):
    """A value that is not framed, or too large, is refused with a reason that says so and quotes nothing."""
    error = result_of(value)
    assert isinstance(error, DecodeError)
    assert error.reasons == (Reason.NOT_DECODABLE,)
    assert detail in error.detail
    assert "4155550100" not in error.detail


def test_a_value_of_1_mb_is_refused_before_its_schema_is_asked_for():
    """A record too large to be read does not hold up its partition for a schema."""
    decoded = decode([polled(framed(b"", 99).ljust(MAX_VALUE_BYTES, b"\x00"))], {})
    assert decoded.missing is None
    assert isinstance(decoded.results[0], DecodeError)


def test_a_value_just_below_1_mb_is_read():
    """The limit is the first size that is refused."""
    spare = MAX_VALUE_BYTES - 1 - len(framed(native_payload(attributes={"note": "x" * 900_000})))
    value = framed(native_payload(attributes={"note": "x" * (900_000 + spare)}))
    assert len(value) == MAX_VALUE_BYTES - 1
    assert isinstance(result_of(value), ChangeEvent)


# ---- a whole poll ----


def test_decode_stops_at_the_first_schema_it_has_no_reader_for():
    """The results end before the record whose schema must be fetched, and the id is told."""
    records = [polled(framed(native_payload(), identifier)) for identifier in (7, 8, 7)]
    decoded = decode(records, {7: read_native})
    assert [type(result) for result in decoded.results] == [ChangeEvent]
    assert decoded.missing == 8


def test_an_error_in_place_of_a_reader_is_the_result_of_each_of_its_records():
    """A schema that cannot be used rejects its own records and no others."""
    unusable = DecodeError((Reason.ENVELOPE_UNKNOWN,), "not a contact")
    records = [polled(framed(native_payload(), identifier)) for identifier in (8, 7, 8)]
    decoded = decode(records, {7: read_native, 8: unusable})
    assert decoded.missing is None
    assert decoded.results[0] is decoded.results[2] is unusable
    assert isinstance(decoded.results[1], ChangeEvent)


def test_a_bad_record_does_not_stop_those_after_it():
    """Each record has its own result, in the order of the records."""
    decoded = decode([polled(b""), polled(None), polled(framed(native_payload()))], {7: read_native})
    assert [type(result) for result in decoded.results] == [DecodeError, ChangeEvent, ChangeEvent]


def test_a_mistake_of_the_program_is_the_result_of_its_record():
    """It would be met again at every start. What it says may be of the record, so type and place alone are told."""

    def mistaken(body, _):
        raise KeyError(body)

    good = polled(framed(native_payload()))
    failed, other = decode([polled(framed(b"jane.doe@example.com", 8)), good], {7: read_native, 8: mistaken}).results
    assert isinstance(failed, ReaderFailed)
    assert failed.reasons == (Reason.NOT_DECODABLE,)
    assert re.fullmatch(r"the program fails on it: KeyError at test_decode\.py:[0-9]+", failed.detail)
    assert (failed.__traceback__, failed.__context__) == (None, None)
    assert isinstance(other, ChangeEvent)


def test_nothing_polled_is_nothing_decoded():
    """An empty poll has no results and asks for nothing."""
    assert decode([], {}) == ([], None)


# ---- tombstones ----


def test_a_tombstone_deletes_whom_its_key_names():
    """A null value is a delete at the record's time, without version, and needs no schema."""
    decoded = decode([polled(None, "Zürich-1".encode())], {})
    assert decoded.results == [
        ChangeEvent(ChangeType.DELETE, "Zürich-1", 1_700_000_000_000, None, None, None, None, None, {}, tombstone=True)
    ]


@pytest.mark.parametrize("key", [None, b""])
def test_a_tombstone_without_a_key_names_nobody(key):
    """The event is made all the same: validation says that the external id is missing."""
    event = result_of(None, key)
    assert isinstance(event, ChangeEvent)
    assert event.external_id is None


@pytest.mark.parametrize("key", [b"\xff\xfe", framed(b"\x06c-1")], ids=["not UTF-8", "framed"])
def test_a_tombstone_whose_key_is_not_text_is_not_decodable(key):
    """A key that cannot be the external id is reported: taken for one, the deletion would be lost."""
    error = result_of(None, key)
    assert isinstance(error, DecodeError)
    assert error.reasons == (Reason.NOT_DECODABLE,)
    assert error.__context__ is None


def test_tombstones_share_no_attributes():
    """What is done to one event's attributes is not seen in another's."""
    first, second = decode([polled(None), polled(None)], {}).results
    assert isinstance(first, ChangeEvent)
    assert isinstance(second, ChangeEvent)
    assert first.attributes is not second.attributes


# ---- reading with the writer's schema ----


@given(NATIVE_FIELDS)
def test_what_a_writer_wrote_is_what_is_read(fields):
    """Any native event comes back as it was written, whichever of the two ways it is read."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, NATIVE_PARSED, fields)
    assert NATIVE_WRITER.read(stream.getvalue()) == fields
    stream.seek(0)
    assert NATIVE_WRITER._read_strictly(stream) == fields


ALL_TYPES = record_of(
    ("null", "null"),
    ("flag", "boolean"),
    ("int", "int"),
    ("long", "long"),
    ("float", "float"),
    ("double", "double"),
    ("bytes", "bytes"),
    ("string", {"type": "string"}),
    ("fixed", {"type": "fixed", "name": "F", "size": 3}),
    ("enum", {"type": "enum", "name": "E", "symbols": ["A", "B"]}),
    ("again", "E"),
    ("array", {"type": "array", "items": ["null", "F", "boolean"]}),
    ("map", {"type": "map", "values": {"type": "record", "name": "In", "fields": [{"name": "e", "type": "E"}]}}),
    ("twice", ["null", "In"]),
    namespace="n",
)
ALL_TYPES_WRITER = WriterSchema(ALL_TYPES)


@given(
    st.fixed_dictionaries(
        {
            "null": st.none(),
            "flag": st.booleans(),
            "int": st.integers(-(2**31), 2**31 - 1),
            "long": INT64,
            "float": st.floats(width=32, allow_nan=False),
            "double": st.floats(allow_nan=False),
            "bytes": st.binary(),
            "string": TEXT,
            "fixed": st.binary(min_size=3, max_size=3),
            "enum": st.sampled_from("AB"),
            "again": st.sampled_from("AB"),
            "array": st.lists(st.none() | st.binary(min_size=3, max_size=3) | st.booleans()),
            "map": st.dictionaries(TEXT, st.fixed_dictionaries({"e": st.sampled_from("AB")})),
            "twice": st.none() | st.fixed_dictionaries({"e": st.sampled_from("AB")}),
        }
    )
)
def test_every_avro_type_is_read(fields):
    """The hardened schema reads each type as fastavro does with its own, in both of its readers."""
    payload = written(ALL_TYPES, fields)
    assert ALL_TYPES_WRITER.read(payload) == fields
    assert ALL_TYPES_WRITER._read_strictly(io.BytesIO(payload)) == fields


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**62, 0, -1])
def test_integers_of_64_bits_are_read(number):
    """The largest integers that Avro knows are no overflow."""
    schema = record_of(("n", "long"))
    assert WriterSchema(schema).read(varint(number)) == {"n": number}


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 2**64 + 5, 2**69, 2**300])
def test_integers_of_more_than_64_bits_are_refused(number):
    """An integer that does not fit is never read as another one, wherever in the payload it stands."""
    for prefix in (b"", b"\x00" * 3, b"\xc3\xa9" * 4):
        schema = record_of(("before", {"type": "fixed", "name": "F", "size": len(prefix)}), ("n", "long"))
        assert_refused(schema, prefix + varint(number))


def test_text_with_long_runs_of_high_bytes_is_read():
    """Names in scripts outside ASCII look like large integers at first, and are none."""
    fields = native_fields(attributes={"name": "張偉明" * 50, "city": "Санкт-Петербург"})
    assert NATIVE_WRITER.read(native_payload(**fields)) == fields


LOGICAL = {
    "date": ("int", 2**31 - 1),
    "time-micros": ("long", 10**15),
    "timestamp-millis": ("long", 2**63 - 1),
    "timestamp-micros": ("long", -(2**63)),
    "uuid": ("string", "not a uuid"),
    "decimal": ("bytes", b"\x01" * 100_000),
}


@pytest.mark.parametrize("logical", LOGICAL)
def test_logical_types_are_left_as_what_carries_them(logical):
    """No value is converted, so none can be out of range, malformed, or slow to convert."""
    carrier, value = LOGICAL[logical]
    kind = {"type": carrier, "logicalType": logical, "precision": 4, "scale": 2}
    schema = record_of(("plain", kind), ("nullable", ["null", kind]))
    fields = {"plain": value, "nullable": value}
    payload = written(record_of(("plain", carrier), ("nullable", ["null", carrier])), fields)
    assert WriterSchema(schema).read(payload) == fields


S_RECORD = {"type": "record", "name": "S", "fields": [{"name": "s", "type": "long"}]}
S_ENUM = {"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}
S_DECIMAL = {"type": "bytes", "logicalType": "decimal"}
S_FIXED = S_DECIMAL | {"type": "fixed", "name": "F", "size": 2, "precision": 20}

UNCHECKED = {
    "boolean": ({"type": "boolean", "default": "false"}, b"\x01"),
    "string": ({"type": "string", "default": None}, b"\x02x"),
    "union": ({"type": ["null", "boolean"], "default": "no"}, b"\x00"),
    "record": ({"type": S_RECORD, "default": {}}, b"\x02"),
    "enum": ({"type": S_ENUM, "default": "C"}, b"\x00"),
    "scale above precision": ({"type": S_DECIMAL | {"precision": 2, "scale": 5}}, b"\x02x"),
    "scale that is no number": ({"type": S_DECIMAL | {"precision": 2, "scale": "1"}}, b"\x02x"),
    "negative scale": ({"type": S_DECIMAL | {"precision": 2, "scale": -1}}, b"\x02x"),
    "negative precision": ({"type": S_DECIMAL | {"precision": -2}}, b"\x02x"),
    "fixed type too small": ({"type": ["null", S_FIXED]}, b"\x02xy"),
}
"""Fields, and bytes of them, that writers in Java take, and fastavro's parser does not."""


@pytest.mark.parametrize(("field", "body"), UNCHECKED.values(), ids=UNCHECKED)
def test_what_no_reader_uses_may_be_wrong(field, body):
    """A withdrawal is read whatever default or precision somebody gives to another field."""
    schema = json.loads(NATIVE)
    schema["fields"].append(field | {"name": "more"})
    writer = WriterSchema(json.dumps(schema))
    payload = native_payload(consent=False) + body
    event = native(writer.definition)(writer.read(payload), polled(payload))
    assert (event.external_id, event.consent) == ("c-1", False)


@pytest.mark.parametrize(
    ("precision", "scale", "size", "read"),
    [
        (4, 2, 2, "2.58"),
        (None, 2, 2, "2.58"),
        (4, 0, 2, 258),
        (2, 2, 2, "2.58"),
        (1, 2, 2, b"\x01\x02"),
        (0, 0, 2, b"\x01\x02"),
        (4, True, 2, b"\x01\x02"),
        (5, 2, 2, b"\x01\x02"),
    ],
)
def test_a_decimal_that_is_none_is_what_carries_it(precision, scale, size, read):
    """So the specification says; some writers leave the precision out, and mean a decimal."""
    kind = {"type": "fixed", "name": "F", "size": size, "logicalType": "decimal", "scale": scale}
    told = kind if precision is None else kind | {"precision": precision}
    fields = [{"name": "f", "type": told}, {"name": "g", "type": "long", "default": "x"}]
    get = Fields.of(WriterSchema(record_of(fields=fields)).definition).getter(("f",))
    assert get is not None
    assert get({"f": b"\x01\x02"}) == read


def test_the_definition_is_the_schema_as_published():
    """Whoever maps the fields sees what the writer wrote, logical types and other properties included."""
    assert NATIVE_WRITER.definition == json.loads(NATIVE)


def test_a_real_debezium_record_is_read():
    """A record that a real connector wrote, in a real frame, reads as the row that it is about."""
    value = bytes.fromhex((AVRO / "debezium_mysql_customers.confluent_framed.hex").read_text())
    schema = WriterSchema((AVRO / "debezium_mysql_customers_envelope.avsc").read_text())
    fields = schema.read(value[5:])
    assert fields["op"] == "r"
    assert fields["after"] == {
        "id": 1001,
        "first_name": "Sally",
        "last_name": "Thomas",
        "email": "sally.thomas@acme.com",
    }


# ---- schemas that are refused ----


def nested(depth):
    """A record schema whose innermost type stands `depth` types deep."""
    kind: object = "string"
    for _ in range(depth - 2):
        kind = {"type": "array", "items": kind}
    return record_of(("f", kind))


def bomb(levels):
    """A few names that unfold to 2**levels types."""
    kind: dict[str, object] = {"type": "record", "name": "R0", "fields": [{"name": "x", "type": "long"}]}
    for level in range(1, levels):
        fields = [{"name": "a", "type": kind}, {"name": "b", "type": f"n.R{level - 1}"}]
        kind = {"type": "record", "name": f"R{level}", "fields": fields}
    return json.dumps(kind | {"namespace": "n"})


EMPTY_RECORD = {"type": "record", "name": "Empty", "fields": []}
NULLS_RECORD = {"type": "record", "name": "Nulls", "fields": [{"name": "x", "type": "null"}]}
EMPTY_FIXED = {"type": "fixed", "name": "Nothing", "size": 0}
NEGATIVE_FIXED = {"type": "fixed", "name": "Negative", "size": -1}

BAD_SCHEMAS = {
    "no JSON": ("{", "not an Avro schema of a record"),
    "no object": ('"string"', "not an Avro schema of a record"),
    "union": (f"[{record_of()}]", "not an Avro schema of a record"),
    "enum": ('{"type": "enum", "name": "E", "symbols": ["A"]}', "not an Avro schema of a record"),
    "JSON Schema": ('{"type": "object"}', "not an Avro schema of a record"),
    "JSON nested beyond the parser": ('{"type": ' * 100_000, "not an Avro schema of a record"),
    "over 1 MB": (record_of(doc="x" * MAX_SCHEMA_CHARACTERS), "the limit is 1,000,000"),
    "unknown type": (record_of(("f", "nowhere.Known")), "UnknownType"),
    "no field type": ('{"type": "record", "name": "R", "fields": [{"name": "f"}]}', "SchemaParseException"),
    "no name": ('{"type": "record", "fields": []}', "SchemaParseException"),
    "fields of a wrong kind": ('{"type": "record", "name": "R", "fields": 1}', "TypeError"),
    "same field twice": (record_of(("f", "string"), ("f", "long")), "two fields of the same name"),
    "reserved key": (record_of(("f", "string"), __fastavro_parsed=True), "reserves"),
    "reserved key below": (
        record_of(("f", EMPTY_RECORD | {"fields": [{"name": "g", "type": "R", "__named_schemas": {}}]})),
        "reserves",
    ),
    "contains itself": (record_of(("f", "R")), "recursive"),
    "contains itself in a union": (record_of(("f", ["null", "R"])), "recursive"),
    "contains itself in an array": (record_of(("f", {"type": "array", "items": "R"}), namespace="n"), "recursive"),
    "contains itself in a map": (record_of(("f", {"type": "map", "values": "n.R"}), namespace="n"), "recursive"),
    "contains itself two steps on": (
        record_of(("f", {"type": "record", "name": "S", "fields": [{"name": "g", "type": ["null", "R"]}]})),
        "recursive",
    ),
    "union in a union": (record_of(("f", ["null", ["string"]])), "a union in a union"),
    "array of null": (record_of(("f", {"type": "array", "items": "null"})), "zero width"),
    "array of null as an object": (record_of(("f", {"type": "array", "items": {"type": "null"}})), "zero width"),
    "map of null": (record_of(("f", {"type": "map", "values": "null"})), "zero width"),
    "array of empty records": (record_of(("f", {"type": "array", "items": EMPTY_RECORD})), "zero width"),
    "array of named empty records": (
        record_of(("e", EMPTY_RECORD), ("f", {"type": "array", "items": "Empty"})),
        "zero width",
    ),
    "array of records of nulls": (record_of(("f", {"type": "array", "items": NULLS_RECORD})), "zero width"),
    "records of nulls in a union": (record_of(("f", {"type": "array", "items": ["null", NULLS_RECORD]})), "zero width"),
    "array of empty errors": (
        record_of(("f", {"type": "array", "items": EMPTY_RECORD | {"type": "error"}})),
        "zero width",
    ),
    "a field whose name is a list": (
        '{"type": "record", "name": "R", "fields": [{"name": ["f"], "type": "long"}]}',
        "not",
    ),
    "array of fixed 0": (record_of(("f", {"type": "array", "items": EMPTY_FIXED})), "zero width"),
    "array of fixed -1": (record_of(("f", {"type": "array", "items": NEGATIVE_FIXED})), "from 0 to 1,000,000"),
    "fixed -1": (record_of(("f", ["null", NEGATIVE_FIXED])), "from 0 to 1,000,000"),
    "fixed beyond any record": (record_of(("f", NEGATIVE_FIXED | {"size": 10**400})), "from 0 to 1,000,000"),
    "decimal beyond any record": (record_of(("f", S_FIXED | {"size": 10**400})), "from 0 to 1,000,000"),
    "fixed of a size that is no number": (record_of(("f", NEGATIVE_FIXED | {"size": "1"})), "not"),
    "too deep": (nested(MAX_SCHEMA_DEPTH + 1), "deeper than 32"),
    "far too deep": (nested(250), "deeper than 32"),
    "too many types": (record_of(*((f"f{n}", "long") for n in range(MAX_SCHEMA_NODES))), "more than 5,000"),
    "too many types once unfolded": (bomb(14), "more than 5,000"),
}


@pytest.mark.parametrize(("text", "detail"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_a_schema_that_cannot_or_must_not_be_used_is_refused(text, detail):
    """What is no schema, or would let a few bytes crash or stall the process, is refused before it reads a byte."""
    with pytest.raises(DecodeError) as caught:
        WriterSchema(text)
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)
    assert detail in caught.value.detail


GOOD_SCHEMAS = {
    "as deep as allowed": nested(MAX_SCHEMA_DEPTH),
    "as many types as allowed": record_of(*((f"f{n}", "long") for n in range(MAX_SCHEMA_NODES - 1))),
    "as long as allowed": record_of(doc="x" * (MAX_SCHEMA_CHARACTERS - len(record_of(doc="")))),
    "zero width outside of arrays": record_of(("f", "null"), ("e", EMPTY_RECORD), ("x", EMPTY_FIXED)),
    "a union of nothing": record_of(("f", []), ("g", {"type": "array", "items": []})),
    "array of a union with null": record_of(("f", {"type": "array", "items": ["null", EMPTY_RECORD, "long"]})),
    "an error in a record": record_of(("f", EMPTY_RECORD | {"type": "error"})),
    "a record used twice": record_of(("f", NULLS_RECORD), ("g", "Nulls")),
}


@pytest.mark.parametrize("text", GOOD_SCHEMAS.values(), ids=GOOD_SCHEMAS)
def test_an_unusual_schema_that_does_no_harm_is_used(text):
    """The guard refuses no more than it must."""
    assert len(text) <= MAX_SCHEMA_CHARACTERS
    assert WriterSchema(text).definition == json.loads(text)


# ---- memory ----


def boxes(depth):
    """A record in a record in a record, with one byte in the innermost."""
    kind: object = "boolean"
    for level in range(depth):
        kind = {"type": "record", "name": f"B{level}", "fields": [{"name": "x", "type": kind}]}
    return kind


GREEDY = {
    "list of small records": (boxes(1), b"\x01"),
    "list of nested records": (boxes(28), b"\x01"),
    "list of lists": ({"type": "array", "items": "long"}, b"\x00"),
    "list of maps": ({"type": "map", "values": "string"}, b"\x00"),
    "list of empty records": (["null", EMPTY_RECORD], b"\x02"),
    "list of numbers that are not shared": ("long", varint(-40)),
    "list of short texts": ("string", b"\x04\xc3\xbc"),
    "list of records with many fields": (
        {"type": "record", "name": "W", "fields": [{"name": f"f{n}", "type": "boolean"} for n in range(11)]},
        b"\x00" * 11,
    ),
}


@pytest.mark.parametrize(("item", "body"), GREEDY.values(), ids=GREEDY)
def test_a_few_bytes_do_not_ask_for_much_memory(item, body):
    """The longest record that is read takes up less than 64 MB, itself included, and one byte more is refused."""
    schema = WriterSchema(record_of(("list", {"type": "array", "items": item})))
    limit = min(schema._max_bytes, MAX_VALUE_BYTES - 1)
    count = (limit - 12) // len(body)
    payload = varint(count) + body * count + b"\x00"
    tracemalloc.start()
    fields: Any = schema.read(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fields["list"]) == count
    assert peak + len(payload) < 64_000_000
    with pytest.raises(DecodeError, match="too much memory"):
        schema.read(bytes(schema._max_bytes + 1))


def test_a_map_of_many_entries_takes_up_no_more_than_reckoned():
    """Its keys are distinct, and as short as so many can be."""
    schema = WriterSchema(record_of(("map", {"type": "map", "values": "string"})))
    entries = [b"\x06" + chr(number).encode() + b"\x00" for number in range(0x800, 0xD800)]
    payload = varint(len(entries)) + b"".join(entries) + b"\x00"
    tracemalloc.start()
    fields: Any = schema.read(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fields["map"]) == len(entries)
    assert peak < MAX_MEMORY_BYTES * len(payload) / schema._max_bytes


def test_the_usual_schemas_are_read_up_to_the_usual_limit():
    """What memory could be asked for restricts no schema of change events."""
    debezium = WriterSchema((AVRO / "debezium_mysql_customers_envelope.avsc").read_text())
    assert debezium._max_bytes >= MAX_VALUE_BYTES
    assert NATIVE_WRITER._max_bytes >= MAX_VALUE_BYTES


def test_a_record_that_must_be_read_strictly_may_not_hold_too_many_numbers():
    """Reading in Python takes a microsecond for each; a record of honest size has far fewer."""
    schema = WriterSchema(record_of(("list", {"type": "array", "items": "long"}), ("text", "string")))
    text = "張偉明".encode()

    def payload(count):
        return varint(count) + b"\x02" * count + b"\x00" + varint(len(text)) + text

    assert schema.read(payload(90_000))["list"] == [1] * 90_000
    with pytest.raises(DecodeError, match="OverflowError"):
        schema.read(payload(100_000))


def test_memory_running_out_is_not_blamed_on_the_record(monkeypatch):
    """A record that was not read for want of memory is good: rejecting it would lose it."""

    def exhausted(*_):
        raise MemoryError

    schema = WriterSchema(NATIVE)
    monkeypatch.setattr("consumer.core.avro.schemaless_reader", exhausted)
    with pytest.raises(MemoryError):
        schema.read(native_payload())


# ---- anything at all ----


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_random_bytes_are_read_or_refused(payload):
    """No bytes raise anything but a `DecodeError`."""
    for schema in (NATIVE_WRITER, ALL_TYPES_WRITER):
        try:
            schema.read(payload)
        except DecodeError as error:
            assert error.reasons == (Reason.NOT_DECODABLE,)  # noqa: PT017  # raising is not a must


@given(NATIVE_FIELDS, st.data())
@settings(max_examples=500)
def test_damaged_bytes_are_read_or_refused(fields, data):
    """A valid record with bytes changed, lost or put in has a result all the same."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, NATIVE_PARSED, fields)
    value = framed(stream.getvalue())
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(start + 3, len(value))))
    damaged = value[:start] + data.draw(st.binary(max_size=3)) + value[end:]
    decoded = decode([polled(damaged)], {7: read_native})
    assert len(decoded.results) == 1 or decoded.missing != 7
    assert all(isinstance(result, ChangeEvent | DecodeError) for result in decoded.results)
    assert not any(isinstance(result, ReaderFailed) for result in decoded.results)


def test_an_unknown_schema_may_be_one_that_headers_name():
    """The first bytes of a bare value are taken for an id then, which nobody knows."""
    record = captured("bare, with headers of Apicurio")
    refused = DecodeError((Reason.SCHEMA_UNKNOWN,), "schema id is unknown")
    apicurio = form("", Framing.APICURIO, KeyFormat.AVRO)
    (name, _), (by_headers, _) = CONFLUENT(record), apicurio(record)
    (result,), _ = decode([record], {name: refused})
    assert isinstance(result, DecodeError)
    assert result.reasons == (Reason.SCHEMA_UNKNOWN,)
    told = "schema id is unknown; the record has headers apicurio.value.…: SOURCE_FRAMING=apicurio"
    assert result.detail == told
    assert decode([replace(record, headers=[])], {name: refused}).results == [refused]
    other = DecodeError((Reason.NOT_DECODABLE,), "the schema cannot be used")
    assert decode([record], {name: other}).results == [other]
    assert decoded_by([record], {by_headers: refused}, apicurio).results == [refused]
