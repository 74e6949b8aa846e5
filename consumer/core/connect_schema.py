"""Schemas as Kafka Connect writes them in JSON, made into Avro's words and into checks of the values.

Answers for a definition and its check agreeing: what passes is what an Avro record of that definition would hold.
Logical names are under `connect.name`; names of records are made up where Connect's do not serve. A few bytes cannot
ask for much: depth and number of types are limited. Touches nothing else.
"""

import binascii
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Final, NamedTuple, TypeGuard, cast

from consumer.errors import DecodeError, undecodable

MAX_DEPTH = 32
"""Levels of a schema, or of a value."""

MAX_TYPES = 5_000
"""Types in a schema."""

_FULL_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
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

Check = Callable[[object], object]
"""Gives the value back, decoded where JSON cannot hold it; raises `UnfitError`."""


class UnfitError(Exception):
    """A value is not of its type.

    Attributes:
        path: Names of the fields that it stands in, from within.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []


class Type(NamedTuple):
    """A type of a schema.

    Attributes:
        definition: In Avro's words.
        check: Of its values.
    """

    definition: object
    check: Check


def compiled(schema: object) -> Type:
    """The type of a schema in Connect's words; its `optional` says nothing: it may have been a field of an envelope.

    Raises:
        DecodeError: It is not one of Connect's, or asks for too much.
    """
    return _Compiler().apply(schema | {"optional": False} if isinstance(schema, dict) else schema)


class _Compiler:
    """Makes types of a schema in Connect's words."""

    def __init__(self) -> None:
        self._types = 0
        self._names: set[str] = set()

    def apply(self, schema: object, depth: int = 1, *, repeated: bool = False) -> Type:
        """The type of a schema that stands so deep; `repeated` when anything around it is an array or a map."""
        self._types += 1
        if depth > MAX_DEPTH:
            raise too_deep()
        if self._types > MAX_TYPES:
            raise undecodable(f"the schema has more than {MAX_TYPES:,} types")
        if not isinstance(schema, dict):
            raise undecodable("the schema is not one of Kafka Connect")
        made = self._made(schema, depth, repeated=repeated)
        return Type(["null", made.definition], _optional(made.check)) if schema.get("optional") is True else made

    def _made(self, schema: dict[str, object], depth: int, *, repeated: bool) -> Type:
        match schema.get("type"):
            case "struct":
                return self._struct(schema, depth, repeated=repeated)
            case "array":
                item = self.apply(schema.get("items"), depth + 1, repeated=True)
                return Type({"type": "array", "items": item.definition} | _named(schema), _array(item.check))
            case "map":
                return self._map(schema, depth)
            case str(kind) if kind in _PRIMITIVES:
                made = _PRIMITIVES[kind]
                named = _named(schema) | _default(schema)
                scale = named.get("scale") if kind == "bytes" else None
                check = _decimal_of(scale) if isinstance(scale, int) else made.check
                return made if not named else Type({"type": made.definition} | named, check)
        raise undecodable("the schema has a type that Kafka Connect does not have")

    def _struct(self, schema: dict[str, object], depth: int, *, repeated: bool) -> Type:
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
        return Type(definition, _struct({name: kind.check for name, kind in fields.items()}, fill=not repeated))

    def _map(self, schema: dict[str, object], depth: int) -> Type:
        key = schema.get("keys")
        if not isinstance(key, dict):
            raise undecodable("the schema has a map without keys")
        if key.get("type") != "string":
            return Type({"type": "array", "items": "null"} | _named(schema), _pairs)
        value = self.apply(schema.get("values"), depth + 1, repeated=True)
        return Type({"type": "map", "values": value.definition} | _named(schema), _map(value.check))

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


def _default(schema: dict[str, object]) -> dict[str, object]:
    """The default, as Connect's converter for Avro notes it."""
    return {"connect.default": schema["default"]} if schema.get("default") is not None else {}


def _decimal(schema: dict[str, object]) -> dict[str, object]:
    parameters = schema.get("parameters")
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    if not isinstance(scale, str) or not _SCALE.fullmatch(scale):
        raise undecodable("the schema has a decimal without a scale")
    return {"logicalType": "decimal", "precision": _PRECISION, "scale": int(scale)}


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _array(check: Check) -> Check:
    def checked(value: object) -> object:
        if not isinstance(value, list):
            raise UnfitError
        value[:] = map(check, value)
        return value

    return checked


def _map(check: Check) -> Check:
    def checked(value: object) -> object:
        if not isinstance(value, dict):
            raise UnfitError
        for key, each in value.items():
            value[key] = check(each)
        return value

    return checked


def _pairs(value: object) -> object:
    """Of a map whose keys are no strings, which JSON has as a list of pairs: nothing is mapped from within it."""
    if not isinstance(value, list):
        raise UnfitError
    return []


def _struct(checks: Mapping[str, Check], *, fill: bool) -> Check:
    """Of an object, in place. Absent fields become null, but not in arrays and maps: few bytes would become many.

    What the schema does not have is dropped, as by Connect itself: nobody has checked it.
    """

    def checked(value: object) -> object:
        if not isinstance(value, dict):
            raise UnfitError
        for name in value.keys() - checks.keys():
            del value[name]
        for name, check in checks.items():
            try:
                found = check(value.get(name))
            except UnfitError as error:
                error.path.append(name)
                raise
            if fill or name in value:
                value[name] = found
        return value

    return checked


def is_integer(value: object, bits: int) -> bool:
    """Whether it is a whole number of so many bits, with its sign."""
    bound = 1 << (bits - 1)
    return isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound


def _integer(bits: int) -> Check:
    def checked(value: object) -> object:
        if not is_integer(value, bits):
            raise UnfitError
        return value

    return checked


def _number(value: object) -> object:
    if isinstance(value, str) and value in _NOT_FINITE:
        return float(value)
    if not _is_number(value):
        raise UnfitError
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: object) -> object:
    if not isinstance(value, bool):
        raise UnfitError
    return value


def _string(value: object) -> object:
    if not isinstance(value, str):
        raise UnfitError
    return value


def _bytes(value: object) -> object:
    with suppress(ValueError):
        return binascii.a2b_base64(cast("str", _string(value)), strict_mode=True)
    raise UnfitError


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
    "int8": Type("int", _integer(8)),
    "int16": Type("int", _integer(16)),
    "int32": Type("int", _integer(32)),
    "int64": Type("long", _integer(64)),
    "float": Type("float", _number),
    "double": Type("double", _number),
    "boolean": Type("boolean", _boolean),
    "string": Type("string", _string),
    "bytes": Type("bytes", _bytes),
}


def too_deep() -> DecodeError:
    """The error of what has more levels than are read."""
    return undecodable(f"the JSON or its schema is nested deeper than {MAX_DEPTH}")
