"""Maps the fields of a writer's schema onto a change event.

Answers for which writers' schemas are understood: once per schema, not per record. The one envelope is the native one
(`schemas/crm_contact_change.avsc`), read as Avro resolution reads it: fields in any order, optional ones missing, more
of them, promoted types, unions with null. Names of records and enums do not matter, aliases are not used. Touches
nothing else.

Phone, e-mail and the two flags are handed on in whatever type they have: it is for validation to say that a consent of
"yes" is not a boolean. Times are milliseconds: a logical type of another unit is not understood, and a number outside
the years 1970 to 9999 is no time.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypedDict, cast

from fastavro.schema import expand_schema
from fastavro.types import DictSchema, Schema

from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType, Reason, Record

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""

Mapper = Callable[[dict[str, object], Record], ChangeEvent]
"""Makes the change event of the decoded fields of a record; raises nothing but `DecodeError`."""

_TEXT = frozenset({"string", "bytes"})
_INTEGER = frozenset({"int", "long"})
_REQUIRED = {"eventId": _TEXT, "changeType": frozenset({"enum"}), "externalId": _TEXT, "occurredAt": _INTEGER}
_OPTIONAL = {"version": _INTEGER, "attributes": frozenset({"map"})}
_MAYBE_BYTES = ("externalId", "phone", "email")
_MILLISECONDS = frozenset({None, "timestamp-millis", "local-timestamp-millis"})

_CHANGE_TYPES: dict[str | None, ChangeType] = {change_type.value: change_type for change_type in ChangeType}


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


def native(definition: Mapping[str, object]) -> Mapper:
    """The mapping for records of a writer's schema.

    Args:
        definition: The schema, which must be valid Avro and not recursive.

    Raises:
        DecodeError: The schema is not one of native change events.
    """
    fields = _branches_by_field(definition)
    for name, allowed in _REQUIRED.items():
        if not _kinds(fields.get(name, ())):
            raise _unknown(f"the schema has no field {name}")
        _check(name, fields[name], allowed)
    for name, allowed in _OPTIONAL.items():
        _check(name, fields.get(name, ()), allowed)
    values = _map_values(fields.get("attributes", ()))
    _check("attributes", values, _TEXT)
    if not _MILLISECONDS.issuperset(map(_logical_type, fields["occurredAt"])):
        raise _unknown("the field occurredAt is not in milliseconds")

    encoded = [name for name in _MAYBE_BYTES if "bytes" in _kinds(fields.get(name, ()))]
    if not encoded and all(value == "string" for value in map(_kind, values)):
        return _convert
    return lambda fields, record: _convert(_as_text(fields, encoded), record)


def _convert(fields: dict[str, object], _record: Record) -> ChangeEvent:
    known = cast("_Fields", fields)
    change_type = _CHANGE_TYPES.get(known["changeType"])
    if change_type is None:
        raise _undecodable(f"changeType is {known['changeType']}, which is not known")
    occurred_at = known["occurredAt"]
    if occurred_at is None or not 0 <= occurred_at <= MAX_TIME_MS:
        raise _undecodable("occurredAt is not a time in milliseconds since the epoch")
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


def _as_text(fields: dict[str, object], encoded: Sequence[str]) -> dict[str, object]:
    """The fields with bytes turned into the text that they encode, and without attributes that are null."""
    attributes = cast("_Attributes | None", fields.get("attributes")) or {}
    with suppress(UnicodeDecodeError):
        texts = {name: _text(fields[name]) for name in encoded}
        values = {name: _text(value) for name, value in attributes.items() if value is not None}
        return fields | texts | {"attributes": values}
    # After the handler: the foreign error holds the bytes, and would travel along as the context of ours.
    raise _undecodable("a text in bytes is not UTF-8")


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def _branches_by_field(definition: Mapping[str, object]) -> dict[str, Sequence[Schema]]:
    """What each field may hold, by name, with named types put in where they are used."""
    record = cast("DictSchema", expand_schema(dict(definition)))
    return {field["name"]: _branches(field["type"]) for field in record["fields"]}


def _branches(schema: Schema) -> Sequence[Schema]:
    return schema if isinstance(schema, list) else [schema]


def _kind(branch: Schema) -> str:
    return cast("str", branch["type"]) if isinstance(branch, dict) else cast("str", branch)


def _kinds(branches: Sequence[Schema]) -> set[str]:
    return set(map(_kind, branches)) - {"null"}


def _logical_type(branch: Schema) -> object:
    return branch.get("logicalType") if isinstance(branch, dict) else None


def _map_values(branches: Sequence[Schema]) -> Sequence[Schema]:
    """What the values of a map may hold, of whichever branch is a map."""
    maps = [branch for branch in branches if isinstance(branch, dict) and "values" in branch]
    return [value for branch in maps for value in _branches(branch["values"])]


def _check(name: str, branches: Sequence[Schema], allowed: frozenset[str]) -> None:
    unfit = _kinds(branches) - allowed
    if unfit:
        raise _unknown(f"the field {name} may be {', '.join(sorted(unfit))}")


def _unknown(detail: str) -> DecodeError:
    return DecodeError((Reason.ENVELOPE_UNKNOWN,), detail)


def _undecodable(detail: str) -> DecodeError:
    return DecodeError((Reason.NOT_DECODABLE,), detail)
