"""What is fuzzed: framing, guard, decoder, envelopes, keys. Each target takes any bytes, and may raise nothing.

A `DecodeError` is an answer; any other exception is a find. In one of five thousand inputs a part is repeated up to a
megabyte: few bytes that ask for much are found so.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

from consumer.core import keys
from consumer.core.avro import WriterSchema
from consumer.core.connect_json import JsonReader
from consumer.core.decode import Reader, ReaderName, decode
from consumer.core.envelopes.choice import Envelopes
from consumer.core.framing import MAX_VALUE_BYTES, Form, form
from consumer.errors import DecodeError, ReaderFailed
from consumer.formats import EnvelopeName, Framing, KeyFormat, PerTopic
from consumer.model import Events, Record
from consumer.pipeline.readers import make_reader
from consumer.settings import ready_made_mappings
from tests.fuzz.grammar import Bytes, schema_of

DATA = Path(__file__).parents[1] / "data" / "avro"
NATIVE = (Path(__file__).parents[2] / "schemas" / "crm_contact_change.avsc").read_text()
TOPIC = "t"
REPEATED_OF = 5_000
"""Inputs of which one has a part that is repeated, as its checksum says."""

HEADERS = (
    "__value_schema_id",
    "__key_schema_id",
    "apicurio.value.globalId",
    "apicurio.value.contentId",
    "apicurio.value.contentHash",
    "apicurio.value.encoding",
    "apicurio.key.globalId",
    "content-type",
    "ce_specversion",
)
EVERY_TYPE = {
    "type": "record",
    "name": "Every",
    "fields": [
        {"name": "union", "type": ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 2}},
        {"name": "enum", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "map", "type": {"type": "map", "values": ["null", "E"]}},
        {"name": "list", "type": {"type": "array", "items": {"type": "array", "items": "long"}}},
        {
            "name": "rows",
            "type": {
                "type": "array",
                "items": {"type": "record", "name": "Row", "fields": [{"name": "x", "type": ["null", "F", "Every2"]}]},
            },
        },
    ],
}
EVERY = json.dumps(EVERY_TYPE).replace(
    '"Every2"', '{"type": "record", "name": "Every2", "fields": [{"name": "y", "type": "boolean"}]}'
)

ROW = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "phone", "type": ["null", "string"]},
        {"name": "consent", "type": ["null", "string"]},
        {"name": "dnc", "type": ["null", "boolean"]},
    ],
}
SOURCE = {
    "type": "record",
    "name": "Source",
    "fields": [
        {"name": "ts_ms", "type": "long"},
        {"name": "snapshot", "type": ["null", "string"]},
        {"name": "lsn", "type": ["null", "long"]},
        {"name": "sequence", "type": ["null", "string"]},
    ],
}
DEBEZIUM = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "before", "type": ["null", ROW]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": SOURCE},
        {"name": "op", "type": "string"},
    ],
}
SALESFORCE = json.loads((DATA / "salesforce_contact_change_event.avsc").read_text())
CONSENT = {"name": "Call_Consent__c", "type": ["null", "boolean"]}
"""Salesforce has no such field of its own."""

_FORMS = [form(TOPIC, framing, key_format) for framing in Framing for key_format in KeyFormat]
_ENVELOPES = {
    name: Envelopes.of(PerTopic(name, {}), {}, ready_made_mappings()).of_topic(TOPIC) for name in EnvelopeName
}
_KEYS = keys.avro_reader('["null", "string", "long"]')


class _Readers(dict[ReaderName, Reader | DecodeError]):
    """The native reader for whatever schema a record names."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = make_reader(NATIVE, _ENVELOPES[EnvelopeName.NATIVE])

    def get(self, _: object, __: object = None) -> Reader | DecodeError:
        return self._reader


def _every_type(body: bytes, _: Record) -> Events:
    _EVERY.read(body)
    return ()


def _reader(envelope: EnvelopeName, schema: object) -> Reader:
    made = make_reader(json.dumps(schema), _ENVELOPES[envelope])
    if isinstance(made, DecodeError):
        raise made
    return made


_READERS = _Readers()
_EVERY = WriterSchema(EVERY)
_READERS_OF_BODIES = (
    _every_type,
    _reader(EnvelopeName.DEBEZIUM, DEBEZIUM),
    _reader(EnvelopeName.SALESFORCE, SALESFORCE | {"fields": [*SALESFORCE["fields"], CONSENT]}),
)
_JSON_READERS = [JsonReader(envelope) for envelope in _ENVELOPES.values()]


def framing(data: Bytes) -> None:
    """A whole record, in any framing, through the stage."""
    split = _FORMS[data.byte() % len(_FORMS)]
    headers = [(HEADERS[data.byte() % len(HEADERS)], data.take(data.byte() % 40)) for _ in range(data.byte() % 3)]
    key = data.take(data.byte()) or None
    _decode(split, Record(TOPIC, 0, 0, 0, key, None if data.byte() == 0 else data.rest(), headers))


def native(data: Bytes) -> None:
    """A body of the native change event, framed by Confluent's prefix."""
    _decode(_FORMS[0], Record(TOPIC, 0, 0, 0, b"c", b"\0\0\0\0\1" + data.rest()))


def decoder(data: Bytes) -> None:
    """A body of a schema that has every type, or of those of real sources, by the envelopes that they have."""
    reader = _READERS_OF_BODIES[data.byte() % len(_READERS_OF_BODIES)]
    body = data.rest()
    reader(body, Record(TOPIC, 0, 0, 0, b"c", body))


def grammar(data: Bytes) -> None:
    """A schema that is put together, and a body of it, by an envelope and alone."""
    envelope = _ENVELOPES[[*EnvelopeName][data.byte() % len(EnvelopeName)]]
    text = json.dumps(schema_of(data))
    reader = make_reader(text, envelope)
    body = data.rest()
    if isinstance(reader, DecodeError):
        WriterSchema(text).read(body)
    else:
        reader(body, Record(TOPIC, 0, 0, 0, b"c", body))


def guard(data: Bytes) -> None:
    """Any text as a schema, and a body of it."""
    text = data.take(data.byte() << 4 | data.byte()).decode("utf-8", "replace")
    WriterSchema(text).read(data.rest())


def connect_json(data: Bytes) -> None:
    """JSON, with a schema or without."""
    reader = _JSON_READERS[data.byte() % len(_JSON_READERS)]
    body = data.rest()
    reader(body, Record(TOPIC, 0, 0, 0, b"c", body))


def key(data: Bytes) -> None:
    """A key, in Avro or JSON."""
    read = (_KEYS, keys.read_json, keys.read_text)[data.byte() % 3]
    body = data.rest()
    read(body, Record(TOPIC, 0, 0, 0, body, None))


Target = Callable[[Bytes], None]
TARGETS: dict[str, Target] = {
    target.__name__: target for target in (framing, native, decoder, connect_json, key, grammar, guard)
}


def run(target: Target, data: bytes) -> None:
    """Do what an input asks for.

    Raises:
        Exception: A find.
    """
    try:
        target(Bytes(_repeated(data) if is_repeated(data) else data))
    except DecodeError as error:
        if not error.detail or error.__context__ is not None:
            raise AssertionError("an error without a detail, or one that carries another along") from error


def is_repeated(data: bytes) -> bool:
    """Whether a part of the input is repeated."""
    return zlib.crc32(data) % REPEATED_OF == 0


def _repeated(data: bytes) -> bytes:
    """The input with a part of it repeated: two bytes say which, from where it begins and of which length."""
    if len(data) < 3:  # there is nothing to repeat
        return data
    start = 2 + data[0] % (len(data) - 2)
    part = data[start : start + 1 + data[1] % 16]
    times = (MAX_VALUE_BYTES - 1 - len(data)) // len(part)
    return data[2:start] + part * times + data[start + len(part) :]


def _decode(split: Form, record: Record) -> None:
    (result,) = decode([record], _READERS, split).results
    assert not isinstance(result, ReaderFailed), result.detail
    if isinstance(result, DecodeError):
        raise result
