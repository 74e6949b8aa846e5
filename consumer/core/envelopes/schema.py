"""Reads a writer's schema: what its fields may hold, and how a value is found in what was decoded with it.

Answers for nothing but the structure; touches nothing else. Schemas are valid Avro and not recursive.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from operator import itemgetter
from typing import cast

from fastavro.schema import expand_schema
from fastavro.types import DictSchema, Schema

from consumer.core.mapping import unknown
from consumer.core.mapping_places import Getter, Row, in_any, nothing
from consumer.core.mapping_tables import Path
from consumer.errors import undecodable
from consumer.model import Events, Record

Mapper = Callable[[Row, Record], Events]
"""Makes the change events of the decoded fields of a record; raises nothing but `DecodeError`."""

Branches = Sequence[Schema]
"""What a field may hold: the branches of its union, or its one type."""

_MAX_DECIMAL_BYTES = 64
_MAX_SCALE = 150
_EXACT = Context(prec=200)
"""More digits than so many bytes can hold."""


class Fields(dict[str, Branches]):
    """What each field of a record may hold, by name, with named types put in where they are used.

    Attributes:
        defaults: Of fields that may be null and have one, by name: what Kafka Connect's converters write for a null.
    """

    defaults: Mapping[str, object] = {}

    @classmethod
    def of(cls, definition: Mapping[str, object]) -> "Fields":
        """The fields of a writer's schema."""
        return cls._of_record(cast("DictSchema", expand_schema(dict(definition))))

    @classmethod
    def _of_record(cls, record: DictSchema) -> "Fields":
        fields = cls((field["name"], branches(field["type"])) for field in record["fields"])
        defaults = {field["name"]: _default(field) for field in record["fields"]}
        fields.defaults = {name: default for name, default in defaults.items() if default is not None}
        return fields

    def within(self, name: str) -> "Fields":
        """The fields of the record that a field holds; none where it holds no record, or one of several."""
        records = [branch for branch in self.get(name, ()) if isinstance(branch, dict) and "fields" in branch]
        return self._of_record(records[0]) if len(records) == 1 else Fields()

    def getter(self, path: Path) -> Getter | None:
        """Reads what stands at a path; None where the schema has no such place. A null on the way is a null."""
        name, *rest = path
        if name not in self:
            return None
        if not rest:
            scale = _scale(self[name])
            return itemgetter(name) if scale is None else _decimal(name, scale)
        held = kinds(self[name])
        if not held:
            return nothing
        inner = in_any(tuple(rest)) if "map" in held else self.within(name).getter(tuple(rest))
        return inner if inner is None or inner is nothing else _nested(name, inner)


def _default(field: Mapping[str, object]) -> object:
    """The default of a field that may be null: its own, or that of a branch, where Connect's converters note it too."""
    held = branches(cast("Schema", field["type"]))
    if "null" not in map(kind, held):
        return None
    noted = [branch.get("connect.default") for branch in held if isinstance(branch, dict)]
    return next((default for default in (field.get("default"), *noted) if default is not None), None)


def _nested(name: str, inner: Getter) -> Getter:
    def get(row: Row) -> object:
        record = row[name]
        return inner(record) if isinstance(record, dict) else None

    return get


def _decimal(name: str, scale: int) -> Getter:
    """Reads a decimal, decoded as the bytes that carry it: a whole number, or the text of one with a fraction."""

    def get(row: Row) -> object:
        value = row[name]
        if not isinstance(value, bytes):
            return value
        if len(value) > _MAX_DECIMAL_BYTES:
            raise undecodable(f"a decimal has more than {_MAX_DECIMAL_BYTES} bytes")
        number = int.from_bytes(value, "big", signed=True)
        return number if scale == 0 else f"{Decimal(number).scaleb(-scale, _EXACT):f}"

    return get


def _scale(held: Branches) -> int | None:
    """The scale of the decimals that a field holds; None when it holds none.

    Raises:
        DecodeError: It is none that a database has: a number would be written with as many digits.
    """
    found = [branch for branch in held if is_decimal(branch)]
    if not found:
        return None
    scale = cast("DictSchema", found[0]).get("scale", 0)
    if type(scale) is not int or not 0 <= scale <= _MAX_SCALE:
        raise unknown(f"the schema has a decimal whose scale is not one from 0 to {_MAX_SCALE}")
    return scale


def is_decimal(branch: Schema) -> bool:
    """Whether values of a branch are decimals."""
    return isinstance(branch, dict) and branch.get("logicalType") == "decimal" and kind(branch) in {"bytes", "fixed"}


def branches(schema: Schema) -> Branches:
    """What a type may hold."""
    return schema if isinstance(schema, list) else [schema]


def kind(branch: Schema) -> str:
    """The Avro type of a branch."""
    return cast("str", branch["type"]) if isinstance(branch, dict) else cast("str", branch)


def kinds(held: Branches) -> set[str]:
    """The Avro types of branches, without null."""
    return set(map(kind, held)) - {"null"}
