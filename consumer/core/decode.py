"""Turns records into change events: Confluent framing, writer schema, Avro.

Answers for what may be decoded at all. A schema from the registry and the bytes of a record are both input from
outside, and fastavro trusts them: it crashes the process on recursive schemas, builds values of zero width by the
billion, takes a negative enum or union index for one from the end, reads any non-zero byte as True, and wraps integers
that do not fit. All of this is refused here, and whatever else is wrong with the bytes is a `DecodeError` that quotes
nothing of them.

Touches nothing else. How the fields of a writer's schema become a change event is not decided here: a `Reader` is put
together outside, from `WriterSchema.read` and an envelope's mapping.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, cast

from fastavro import parse_schema, schemaless_reader
from fastavro._read_py import read_data
from fastavro.io.binary_decoder import BinaryDecoder
from fastavro.types import AvroMessage, DictSchema, NamedSchemas, Schema

from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType, Events, Reason, Record

MAX_VALUE_BYTES = 1_000_000
"""A record whose value has this many bytes or more is refused unread."""

MAX_SCHEMA_CHARACTERS = 1_000_000
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_NODES = 5_000
"""Types in a schema, each use of a named type counted with all that it holds."""

_HEADER_BYTES = 5
_JSON_LEVELS_PER_TYPE = 4
_TOO_DEEP = f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} types"
_CONTENT: Final = {"array": "items", "map": "values"}
_RESERVED_KEYS = frozenset({"__fastavro_parsed", "__named_schemas"})
"""A schema that brings these makes fastavro believe that it was parsed already."""

_BOOLEAN: Final = {"type": "enum", "symbols": {0: False, -1: True}}
"""A boolean read as an enum, whose index is zigzag: byte 0 is index 0, byte 1 is index -1, no other byte has one."""

_VARINT_BYTES = 10
_MORE_FOLLOWS = 0x80
_LONG_RUN = b"\x80" * (_VARINT_BYTES - 1)
"""The shortest run of bytes with the high bit set that an integer of more than 64 bits can begin with."""

_HIGH_BITS = bytes(128) + b"\x80" * 128

Reader = Callable[[bytes, Record], Events]
"""Makes the change events of the Avro body of a record; raises nothing but `DecodeError`."""


class Decoded(NamedTuple):
    """How far `decode` came.

    Attributes:
        results: One for each record, from the first on.
        missing: Schema id of the first record without a result, for which there is no reader; None when all have one.
    """

    results: list[Events | DecodeError]
    missing: int | None


def decode(records: Sequence[Record], readers: Mapping[int, Reader | DecodeError]) -> Decoded:
    """Decode records up to the first whose schema id has no reader.

    Args:
        records: In the order in which they were polled.
        readers: By schema id; an error is the result of every record with that id.
    """
    results: list[Events | DecodeError] = []
    for record in records:
        try:
            value = record.value
            if value is None:
                results.append(_deletion(record))
                continue
            identifier = schema_id(value)
            reader = readers.get(identifier)
            if reader is None:
                return Decoded(results, identifier)
            results.append(reader if isinstance(reader, DecodeError) else reader(value[_HEADER_BYTES:], record))
        except DecodeError as error:
            results.append(error.with_traceback(None))  # its frames would keep the record's bytes alive
    return Decoded(results, None)


def schema_ids(records: Iterable[Record]) -> set[int]:
    """Every schema id that these records name."""
    found = set()
    for record in records:
        with suppress(DecodeError):
            if record.value is not None:
                found.add(schema_id(record.value))
    return found


def schema_id(value: bytes) -> int:
    """The id of the writer's schema in the registry, from the Confluent wire format.

    Raises:
        DecodeError: The value is not framed so, or too large to be read at all.
    """
    if len(value) >= MAX_VALUE_BYTES:
        raise _refused(f"the value has {len(value):,} bytes, the limit is {MAX_VALUE_BYTES:,}")
    if not value:
        raise _refused("the value is empty, which is not a tombstone")
    if value[0] != 0:
        raise _refused("the value does not begin with the magic byte 0 of the Confluent wire format")
    if len(value) < _HEADER_BYTES:
        raise _refused(f"the value is too short for a schema id: {len(value)} bytes")
    return int.from_bytes(value[1:_HEADER_BYTES], "big")


def _deletion(record: Record) -> ChangeEvent:
    """The change event of a tombstone, which has no schema: the key tells whom it deletes."""
    external_id = _text_key(record.key) if record.key else None
    return ChangeEvent(ChangeType.DELETE, external_id, record.timestamp_ms, None, None, None, None, None, {})


def _text_key(key: bytes) -> str:
    """The key as text. One that is framed would name nobody, and the deletion would be lost."""
    if not key.startswith(b"\0"):
        with suppress(UnicodeDecodeError):
            return key.decode()
    raise _refused("the key of a tombstone is not the external id in UTF-8")


def named_by_key(record: Record) -> str | None:
    """The external id that the key of a record names, whatever its value is; None when it names nobody."""
    with suppress(DecodeError):
        external_id = _text_key(record.key or b"")
        return external_id if external_id.strip() else None
    return None


class WriterSchema:
    """A writer's schema, ready to read what was written with it.

    Records are read with this schema alone, and logical types are left as the integers and bytes that carry them.

    Args:
        text: The schema as JSON.

    Attributes:
        definition: The schema as the writer published it.

    Raises:
        DecodeError: It is not an Avro schema of a record, or reading with it could hurt.
    """

    def __init__(self, text: str) -> None:
        self.definition = _loaded(text)
        names: NamedSchemas = {}
        try:
            hardened = _Hardening(names).apply(parse_schema(self.definition, names))
        except DecodeError:
            raise
        except Exception as error:  # noqa: BLE001  # foreign code on foreign input: anything may come
            raise _refused(f"the schema is not valid Avro: {type(error).__name__}") from None
        self._schema = cast("DictSchema", hardened) | {"__fastavro_parsed": True, "__named_schemas": {}}

    def read(self, payload: bytes) -> dict[str, object]:
        """The fields of the record, which must take up the whole payload.

        Raises:
            DecodeError: The payload was not written with this schema.
        """
        stream = io.BytesIO(payload)
        try:
            if _has_long_run(payload):
                fields = self._read_strictly(stream)
            else:
                fields = schemaless_reader(stream, self._schema, None)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # fastavro raises what its C code happens to meet
            cause = type(error).__name__
        else:
            if stream.tell() != len(payload):
                raise _refused(f"{len(payload) - stream.tell():,} bytes follow the record")
            return cast("dict[str, object]", fields)
        # Not inside the handler: the foreign error quotes the data, and would travel along as the context of ours.
        raise _refused(f"the body does not fit its schema: {cause}")

    def read_each(self, block: bytes, count: int) -> list[dict[str, object]]:
        """The fields of so many records, which must take up the whole block.

        Raises:
            DecodeError: The block does not hold them.
        """
        if count > len(block):  # records without a width could be asked for by the billion
            raise _refused(f"{count:,} records cannot be in a block of {len(block):,} bytes")
        stream = io.BytesIO(block)
        strictly = _has_long_run(block)
        records: list[dict[str, object]] = []
        try:
            for _ in range(count):
                read = self._read_strictly(stream) if strictly else schemaless_reader(stream, self._schema, None)
                records.append(cast("dict[str, object]", read))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            cause = type(error).__name__
        else:
            if stream.tell() == len(block):
                return records
            cause = "bytes are left over"
        raise _refused(f"record {len(records) + 1:,} of a block does not fit its schema: {cause}")

    def _read_strictly(self, stream: io.BytesIO) -> AvroMessage:
        """As the library reads in C, at three times the cost, for what might hold an integer of more than 64 bits."""
        decoder = _BoundedDecoder(stream)  # type: ignore[no-untyped-call]
        return cast("AvroMessage", read_data(decoder, self._schema, {}))  # type: ignore[no-untyped-call]


class _BoundedDecoder(BinaryDecoder):
    """fastavro's decoder in Python, with integers that neither wrap, as those of the one in C, nor grow for ever."""

    def read_long(self) -> int:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        number = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte: int = self.fo.read(1)[0]
            number |= (byte & ~_MORE_FOLLOWS) << shift
            if byte < _MORE_FOLLOWS:
                if number >> 64:
                    break
                return (number >> 1) ^ -(number & 1)
        raise OverflowError

    read_int = read_long


def _has_long_run(payload: bytes) -> bool:
    """Whether as many bytes with the high bit set follow each other as in an integer that does not fit 64 bits.

    Such a run cannot slip through a grid as narrow as itself, and most payloads end there.
    """
    grid = payload[len(_LONG_RUN) - 1 :: len(_LONG_RUN)]
    return not grid.isascii() and _LONG_RUN in payload.translate(_HIGH_BITS)


def _loaded(text: str) -> dict[str, object]:
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise _refused(f"the schema has {len(text):,} characters, the limit is {MAX_SCHEMA_CHARACTERS:,}")
    try:
        definition = json.loads(text)
    except (ValueError, RecursionError):
        definition = None
    if not isinstance(definition, dict) or definition.get("type") != "record":
        raise _refused("the schema is not an Avro schema of a record")
    _check_json(definition)
    return definition


def _check_json(definition: object) -> None:
    """Refuse what must not even reach the parser: nesting far beyond a usable schema's, and reserved keys."""
    level = [definition]
    for _ in range(_JSON_LEVELS_PER_TYPE * MAX_SCHEMA_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise _refused(_TOO_DEEP)


def _children(node: object) -> Iterable[object]:
    if isinstance(node, list):
        return node
    if not isinstance(node, dict):
        return ()
    if not _RESERVED_KEYS.isdisjoint(node):
        raise _refused("the schema holds a key that fastavro reserves for itself")
    return node.values()


class _Hardening:
    """Rebuilds a parsed schema into one that fastavro reads safely, at no cost per record.

    Named types are put in where they are used, logical types dropped, and lists of symbols and of branches become
    mappings, in which a negative index finds nothing.

    Args:
        names: Named types by full name.
    """

    def __init__(self, names: NamedSchemas) -> None:
        self._names = names
        self._nodes = 0
        self._open: list[str] = []

    def apply(self, schema: Schema, depth: int = 1, *, repeated: bool = False) -> Schema:
        """Rebuild a type that stands so deep; `repeated` when anything around it is an array or a map."""
        schema = self._resolved(schema)
        self._count(depth)
        if isinstance(schema, list):
            branches = [self.apply(branch, depth + 1, repeated=repeated) for branch in schema]
            return {"type": "union", **dict(enumerate(branches))}
        kind = schema["type"]
        if kind == "record":
            return self._record(schema, depth, repeated=repeated)
        if kind in _CONTENT:
            content = _CONTENT[kind]
            return {"type": kind, content: self._member(schema[content], depth + 1, repeated=True)}
        if kind == "enum":
            return {"type": kind, "symbols": dict(enumerate(schema["symbols"]))}
        if kind == "fixed":
            return {"type": kind, "size": schema["size"]}
        return _BOOLEAN if kind == "boolean" else kind

    def _record(self, schema: DictSchema, depth: int, *, repeated: bool) -> Schema:
        name = schema["name"]
        if name in self._open:
            raise _refused("the schema is recursive")
        self._open.append(name)
        fields = {
            field["name"]: self._member(field["type"], depth + 1, repeated=repeated) for field in schema["fields"]
        }
        self._open.pop()
        if len(fields) < len(schema["fields"]):
            raise _refused("the schema has two fields of the same name in a record")
        return {"type": "record", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}

    def _member(self, schema: Schema, depth: int, *, repeated: bool) -> Schema:
        """Rebuild a type that is not the branch of a union.

        Inside arrays and maps it must take up bytes, or a few of them could ask for billions of values.
        """
        if repeated and _is_weightless(self._resolved(schema)):
            raise _refused("the schema repeats a type of zero width")
        return self.apply(schema, depth, repeated=repeated)

    def _resolved(self, schema: Schema) -> list[Schema] | DictSchema:
        if isinstance(schema, str):
            return self._names.get(schema, {"type": schema})
        return schema

    def _count(self, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise _refused(_TOO_DEEP)
        if self._nodes > MAX_SCHEMA_NODES:
            raise _refused(f"the schema has more than {MAX_SCHEMA_NODES:,} types")


def _is_weightless(schema: list[Schema] | DictSchema) -> bool:
    if isinstance(schema, list):
        return False
    kind = schema["type"]
    return kind == "null" or (kind == "fixed" and schema["size"] <= 0) or (kind == "record" and not schema["fields"])


def _refused(detail: str) -> DecodeError:
    return DecodeError((Reason.NOT_DECODABLE,), detail)
