"""The table of docs/formats.md: what the program decides about each kind of change in each format."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from consumer.core.changes import to_change
from consumer.core.dedupe import accepted, judge
from consumer.core.mapping_places import Row
from consumer.core.validate import validate
from consumer.errors import DecodeError
from consumer.model import ChangeEvent, Contact, State, Verdict
from consumer.settings import packaged_schemas
from tests.envelopes import COLUMNS, MAPPING, ROW, TIME_MS, record_type, sample, told

TABLE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
LIST_ID = "list"
NATIVE = json.loads((packaged_schemas() / "crm_contact_change.avsc").read_text())

SCENARIOS = {
    "create": [("create", 1)],
    "update": [("create", 1), ("update", 2)],
    "partial update": [("create", 1), ("update", 2), ("partial", 3)],
    "delete": [("create", 1), ("update", 2), ("delete", 3)],
    "snapshot": [("create", 1), ("create", 2), ("snapshot", 1)],
    "replay": [("create", 1), ("create", 2), ("create", 1)],
    "key change": [("create", 1), ("update", 2), ("key change", 3)],
}
"""Kinds of records with their place in the source's order; the last one is looked at."""

NOTHING = "\u2013"
"""A format has no such record, or makes others of it."""

Make = Callable[[str, int], Row | None]
"""The fields of a record of a kind, at a place in the source's order; None where the format has no such record."""


def _row(place: int, **changes: object) -> Row:
    """The row at a place: the phone tells it."""
    return ROW | {"phone": f"+1415555010{place}"} | changes


def _native(kind: str, place: int) -> Row | None:
    change_types = {"create": "CREATE", "update": "UPDATE", "delete": "DELETE"}
    if kind not in change_types:
        return None
    names = {"eventId": "e", "changeType": change_types[kind], "externalId": "7", "occurredAt": TIME_MS + place}
    flags = {"consent": True, "doNotCall": False}
    return names | flags | {"version": place, "phone": f"+1415555010{place}", "email": None, "attributes": {}}


def _debezium(source: Callable[[int], Row], *, unavailable: bool = False, renames: bool = True) -> Make:
    def make(kind: str, place: int) -> Row | None:
        rows: dict[str, tuple[str, object, object]] = {
            "create": ("c", None, _row(place)),
            "update": ("u", None, _row(place)),
            "delete": ("d", _row(place), None),
            "snapshot": ("r", None, _row(place)),
        }
        if unavailable:
            rows["partial"] = ("u", None, _row(place, city="__debezium_unavailable_value"))
        if renames:
            rows["key change"] = ("u", _row(place, id=7), _row(place, id=8))
        if kind not in rows:
            return None
        op, before, after = rows[kind]
        return {"op": op, "before": before, "after": after, "source": {"ts_ms": TIME_MS + place, **source(place)}}

    return make


def _documents(kind: str, place: int) -> Row | None:
    fields = _debezium(lambda place: {"ts_ms": TIME_MS + 1000 * place, "ord": 1}, renames=False)(kind, place)
    rows = {key: fields[key] and json.dumps(fields[key]) for key in ("before", "after")} if fields else {}
    return fields and fields | rows


def _flattened(kind: str, place: int) -> Row | None:
    rows = {
        "create": _row(place, __op="c", __deleted="false"),
        "update": _row(place, __op="u", __deleted="false"),
        "partial": _row(place, __op="u", __deleted="false", city="__debezium_unavailable_value"),
        "delete": _row(place, __op="d", __deleted="true"),
        "snapshot": _row(place, __op="r", __deleted="false"),
    }
    return rows[kind] | {"__lsn": place} if kind in rows else None


def _without_position(kind: str, place: int) -> Row | None:
    fields = _flattened(kind, place)
    return fields and {key: value for key, value in fields.items() if key != "__lsn"}


def _salesforce(kind: str, place: int) -> Row | None:
    phone: Row = {"MobilePhone": f"+1415555010{place}"}
    whole = {**phone, "DoNotCall": False, "Level__c": "granted"}
    bodies: dict[str, tuple[str, Row]] = {
        "create": ("CREATE", whole),
        "partial": ("UPDATE", phone),
        "delete": ("DELETE", {}),
        "snapshot": ("SNAPSHOT", whole),
    }
    if kind not in bodies:
        return None
    change_type, body = bodies[kind]
    header = dict.fromkeys(["entityName", "changeOrigin", "transactionKey", "commitUser"], "") | {"commitNumber": 1}
    marks: Row = {"nulledFields": [], "diffFields": [], "changedFields": []}
    order: Row = {
        "changeType": change_type,
        "recordIds": ["7"],
        "commitTimestamp": TIME_MS + place,
        "sequenceNumber": 1,
    }
    names = [field["name"] for field in SALESFORCE["fields"]]
    return {**dict.fromkeys(names), **body, "ChangeEventHeader": {**header, **marks, **order}}


def _outbox(kind: str, place: int) -> Row | None:
    types = {"create": "CREATE", "update": "UPDATE", "delete": "DELETE"}
    return _row(place, type=types[kind], version=place) if kind in types else None


def _dms(kind: str, place: int) -> Row | None:
    return _of_dms(kind, place, {"before-image": {"id": 7}})


def _dms_with_columns(kind: str, place: int) -> Row | None:
    return _of_dms(kind, place, {"data": _row(place, id=8, BI_id=7)})


def _of_dms(kind: str, place: int, renamed: Row) -> Row | None:
    operations = {
        "create": "insert",
        "update": "update",
        "delete": "delete",
        "snapshot": "load",
        "key change": "update",
    }
    if kind not in operations:
        return None
    metadata = {"timestamp": "2026-01-01T00:00:00Z", "record-type": "data", "operation": operations[kind]}
    if kind != "key change":
        return {"data": _row(place, id=7), "metadata": metadata}
    return {"data": _row(place, id=8), "metadata": metadata, **renamed}


def _envelope(source: Mapping[str, object], row: object = None) -> dict[str, Any]:
    rows = {"before": ["null", row or record_type("Value", COLUMNS)], "after": ["null", row or "Value"]}
    return record_type(
        "Envelope", {**rows, "source": record_type("Source", {"ts_ms": "long", **source}), "op": "string"}
    )


def _without_nulled_fields(schema: dict[str, Any]) -> dict[str, Any]:
    """As the Kafka connector has it: its header tells of changed fields alone."""
    header, *fields = schema["fields"]
    told_of = [field for field in header["type"]["fields"] if field["name"] not in {"nulledFields", "diffFields"}]
    return schema | {"fields": [header | {"type": header["type"] | {"fields": told_of}}, *fields]}


def _lsn(place: int) -> str:
    return f"00000027:00000ac{place}:0003"


SALESFORCE = sample("salesforce_contact_change_event.avsc")
CONNECTOR = _without_nulled_fields(SALESFORCE)
OF_SALESFORCE = {
    "phone": "MobilePhone",
    "consent": {"path": "Level__c", "values": {"granted": True}},
    "do_not_call": "DoNotCall",
}
OF_EVENTS = {"change_type": {"path": "type", "values": {name: name for name in ("CREATE", "UPDATE", "DELETE")}}}
FLAT: dict[str, object] = {**COLUMNS, "__op": "string", "__deleted": "string"}

FORMATS: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any] | None, Make]] = {
    "native": ("native", NATIVE, None, _native),
    "Debezium, PostgreSQL": (
        "debezium",
        _envelope({"lsn": "long"}),
        MAPPING,
        _debezium(lambda place: {"lsn": 100 * place}, unavailable=True),
    ),
    "Debezium, MySQL": (
        "debezium",
        _envelope({"file": "string", "pos": "long"}),
        MAPPING,
        _debezium(lambda place: {"file": "binlog.000003", "pos": 100 * place}),
    ),
    "Debezium, SQL Server": (
        "debezium",
        _envelope({"commit_lsn": "string"}),
        MAPPING,
        _debezium(lambda place: {"commit_lsn": _lsn(place)}),
    ),
    "Debezium, MongoDB": ("debezium", _envelope({"ord": "int"}, "string"), MAPPING, _documents),
    "flattened with `lsn`": (
        "flattened",
        record_type("Value", FLAT | {"__lsn": "long"}),
        MAPPING,
        _flattened,
    ),
    "flattened without": ("flattened", record_type("Value", FLAT), MAPPING, _without_position),
    "Salesforce, Pub/Sub": ("salesforce", SALESFORCE, OF_SALESFORCE, _salesforce),
    "Salesforce, Kafka Connect": ("salesforce", CONNECTOR, OF_SALESFORCE, _salesforce),
    "outbox with a version": (
        "outbox",
        record_type("Contact", COLUMNS | {"type": "string", "version": "long"}),
        MAPPING | OF_EVENTS | {"version": "version"},
        _outbox,
    ),
    "DMS": ("dms", {}, MAPPING, _dms),
    "DMS with `BI_` columns": ("dms", {}, MAPPING, _dms_with_columns),
}


class _Genesys:
    """What was delivered of each contact, and what the program decides about the next event."""

    def __init__(self) -> None:
        self._states: dict[object, State] = {}

    def decide(self, event: ChangeEvent, offset: int) -> str:
        """What becomes of an event."""
        if event.partial:
            return "amend"
        (contact,) = validate([event], [("city", "city")])
        assert isinstance(contact, Contact)
        change = to_change(event, contact, offset, LIST_ID)
        state = self._states.get(event.external_id)
        verdict = judge(change, state)
        if verdict in {Verdict.STALE, Verdict.DUPLICATE}:
            return str(verdict)
        self._states[event.external_id] = accepted(change, state)
        return str(change.operation)


def _cell(format_: str, steps: list[tuple[str, int]]) -> str:
    """What the last of these steps comes to."""
    envelope, schema, mapping, make = FORMATS[format_]
    genesys, found = _Genesys(), NOTHING
    for offset, (kind, place) in enumerate(steps):
        fields = make(kind, place)
        if fields is None:
            found = NOTHING
            continue
        try:
            events = told(envelope, schema, fields, dict(mapping) if mapping else None)
        except DecodeError:
            return "rejected"
        found = ", ".join(genesys.decide(event, offset) for event in events)
    return found


def _documented() -> dict[str, dict[str, str]]:
    """The table, by format and column."""
    lines = TABLE.split("\n| format |", 1)[1].split("\n\n", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(rows[0], row[1:], strict=True)) for row in rows[2:]}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("column", SCENARIOS)
def test_the_table_of_formats_holds(format_: str, column: str) -> None:
    """Each cell is what the program decides."""
    assert _cell(format_, SCENARIOS[column]) == _documented()[format_][column]


def test_the_table_of_formats_is_whole() -> None:
    """Every format is in it, with every column, and none besides."""
    assert _documented().keys() == FORMATS.keys()
    assert all(row.keys() == SCENARIOS.keys() for row in _documented().values())
