"""Reads JSON as Kafka Connect's converter writes it: `{"schema": …, "payload": …}`; or without a schema.

Answers for what comes out being what an Avro record of the same content would be: fields as a dict, and a definition
in Avro's words, from which an envelope's mapping is made. With a schema the definition is that schema's, logical
names under `connect.name`, and the payload has to fit it. Without one it is what the values are, and all text is
string. Names of records are made up where Connect's do not serve. A few bytes cannot ask for much: sizes, depths and
numbers of values are limited, in records and in schemas. Touches nothing else.
"""

import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Final, NamedTuple, TypeGuard, cast

import orjson
from fastavro import parse_schema

from consumer.errors import DecodeError, undecodable
from consumer.model import Events, Record

MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Values in a record, those of its schema among them."""

MAX_TYPES = 5_000
"""Types in a schema."""

_MAX_DEFINITIONS = 256
"""Definitions whose mapping is kept: topics have few."""

_MAX_DEFINITION_BYTES = 4_000_000
"""How long their texts may be, all together: in memory they take up about five times as much."""

_FULL_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_MADE_UP = re.compile(r"(record|struct)_[0-9]+")
_LOGICAL: Final[dict[str, dict[str, object]]] = {
    "org.apache.kafka.connect.data.Date": {"logicalType": "date"},
    "org.apache.kafka.connect.data.Time": {"logicalType": "time-millis"},
    "org.apache.kafka.connect.data.Timestamp": {"logicalType": "timestamp-millis"},
}
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_PRECISION = 64
"""What Connect's converter for Avro takes where the schema does not say."""

_SCALE = re.compile("[0-9]{1,2}")
_EXACT = 10**15
"""Numbers with a fraction, or too large for 64 bits, come as floats: of so many digits each is told from the next."""

_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
"""How Kafka Connect writes numbers that JSON does not have."""


Mapper = Callable[[dict[str, object], Record], Events]
OnSchema = Callable[[Mapping[str, object]], None]
Check = Callable[[object], object]
"""Gives the value back, decoded where JSON cannot hold it; raises `_UnfitError`."""


class _UnfitError(Exception):
    """A value is not of its type.

    Attributes:
        path: Names of the fields that it stands in, from within.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []


class _Type(NamedTuple):
    """A type of a schema.

    Attributes:
        definition: In Avro's words.
        check: Of its values.
    """

    definition: object
    check: Check


def is_made_up(name: str) -> bool:
    """Whether the name of a record's definition is one that is made up here, since the record tells none."""
    return _MADE_UP.fullmatch(name) is not None


def ignored(_: Mapping[str, object]) -> None:
    """Nobody asks for schemas."""


class JsonReader:
    """Makes the change events of a record in JSON.

    Args:
        mapping: Makes the mapping for a definition; raises `DecodeError` when the definition is not understood.
        on_schema: Called with each definition that is a schema's, and is understood. It does not raise.
    """

    def __init__(self, mapping: Callable[[Mapping[str, object]], Mapper], on_schema: OnSchema = ignored) -> None:
        self._mapping = mapping
        self._on_schema = on_schema
        self._known: dict[bytes, tuple[int, tuple[Check, Mapper] | DecodeError]] = {}  # with the size of the text

    def __call__(self, value: bytes, record: Record) -> Events:
        """The change events.

        Raises:
            DecodeError: It is not JSON, does not fit its schema, or is not understood.
        """
        document = _loaded(value)
        if document.keys() == {"schema", "payload"} and document["schema"] is not None:
            schema, payload = document["schema"], document["payload"]
            check, mapping = self._prepared(
                _text_of(schema), lambda: _Compiler().apply(_required(schema)), self._on_schema
            )
        else:
            payload = document["payload"] if document.keys() == {"schema", "payload"} else document
            definition = _Shape().of(payload)
            check, mapping = self._prepared(orjson.dumps(definition), lambda: _Type(definition, _as_it_is), ignored)
        return mapping(_fitting(check, payload), record)

    def _prepared(self, text: bytes, prepare: Callable[[], _Type], told: OnSchema) -> tuple[Check, Mapper]:
        key = hashlib.sha256(text).digest()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = len(text), self._prepare(prepare, told)
            self._forget()
        _, made = known
        if isinstance(made, DecodeError):
            raise made.with_traceback(None)
        return made

    def _forget(self) -> None:
        """Forget the oldest definitions, where they are too many or too large."""
        while (
            len(self._known) > _MAX_DEFINITIONS or sum(size for size, _ in self._known.values()) > _MAX_DEFINITION_BYTES
        ):
            del self._known[next(iter(self._known))]

    def _prepare(self, prepare: Callable[[], _Type], told: OnSchema) -> tuple[Check, Mapper] | DecodeError:
        try:
            made, check = prepare()
            definition = _checked(made)
            mapping = self._mapping(definition)
        except DecodeError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whoever sends a schema must not be able to stop the program
            return undecodable(f"the schema cannot be used: {type(error).__name__}")
        told(definition)
        return check, mapping


def _checked(definition: object) -> dict[str, object]:
    """The definition of a record, on which whoever maps the fields may rely: it is valid Avro."""
    if not isinstance(definition, dict) or definition["type"] != "record":
        raise undecodable("the JSON is not an object, or its schema not of one")
    try:
        parse_schema(definition)
    except Exception as error:  # noqa: BLE001  # foreign code on foreign input: anything may come
        cause = type(error).__name__
    else:
        return definition
    raise undecodable(f"the JSON has names that no schema could have: {cause}")


def _loaded(value: bytes) -> dict[str, object]:
    """The document, parsed only when it cannot hold too many values: each but the first follows one of four bytes."""
    if sum(map(value.count, (b",", b"[", b"{", b":"))) > 2 * MAX_VALUES:
        raise undecodable(f"the JSON may hold more than {MAX_VALUES:,} values")
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(value)
        if isinstance(document, dict):
            return document
        raise undecodable("the JSON is not an object")
    raise undecodable("the value is not JSON")


def _text_of(schema: object) -> bytes:
    """A schema as text; orjson writes fewer levels than it reads."""
    with suppress(orjson.JSONEncodeError):
        return orjson.dumps(schema)
    raise _too_deep()


def _required(schema: object) -> object:
    """A schema without its `optional`: what was a field of an envelope before may have been null there."""
    return schema | {"optional": False} if isinstance(schema, dict) else schema


def _fitting(check: Check, payload: object) -> dict[str, object]:
    if payload is None:
        raise undecodable("the payload is null")
    try:
        return cast("dict[str, object]", check(payload))
    except _UnfitError as error:
        place = ".".join(reversed(error.path))
    raise undecodable(f"the payload does not fit its schema{f', at {place}' if place else ''}")


# -- without a schema


class _Shape:
    """What values are, in Avro's words. Of the items of a list, the first of each kind tells."""

    def __init__(self) -> None:
        self._records = 0

    def of(self, value: object, depth: int = 1) -> object:
        """The type of a value that stands so deep."""
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, dict):
            self._records += 1
            name = f"record_{self._records}"
            fields = [{"name": key, "type": self.of(each, depth + 1)} for key, each in value.items()]
            return {"type": "record", "name": name, "fields": fields}
        if isinstance(value, list):
            samples = {type(each): each for each in reversed(value)}.values()
            items = [self.of(sample, depth + 1) for sample in samples]
            return {"type": "array", "items": items[0] if len(items) == 1 else items}
        return _scalar(value)


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if _is_integer(value, 64) else "double"
    return "double" if isinstance(value, float) else "string"


# -- with a schema


class _Compiler:
    """Makes types of a schema in Connect's words."""

    def __init__(self) -> None:
        self._types = 0
        self._names: set[str] = set()

    def apply(self, schema: object, depth: int = 1, *, repeated: bool = False) -> _Type:
        """The type of a schema that stands so deep; `repeated` when anything around it is an array or a map."""
        self._types += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        if self._types > MAX_TYPES:
            raise undecodable(f"the schema has more than {MAX_TYPES:,} types")
        if not isinstance(schema, dict):
            raise undecodable("the schema is not one of Kafka Connect")
        made = self._made(schema, depth, repeated=repeated)
        return _Type(["null", made.definition], _optional(made.check)) if schema.get("optional") is True else made

    def _made(self, schema: dict[str, object], depth: int, *, repeated: bool) -> _Type:
        match schema.get("type"):
            case "struct":
                return self._struct(schema, depth, repeated=repeated)
            case "array":
                item = self.apply(schema.get("items"), depth + 1, repeated=True)
                return _Type({"type": "array", "items": item.definition} | _named(schema), _array(item.check))
            case "map":
                return self._map(schema, depth)
            case str(kind) if kind in _PRIMITIVES:
                made = _PRIMITIVES[kind]
                named = _named(schema)
                scale = named.get("scale") if kind == "bytes" else None
                check = _decimal_of(scale) if isinstance(scale, int) else made.check
                return made if not named else _Type({"type": made.definition} | named, check)
        raise undecodable("the schema has a type that Kafka Connect does not have")

    def _struct(self, schema: dict[str, object], depth: int, *, repeated: bool) -> _Type:
        listed = schema.get("fields")
        if not isinstance(listed, list):
            raise undecodable("the schema has a struct without fields")
        fields = {_field_name(each): self.apply(each, depth + 1, repeated=repeated) for each in listed}
        if len(fields) < len(listed):
            raise undecodable("the schema has two fields of the same name in a struct")
        definition = {
            "type": "record",
            "name": self._record_name(schema.get("name")),
            "fields": [{"name": name, "type": kind.definition} for name, kind in fields.items()],
        } | _named(schema)
        return _Type(definition, _struct({name: kind.check for name, kind in fields.items()}, fill=not repeated))

    def _map(self, schema: dict[str, object], depth: int) -> _Type:
        key = schema.get("keys")
        if not isinstance(key, dict):
            raise undecodable("the schema has a map without keys")
        if key.get("type") != "string":
            return _Type({"type": "array", "items": "null"} | _named(schema), _pairs)
        value = self.apply(schema.get("values"), depth + 1, repeated=True)
        return _Type({"type": "map", "values": value.definition} | _named(schema), _map(value.check))

    def _record_name(self, name: object) -> str:
        """Connect's name where it serves: Avro has one definition for each."""
        if not isinstance(name, str) or not _FULL_NAME.fullmatch(name) or name in self._names:
            name = f"struct_{len(self._names) + 1}"
        self._names.add(name)
        return name


def _field_name(field: object) -> str:
    name = field.get("field") if isinstance(field, dict) else None
    if not isinstance(name, str):
        raise undecodable("the schema has a field without a name")
    return name


def _named(schema: dict[str, object]) -> dict[str, object]:
    """The logical name, as Connect's converter for Avro writes it."""
    name = schema.get("name")
    if not isinstance(name, str):
        return {}
    return {"connect.name": name} | _LOGICAL.get(name, {}) | (_decimal(schema) if name == _DECIMAL else {})


def _decimal(schema: dict[str, object]) -> dict[str, object]:
    parameters = schema.get("parameters")
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    if not isinstance(scale, str) or not _SCALE.fullmatch(scale):
        raise undecodable("the schema has a decimal without a scale")
    return {"logicalType": "decimal", "precision": _PRECISION, "scale": int(scale)}


def _as_it_is(value: object) -> object:
    return value


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _array(check: Check) -> Check:
    def checked(value: object) -> object:
        if not isinstance(value, list):
            raise _UnfitError
        value[:] = map(check, value)
        return value

    return checked


def _map(check: Check) -> Check:
    def checked(value: object) -> object:
        if not isinstance(value, dict):
            raise _UnfitError
        for key, each in value.items():
            value[key] = check(each)
        return value

    return checked


def _pairs(value: object) -> object:
    """Of a map whose keys are no strings, which JSON has as a list of pairs: nothing is mapped from within it."""
    if not isinstance(value, list):
        raise _UnfitError
    return []


def _struct(checks: Mapping[str, Check], *, fill: bool) -> Check:
    """Of an object, in place. Absent fields become null, but not in arrays and maps: few bytes would become many.

    What the schema does not have is dropped, as by Connect itself: nobody has checked it.
    """

    def checked(value: object) -> object:
        if not isinstance(value, dict):
            raise _UnfitError
        for name in value.keys() - checks.keys():
            del value[name]
        for name, check in checks.items():
            try:
                found = check(value.get(name))
            except _UnfitError as error:
                error.path.append(name)
                raise
            if fill or name in value:
                value[name] = found
        return value

    return checked


def _is_integer(value: object, bits: int) -> bool:
    bound = 1 << (bits - 1)
    return isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound


def _integer(bits: int) -> Check:
    def checked(value: object) -> object:
        if not _is_integer(value, bits):
            raise _UnfitError
        return value

    return checked


def _number(value: object) -> object:
    if isinstance(value, str) and value in _NOT_FINITE:
        return float(value)
    if not _is_number(value):
        raise _UnfitError
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise _UnfitError
    return value


def _string(value: object) -> object:
    if not isinstance(value, str):
        raise _UnfitError
    return value


def _bytes(value: object) -> object:
    with suppress(ValueError):
        return binascii.a2b_base64(cast("str", _string(value)), strict_mode=True)
    raise _UnfitError


def _decimal_of(scale: int) -> Check:
    """Of the bytes that carry a decimal, or of a number, as `decimal.format=NUMERIC` has it: the same bytes then.

    A number that may have lost digits stays a float, which is nobody's id.
    """

    def checked(value: object) -> object:
        if not _is_number(value):
            return _bytes(value)
        unscaled = value * 10**scale if isinstance(value, int) else _unscaled(value, scale)
        return value if unscaled is None else unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)

    return checked


def _unscaled(value: float, scale: int) -> int | None:
    number = Decimal(repr(value)).scaleb(scale)
    return int(number) if abs(number) < _EXACT and number == number.to_integral_value() else None


_PRIMITIVES: Final = {
    "int8": _Type("int", _integer(8)),
    "int16": _Type("int", _integer(16)),
    "int32": _Type("int", _integer(32)),
    "int64": _Type("long", _integer(64)),
    "float": _Type("float", _number),
    "double": _Type("double", _number),
    "boolean": _Type("boolean", _boolean),
    "string": _Type("string", _string),
    "bytes": _Type("bytes", _bytes),
}


def _too_deep() -> DecodeError:
    return undecodable(f"the JSON or its schema is nested deeper than {MAX_DEPTH}")
