"""What a mapping asks of a schema that can be bound to it, and what the schema does not have.

Binding refuses a schema that lacks whom a row is about. What else may be wrong shows here before the first record: that
the phone number or a flag is lacking, without which a row can do no more than delete or withdraw; fields of types that
records would be rejected for; flags whose null may come as a default that lets somebody be called; and fields that are
not there, which count as not told. What lies within maps and documents has no schema, so nothing is said of it. Touches
nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from fastavro.types import Schema

from consumer.core.envelopes.debezium import is_aside, is_nameless_aside
from consumer.core.envelopes.schema import Fields, is_decimal, kind
from consumer.core.mapping import lacks
from consumer.core.mapping_tables import FLAGS, REQUIRED, ContactMapping, Path, Source, as_key, shown
from consumer.formats import EnvelopeName

_FLAG = frozenset({"boolean"})
_TEXT = frozenset({"string", "enum"})
_NUMBER = frozenset({"int", "long", "string"})
_SUITED: Mapping[str, frozenset[str]] = {
    "external_id": _TEXT | {"bytes", "fixed", "int", "long"},
    "phone": _TEXT,
    "email": _TEXT,
    "consent": _FLAG,
    "do_not_call": _FLAG,
    "version": _NUMBER,
    "occurred_at": _NUMBER,
}
"""Types of which values come to something, by field; `values` make something of any type."""

_NEEDED = frozenset({"external_id", "consent", "do_not_call"})
"""Fields without which every change is rejected."""

_GRANTS: Mapping[str, bool] = {"consent": True, "do_not_call": False}
"""What each flag is where somebody may be called."""

_ATTRIBUTE = _TEXT | {"int", "long", "float", "double", "boolean"}
_NATIVE = {"consent": "consent", "do_not_call": "doNotCall"}
"""Fields of the native change event that its check leaves to validation, which rejects every record without them."""

_ROWS: Mapping[EnvelopeName, Callable[[Fields], Fields]] = {
    EnvelopeName.DEBEZIUM: lambda fields: fields.within("after"),
    EnvelopeName.FLATTENED: lambda fields: fields,
    EnvelopeName.SALESFORCE: lambda fields: fields,
    EnvelopeName.OUTBOX: lambda fields: fields,
}
"""Where the rows are that a mapping reads, by envelope; others have rows without a schema."""


class Unsuited(NamedTuple):
    """A field of a type that nothing can be made of.

    Attributes:
        told: Which, and why.
        always: Whether it gets every change rejected, and not only those that have a value there.
    """

    told: str
    always: bool


def native_unsuited(definition: Mapping[str, object]) -> list[Unsuited]:
    """What of a schema of native change events validation rejects."""
    fields = Fields.of(definition)
    missing = [
        Unsuited(f"the schema has no field {name}", always=True) for name in _NATIVE.values() if name not in fields
    ]
    present = {field: Source(((name,),)) for field, name in _NATIVE.items() if name in fields}
    return [*missing, *_unsuited(fields, present, _SUITED)]


def refused(envelope: EnvelopeName, definition: Mapping[str, object], mapping: ContactMapping) -> str | None:
    """Why no row of a schema, to which the mapping can be bound, can be a contact; None where one can.

    Where the rows say what happened the schema may be one of deletes, which is for `unsuited` to tell.
    """
    rows = _rows(envelope, definition)
    lacking = [field for field in REQUIRED if _is_lacking(rows, mapping.sources[field])]
    says = "change_type" in mapping.sources and not _is_lacking(rows, mapping.sources["change_type"])
    return lacks(mapping.sources, lacking) if lacking and not says else None


def unsuited(envelope: EnvelopeName, definition: Mapping[str, object], mapping: ContactMapping) -> list[Unsuited]:
    """What of a schema, to which the mapping can be bound, gets records rejected."""
    rows = _rows(envelope, definition)
    deletes_alone = [
        Unsuited(f"{field}: the schema has none of {shown(source.paths)}, so it can tell of deletes alone", always=True)
        for field, source in mapping.sources.items()
        if field in REQUIRED and _is_lacking(rows, source)
    ]
    attributes = {f"attributes.{name}": source for name, source in mapping.attributes.items()}
    found = [
        *deletes_alone,
        *_unsuited(rows, mapping.sources, _SUITED),
        *_unsuited(rows, attributes, dict.fromkeys(attributes, _ATTRIBUTE)),
    ]
    if envelope is EnvelopeName.SALESFORCE:  # an update that does not tell a flag passes
        return [each._replace(always=False) for each in found]
    return found


def granted(envelope: EnvelopeName, definition: Mapping[str, object], mapping: ContactMapping) -> list[str]:
    """Flags that may be null and have a default that grants, unless a null is meant to grant; a sentence each.

    Kafka Connect's converters write the default in place of the null, and no record tells one from the other.
    """
    rows = _rows(envelope, definition)
    return [told for field in FLAGS if (told := _granted(rows, field, mapping.sources[field]))]


def lacking(envelope: EnvelopeName, definition: Mapping[str, object], mapping: ContactMapping) -> tuple[str, ...]:
    """Fields of the mapping, with their paths, that a schema does not have, although it can be bound.

    What is known of a record without a schema is what it holds: of DMS' too, whose rows leave out what is null.
    """
    is_dms = envelope is EnvelopeName.DMS
    rows = Fields.of(definition).within("data") if is_dms else _rows(envelope, definition)
    sources = {**mapping.sources, **{f"attributes.{name}": source for name, source in mapping.attributes.items()}}
    if mapping.only:
        sources["only"] = Source(mapping.only.paths)
    missing = [(name, source) for name, source in sources.items() if _is_lacking(rows, source)]
    return tuple(f"{name} ({shown(source.paths)})" for name, source in missing)


def _rows(envelope: EnvelopeName, definition: Mapping[str, object]) -> Fields:
    if envelope not in _ROWS or is_aside(definition) or is_nameless_aside(definition):
        return Fields()
    return _ROWS[envelope](Fields.of(definition))


def _is_lacking(rows: Fields, source: Source) -> bool:
    return bool(rows and source.paths) and _place(rows, source) is None


def _place(rows: Fields, source: Source) -> Path | None:
    """The first path of a field that counts: of what rows have, or of what stands around them."""
    return next((path for path in source.paths if path[0].startswith("@") or rows.getter(path) is not None), None)


def _unsuited(rows: Fields, sources: Mapping[str, Source], suited: Mapping[str, frozenset[str]]) -> Iterator[Unsuited]:
    for field, source in sources.items():
        path = _place(rows, source)
        if field not in suited or path is None or source.values or path[0].startswith("@"):
            continue
        held = _held(rows, path)
        types = held - {"null"}
        if types and not types & suited[field]:
            told = f"{field}: {shown([path])} is {', '.join(sorted(types))}, not {' or '.join(sorted(suited[field]))}"
            yield Unsuited(told, always=field in _NEEDED or "null" not in held)


def _granted(rows: Fields, field: str, source: Source) -> str | None:
    path = _place(rows, source)
    default = None if path is None else _default(rows, path)
    meant, of_null = (source.values.get(as_key(value), value) for value in (default, None))
    if path is None or meant is not _GRANTS[field] or of_null is meant:
        return None
    return f"{field}: {shown([path])} may be null, and its default is {as_key(default)}: drop the column's default"


def _default(rows: Fields, path: Path) -> object:
    name, *rest = path
    return _default(rows.within(name), tuple(rest)) if rest else rows.defaults.get(name)


def _kind_read(branch: Schema) -> str:
    """The type that values of a branch are read as."""
    if not is_decimal(branch):
        return kind(branch)
    return "string" if isinstance(branch, dict) and branch.get("scale") else "long"


def _held(rows: Fields, path: Path) -> set[str]:
    """Avro types of what stands at a path, null included; none where that has no schema."""
    name, *rest = path
    held = set(map(_kind_read, rows[name]))
    if not rest:
        return held
    if "map" in held or held == {"null"}:
        return set()
    inner = _held(rows.within(name), tuple(rest))
    return inner | (held & {"null"})
