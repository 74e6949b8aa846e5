"""Inputs to begin with: good ones for each target, from the data of the tests."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro

from consumer.formats import Framing, KeyFormat
from tests.fuzz.targets import DATA, DEBEZIUM, EVERY, HEADERS, NATIVE

VECTORS = DATA.parent / "wire_formats.json"
EVENT = {
    "eventId": "e-1",
    "changeType": "UPDATE",
    "externalId": "c-1",
    "occurredAt": 1_700_000_000_000,
    "version": 3,
    "phone": "+14155550100",
    "email": "jane.doe@example.com",
    "consent": True,
    "doNotCall": False,
    "attributes": {"city": "Zürich"},
}
EVERY_VALUE = {
    "union": 7,
    "fixed": b"ab",
    "enum": "B",
    "map": {"k": "A"},
    "list": [[1, 2], []],
    "rows": [{"x": None}, {"x": b"ab"}, {"x": {"y": True}}],
}
ROW_CHANGED = {
    "before": None,
    "after": {"id": 7, "phone": "+14155550100", "consent": "granted", "dnc": False},
    "source": {
        "ts_ms": 1_700_000_000_000,
        "snapshot": "false",
        "lsn": 24_023_128,
        "sequence": '["24023119","24023128"]',
    },
    "op": "u",
}
CONNECT = {
    "schema": {
        "type": "struct",
        "fields": [{"field": "externalId", "type": "string"}, {"field": "n", "type": "int32"}],
    },
    "payload": {"externalId": "c-1", "n": 7},
}


def write(directory: Path, target: str) -> None:
    """Put the seeds of a target into a directory, each in a file."""
    for number, seed in enumerate(_seeds()[target]):
        (directory / f"seed-{number}").write_bytes(seed)


def _seeds() -> dict[str, list[bytes]]:
    event, native = _avro(NATIVE, EVENT), NATIVE.encode()
    debezium = _avro(json.dumps(DEBEZIUM), ROW_CHANGED)
    return {
        "framing": [_framed(vector) for vector in json.loads(VECTORS.read_text())["vectors"]],
        "native": [event],
        "decoder": [b"\0" + _avro(EVERY, EVERY_VALUE), b"\1" + debezium, b"\2" + bytes(100)],
        "connect_json": [bytes([number % 6]) + document for number, document in enumerate(_documents())],
        "key": [b"\0\2\6c-1", b'\1{"id": 1001}', b"\2c-1"],
        "grammar": [bytes(range(200))],
        "guard": [bytes([len(native) >> 4, len(native) & 15]) + native + event],
    }


def _documents() -> list[bytes]:
    real = (DATA / "confluent_salesforce_contact_create.connect.json").read_bytes()
    return [json.dumps(EVENT).encode(), json.dumps(CONNECT).encode(), json.dumps(CONNECT["payload"]).encode(), real]


def _framed(vector: dict[str, Any]) -> bytes:
    headers = [(each["key"], bytes.fromhex(each["value_hex"])) for each in vector["headers"]]
    known = [(name, value) for name, value in headers if name in HEADERS][:2]
    told = b"".join(bytes([HEADERS.index(name), len(value)]) + value for name, value in known)
    value = bytes.fromhex(vector["value_hex"] or "")
    auto = [*Framing].index(Framing.AUTO) * len(KeyFormat)
    return bytes([auto, len(known)]) + told + b"\3c-1" + (b"\1" if value else b"\0") + value


def _avro(schema: str, fields: dict[str, Any]) -> bytes:
    fastavro.schemaless_writer(stream := io.BytesIO(), fastavro.parse_schema(json.loads(schema)), fields)
    return stream.getvalue()
