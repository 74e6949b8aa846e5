"""Debezium's envelope: a row before and after a change, and where that stands in the database's log.

Answers for what each operation means, and for what a row does not tell. `before` names whom a delete is about and
nothing else: with the usual REPLICA IDENTITY it holds the primary key, and elsewhere nulls and fillers that look like
values. A large value that did not change comes as a placeholder and is `UNCHANGED`. A snapshot's read counts as just
before the position at which it was read, so that it never beats a change. Records about no row (heartbeats, schema
changes, transactions, messages) tell nothing. Touches nothing else.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import orjson
from msgspec.structs import replace

from consumer.core.connect_json import is_made_up
from consumer.core.envelopes.position import log
from consumer.core.envelopes.schema import Fields, Mapper, kinds
from consumer.core.mapping import BoundMapping, When, deletion, gap, unknown
from consumer.core.mapping_places import Getter, Resolve, Row, in_any
from consumer.core.mapping_tables import ContactMapping, Path
from consumer.core.mapping_values import in_milliseconds, names_somebody
from consumer.errors import DecodeError, ManyChanged, undecodable
from consumer.model import UNCHANGED, ChangeEvent, ChangeType, Events, FuseCause, Reason, Record

NOT_AVAILABLE = frozenset({
    "__debezium_unavailable_value",
    b"__debezium_unavailable_value",
    "hex:5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
    '{"__debezium_unavailable_value":"__debezium_unavailable_value"}',
})  # fmt: skip
"""What stands in place of a value that did not change and was not read; in place of a map, one with it as a key."""

_MAY_BE_PLACEHOLDER = frozenset({"string", "bytes", "record", "map"})
_ASIDE = frozenset({"Heartbeat", "SchemaChangeValue", "TransactionMetadataValue", "Notification"})

_HEARTBEAT = {"ts_ms": "long"}
_TRANSACTION = {"status": "string", "id": "string", "event_count": "long", "data_collections": "array"}
_NAMELESS_ASIDE = (_HEARTBEAT, _TRANSACTION, _TRANSACTION | _HEARTBEAT)
"""Fields of such records in JSON without a schema, where each of them may be null."""

_OLD_KEY = "__debezium.oldkey"
"""Header of a create that follows the delete of the same row under another primary key."""

_Rows = Callable[[object], Row | None]


def is_aside(definition: Mapping[str, object]) -> bool:
    """Whether these are records of Debezium about no row."""
    name = str(definition.get("connect.name") or f"{definition.get('namespace', '')}.{definition.get('name')}")
    return name.startswith("io.debezium.") and name.rpartition(".")[2] in _ASIDE


def is_nameless_aside(definition: Mapping[str, object]) -> bool:
    """Whether these are heartbeats or transactions in JSON without a schema, by their fields.

    For whoever has found that they can be no rows: nothing else tells them from a table's.
    """
    held = {name: kinds(each) for name, each in Fields.of(definition).items()}
    is_nameless = is_made_up(str(definition.get("name")))
    return is_nameless and any(
        held.keys() == shape.keys() and all(held[name] <= {kind} for name, kind in shape.items())
        for shape in _NAMELESS_ASIDE
    )


def ignore(_: Row, __: Record) -> Events:
    """Map a record that is about no contact."""
    return ()


def debezium(definition: Mapping[str, object], mapping: ContactMapping) -> Mapper:
    """The mapping for records of a writer's schema.

    Raises:
        DecodeError: It is not Debezium's, or lacks a field that the mapping names.
    """
    if is_aside(definition):
        return ignore
    fields = Fields.of(definition)
    if not {"op", "before", "after", "source"} <= fields.keys():
        if is_nameless_aside(definition):
            return ignore
        raise _of_others(fields)
    deletes = not mapping.is_of_others(fields.within("after").keys())
    # Of a delete in JSON without a schema `before` alone tells the columns: it must name whom creates name.
    columns = fields.within("after") or fields.within("before")
    if columns:
        rows, bound = _row, BoundMapping(mapping, available(columns), deletes=deletes)
    else:
        rows, bound = _document, BoundMapping(mapping, in_any, loose=True)
    return _Changes(bound, columns, fields.within("source"), rows).events


def _of_others(fields: Fields) -> DecodeError:
    what = "the schema is not one of Debezium's: it needs op, before, after and source"
    if "specversion" in fields:
        what += "; with specversion it is a CloudEvent in structured mode, which is not read"
    return unknown(what)


def available(columns: Fields) -> Resolve:
    """Find columns, and read placeholders in them as `UNCHANGED`."""

    def resolved(path: Path) -> Getter | None:
        get = columns.getter(path)
        if get is None and len(path) > 1 and _is_placeholder(columns.within(path[0])):
            return lambda _: UNCHANGED
        held = kinds(columns.get(path[0], ()))
        if get is None or not held & _MAY_BE_PLACEHOLDER:
            return get
        return _unless_placeholder(get) if len(path) == 1 else _unless_within_placeholder(path[0], get)

    return resolved


def _unless_placeholder(get: Getter) -> Getter:
    def available_or_unchanged(row: Row) -> object:
        value = get(row)
        return UNCHANGED if isinstance(value, str | bytes) and value in NOT_AVAILABLE else value

    return available_or_unchanged


def _unless_within_placeholder(name: str, get: Getter) -> Getter:
    """Of a column that holds more: it may be a placeholder as a whole."""
    value_or_unchanged = _unless_placeholder(get)

    def available_or_unchanged(row: Row) -> object:
        column = row[name]
        return UNCHANGED if isinstance(column, dict) and _is_placeholder(column) else value_or_unchanged(row)

    return available_or_unchanged


def _is_placeholder(column: Collection[str]) -> bool:
    """Whether the names in a map, or in the record that it is in JSON without a schema, are those of a placeholder."""
    return not NOT_AVAILABLE.isdisjoint(column)


class _Changes:
    """Change events of one schema.

    Args:
        mapping: Of a row.
        columns: Of the rows; none when they are documents. `before` may have fewer of them.
        source: What the source tells of itself.
        rows: Reads a row.
    """

    def __init__(self, mapping: BoundMapping, columns: Fields, source: Fields, rows: _Rows) -> None:
        self._mapping = mapping
        self._blank = dict.fromkeys(columns)
        self._log = log(source)
        self._rows = rows

    def events(self, fields: Row, record: Record) -> Events:
        """What a record tells."""
        match fields["op"]:
            case "c" | "u" | "r" as operation:
                return self._changed(str(operation), fields, record)
            case "d":
                return self._deleted(fields, record)
            case "m":
                return ()
            case "t":
                raise truncated()
            case _:
                raise undecodable("op is not one that Debezium knows")

    def _changed(self, operation: str, fields: Row, record: Record) -> Events:
        after = self._rows(fields["after"])
        if after is None:
            raise undecodable(f"the record has op {operation} and no row after it")
        row = self._mapping.row(after, record)
        if not self._mapping.counts(row):
            return ()
        external_id = self._mapping.external_id(row)
        when = self._mapping.when(row, *self._when(fields, record, snapshot=operation == "r"))
        former = self._former(fields, record, external_id) if operation == "u" else None
        if former is None:
            change_type = ChangeType.UPDATE if operation == "u" else ChangeType.CREATE
            event = self._mapping.event(change_type, external_id, row, when)
            return renamed(event, self._mapping, self._blank, record) if event else ()
        created = self._mapping.event(ChangeType.CREATE, external_id, row, when)
        return (deletion(former, when), replace(created, former=former)) if created else ()

    def _former(self, fields: Row, record: Record, external_id: object) -> object:
        """Whom the row was about before, if that was somebody else; None if not, or not told."""
        before = self._rows(fields["before"])
        if before is None:
            return None
        former = self._mapping.external_id(self._mapping.row(self._blank | before, record))
        return former if names_somebody(former) and former != external_id else None

    def _deleted(self, fields: Row, record: Record) -> Events:
        before = self._blank | (self._rows(fields["before"]) or {})
        external_id = self._mapping.deleted_id(self._mapping.row(before, record))
        if not names_somebody(external_id):
            raise nobody_to_delete()
        when = self._mapping.when_gone(self._when(fields, record, snapshot=False))
        return deletion(external_id, when) if fields["after"] is None else gap(external_id, when)

    def _when(self, fields: Row, record: Record, *, snapshot: bool) -> When:
        source = fields["source"]
        if not isinstance(source, dict):
            raise undecodable("the record has no source")
        occurred_at, flaw = in_milliseconds(source.get("ts_ms"), record)
        if self._log is None:
            return occurred_at, None, None, flaw
        return self._log.when(source, occurred_at, snapshot=snapshot, flaw=flaw)


def renamed(event: ChangeEvent, mapping: BoundMapping, blank: Row, record: Record) -> ChangeEvent:
    """A created contact with whom it was before, where its primary key changed.

    Args:
        event: What the record tells.
        mapping: Of a row.
        blank: A row without values.
        record: Its header has the old key as JSON, unless Kafka Connect was told another converter of headers.
    """
    raw = next((value for name, value in record.headers if name == _OLD_KEY), None) if record.headers else None
    if raw is None:
        return event
    with suppress(orjson.JSONDecodeError):
        key = orjson.loads(raw)
        if isinstance(key, dict) and key.keys() == {"schema", "payload"}:
            key = key["payload"]
        if isinstance(key, dict):
            return replace(event, former=mapping.external_id(mapping.row(blank | key, record)))
    return event


def truncated() -> ManyChanged:
    """The error of a truncate."""
    return ManyChanged(FuseCause.TRUNCATE, "the table was truncated: whoever is gone must be deleted by the CRM")


def nobody_to_delete() -> DecodeError:
    """The error of a delete that does not tell whom."""
    return DecodeError(
        (Reason.EXTERNAL_ID_MISSING,),
        "the delete does not tell the external id: make that the primary key, or set REPLICA IDENTITY FULL; "
        "where a row holds its key alone, that is the first path of external_id in SOURCE_MAPPING",
    )


def _row(value: object) -> Row | None:
    return value if isinstance(value, dict) else None


def _document(value: object) -> Row | None:
    """A MongoDB document, which comes as JSON; a row without a schema is there already."""
    if value is None or isinstance(value, dict):
        return value
    with suppress(orjson.JSONDecodeError):
        if isinstance(document := orjson.loads(str(value)), dict):
            return document
    raise undecodable("the document is not a JSON object")
