"""Records in the envelopes of others: written with a schema, read as the program reads them."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

from consumer.core import keys
from consumer.core.avro import WriterSchema
from consumer.core.decode import Reader, ReaderName
from consumer.core.envelopes.choice import Envelopes
from consumer.core.framing import TEXT, KeySchema, form
from consumer.errors import DecodeError
from consumer.formats import EnvelopeName, Framing, KeyFormat, PerTopic
from consumer.model import ChangeEvent, Headers, Record
from consumer.settings import ready_made_mappings

AVRO = Path(__file__).parent / "data" / "avro"
TOPIC = "crm.public.customers"
TIME_MS = 1_700_000_000_000

CONFLUENT = form(TOPIC, Framing.CONFLUENT, KeyFormat.STRING)
"""Confluent's framing, and tombstones whose key is text."""

TEXT_KEYS: dict[ReaderName, Reader | DecodeError] = {KeySchema(TEXT): keys.read_text}
"""What those are read with."""

Table = dict[str, Any]

MAPPING: Table = {
    "external_id": "id",
    "phone": "phone",
    "email": "email",
    "consent": {"path": "consent", "values": {"granted": True, "denied": False}},
    "do_not_call": {"path": "dnc", "values": {"Y": True, "N": False}},
    "attributes": {"city": "city"},
}

COLUMNS = {
    "id": "int",
    "phone": ["null", "string"],
    "email": ["null", "string"],
    "consent": ["null", "string"],
    "dnc": ["null", "string"],
    "city": ["null", "string"],
}

ROW: dict[str, object] = {
    "id": 7,
    "phone": "+14155550100",
    "email": "jane@example.com",
    "consent": "granted",
    "dnc": "N",
    "city": "Zürich",
}


def record_type(name: str, columns: Mapping[str, object], **more: object) -> dict[str, Any]:
    """An Avro record."""
    fields = [{"name": column, "type": kind} for column, kind in columns.items()]
    return {"type": "record", "name": name, "fields": fields, **more}


def sample(name: str) -> Any:
    """A JSON file of `tests/data/avro`."""
    return json.loads((AVRO / name).read_text(encoding="utf-8"))


def told(
    envelope: str,
    schema: Mapping[str, Any],
    fields: Mapping[str, object],
    mapping: Table | None = None,
    *,
    key: bytes | None = b"7",
    headers: Headers = (),
) -> Sequence[ChangeEvent]:
    """The change events that the program makes of a record; with the ready-made mapping when none is given.

    Without a schema the fields are those of JSON.

    Raises:
        DecodeError: As the program does.
    """
    mapper = envelopes(envelope, mapping).mapper(TOPIC, schema)
    body = encoded(schema, fields) if schema else b""
    read = WriterSchema(json.dumps(schema)).read(body) if schema else dict(fields)
    events = mapper(read, Record(TOPIC, 0, 0, TIME_MS, key, body, headers))
    return (events,) if isinstance(events, ChangeEvent) else events


def encoded(schema: Mapping[str, Any], fields: Mapping[str, object]) -> bytes:
    """The Avro body of a record."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), dict(fields))
    return out.getvalue()


def envelopes(envelope: str, mapping: Table | None = None) -> Envelopes:
    """The envelope of all topics, with one mapping or the ready-made ones."""
    return Envelopes.of(
        PerTopic(EnvelopeName(envelope), {}), {TOPIC: mapping} if mapping else {}, ready_made_mappings()
    )
