"""What each envelope costs in CPU per event: reading the body, and making the change event of it.

One event of each kind, over and over, with the ready-made mapping where there is one. The native one comes first, as
the measure of the others.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fastavro
import orjson

from consumer.core.avro import WriterSchema
from consumer.core.envelopes.choice import Envelopes
from consumer.formats import EnvelopeName, PerTopic
from consumer.model import Record
from consumer.settings import packaged_schemas, ready_made_mappings

TIME_MS = 1_767_225_600_000
RUNS = 5
HEADERS = [("id", b"1"), ("eventType", b"ContactUpdated")]

Fields = dict[str, Any]

_CONTACT = {"phone": "+14155550100", "email": "person.1@example.org", "consent": True, "do_not_call": False}
_COLUMNS = {"id": "long", "phone": ["null", "string"], "email": ["null", "string"]} | {
    name: ["null", "boolean"] for name in ("consent", "do_not_call")
}
_MARKED = "0x1E"
"""Phone, e-mail and the two flags, which follow the header."""


@dataclass(frozen=True)
class Cost:
    """The cost of an envelope, CPU microseconds per event.

    Attributes:
        envelope: Its name.
        event: What it says.
        size: Bytes of the body.
        read_us: From bytes to fields.
        map_us: From fields to the change event.
    """

    envelope: str
    event: str
    size: int
    read_us: float
    map_us: float


def measure(count: int) -> list[Cost]:
    """Medians of some runs over so many events."""
    return [_measured(count, *each) for each in _events()]


def _measured(count: int, envelope: str, event: str, schema: Fields, fields: Fields) -> Cost:
    text = json.dumps(schema)
    body, read = _json(fields) if envelope == "dms" else _avro(text, fields)
    chosen = Envelopes.of(PerTopic(EnvelopeName(envelope), {}), {}, ready_made_mappings())
    mapper = chosen.mapper("topic", json.loads(text))
    record = Record("topic", 0, 0, TIME_MS, b"1", body, HEADERS)
    found = read(body)
    reading = _microseconds(count, lambda: read(body))
    return Cost(envelope, event, len(body), reading, _microseconds(count, lambda: mapper(found, record)))


def _avro(text: str, fields: Fields) -> tuple[bytes, Callable[[bytes], dict[str, object]]]:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(text)), fields)
    return out.getvalue(), WriterSchema(text).read


def _json(fields: Fields) -> tuple[bytes, Callable[[bytes], dict[str, object]]]:
    return orjson.dumps(fields), orjson.loads


def _microseconds(count: int, work: Callable[[], object]) -> float:
    return round(statistics.median(_seconds(count, work) for _ in range(RUNS)) / count * 1e6, 2)


def _seconds(count: int, work: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(count):
        work()
    return time.process_time() - started


def _events() -> list[tuple[str, str, Fields, Fields]]:
    """Envelope, what the event says, schema, fields."""
    row = {"id": 1, **_CONTACT}
    flat = _record("Value", _COLUMNS | {"__deleted": "string", "__op": "string", "__lsn": "long"})
    metadata = {"timestamp": "2026-01-01T00:00:00.000000Z", "record-type": "data", "operation": "update"}
    native = json.loads((packaged_schemas() / "crm_contact_change.avsc").read_text())
    return [
        ("native", "update", native, _native()),
        ("debezium", "update", _debezium(), _change("u", None, row)),
        ("debezium", "delete", _debezium(), _change("d", row, None)),
        ("flattened", "update", flat, row | {"__deleted": "false", "__op": "u", "__lsn": 7}),
        ("salesforce", "create", _salesforce(), _lead("CREATE", {})),
        ("salesforce", "update", _salesforce(), _lead("UPDATE", {"MobilePhone": "+14155550100"})),
        ("outbox", "update", _record("Contact", _COLUMNS | {"version": "long"}), row | {"version": 7}),
        ("dms", "update", {}, {"data": row, "metadata": metadata}),
    ]


def _record(name: str, columns: Mapping[str, object]) -> Fields:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in columns.items()]}


def _native() -> Fields:
    names = {"eventId": "event-1", "changeType": "UPDATE", "externalId": "1", "occurredAt": TIME_MS, "version": 7}
    flags = {"consent": True, "doNotCall": False}
    return names | flags | {"phone": _CONTACT["phone"], "email": _CONTACT["email"], "attributes": {}}


def _debezium() -> Fields:
    source = {"version": "string", "connector": "string", "name": "string", "ts_ms": "long", "lsn": ["null", "long"]}
    columns = {"before": ["null", _record("Value", _COLUMNS)], "after": ["null", "Value"]}
    return _record("Envelope", columns | {"source": _record("Source", source), "op": "string", "ts_ms": "long"})


def _change(op: str, before: Fields | None, after: Fields | None) -> Fields:
    source = {"version": "3.0", "connector": "postgresql", "name": "crm", "ts_ms": TIME_MS, "lsn": 7}
    return {"before": before, "after": after, "source": source, "op": op, "ts_ms": TIME_MS}


def _salesforce() -> Fields:
    names = {"type": "array", "items": "string"}
    header = {"entityName": "string", "recordIds": names, "changeType": "string", "sequenceNumber": "int"} | {
        "commitTimestamp": "long", "nulledFields": names, "diffFields": names, "changedFields": names
    }  # fmt: skip
    texts = {name: ["null", "string"] for name in ("MobilePhone", "Email")}
    flags = {name: ["null", "boolean"] for name in ("DoNotCall", "Call_Consent__c")}
    person = ["null", _record("PersonName", {"FirstName": ["null", "string"], "LastName": ["null", "string"]})]
    columns = {"ChangeEventHeader": _record("Header", header), **texts, **flags, "Name": person}
    return _record("LeadChangeEvent", columns)


def _lead(change_type: str, changed: Fields) -> Fields:
    header = {"entityName": "Lead", "recordIds": ["00Q000000000001AAA"], "changeType": change_type, "sequenceNumber": 1}
    marks = {"nulledFields": [], "diffFields": [], "changedFields": [_MARKED]}
    contact = {"MobilePhone": "+14155550100", "Email": "person.1@example.org", "DoNotCall": False}
    whole = {**contact, "Call_Consent__c": True, "Name": {"FirstName": "Jane", "LastName": "Doe"}}
    body = whole if change_type == "CREATE" else dict.fromkeys(whole) | changed
    return {"ChangeEventHeader": {**header, **marks, "commitTimestamp": TIME_MS}, **body}
