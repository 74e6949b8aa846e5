"""What a writer's schema may be, and how long what was written with it.

Answers for what of a schema reaches fastavro, and in which form: a schema from the registry is input from outside, and
fastavro trusts it. It crashes the process on recursive schemas, builds values of zero width by the billion, makes
gigabytes of nested values from a few bytes each, takes a negative enum or union index for one from the end, and reads
any non-zero byte as True. Touches nothing else.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import Final, cast

from fastavro import parse_schema
from fastavro.types import DictSchema, NamedSchemas, Schema

from consumer.errors import DecodeError, undecodable

MAX_SCHEMA_CHARACTERS = 1_000_000
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_NODES = 5_000
"""Types in a schema, each use of a named type counted with all that it holds."""

MAX_MEMORY_BYTES = 56_000_000
"""What the fields of a record may take up: with the record itself and its copies less than 64 MB."""

_MAX_FIXED_BYTES = 1_000_000
_JSON_LEVELS_PER_TYPE = 4
_TOO_DEEP = f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} types"
_RECORDS = frozenset({"record", "error"})
"""Errors are records of Avro's protocols; fastavro takes them in schemas too."""

_CONTENT: Final = {"array": "items", "map": "values"}
_RESERVED_KEYS = frozenset({"__fastavro_parsed", "__named_schemas"})
"""A schema that brings these makes fastavro believe that it was parsed already."""

_BOOLEAN: Final = {"type": "enum", "symbols": {0: False, -1: True}}
"""A boolean read as an enum, whose index is zigzag: byte 0 is index 0, byte 1 is index -1, no other byte has one.

Bytes 80 and 81 begin a longer form of these two, which no writer has: junk that takes the zeros behind it along.
"""

_USUAL_RATE = 48
"""Bytes of memory for a byte of a record: more than numbers, texts and maps of texts take up."""

_ALIGNMENT = 16
_EMPTY_BYTES = 64 + _ALIGNMENT
_LIST_ITEM_BYTES = 24
_MAP_ENTRY_BYTES = 120 + 64
"""A place in the dictionary while it grows, and a key that is not one of the few that are shared."""

_MAP_KEY_LENGTH = 3

_NUMBER_BYTES = 32
_SCALARS: Final[dict[str, Callable[[int], int]]] = {
    "null": lambda _: 0,
    "int": lambda rate: _NUMBER_BYTES - rate,
    "long": lambda rate: _NUMBER_BYTES - rate,
    "float": lambda rate: _NUMBER_BYTES - 4 * rate,
    "double": lambda rate: _NUMBER_BYTES - 8 * rate,
    "bytes": lambda rate: -rate,
    "string": lambda rate: -rate,
}


def parsable(schema: Schema) -> Schema:
    """A schema, as JSON has it, that fastavro parses if it is one.

    Where fastavro refuses it, it is left without what other writers do not check and no reader here uses: defaults,
    which need not fit their type, and decimals whose scale and precision are none. Such a logical type counts as not
    there, as the specification says.

    Raises:
        RecursionError: It is nested too deep.
    """
    try:
        parse_schema(schema)
    except Exception:  # noqa: BLE001  # foreign code on foreign input: anything may come
        return _without_unread(schema)
    return schema


def _without_unread(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_without_unread(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    unsound = schema.get("logicalType") == "decimal" and not _is_decimal(schema)
    unread = {"default", "logicalType"} if unsound else {"default"}
    return {name: _without_unread(each) for name, each in schema.items() if name not in unread}


def _is_decimal(node: dict[str, object]) -> bool:
    """Whether scale and precision can be those of a decimal; some writers leave the precision out."""
    scale = node.get("scale", 0)
    if type(scale) is not int or scale < 0:
        return False
    precision = node.get("precision", scale or 1)
    return type(precision) is int and max(scale, 1) <= precision <= _most_digits(node)


def _most_digits(node: dict[str, object]) -> float:
    """How many decimal digits a type can hold."""
    if node.get("type") != "fixed":
        return math.inf
    size = node.get("size")
    return math.log10(2) * (8 * size - 1) if isinstance(size, int) and 0 <= size <= _MAX_FIXED_BYTES else 0


def loaded(text: str) -> dict[str, object]:
    """A schema as its writer published it, if `parsable` leaves it so.

    Raises:
        DecodeError: It is not an Avro schema of a record, or must not reach the parser.
    """
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise undecodable(f"the schema has {len(text):,} characters, the limit is {MAX_SCHEMA_CHARACTERS:,}")
    try:
        definition = json.loads(text)
    except (ValueError, RecursionError):
        definition = None
    if not isinstance(definition, dict) or definition.get("type") != "record":
        raise undecodable("the schema is not an Avro schema of a record")
    check_json(definition)
    return cast("dict[str, object]", parsable(definition))


def check_json(definition: object) -> None:
    """Refuse what must not even reach the parser: nesting far beyond a usable schema's, and reserved keys.

    Raises:
        DecodeError: It has either.
    """
    level = [definition]
    for _ in range(_JSON_LEVELS_PER_TYPE * MAX_SCHEMA_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise undecodable(_TOO_DEEP)


def _children(node: object) -> Iterable[object]:
    if isinstance(node, list):
        return node
    if not isinstance(node, dict):
        return ()
    if not _RESERVED_KEYS.isdisjoint(node):
        raise undecodable("the schema holds a key that fastavro reserves for itself")
    return node.values()


def hardened(definition: dict[str, object]) -> Schema:
    """What fastavro may read with. What it takes for valid need not be: names of fields may be lists.

    Raises:
        DecodeError: It is not valid, or reading with it could hurt.
    """
    names: NamedSchemas = {}
    try:
        return _Hardening(names).apply(parse_schema(definition, names))
    except DecodeError:
        raise
    except Exception as error:  # noqa: BLE001  # foreign code on foreign input: anything may come
        cause = type(error).__name__
    raise undecodable(f"the schema is not valid Avro: {cause}")


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
            return self._union(schema, depth, repeated=repeated)
        kind = schema["type"]
        if kind in _RECORDS:
            return self._record(schema, depth, repeated=repeated)
        if kind in _CONTENT:
            content = _CONTENT[kind]
            return {"type": kind, content: self._member(schema[content], depth + 1, repeated=True)}
        if kind == "enum":
            return {"type": kind, "symbols": dict(enumerate(schema["symbols"]))}
        if kind == "fixed":
            return {"type": kind, "size": _size(schema)}
        return _BOOLEAN if kind == "boolean" else kind

    def _union(self, schema: list[Schema], depth: int, *, repeated: bool) -> Schema:
        if any(isinstance(branch, list) for branch in schema):
            raise undecodable("the schema has a union in a union")
        return {"type": "union", **dict(enumerate(self.apply(each, depth + 1, repeated=repeated) for each in schema))}

    def _record(self, schema: DictSchema, depth: int, *, repeated: bool) -> Schema:
        name = schema["name"]
        if name in self._open:
            raise undecodable("the schema is recursive")
        self._open.append(name)
        fields = {
            field["name"]: self._member(field["type"], depth + 1, repeated=repeated) for field in schema["fields"]
        }
        self._open.pop()
        if len(fields) < len(schema["fields"]):
            raise undecodable("the schema has two fields of the same name in a record")
        return {"type": "record", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}

    def _member(self, schema: Schema, depth: int, *, repeated: bool) -> Schema:
        """Rebuild a type that is not the branch of a union.

        Inside arrays and maps it must take up bytes, or a few of them could ask for billions of values.
        """
        if repeated and _is_weightless(self._resolved(schema)):
            raise undecodable("the schema repeats a type of zero width")
        return self.apply(schema, depth, repeated=repeated)

    def _resolved(self, schema: Schema) -> list[Schema] | DictSchema:
        if isinstance(schema, str):
            return self._names.get(schema, {"type": schema})
        return schema

    def _count(self, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise undecodable(_TOO_DEEP)
        if self._nodes > MAX_SCHEMA_NODES:
            raise undecodable(f"the schema has more than {MAX_SCHEMA_NODES:,} types")


def _size(schema: DictSchema) -> int:
    size = schema["size"]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _MAX_FIXED_BYTES:
        raise undecodable(f"the schema has a fixed type whose size is not one from 0 to {_MAX_FIXED_BYTES:,}")
    return size


def _is_weightless(schema: list[Schema] | DictSchema) -> bool:
    if isinstance(schema, list):
        return False
    kind = schema["type"]
    return kind == "null" or (kind == "fixed" and schema["size"] == 0) or (kind in _RECORDS and not schema["fields"])


def readable_bytes(schema: Schema) -> int:
    """How long a record of this schema may be, so that its fields cannot take up more than they may."""
    rate = _USUAL_RATE
    while (most := _most(schema, rate)) > MAX_MEMORY_BYTES:
        rate += rate // 2  # it ends: what is repeated takes up bytes, and nesting has a limit
    return int((MAX_MEMORY_BYTES - most) / rate)


def _most(schema: Schema, rate: int) -> float:
    """The most that a value takes up in memory beyond `rate` bytes for each of its encoded bytes; inf when unbounded.

    For CPython: empty strings, those of one byte, and symbols are shared; a list of a million grows by copying.
    """
    if not isinstance(schema, dict):
        return _SCALARS[cast("str", schema)](rate)
    kind = schema["type"]
    if kind == "record":
        fields = schema["fields"]
        return _dict_bytes(len(fields)) + sum(_most(field["type"], rate) for field in fields)
    if kind == "union":
        return max((_most(branch, rate) for index, branch in schema.items() if index != "type"), default=0) - rate
    if kind == "array":
        return _repeated(_LIST_ITEM_BYTES + _most(schema["items"], rate), rate)
    if kind == "map":
        return _repeated(_MAP_ENTRY_BYTES - _MAP_KEY_LENGTH * rate + _most(schema["values"], rate), rate)
    return _fixed_bytes(schema["size"]) - schema["size"] * rate if kind == "fixed" else -rate


def _repeated(item: float, rate: int) -> float:
    """Of an array or a map, whose end takes a byte, and whose items `rate` has to cover one by one."""
    return _EMPTY_BYTES - rate if item <= 0 else math.inf


def _dict_bytes(entries: int) -> int:
    return sys.getsizeof({str(number): None for number in range(entries)}) + _ALIGNMENT


def _fixed_bytes(size: int) -> int:
    return sys.getsizeof(b"") + size + _ALIGNMENT
