"""Tells which bytes of a record are its body, and which schema they were written with.

Answers for the wire formats: what each looks like, and that nothing else passes for it. Each topic has one; `auto`
looks at headers and first bytes, and cannot tell apart what is equal byte for byte (Apicurio's four bytes from
Confluent's, a bare body from either). Answers also for what a tombstone is, of which the key is to be read: a record
without a value, or whose value is null in JSON, and that is no CloudEvent. Whoever else asks is told by the change
event. Says nothing of whether the schema exists. Touches nothing else.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from consumer.errors import DecodeError, undecodable
from consumer.formats import Framing, KeyFormat, SchemaKind, SchemaName, SchemaReference
from consumer.model import Headers, Record

MAX_VALUE_BYTES = 1_000_000
"""A record whose value has this many bytes or more, as it came or inflated, is refused unread."""

_IDS = 1_000  # ids of schemas that are remembered: records name the same few again and again
_ID_END = 5
_LONG_ID_END = 9
_GUID_END = 17
_GLUE_END = 18
_GLUE_PLAIN, _GLUE_ZLIB = 0, 5
_SINGLE_OBJECT_END = 10
_AZURE_PREAMBLE = re.compile(rb"\0{4}([0-9a-f]{32})")
_AZURE_CONTENT_TYPE = re.compile(r"avro/binary\+([0-9a-f]{32})", re.IGNORECASE)
_CONTENT_HASH = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_CONTAINER_FILE = b"Obj\x01"
_NULL_PAYLOAD_FIRST = re.compile(rb'\s*\{\s*"payload"\s*:\s*null\s*,')
_NULL_PAYLOAD_LAST = re.compile(rb'"payload"\s*:\s*null\s*\}\s*\Z')
_NULL_PAYLOAD_BYTES = 64
"""How long the end of a value can be that holds the second of these, white space included."""

CLOUD_EVENT: Final = "ce_specversion"
"""Header of every CloudEvent in binary mode."""


class Side(NamedTuple):
    """One side of a record, and the headers that speak of it.

    Attributes:
        name: For error texts.
        confluent: Header that names the schema.
        apicurio: What the names of the headers begin with.
    """

    name: str
    confluent: str
    apicurio: str


VALUE: Final = Side("value", "__value_schema_id", "apicurio.value.")
KEY: Final = Side("key", "__key_schema_id", "apicurio.key.")

_BY_HEADERS = frozenset({SchemaKind.GLOBAL_ID, SchemaKind.CONTENT_ID, SchemaKind.CONTENT_HASH})
"""What Apicurio's headers name a schema by; without them that is done where the framing is Apicurio's."""

_LOOKS_AT_HEADERS = frozenset({Framing.APICURIO, Framing.APICURIO_8_BYTE, Framing.AUTO, Framing.CLOUDEVENTS})

Framed = tuple[SchemaReference, bytes]
"""The schema that a body was written with, and the body."""

Frame = Callable[[bytes, Headers, Side], Framed]
"""Splits what is not empty; raises nothing but `DecodeError`."""


class KeySchema(NamedTuple):
    """Names a schema that a key was written with: it is read in another way than a value."""

    schema: SchemaReference


Form = Callable[[Record], tuple[SchemaReference | KeySchema, bytes]]
"""What a record must be read with, and the bytes to read: of its value, or of the key of a tombstone.

Raises nothing but `DecodeError`.
"""

JSON: Final = SchemaName(SchemaKind.NONE, "json")
"""What JSON names as its schema: it brings its own, or has none."""

TEXT: Final = SchemaName(SchemaKind.NONE, "text")
"""What a key that is plain text names as its schema."""


def form(topic: str, framing: Framing, key_format: KeyFormat) -> Form:
    """How the records of a topic are split."""
    split = _bare(topic) if framing is Framing.BARE else _FRAMES[framing]
    split_key = _key(framing, key_format)

    def split_record(record: Record) -> tuple[SchemaReference | KeySchema, bytes]:
        value = record.value
        if value is None:
            _check_for_data(record)
            return split_key(record)
        if len(value) >= MAX_VALUE_BYTES:
            raise undecodable(f"the value has {len(value):,} bytes, the limit is {MAX_VALUE_BYTES:,}")
        if not value:
            raise undecodable("the value is empty, which is not a tombstone")
        try:
            schema, body = split(value, record.headers, VALUE)
        except DecodeError as error:
            refused = error.with_traceback(None)
        else:
            if schema is JSON and _is_null(body):
                _check_for_data(record)
                return split_key(record)
            return schema, body
        # Not inside the handler: the error would travel along as the context of the other one.
        raise refused if framing in _LOOKS_AT_HEADERS else _of_headers(refused, record.headers)

    return split_record


def unknown(error: DecodeError, name: SchemaReference | KeySchema, record: Record) -> DecodeError:
    """The error of a record whose schema is not known: it may be headers that name it, which the framing leaves out."""
    schema = name.schema if isinstance(name, KeySchema) else name
    is_by_headers = isinstance(schema, SchemaName) and schema.kind in _BY_HEADERS
    return error if is_by_headers else _of_headers(error, record.headers)


def _of_headers(error: DecodeError, headers: Headers) -> DecodeError:
    """The error of a record, with the headers in which Apicurio's converter names schemas, if it has some."""
    names = [side.apicurio for side in (VALUE, KEY) if any(name.startswith(side.apicurio) for name, _ in headers)]
    if not names:
        return error
    told = [error.detail, f"the record has headers {names[0]}…: SOURCE_FRAMING=apicurio"]
    return DecodeError(error.reasons, "; ".join(filter(None, told)))


def _check_for_data(record: Record) -> None:
    """Refuse a CloudEvent without any, in whatever framing its topic has: it may say anything of whom its key names.

    Its type tells what, but in the producer's own words: a guess at which of them delete would delete others too.
    """
    if _header(record.headers, CLOUD_EVENT) is not None:
        raise undecodable(f"the CloudEvent has no data, and is no tombstone for that: those have no {CLOUD_EVENT}")


def _is_null(value: bytes) -> bool:
    """Whether JSON says that there is no value, as Kafka Connect writes a null that has a schema.

    A schema has a few thousand bytes, and each record has one: only what looks like a null is parsed.
    """
    if value.strip() == b"null":
        return True
    end = max(len(value) - _NULL_PAYLOAD_BYTES, 0)
    if _NULL_PAYLOAD_FIRST.match(value) or _NULL_PAYLOAD_LAST.search(value, end):
        with suppress(orjson.JSONDecodeError):
            document = orjson.loads(value)
            return document.keys() == {"schema", "payload"} and document["payload"] is None
    return False


def by_topic(topics: Mapping[str, Form]) -> Form:
    """How the records of several topics are split."""
    return lambda record: topics[record.topic](record)


# -- values


def _confluent(data: bytes, _: Headers, side: Side) -> Framed:
    magic = data[0]
    if magic == 0 and len(data) >= _ID_END:
        return _id(data[1:_ID_END], side.name), data[_ID_END:]
    if magic == 1 and len(data) >= _GUID_END:
        return _guid(SchemaKind.GUID, data[1:_GUID_END]), data[_GUID_END:]
    if magic > 1:
        raise undecodable(f"the {side.name} does not begin with the magic byte 0 or 1 of the Confluent wire format")
    raise _too_short(data, side)


def _confluent_header(data: bytes, headers: Headers, side: Side) -> Framed:
    return _by_confluent_header(data, headers, side) or _confluent(data, headers, side)


def _by_confluent_header(data: bytes, headers: Headers, side: Side) -> Framed | None:
    header = _header(headers, side.confluent)
    if header is None:
        return None
    if len(header) == _GUID_END and header[0] == 1:
        return _guid(SchemaKind.GUID, header[1:]), data
    if len(header) == _ID_END and header[0] == 0:
        return _id(header[1:], side.confluent), data
    raise undecodable(f"the header {side.confluent} is neither 1 with a GUID nor 0 with an id of four bytes")


def _apicurio(data: bytes, headers: Headers, side: Side) -> Framed:
    return _by_apicurio_headers(data, headers, side) or _prefixed(data, side, SchemaKind.CONTENT_ID, _ID_END)


def _apicurio_8_byte(data: bytes, headers: Headers, side: Side) -> Framed:
    return _by_apicurio_headers(data, headers, side) or _prefixed(data, side, SchemaKind.GLOBAL_ID, _LONG_ID_END)


def _prefixed(data: bytes, side: Side, kind: SchemaKind, end: int) -> Framed:
    if data[0] != 0:
        raise undecodable(f"the {side.name} does not begin with the magic byte 0 of Apicurio's wire format")
    if len(data) < end:
        raise _too_short(data, side)
    return SchemaName(kind, str(_id(data[1:end], side.name))), data[end:]


def _by_apicurio_headers(data: bytes, headers: Headers, side: Side) -> Framed | None:
    encoding = _header(headers, f"{side.apicurio}encoding")
    if encoding not in {None, b"BINARY"}:
        raise undecodable(
            f"the header {side.apicurio}encoding says that the {side.name} is not in Avro's binary encoding"
        )
    for kind in (SchemaKind.GLOBAL_ID, SchemaKind.CONTENT_ID, SchemaKind.CONTENT_HASH):
        name = f"{side.apicurio}{kind}"
        header = _header(headers, name)
        if header is not None:
            return SchemaName(kind, _apicurio_name(kind, header, name)), data
    return None


def _apicurio_name(kind: SchemaKind, header: bytes, name: str) -> str:
    if kind is not SchemaKind.CONTENT_HASH:
        if len(header) != _LONG_ID_END - 1:
            raise undecodable(f"the header {name} has {len(header)} bytes, an id has {_LONG_ID_END - 1}")
        return str(_id(header, name))
    found = _CONTENT_HASH.fullmatch(_ascii(header))
    if not found:
        raise undecodable(f"the header {name} is not a SHA-256 hash in hexadecimal digits")
    return found[0].lower()


def _glue(data: bytes, _: Headers, side: Side) -> Framed:
    if data[0] != 3:  # noqa: PLR2004  # the format's version
        raise undecodable(f"the {side.name} does not begin with byte 3 of the AWS Glue wire format")
    if len(data) < _GLUE_END:
        raise _too_short(data, side)
    compression, body = data[1], data[_GLUE_END:]
    if compression not in {_GLUE_PLAIN, _GLUE_ZLIB}:
        raise undecodable(f"AWS Glue has no compression {compression}")
    return _guid(SchemaKind.GLUE, data[2:_GLUE_END]), _inflated(body) if compression == _GLUE_ZLIB else body


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    with suppress(zlib.error):
        inflated = inflater.decompress(body, MAX_VALUE_BYTES)
        if len(inflated) >= MAX_VALUE_BYTES:
            raise undecodable(f"the value inflates to {MAX_VALUE_BYTES:,} bytes or more, which is the limit")
        if inflater.eof and not inflater.unused_data:
            return inflated
    raise undecodable("the value is not compressed by zlib as a whole")


def _single_object(data: bytes, _: Headers, side: Side) -> Framed:
    if not data.startswith(b"\xc3\x01"):
        raise undecodable(f"the {side.name} does not begin with the marker of Avro's single-object encoding")
    if len(data) < _SINGLE_OBJECT_END:
        raise _too_short(data, side)
    return SchemaName(SchemaKind.FINGERPRINT, data[2:_SINGLE_OBJECT_END].hex()), data[_SINGLE_OBJECT_END:]


def _azure(data: bytes, headers: Headers, side: Side) -> Framed:
    framed = _by_content_type(data, headers) or _by_azure_preamble(data)
    if framed is None:
        raise undecodable(f"neither the header content-type nor the {side.name} has a schema id of Azure")
    return framed


def _by_content_type(data: bytes, headers: Headers) -> Framed | None:
    found = _AZURE_CONTENT_TYPE.fullmatch(_ascii(_header(headers, "content-type") or b""))
    return (SchemaName(SchemaKind.AZURE, found[1].lower()), data) if found else None


def _by_azure_preamble(data: bytes) -> Framed | None:
    found = _AZURE_PREAMBLE.match(data)
    return (SchemaName(SchemaKind.AZURE, found[1].decode()), data[found.end() :]) if found else None


def _bare(topic: str) -> Frame:
    """Nothing in the record names the schema: the topic has one."""
    return lambda data, _, __: (SchemaName(SchemaKind.TOPIC, topic), data)


def _json(data: bytes, _: Headers, __: Side) -> Framed:
    return JSON, data


def _cloudevents(data: bytes, headers: Headers, side: Side) -> Framed:
    """Binary mode: the value is the data, in a framing of its own."""
    if _header(headers, CLOUD_EVENT) is None:
        raise undecodable(f"there is no header {CLOUD_EVENT}: it is not a CloudEvent in binary mode")
    return _auto(data, headers, side)


def _auto(data: bytes, headers: Headers, side: Side) -> Framed:
    told = headers and (
        _by_confluent_header(data, headers, side)
        or _by_apicurio_headers(data, headers, side)
        or (_by_content_type(data, headers) if side is VALUE else None)
    )
    if told:
        return told
    split = _BY_FIRST_BYTE.get(data[0])
    if split is None or data.startswith(_CONTAINER_FILE):
        raise undecodable(f"the {side.name} is in none of the framings that can be told apart")
    return split(data, headers, side)


def _zero(data: bytes, headers: Headers, side: Side) -> Framed:
    """Three framings begin with a zero byte. No registry gives the id 0, which is how a long id begins."""
    framed = _by_azure_preamble(data)
    if framed is None and len(data) > _LONG_ID_END and not any(data[:_ID_END]):
        framed = _prefixed(data, side, SchemaKind.GLOBAL_ID, _LONG_ID_END)
    return framed or _confluent(data, headers, side)


_BY_FIRST_BYTE: dict[int, Frame] = {
    0x00: _zero,
    0x01: _confluent,
    0x03: _glue,
    0xC3: _single_object,
    ord("{"): _json,
    ord("["): _json,
    ord("n"): _json,  # the null of a tombstone that Kafka Connect writes
}

_FRAMES: dict[Framing, Frame] = {
    Framing.CONFLUENT: _confluent,
    Framing.CONFLUENT_HEADER: _confluent_header,
    Framing.APICURIO: _apicurio,
    Framing.APICURIO_8_BYTE: _apicurio_8_byte,
    Framing.GLUE: _glue,
    Framing.SINGLE_OBJECT: _single_object,
    Framing.AZURE: _azure,
    Framing.CLOUDEVENTS: _cloudevents,
    Framing.JSON: _json,
    Framing.AUTO: _auto,
}

# -- keys of tombstones

_KeySplit = Callable[[Record], tuple[KeySchema, bytes]]

_FRAMELESS = frozenset({Framing.AZURE, Framing.CLOUDEVENTS, Framing.BARE, Framing.JSON})
"""Framings that say nothing of keys: one in Avro is split as `auto` does."""


def _key(framing: Framing, key_format: KeyFormat) -> _KeySplit:
    split_avro = _auto if framing in _FRAMELESS else _FRAMES[framing]
    tell = {
        KeyFormat.STRING: _text_key,
        KeyFormat.AVRO: split_avro,
        KeyFormat.JSON: _json,
        KeyFormat.AUTO: _auto_key,
    }[key_format]

    def split_key(record: Record) -> tuple[KeySchema, bytes]:
        if not record.key:
            return KeySchema(TEXT), b""
        schema, body = tell(record.key, record.headers, KEY)
        return KeySchema(schema), body

    return split_key


def _text_key(data: bytes, _: Headers, __: Side) -> Framed:
    return TEXT, data


def _auto_key(data: bytes, headers: Headers, side: Side) -> Framed:
    """A framed key, else JSON, else text: also the text that only begins as one of the others does."""
    with suppress(DecodeError):
        schema, body = _auto(data, headers, side)
        if schema is not JSON:
            return schema, body
    if data.startswith((b"{", b'"')):
        with suppress(orjson.JSONDecodeError):
            orjson.loads(data)
            return JSON, data
    return TEXT, data


@lru_cache(_IDS)
def _id(raw: bytes, where: str) -> int:
    """The id of a schema. Registries count in signed numbers, from 1: junk that is none of theirs asks nobody."""
    number = int.from_bytes(raw, "big", signed=True)
    if number < 0:
        raise undecodable(f"the {where} has a negative number for the id of a schema, and no registry gives one")
    return number


def _guid(kind: SchemaKind, raw: bytes) -> SchemaName:
    return SchemaName(kind, str(UUID(bytes=raw)))


def _header(headers: Headers, wanted: str) -> bytes | None:
    """The last header of that name, as serialisers take it; None when there is none, or none with a value."""
    found = None
    for name, value in headers:
        if name == wanted:
            found = value
    return found


def _ascii(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def _too_short(data: bytes, side: Side) -> DecodeError:
    return undecodable(f"the {side.name} is too short for the id of a schema: {len(data)} bytes")
