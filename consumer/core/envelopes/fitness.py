"""What a mapping asks of a schema that can be bound to it, and what the schema does not have.

Binding refuses a schema that lacks whom a row is about, the phone number or a flag. What else may be wrong shows here
before the first record: fields of types that every record would be rejected for, and fields that are not there, which
count as not told. What lies within maps and documents has no schema, so nothing is said of it. Touches nothing else.
"""

from collections.abc import Callable, Iterator, Mapping

from consumer.core.envelopes.debezium import is_aside
from consumer.core.envelopes.schema import Fields, kinds
from consumer.core.mapping import ContactMapping, Path, Source, shown

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

_ATTRIBUTE = _TEXT | {"int", "long", "float", "double", "boolean"}
_NATIVE = {"consent": "consent", "do_not_call": "doNotCall"}
"""Fields of the native change event that its check leaves to validation, which rejects every record without them."""

_ROWS: Mapping[str, Callable[[Fields], Fields]] = {
    "debezium": lambda fields: fields.within("after"),
    "flattened": lambda fields: fields,
    "salesforce": lambda fields: fields,
    "outbox": lambda fields: fields,
}
"""Where the rows are that a mapping reads, by envelope; others have rows without a schema."""


def native_unsuited(definition: Mapping[str, object]) -> tuple[str, ...]:
    """What of a schema of native change events gets every record rejected."""
    fields = Fields.of(definition)
    missing = tuple(f"the schema has no field {name}" for name in _NATIVE.values() if name not in fields)
    present = {field: Source(((name,),)) for field, name in _NATIVE.items() if name in fields}
    return (*missing, *_unsuited(fields, ContactMapping(sources=present, attributes={})))


def unsuited(envelope: str, definition: Mapping[str, object], mapping: ContactMapping) -> tuple[str, ...]:
    """What of a schema, to which the mapping can be bound, gets every record rejected that has a value there."""
    return tuple(_unsuited(_rows(envelope, definition), mapping))


def lacking(envelope: str, definition: Mapping[str, object], mapping: ContactMapping) -> tuple[str, ...]:
    """Fields of the mapping, with their paths, that a schema does not have, although it can be bound."""
    rows = _rows(envelope, definition)
    sources = {**mapping.sources, **{f"attributes.{name}": source for name, source in mapping.attributes.items()}}
    if mapping.only:
        sources["only"] = Source(mapping.only.paths)
    missing = [(name, source) for name, source in sources.items() if rows and _is_lacking(rows, source)]
    return tuple(f"{name} ({shown(source.paths)})" for name, source in missing)


def _rows(envelope: str, definition: Mapping[str, object]) -> Fields:
    if envelope not in _ROWS or is_aside(definition):
        return Fields()
    return _ROWS[envelope](Fields.of(definition))


def _is_lacking(rows: Fields, source: Source) -> bool:
    return bool(source.paths) and all(not _is_around(path) and rows.getter(path) is None for path in source.paths)


def _is_around(path: Path) -> bool:
    """Whether it names what stands around the value."""
    return path[0].startswith("@")


def _unsuited(rows: Fields, mapping: ContactMapping) -> Iterator[str]:
    attributes = {f"attributes.{name}": source for name, source in mapping.attributes.items()}
    for field, source in {**mapping.sources, **attributes}.items():
        suited = _ATTRIBUTE if field in attributes else _SUITED.get(field)
        path = next((path for path in source.paths if _is_around(path) or rows.getter(path) is not None), None)
        if suited is None or path is None or source.values or _is_around(path):
            continue
        held = _held(rows, path)
        if held and not held & suited:
            yield f"{field}: {shown([path])} is {', '.join(sorted(held))}, not {' or '.join(sorted(suited))}"


def _held(rows: Fields, path: Path) -> set[str]:
    """Avro types of what stands at a path; none where that has no schema."""
    name, *rest = path
    held = kinds(rows[name])
    if not rest:
        return held
    return set() if "map" in held else _held(rows.within(name), tuple(rest))
