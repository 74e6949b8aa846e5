"""The native change event: maps the fields of a writer's schema onto it.

Answers for which writers' schemas are understood as native (`schemas/crm_contact_change.avsc`): once per schema. They
are read as Avro resolution reads them: fields in any order, optional ones missing, more of them, promoted types, unions
with null. Names of records and enums do not matter, aliases are not used. Touches nothing else.

Phone, e-mail and the two flags are handed on in whatever type they have: it is for validation to say that a consent of
"yes" is not a boolean. Attributes may be a record, as objects in JSON are; there one that is no text is a flaw of the
event, and not its end. Times are milliseconds: a logical type of another unit is not understood, and a number outside
the years 1970 to 9999 is no time.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypedDict, cast

from fastavro.types import Schema
from msgspec.structs import replace

from consumer.core.envelopes.schema import Branches, Fields, branches, is_decimal, kind, kinds
from consumer.core.mapping import deletion, unknown
from consumer.core.mapping_places import Row
from consumer.core.mapping_tables import CHANGE_TYPES
from consumer.core.moments import MAX_MS, kafka_time
from consumer.errors import undecodable
from consumer.model import ChangeEvent, ChangeType, Record

_TEXT = frozenset({"string", "bytes"})
_INTEGER = frozenset({"int", "long"})
_REQUIRED = {"eventId": _TEXT, "changeType": frozenset({"enum", "string"}), "externalId": _TEXT, "occurredAt": _INTEGER}
_OPTIONAL = {"version": _INTEGER, "attributes": frozenset({"map", "record"})}
_MAYBE_BYTES = ("externalId", "phone", "email")
_MILLISECONDS = frozenset({None, "timestamp-millis", "local-timestamp-millis"})

_Attributes = dict[str, str | bytes | None]


class _Fields(TypedDict, total=False):
    """What the check of the schema has made sure of."""

    changeType: str | None
    externalId: object
    occurredAt: int | None
    version: int | None
    phone: object
    email: object
    consent: object
    doNotCall: object
    attributes: dict[str, str] | None


def native(definition: Mapping[str, object]) -> Callable[[Row, Record], ChangeEvent]:
    """The mapping for records of a writer's schema.

    Args:
        definition: The schema, which must be valid Avro and not recursive.

    Raises:
        DecodeError: The schema is not one of native change events.
    """
    fields = Fields.of(definition)
    for name, allowed in _REQUIRED.items():
        if not kinds(fields.get(name, ())):
            raise unknown(f"the schema has no field {name}")
        _check(name, fields[name], allowed)
    for name, allowed in _OPTIONAL.items():
        _check(name, fields.get(name, ()), allowed)
    values = _map_values(fields.get("attributes", ()))
    _check("attributes", values, _TEXT)
    if not _MILLISECONDS.issuperset(map(_logical_type, fields["occurredAt"])):
        raise unknown("the field occurredAt is not in milliseconds")

    for name in _MAYBE_BYTES:
        if any(map(is_decimal, fields.get(name, ()))):
            raise unknown(f"the field {name} may be a decimal")
    return _mapper(fields, values)


def _mapper(fields: Fields, values: Branches) -> Callable[[Row, Record], ChangeEvent]:
    """The mapping of fields that were checked, with what values of the attributes may hold."""
    encoded = [name for name in _MAYBE_BYTES if "bytes" in kinds(fields.get(name, ()))]
    if "record" in kinds(fields.get("attributes", ())):
        return lambda fields, record: _convert_record(fields, encoded, record)
    if not encoded and all(value == "string" for value in map(kind, values)):
        return _convert
    return lambda fields, record: _convert(_as_text(fields, encoded), record)


def _convert_record(fields: Row, encoded: Sequence[str], record: Record) -> ChangeEvent:
    """As `_convert`, with attributes that are a record: nobody has checked what that holds."""
    attributes = cast("Row | None", fields.get("attributes")) or {}
    texts = {name: value for name, value in attributes.items() if isinstance(value, str | bytes | None)}
    event = _convert(_as_text(fields | {"attributes": texts}, encoded), record)
    if len(texts) == len(attributes) or event.change_type is ChangeType.DELETE:
        return event
    return replace(event, flaw="an attribute is not text")


def _convert(fields: dict[str, object], record: Record) -> ChangeEvent:
    known = cast("_Fields", fields)
    change_type = CHANGE_TYPES.get(known["changeType"] or "")
    if change_type is None:
        raise undecodable("changeType is not one that is known")
    occurred_at = known["occurredAt"]
    if occurred_at is None or not 0 <= occurred_at <= MAX_MS:
        return _without_time(_convert(fields | {"occurredAt": kafka_time(record)}, record))
    return ChangeEvent(
        change_type,
        known["externalId"],
        occurred_at,
        known.get("version"),
        known.get("phone"),
        known.get("email"),
        known.get("consent"),
        known.get("doNotCall"),
        known.get("attributes") or {},
    )


def _without_time(event: ChangeEvent) -> ChangeEvent:
    """The event with Kafka's time, and what is wrong with its own."""
    flaw = "occurredAt is not a time in milliseconds since the epoch"
    if event.change_type is ChangeType.DELETE:
        return deletion(event.external_id, (event.occurred_at, event.version, None, flaw))
    return replace(event, flaw=flaw)


def _as_text(fields: dict[str, object], encoded: Sequence[str]) -> dict[str, object]:
    """The fields with bytes turned into the text that they encode, and without attributes that are null."""
    attributes = cast("_Attributes | None", fields.get("attributes")) or {}
    with suppress(UnicodeDecodeError):
        texts = {name: _text(fields[name]) for name in encoded}
        values = {name: _text(value) for name, value in attributes.items() if value is not None}
        return fields | texts | {"attributes": values}
    # After the handler: the foreign error holds the bytes, and would travel along as the context of ours.
    raise undecodable("a text in bytes is not UTF-8")


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def _logical_type(branch: Schema) -> object:
    return branch.get("logicalType") if isinstance(branch, dict) else None


def _map_values(held: Branches) -> Branches:
    """What the values of a map may hold, of whichever branch is a map."""
    maps = [branch for branch in held if isinstance(branch, dict) and "values" in branch]
    return [value for branch in maps for value in branches(branch["values"])]


def _check(name: str, held: Branches, allowed: frozenset[str]) -> None:
    unfit = kinds(held) - allowed
    if unfit:
        raise unknown(f"the field {name} may be {', '.join(sorted(unfit))}")
