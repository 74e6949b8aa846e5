import io
import json

import fastavro
import pytest
from msgspec.structs import replace

from consumer.core import keys
from consumer.core.decode import ByKey, Decoded, Reader, ReaderName, decode, named_by_key, reader_names
from consumer.core.framing import JSON, TEXT, KeySchema, form
from consumer.errors import DecodeError, OtherColumns
from consumer.formats import Framing, KeyFormat
from consumer.model import ChangeType, Reason, Record
from consumer.pipeline.readers import reader, without_registry
from tests.envelopes import MAPPING, TEXT_KEYS, TOPIC, envelopes

TIME = 1_700_000_000_000


def tombstone(key):
    """A record that deletes whom its key names."""
    return Record("crm.contacts.changes", 0, 0, TIME, key, None)


def written(schema, value):
    """An Avro body."""
    fastavro.schemaless_writer(stream := io.BytesIO(), fastavro.parse_schema(schema), value)
    return stream.getvalue()


ID_RECORD = {"type": "record", "name": "shop.customers.Key", "fields": [{"name": "id", "type": "long"}]}
TWO_FIELDS = {
    "type": "record",
    "name": "Key",
    "fields": [{"name": "tenant", "type": "string"}, {"name": "id", "type": "string"}],
}

AVRO_KEYS = {
    "string": ("string", "c-1", "c-1"),
    "long": ("long", 1001, "1001"),
    "string in a union": (["null", "string"], "c-1", "c-1"),
    "record of one field": (ID_RECORD, {"id": 1001}, "1001"),
}


@pytest.mark.parametrize(("schema", "value", "external_id"), AVRO_KEYS.values(), ids=AVRO_KEYS)
def test_a_key_in_avro_names_the_contact(schema, value, external_id):
    """A primitive, or a record that holds one and nothing else, as a table's primary key does."""
    body = written(schema, value)
    event = keys.avro_reader(json.dumps(schema))(body, tombstone(body))
    assert (event.change_type, event.external_id, event.occurred_at) == (ChangeType.DELETE, external_id, TIME)


@pytest.mark.parametrize(
    ("schema", "value"),
    [(TWO_FIELDS, {"tenant": "a", "id": "c-1"}), ("boolean", True), ("double", 1.0), (["null", "string"], None)],
    ids=["two fields", "boolean", "double", "null"],
)
def test_a_key_that_names_nobody_for_sure_is_refused(schema, value):
    """A guess would delete somebody else."""
    body = written(schema, value)
    with pytest.raises(DecodeError, match="neither text nor a number") as caught:
        keys.avro_reader(json.dumps(schema))(body, tombstone(body))
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)


@pytest.mark.parametrize("text", ["{", '{"type": "record", "name": "K", "fields": [{"name": "f", "type": "K"}]}'])
def test_the_guard_stands_before_keys_too(text):
    """What is no schema, or a recursive one, reads nothing."""
    with pytest.raises(DecodeError):
        keys.avro_reader(text)


def test_no_schema_of_keys_stops_the_program():
    """Of so many brackets some can be read and not be written: each of these is an error, and none is raised."""
    envelope = envelopes("native").of_topic(TOPIC)
    for depth in range(600, 1_000):
        made = reader(KeySchema(7), "[" * depth + "]" * depth, envelope)
        assert isinstance(made, DecodeError)
        assert made.reasons == (Reason.NOT_DECODABLE,)


@pytest.mark.parametrize(
    ("key", "external_id"),
    [
        (b'"c-1"', "c-1"),
        (b"1001", "1001"),
        (b'{"id": 1001}', "1001"),
        (b'{"schema": {"type": "string"}, "payload": "c-1"}', "c-1"),
        (b'{"schema": {"type": "struct"}, "payload": {"id": "c-1"}}', "c-1"),
    ],
)
def test_a_key_in_json_names_the_contact(key, external_id):
    """Also in the envelope of Kafka Connect."""
    assert keys.read_json(key, tombstone(key)).external_id == external_id


@pytest.mark.parametrize(
    "key", [b"c-1", b"true", b"null", b"1.5", b"[1]", b"{}", b'{"a": 1, "b": 2}', b'{"a": {"b": 1}}']
)
def test_a_bad_key_in_json_is_refused(key):
    """With an error that quotes nothing of it."""
    with pytest.raises(DecodeError) as caught:
        keys.read_json(key, tombstone(key))
    assert caught.value.__context__ is None
    assert "c-1" not in caught.value.detail


_DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "0"}}


@pytest.mark.parametrize("kind", [{"type": "bytes"}, _DECIMAL, _DECIMAL | {"optional": True}])
@pytest.mark.parametrize(
    "wrap", [lambda kind: kind, lambda kind: {"type": "struct", "fields": [kind | {"field": "id"}]}]
)
def test_bytes_in_json_are_no_external_id(kind, wrap):
    """Rows read the number or the text that they stand for: the delete of their base64 would delete nobody."""
    schema = wrap(kind)
    payload = {"id": "Kg=="} if "fields" in schema else "Kg=="
    key = json.dumps({"schema": schema, "payload": payload}).encode()
    with pytest.raises(DecodeError, match="is bytes or a decimal"):
        keys.read_json(key, tombstone(key))


def test_a_decimal_that_json_has_as_a_number_is_that():
    """As Kafka Connect writes it with `decimal.format=numeric`."""
    key = json.dumps({"schema": _DECIMAL, "payload": 42}).encode()
    assert keys.read_json(key, tombstone(key)).external_id == "42"


def test_a_key_has_a_reader_of_its_own():
    """The schema of a key is missing as one of a key: the id may be that of a value as well."""
    split = form("crm.contacts.changes", Framing.CONFLUENT, KeyFormat.AVRO)
    body = written(ID_RECORD, {"id": 1001})
    records = [tombstone(b"\0\0\0\0\7" + body), tombstone(None)]
    assert reader_names(records, split) == {KeySchema(7), KeySchema(TEXT)}
    assert decode(records, {7: DecodeError((Reason.NOT_DECODABLE,))}, split) == Decoded([], KeySchema(7))
    decoded = decode(records, {KeySchema(7): keys.avro_reader(json.dumps(ID_RECORD)), **TEXT_KEYS}, split)
    assert [getattr(event, "external_id", event) for event in decoded.results] == ["1001", None]


def test_the_key_of_a_record_with_a_value_is_read_where_it_may_be_needed():
    """Its schema is missing like any other; what names nobody stays as it is."""
    split = form("crm.contacts.changes", Framing.JSON, KeyFormat.AVRO)
    record = Record("crm.contacts.changes", 0, 0, TIME, b"\0\0\0\0\7" + written(ID_RECORD, {"id": 1001}), b"{}")
    seen: list[bytes | None] = []

    def read(_: bytes, told: Record) -> tuple[()]:
        seen.append(told.key)
        return ()

    readers: dict[ReaderName, Reader | DecodeError] = {JSON: ByKey(read), **TEXT_KEYS}
    assert decode([record], readers, split) == Decoded([], KeySchema(7))
    readers[KeySchema(7)] = keys.avro_reader(json.dumps(ID_RECORD))
    assert decode([record, replace(record, key=b"x"), replace(record, key=None)], readers, split).results == [()] * 3
    assert seen == [b"1001", b"x", None]


@pytest.mark.parametrize(
    ("key_format", "key", "named"),
    [
        (KeyFormat.STRING, b"c-1", "c-1"),
        (KeyFormat.JSON, b'{"id": 1001}', "1001"),
        (KeyFormat.AVRO, b"\0\0\0\0\7" + written(ID_RECORD, {"id": 1001}), "1001"),
        (KeyFormat.AVRO, b"\0\0\0\0\x08" + written(ID_RECORD, {"id": 1001}), None),
        (KeyFormat.AVRO, b"c-1", None),
        (KeyFormat.STRING, b" ", None),
        (KeyFormat.STRING, None, None),
    ],
)
def test_a_record_whose_value_is_junk_may_still_be_named_by_its_key(key_format, key, named):
    """In any format of keys; one whose schema is not known names nobody."""
    split = form("crm.contacts.changes", Framing.CONFLUENT, key_format)
    record = Record("crm.contacts.changes", 0, 0, TIME, key, b"junk")
    readers = without_registry(envelopes("native", {}).of_topic(TOPIC))
    readers[KeySchema(7)] = keys.avro_reader(json.dumps(ID_RECORD))
    assert named_by_key(record, readers, split) == named


@pytest.mark.parametrize(
    "key",
    [
        b'{"id": 42}',
        b'{"schema": {"type": "struct"}, "payload": {"id": 42}}',
        b'"42"',
        b"[42]",
        b"Struct{id=42}",
        b"{id=42}",
    ],
)
def test_a_record_is_no_text(key):
    """Taken for an external id it would name nobody, and the deletion be lost."""
    with pytest.raises(DecodeError, match="SOURCE_KEY"):
        keys.read_text(key, tombstone(key))


@pytest.mark.parametrize("key", [b"42", b"{42", b"{4F2A-11}", b'"c-1', b"[x]", b"c-1", b"a=b"])
def test_what_is_no_json_is_text(key):
    """Also a number, which is the same in both."""
    assert keys.read_text(key, tombstone(key)).external_id == key.decode()


@pytest.mark.parametrize(
    ("external_id", "refused"), [("customer_no", True), ("id", False), ("nested.id", False), ("_id", False)]
)
def test_a_key_names_the_contact_by_the_field_that_is_mapped(external_id, refused):
    """A primary key that is another column would delete somebody else; MongoDB's `_id` is `id` in keys."""
    envelope = envelopes("flattened", {**MAPPING, "external_id": external_id}).of_topic(TOPIC)
    body = written(ID_RECORD, {"id": 42})
    in_avro = reader(KeySchema(7), json.dumps(ID_RECORD), envelope)
    in_json = without_registry(envelope)[KeySchema(JSON)]
    for read, key in ((in_avro, body), (in_json, b'{"id": 42}')):
        assert not isinstance(read, DecodeError)
        (result,) = decode([tombstone(key)], {1: read}, lambda record: (1, record.key or b"")).results
        assert isinstance(result, DecodeError) is refused
        assert refused or getattr(result, "external_id", None) == "42"


@pytest.mark.parametrize(
    ("external_id", "key", "lacks"),
    [("no", b'{"id": 42}', True), ("no", b'{"id": 42, "of": 1}', True), ("id", b'{"id": 42, "of": 1}', False)],
    ids=["another column", "other columns", "one of several"],
)
def test_a_key_without_the_column_of_the_external_id_is_told_apart(external_id, key, lacks):
    """Where that column changes the key stays, so that nothing in the stream tells of the former contact."""
    envelope = envelopes("flattened", {**MAPPING, "external_id": external_id}).of_topic(TOPIC)
    in_json = without_registry(envelope)[KeySchema(JSON)]
    (result,) = decode([tombstone(key)], {1: in_json}, lambda record: (1, record.key or b"")).results
    assert type(result) is (OtherColumns if lacks else DecodeError)


@pytest.mark.parametrize(
    ("document_id", "external_id"),
    [
        ('{"$oid": "596e275826f08b2730779e1f"}', "596e275826f08b2730779e1f"),
        ('{"$numberLong": "1004"}', "1004"),
        ('"c-17"', "c-17"),
        ('"1004"', "1004"),
        ("1004", "1004"),
        ("c-17", "c-17"),
        ('{"$binary": "AQID"}', None),
        ('{"$oid": {"of": "c-17"}}', None),
        ('{"tenant": 1, "no": 2}', None),
        ("true", None),
    ],
)
def test_a_key_of_mongodb_names_the_contact_by_extended_json(document_id, external_id):
    """As a row does: taken as it stands, the text would delete nobody, and the contact be called on."""
    ids = ["_id.$oid", "_id.$numberLong", "_id"]
    envelope = envelopes("debezium", {**MAPPING, "external_id": ids}).of_topic(TOPIC)
    schema = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "string"}]}
    in_avro = reader(KeySchema(7), json.dumps(schema), envelope)
    in_json = without_registry(envelope)[KeySchema(JSON)]
    told = {"id": document_id}
    for read, key in ((in_avro, written(schema, told)), (in_json, json.dumps(told).encode())):
        assert not isinstance(read, DecodeError)
        (result,) = decode([tombstone(key)], {1: read}, lambda record: (1, record.key or b"")).results
        assert getattr(result, "external_id", None) == external_id


@pytest.mark.parametrize("key", [b"{" + b"=" * 1_000_000, b"Struct{" + b"=}" * 500_000 + b"x"])
def test_a_long_key_takes_no_longer_than_its_length(key):
    """One that is nearly what Java writes must not be tried at every place: nothing else goes on meanwhile."""
    assert keys.read_text(key, tombstone(key)).external_id == key.decode()
