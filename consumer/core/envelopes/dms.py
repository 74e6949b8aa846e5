"""Records of AWS' Database Migration Service, which are JSON: the row under `data`, what happened under `metadata`.

Answers for what each operation means. A column that is not there is null or empty, so every row tells all there is.
What was before tells who the row was about, and nothing else: it stands in an object of its own or, as columns with a
prefix, in the row. Records of control (tables created or dropped) are about no contact. There is no version that could
be trusted: a timestamp goes back when a clock is set. Touches nothing else.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from typing import Final

from msgspec.structs import replace

from consumer.core.envelopes.schema import Mapper
from consumer.core.mapping import BoundMapping, When, deletion
from consumer.core.mapping_places import Row, in_any
from consumer.core.mapping_tables import ContactMapping
from consumer.core.mapping_values import in_milliseconds, names_somebody
from consumer.core.moments import kafka_time, milliseconds
from consumer.errors import DecodeError, undecodable
from consumer.model import ChangeType, Events, Reason, Record

_BEFORE: Final = "BI_"
"""What the names of columns begin with that hold what was before, unless the task was told another prefix."""

_CHANGE_TYPES: Final = {"load": ChangeType.CREATE, "insert": ChangeType.CREATE, "update": ChangeType.UPDATE}


def dms(_: Mapping[str, object], mapping: ContactMapping) -> Mapper:
    """The mapping for records without a schema.

    Raises:
        DecodeError: Never; a column that a row does not have is null.
    """
    return _Changes(BoundMapping(mapping, in_any, loose=True, deletes=True)).events


class _Changes:
    """Change events of one mapping."""

    def __init__(self, mapping: BoundMapping) -> None:
        self._mapping = mapping

    def events(self, fields: Row, record: Record) -> Events:
        """What a record tells."""
        metadata = _object(fields, "metadata")
        if metadata.get("record-type") == "control":
            return ()
        row = self._mapping.row(_object(fields, "data"), record)
        operation, when = metadata.get("operation"), _when(metadata, record)
        if operation == "delete":
            return self._gone(row, when)
        if not isinstance(operation, str) or operation not in _CHANGE_TYPES:
            raise undecodable("operation is not one that DMS knows")
        if not self._mapping.counts(row):
            return ()
        return self._changed(_CHANGE_TYPES[operation], fields, row, record)

    def _changed(self, change_type: ChangeType, fields: Row, row: Row, record: Record) -> Events:
        when = self._mapping.when(row, *_when(_object(fields, "metadata"), record))
        external_id = self._mapping.external_id(row)
        event = self._mapping.event(change_type, external_id, row, when) or ()
        former = self._former(fields, record)
        if event and names_somebody(former) and former != external_id:
            return deletion(former, when), replace(event, former=former)
        return event

    def _former(self, fields: Row, record: Record) -> object:
        """Whom the row was about before: what was before may have some columns alone, and may not be told at all."""
        row = _object(fields, "data")
        return self._mapping.external_id(self._mapping.row(row | _before(fields, row), record))

    def _gone(self, row: Row, when: When) -> Events:
        """A delete may come with the primary key alone, and what is null is left out of any row."""
        external_id = self._mapping.deleted_id(row)
        if external_id is None:
            detail = "the delete does not tell the first path of external_id in SOURCE_MAPPING; name the primary key"
            raise DecodeError((Reason.EXTERNAL_ID_MISSING,), detail)
        return deletion(external_id, when)


def _before(fields: Row, row: Row) -> Row:
    """The columns of a row before it changed, as far as they are told."""
    before = fields.get("before-image")
    if isinstance(before, dict):
        return before
    return {name.removeprefix(_BEFORE): value for name, value in row.items() if name.startswith(_BEFORE)}


def _object(fields: Row, name: str) -> Row:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise undecodable(f"{name} is not an object")
    return value


def _when(metadata: Row, record: Record) -> When:
    text = metadata.get("commit-timestamp") or metadata.get("timestamp")
    with suppress(ValueError, OverflowError):
        occurred_at, flaw = in_milliseconds(milliseconds(str(text), zone=UTC), record)
        return occurred_at, None, None, flaw
    return kafka_time(record), None, None, "metadata holds no timestamp"
