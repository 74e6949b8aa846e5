"""Debezium's flattened rows: the columns, and between them what is left of the envelope, under a prefix.

Answers for what the metadata means: `deleted` (text or boolean), `op`, `source_ts_ms`, and the positions of
`position`, each where the connector was told to add it. Without `deleted` and `op` every row is an update, and deletes
come as tombstones alone. Without `op` any row may be the first of its contact, so each tells the whole of it. Deletes
hold the row as it was before, of which only the external id counts. Touches nothing else.
"""

from collections.abc import Mapping
from typing import Final

from consumer.core.envelopes.debezium import (
    available,
    ignore,
    is_aside,
    is_nameless_aside,
    nobody_to_delete,
    renamed,
    truncated,
)
from consumer.core.envelopes.position import log
from consumer.core.envelopes.schema import Fields, Mapper
from consumer.core.mapping import BoundMapping, When, deletion, gap
from consumer.core.mapping_places import Row
from consumer.core.mapping_tables import ContactMapping
from consumer.core.mapping_values import in_milliseconds, names_somebody
from consumer.core.moments import kafka_time
from consumer.errors import DecodeError, undecodable
from consumer.model import ChangeType, Events, Record

_CHANGE_TYPES: Final = {"c": ChangeType.CREATE, "r": ChangeType.CREATE, "u": ChangeType.UPDATE, None: ChangeType.UPDATE}
_DELETED: Final = {"true": True, True: True, "false": False, False: False, None: False}


def flattened(definition: Mapping[str, object], mapping: ContactMapping) -> Mapper:
    """The mapping for records of a writer's schema.

    Raises:
        DecodeError: It lacks a field that the mapping names, or is of another table.
    """
    if is_aside(definition):
        return ignore
    fields = Fields.of(definition)
    whole = f"{mapping.prefix}op" not in fields
    deletes = not whole or f"{mapping.prefix}deleted" in fields
    # Without a prefix nobody knows which are columns.
    columns = {name for name in fields if not name.startswith(mapping.prefix)}
    deletes = deletes and not mapping.is_of_others(columns)
    try:
        bound = BoundMapping(mapping, available(fields), whole=whole, deletes=deletes)
    except DecodeError:
        if is_nameless_aside(definition):
            return ignore
        raise
    return _Changes(bound, fields, mapping.prefix).events


class _Changes:
    """Change events of one schema.

    Args:
        mapping: Of a row.
        columns: Of the rows, metadata included.
        prefix: Of the metadata.
    """

    def __init__(self, mapping: BoundMapping, columns: Fields, prefix: str) -> None:
        self._mapping = mapping
        self._deleted, self._op = f"{prefix}deleted", f"{prefix}op"
        self._time = f"{prefix}source_ts_ms"
        self._blank = dict.fromkeys(columns)
        self._tells_deleted = self._deleted in columns
        told = columns if prefix else columns.keys() - {"name", "source_name"}  # else the row's, not the source's
        self._log = log(told, prefix) or log(told, f"{prefix}source_")

    def events(self, fields: Row, record: Record) -> Events:
        """What a record tells."""
        operation, deleted = fields.get(self._op), _as_deleted(fields.get(self._deleted))
        if not isinstance(operation, str | None):
            raise undecodable(f"{self._op} is not text")
        row = self._mapping.row(fields, record)
        if deleted or operation == "d":
            sure = operation in {"d", None} and deleted is self._tells_deleted
            return self._gone(row, record, sure=sure)
        if operation == "t":
            raise truncated()
        if operation == "m" or not self._mapping.counts(row):
            return ()
        if operation not in _CHANGE_TYPES:
            raise undecodable(f"{self._op} is not one that Debezium knows")
        when = self._mapping.when(row, *self._when(fields, record))
        event = self._mapping.event(_CHANGE_TYPES[operation], self._mapping.external_id(row), row, when)
        return renamed(event, self._mapping, self._blank, record) if event else ()

    def _gone(self, row: Row, record: Record, *, sure: bool) -> Events:
        external_id = self._mapping.deleted_id(row)
        if not names_somebody(external_id):
            raise nobody_to_delete()
        when = self._mapping.when_gone(self._when(row, record))
        return deletion(external_id, when) if sure else gap(external_id, when)

    def _when(self, fields: Row, record: Record) -> When:
        time = fields.get(self._time)
        occurred_at, flaw = (kafka_time(record), "") if time is None else in_milliseconds(time, record)
        if self._log is None:
            return occurred_at, None, None, flaw
        snapshot = fields.get(self._op) == "r"
        occurred_at, version, place, flaw = self._log.when(fields, occurred_at, snapshot=snapshot, flaw=flaw)
        # A record that is sent again has a new time in Kafka: only the source's own time tells its place.
        return occurred_at, version, None if time is None else place, flaw


def _as_deleted(value: object) -> bool:
    if not isinstance(value, str | bool | None) or value not in _DELETED:
        raise undecodable("deleted is neither true nor false")
    return _DELETED[value]
