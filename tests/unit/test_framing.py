import json
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given, strategies as st

from consumer.core.avro import WriterSchema
from consumer.core.framing import JSON, MAX_VALUE_BYTES, TEXT, KeySchema, form
from consumer.errors import DecodeError
from consumer.formats import Framing, KeyFormat, SchemaKind, SchemaName
from consumer.model import Reason, Record

DATA = Path(__file__).parents[1] / "data"
VECTORS: dict[str, dict[str, Any]] = {
    vector["id"]: vector for vector in json.loads((DATA / "wire_formats.json").read_text())["vectors"]
}
SCHEMAS = {
    "debezium/mysql_customers_envelope_2.1.avsc": "debezium_mysql_customers_envelope.avsc",
    "wire/single-object/test_schema.avsc": "single_object_test_message.avsc",
}
"""Where the schemas are to which the vectors refer."""

TOPIC = "crm.contacts.changes"
GUID = "6f1c0a0e-3c1b-4f5e-9f43-0c1d2e3f4a5b"

FRAMING_OF = {
    "confluent-v0": Framing.CONFLUENT,
    "confluent-header-guid": Framing.CONFLUENT_HEADER,
    "confluent-header-id-v0": Framing.CONFLUENT_HEADER,
    "confluent-prefix-guid": Framing.CONFLUENT,
    "confluent-both": Framing.CONFLUENT_HEADER,
    "apicurio-v3-4byte": Framing.APICURIO,
    "apicurio-v2-8byte": Framing.APICURIO_8_BYTE,
    "apicurio-header-globalId": Framing.APICURIO,
    "apicurio-header-contentId": Framing.APICURIO,
    "glue-plain": Framing.GLUE,
    "glue-zlib": Framing.GLUE,
    "single-object-apache": Framing.SINGLE_OBJECT,
    "single-object-dbz": Framing.SINGLE_OBJECT,
    "azure-content-type": Framing.AZURE,
    "azure-old-preamble": Framing.AZURE,
    "cloudevents-binary": Framing.CLOUDEVENTS,
    "bare-avro": Framing.BARE,
    "bad-glue-short": Framing.GLUE,
    "bad-glue-compression": Framing.GLUE,
    "bad-single-object-version": Framing.SINGLE_OBJECT,
    "bad-header-length": Framing.CONFLUENT_HEADER,
    "bad-header-magic": Framing.CONFLUENT_HEADER,
}
"""The framing of a topic that has such values; Confluent's for all others."""

NOT_TOLD_APART = {
    "apicurio-v3-4byte": "Confluent's, byte for byte",
    "bare-avro": "Confluent's, with an id that no registry has",
}
"""Good vectors that `auto` takes for something else."""

JSON_VECTORS = {"json-text", "json-schema-payload"}
"""Malformed for whoever reads Avro alone, and what a topic of JSON is made of."""

GOOD = [name for name, vector in VECTORS.items() if vector["valid"] and vector["value_hex"] is not None]
BAD = [name for name, vector in VECTORS.items() if not vector["valid"]]


def split(value, framing=Framing.AUTO, headers=(), key=b"c-1", key_format=KeyFormat.STRING):
    """What a record must be read with, and the bytes to read."""
    return form(TOPIC, framing, key_format)(Record(TOPIC, 0, 0, 0, key, value, headers))


def split_vector(name, framing):
    """The same for a vector."""
    vector = VECTORS[name]
    headers = [(header["key"], bytes.fromhex(header["value_hex"])) for header in vector["headers"]]
    return split(bytes.fromhex(vector["value_hex"]), framing, headers)


def reference_of(name):
    """What a vector says that its schema is called."""
    told = VECTORS[name]["schema_ref"]
    if told is None:
        return SchemaName(SchemaKind.TOPIC, TOPIC)
    ((kind, value),) = told.items()
    if kind == "id":
        return value if isinstance(value, int) else SchemaName(SchemaKind.AZURE, value)
    kinds = {"schemaVersionId": SchemaKind.GLUE, "crc64avro_le_hex": SchemaKind.FINGERPRINT}
    return SchemaName(kinds.get(kind) or SchemaKind(kind), str(value))


def schema_of(name):
    """The schema of a vector; of a malformed one that which it would have."""
    file = SCHEMAS[VECTORS[name]["schema_file"] or VECTORS["confluent-v0"]["schema_file"]]
    return WriterSchema((DATA / "avro" / file).read_text())


def refusal(value, framing=Framing.AUTO, headers=(), **key):
    """The error of a record that cannot be split."""
    with pytest.raises(DecodeError) as caught:
        split(value, framing, headers, **key)
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)
    assert caught.value.__context__ is None
    return caught.value.detail


# ---- the vectors ----


@pytest.mark.parametrize("name", GOOD)
def test_a_good_vector_is_read_in_its_framing(name):
    """The schema has the name that the vector gives it, the body is the vector's, and it can be read."""
    reference, body = split_vector(name, FRAMING_OF[name])
    assert reference == reference_of(name)
    assert body == bytes.fromhex(VECTORS[name]["avro_payload_hex"])
    assert schema_of(name).read(body)


@pytest.mark.parametrize("name", [name for name in GOOD if name not in NOT_TOLD_APART])
def test_a_good_vector_is_told_by_its_looks(name):
    """`auto` finds the same, but for what looks like something else."""
    assert split_vector(name, Framing.AUTO) == split_vector(name, FRAMING_OF[name])


def test_what_looks_alike_is_taken_for_confluents():
    """Nothing can tell these apart, so their topics must be told."""
    value = bytes.fromhex(VECTORS["apicurio-v3-4byte"]["value_hex"])
    assert split(value) == (6, value[5:])
    value = bytes.fromhex(VECTORS["bare-avro"]["value_hex"])
    assert split(value) == (0x02D20F0A, value[5:])


@pytest.mark.parametrize("framing", [None, Framing.AUTO], ids=["its framing", "auto"])
@pytest.mark.parametrize("name", [name for name in BAD if name not in JSON_VECTORS | {"protobuf-confluent"}])
def test_a_malformed_vector_is_refused(name, framing):
    """By its frame, or by the schema that it would have."""
    with pytest.raises(DecodeError):
        schema_of(name).read(split_vector(name, framing or FRAMING_OF.get(name, Framing.CONFLUENT))[1])


@pytest.mark.parametrize("name", sorted(JSON_VECTORS))
def test_json_is_refused_where_avro_is_expected(name):
    """It is read where the topic's framing is JSON, and where nobody said what it is."""
    for framing in set(Framing) - {Framing.JSON, Framing.AUTO, Framing.BARE, Framing.CLOUDEVENTS}:
        with pytest.raises(DecodeError):
            split_vector(name, framing)
    assert split_vector(name, Framing.JSON)[0] is split_vector(name, Framing.AUTO)[0] is JSON


def test_protobuf_in_confluents_framing_is_told_by_the_registry_alone():
    """Its frame is Confluent's: the id is asked for, and the registry says that its schema is not Avro."""
    assert split_vector("protobuf-confluent", Framing.CONFLUENT) == (7, b"\x00\x08\x01")


# ---- one by one ----


@pytest.mark.parametrize("framing", [each for each in Framing if each not in {Framing.BARE, Framing.JSON}])
def test_an_empty_or_short_value_is_refused(framing):
    """Empty is not null, and what ends within the frame names no schema."""
    assert "empty, which is not a tombstone" in refusal(b"", framing)
    for first in (b"\x00", b"\x01", b"\x03\x00", b"\xc3\x01"):
        with pytest.raises(DecodeError):
            split(first, framing)


@pytest.mark.parametrize("framing", Framing)
def test_a_value_of_a_megabyte_is_refused_unread(framing):
    """Whatever its framing."""
    assert "1,000,000 bytes" in refusal(b"{".ljust(MAX_VALUE_BYTES), framing)


def test_an_id_has_its_highest_byte_first():
    """Up to the highest that a registry can give."""
    assert split(b"\x00\x7f\xff\xff\xff\x09", Framing.CONFLUENT) == (2**31 - 1, b"\x09")
    long = SchemaName(SchemaKind.GLOBAL_ID, str(2**63 - 1))
    assert split(b"\x00\x7f" + b"\xff" * 7 + b"\x09", Framing.APICURIO_8_BYTE) == (long, b"\x09")


@pytest.mark.parametrize("framing", [Framing.CONFLUENT, Framing.APICURIO, Framing.APICURIO_8_BYTE, Framing.AUTO])
@pytest.mark.parametrize("first", [b"\x80", b"\xff"])
def test_a_negative_id_is_refused(framing, first):
    """No registry gives one. Asked for it, some answer as if there was no such path: junk would wait for ever."""
    assert "negative" in refusal(b"\x00" + first + bytes(10), framing)
    assert split(None, framing, key=b"\x00" + first + bytes(10), key_format=KeyFormat.AUTO)[0] == KeySchema(TEXT)


@pytest.mark.parametrize(
    ("framing", "header", "raw"),
    [
        (Framing.CONFLUENT_HEADER, "__value_schema_id", b"\x00\xff\xff\xff\xff"),
        (Framing.APICURIO, "apicurio.value.globalId", b"\x80" + bytes(7)),
        (Framing.APICURIO, "apicurio.value.contentId", b"\xff" * 8),
    ],
)
def test_a_negative_id_in_a_header_is_refused(framing, header, raw):
    """As in the value."""
    for each in (framing, Framing.AUTO):
        assert f"the {header} has a negative" in refusal(b"x", each, [(header, raw)])


def test_without_its_header_confluents_prefix_is_read():
    """As Confluent's own deserialiser does, while producers change over."""
    assert split(b"\x00\x00\x00\x00\x07x", Framing.CONFLUENT_HEADER) == (7, b"x")


def test_the_last_of_several_headers_counts():
    """As for the serialisers that set them; a header without a value is none."""
    headers = [("__value_schema_id", b"\0\0\0\0\1"), ("__value_schema_id", b"\0\0\0\0\2"), ("other", None)]
    assert split(b"x", Framing.CONFLUENT_HEADER, headers) == (2, b"x")
    assert split(b"\0\0\0\0\7x", Framing.CONFLUENT_HEADER, [("__value_schema_id", None)]) == (7, b"x")


def test_apicurio_may_name_a_schema_by_the_hash_of_its_content():
    """In hexadecimal digits."""
    name = SchemaName(SchemaKind.CONTENT_HASH, "ab" * 32)
    assert split(b"x", Framing.APICURIO, [("apicurio.value.contentHash", b"AB" * 32)]) == (name, b"x")
    assert "SHA-256" in refusal(b"x", Framing.APICURIO, [("apicurio.value.contentHash", b"AB" * 31)])


@pytest.mark.parametrize("framing", [Framing.APICURIO, Framing.APICURIO_8_BYTE, Framing.AUTO])
def test_apicurios_headers_may_refuse_the_record(framing):
    """An id of another size is none, and Avro's JSON encoding is not read."""
    assert "has 4 bytes, an id has 8" in refusal(b"x", framing, [("apicurio.value.globalId", b"\0\0\0\6")])
    headers = [("apicurio.value.globalId", bytes(7) + b"\6"), ("apicurio.value.encoding", b"JSON")]
    assert "binary encoding" in refusal(b"{}", framing, headers)


OTHERS = sorted(
    set(Framing)
    - {Framing.APICURIO, Framing.APICURIO_8_BYTE, Framing.AUTO, Framing.CLOUDEVENTS, Framing.BARE, Framing.JSON}
)


@pytest.mark.parametrize("framing", OTHERS)
def test_headers_of_apicurio_that_a_framing_leaves_out_are_told(framing):
    """Its converter writes them by default, also where it is told to write as Confluent's does."""
    told = "; the record has headers apicurio.value.…: SOURCE_FRAMING=apicurio"
    assert refusal(b"\xff", framing, [("apicurio.value.globalId", bytes(7) + b"\6")]).endswith(told)
    assert "apicurio.value" not in refusal(b"\xff", framing)


@pytest.mark.parametrize("framing", [Framing.APICURIO, Framing.APICURIO_8_BYTE, Framing.AUTO])
def test_headers_that_are_looked_at_are_no_remedy(framing):
    """Something else is wrong then."""
    assert "SOURCE_FRAMING" not in refusal(b"\xff", framing, [("apicurio.value.globalId", b"\6")])


def glue(body, compression=5):
    """A value of AWS Glue."""
    return bytes([3, compression]) + UUID(GUID).bytes + body


def test_glue_inflates_up_to_the_limit():
    """A bomb is let off no further than any other value may be large."""
    name = SchemaName(SchemaKind.GLUE, GUID)
    largest = b"x" * (MAX_VALUE_BYTES - 1)
    assert split(glue(zlib.compress(largest)), Framing.GLUE) == (name, largest)
    for size in (MAX_VALUE_BYTES, MAX_VALUE_BYTES * 50):
        assert "limit" in refusal(glue(zlib.compress(b"x" * size)), Framing.GLUE)


@pytest.mark.parametrize(
    "body",
    [b"", b"junk", zlib.compress(b"body")[:-1], zlib.compress(b"body") + b"x"],
    ids=["nothing", "no zlib", "cut", "more behind it"],
)
def test_glue_refuses_what_is_not_compressed_as_a_whole(body):
    """A body that is cut, or followed by something, is not what was written."""
    assert "compressed" in refusal(glue(body), Framing.GLUE)


def test_azure_refuses_what_has_no_id():
    """In any other content type, or none."""
    for headers in ([], [("content-type", b"avro/binary")], [("content-type", b"\xff")]):
        assert "schema id of Azure" in refusal(b"\0\0\0\0\7x", Framing.AZURE, headers)


def test_a_container_file_is_refused():
    """It holds a file of records, not one."""
    assert "none of the framings" in refusal(b"Obj\x01" + bytes(20))


def test_an_id_of_zero_is_how_a_long_id_begins():
    """No registry gives the id 0. So `auto` reads eight bytes."""
    assert split(bytes(8) + b"\x06x") == (SchemaName(SchemaKind.GLOBAL_ID, "6"), b"x")
    assert split(b"\0\0\0\0\6x") == (6, b"x")


# ---- CloudEvents ----

CLOUD_EVENT = [("ce_specversion", b"1.0"), ("ce_type", b"contact.deleted")]


@pytest.mark.parametrize("framing", Framing)
@pytest.mark.parametrize("type_", [b"contact.deleted", b"com.acme.contact.viewed", None])
def test_a_cloud_event_without_data_is_no_tombstone(framing, type_):
    """It would delete a contact that an event only says something of; which types delete, nobody has told."""
    headers = [CLOUD_EVENT[0], ("ce_type", type_)]
    assert "CloudEvent has no data" in refusal(None, framing, headers)


@pytest.mark.parametrize("framing", Framing)
def test_a_null_of_no_cloud_event_is_a_tombstone(framing):
    """Whatever its other headers are."""
    for headers in ([], [("content-type", b"application/json"), ("traceparent", b"00-1-2-01")]):
        assert split(None, framing, headers) == (KeySchema(TEXT), b"c-1")


def test_a_cloud_event_has_its_data_in_any_framing():
    """The value is the data; what is not in binary mode is refused."""
    assert split(b"\0\0\0\0\6x", Framing.CLOUDEVENTS, CLOUD_EVENT) == (6, b"x")
    assert split(b'{"a": 1}', Framing.CLOUDEVENTS, CLOUD_EVENT)[0] is JSON
    assert "ce_specversion" in refusal(b'{"specversion": "1.0"}', Framing.CLOUDEVENTS)


# ---- keys ----


def key_of(key, key_format, framing=Framing.CONFLUENT, headers=()):
    """What the key of a tombstone must be read with, and the bytes to read."""
    schema, body = split(None, framing, headers, key, key_format)
    assert isinstance(schema, KeySchema)
    return schema.schema, body


@pytest.mark.parametrize(
    ("framing", "key", "headers", "expected"),
    [
        (Framing.CONFLUENT, b"\0\0\0\0\7x", (), (7, b"x")),
        (Framing.CONFLUENT_HEADER, b"x", [("__key_schema_id", b"\0\0\0\0\7")], (7, b"x")),
        (Framing.APICURIO, b"\0\0\0\0\7x", (), (SchemaName(SchemaKind.CONTENT_ID, "7"), b"x")),
        (
            Framing.APICURIO,
            b"x",
            [("apicurio.key.globalId", bytes(7) + b"\7"), ("apicurio.value.globalId", bytes(7) + b"\6")],
            (SchemaName(SchemaKind.GLOBAL_ID, "7"), b"x"),
        ),
        (Framing.GLUE, glue(b"x", 0), (), (SchemaName(SchemaKind.GLUE, GUID), b"x")),
        (Framing.JSON, b"\0\0\0\0\7x", (), (7, b"x")),
        (Framing.BARE, b"\0\0\0\0\7x", (), (7, b"x")),
    ],
)
def test_a_key_in_avro_is_in_the_framing_of_its_topic(framing, key, headers, expected):
    """With the headers of keys, not of values; where the framing has none for keys, it is told by its looks."""
    assert key_of(key, KeyFormat.AVRO, framing, headers) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"c-1", TEXT),
        (b"0000-17", TEXT),
        (b"\0\0\0\0\7\x06c-1", 7),
        (b'{"id": 1001}', JSON),
        (b'"c-1"', JSON),
        (b"{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", TEXT),
        (b'"Zo\xc3\xab', TEXT),
        (b"[1]", TEXT),
        (b"1.50", TEXT),
        (b"\xc3\x9c-1", TEXT),
    ],
)
def test_a_key_is_told_by_its_looks(key, expected):
    """Where the key's format is `auto`: framed, else JSON, else text, also text that begins like something else."""
    assert key_of(key, KeyFormat.AUTO)[0] == expected


@pytest.mark.parametrize("key_format", KeyFormat)
@pytest.mark.parametrize("key", [None, b""])
def test_no_key_is_an_empty_text(key_format, key):
    """It names nobody, which is for validation to say."""
    assert key_of(key, key_format) == (TEXT, b"")


def test_a_key_that_is_not_framed_is_refused():
    """Where keys are in Avro."""
    assert "the key does not begin" in refusal(None, Framing.CONFLUENT, key=b"c-1", key_format=KeyFormat.AVRO)


# ---- anything at all ----

HEADER_NAMES = [
    "__value_schema_id",
    "__key_schema_id",
    "apicurio.value.globalId",
    "apicurio.value.contentId",
    "apicurio.value.contentHash",
    "apicurio.value.encoding",
    "content-type",
    "ce_specversion",
    "",
]


@given(
    st.none() | st.binary(max_size=60),
    st.none() | st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from(HEADER_NAMES), st.none() | st.binary(max_size=40)), max_size=3),
    st.sampled_from(Framing),
    st.sampled_from(KeyFormat),
)
def test_any_record_is_split_or_refused(value, key, headers, framing, key_format):
    """Nothing but a `DecodeError` comes out, and no more bytes than went in where nothing is compressed."""
    try:
        _, body = split(value, framing, headers, key, key_format)
    except DecodeError as error:
        assert error.detail  # noqa: PT017  # raising is not a must
    else:
        assert isinstance(body, bytes)


def test_the_fingerprint_of_the_vectors_is_fastavros():
    """In the order of bytes in which it is on the wire."""
    text = (DATA / "avro" / "single_object_test_message.avsc").read_text()
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(text))
    assert fastavro.schema.fingerprint(canonical, "CRC-64-AVRO") == reference_of("single-object-apache").value
