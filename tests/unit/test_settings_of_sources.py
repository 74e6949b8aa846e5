"""The settings that docs/formats.md gives for each source: with these alone its records and tombstones are read."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from consumer import cli
from consumer.model import Headers, Record
from consumer.operate import explain
from consumer.settings import packaged_schemas
from tests.envelopes import TIME_MS, encoded, record_type, sample
from tests.stories import Event

TABLE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
TOPIC = "crm.public.customers"
FILES = "/etc/genesys-consumer/files"

Schema = dict[str, Any]

COLUMNS: dict[str, object] = {
    "id": "int",
    "phone": ["null", "string"],
    "email": ["null", "string"],
    "consent": ["null", "boolean"],
    "do_not_call": ["null", "boolean"],
}
CALL: dict[str, object] = {"phone": "+14155550100", "email": "jane@example.com", "consent": True}
ROW = {"id": 7, **CALL, "do_not_call": False}
"""As the ready-made mappings have it."""

OWN_MAPPING = """
[default]
external_id = "customer"
phone = "mobile"
consent = "may_call"
do_not_call = { value = false }
"""
OWN_COLUMNS: dict[str, object] = {"customer": "string", "mobile": "string", "may_call": "boolean"}
OWN_ROW: dict[str, object] = {"customer": "7", "mobile": "+14155550100", "may_call": True}


class Sample(NamedTuple):
    """A record as a source sends it, and what it tells."""

    value: bytes | None
    told: str
    key: bytes | None = None
    headers: Headers = ()


SCHEMAS: dict[int, Schema | str] = {}
"""Schemas by id, as the registry has them, but for that of native events, which is 1."""


def _framed(schema: Schema | str, fields: Any) -> bytes:
    """In Confluent's framing, the id first."""
    known = [number for number, each in SCHEMAS.items() if each == schema]
    number = known[0] if known else len(SCHEMAS) + 2
    SCHEMAS[number] = schema
    if isinstance(schema, str):
        text = str(fields).encode()
        return b"\0" + number.to_bytes(4, "big") + bytes([2 * len(text)]) + text
    return b"\0" + number.to_bytes(4, "big") + encoded(schema, fields)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _struct(columns: Mapping[str, str], **more: object) -> Schema:
    """A schema of Kafka Connect."""
    return {"type": "struct", "fields": [{"field": name, "type": kind} for name, kind in columns.items()], **more}


KEY = record_type("Key", {"id": "int"})
AVRO_KEY = _framed(KEY, {"id": 7})
CONNECT_KEY = _json({"schema": _struct({"id": "int32"}), "payload": {"id": 7}})
SOURCE = {"ts_ms": TIME_MS, "lsn": 500}
CHANGE = {"before": None, "after": ROW, "source": SOURCE, "op": "u"}

_CONNECT_ROW = _struct(
    {"id": "int32", "phone": "string", "email": "string", "consent": "boolean", "do_not_call": "boolean"}, name="Value"
)


def _real_envelope() -> Schema:
    """The real schema of Debezium's envelope for MySQL, of a table that has what calls need."""
    schema: Schema = sample("debezium_mysql_customers_envelope.avsc")
    row = schema["fields"][0]["type"][1]
    there = [field["name"] for field in row["fields"]]
    row["fields"] += [field for field in record_type("Value", COLUMNS)["fields"] if field["name"] not in there]
    return schema


def _filled(schema: Schema, given: Mapping[str, object]) -> dict[str, object]:
    """A record of it: what is given, and else nothing of its type."""
    nothing = {"int": 0, "long": 0, "string": "", "boolean": False}
    fields: dict[str, object] = {}
    for field in schema["fields"]:
        kind = field["type"]
        plain = kind["type"] if isinstance(kind, dict) else kind
        fields[field["name"]] = given.get(field["name"], None if isinstance(kind, list) else nothing.get(plain, ""))
    return fields


def _real_change() -> bytes:
    """An update as that connector sends it."""
    schema = _real_envelope()
    by_name = {field["name"]: field["type"] for field in schema["fields"]}
    row = _filled(by_name["before"][1], ROW)
    source = _filled(by_name["source"], {"ts_ms": TIME_MS, "file": "binlog.000003", "pos": 100})
    return _framed(schema, _filled(schema, {"after": row, "source": source, "op": "u"}))


FLAGS = [{"field": name, "type": "boolean", "optional": True} for name in ("DoNotCall", "Call_Consent__c")]
CONNECTOR = sample("confluent_salesforce_contact_create.connect.json")
OF_CONNECTOR = CONNECTOR["payload"] | {"MobilePhone": "+14155550100", "DoNotCall": False, "Call_Consent__c": True}
SALESFORCE = {
    "schema": CONNECTOR["schema"] | {"fields": [*CONNECTOR["schema"]["fields"], *FLAGS]},
    "payload": OF_CONNECTOR,
}


def _avro_of(struct: Schema, name: str) -> Schema:
    """The Avro schema that Kafka Connect makes of one of its own."""
    kinds: Schema = {"int32": "int", "int64": "long", "string": "string", "boolean": "boolean", "double": "double"}
    made = {}
    for field in struct["fields"]:
        kind = kinds.get(field["type"])
        if field["type"] == "struct":
            kind = _avro_of(field, f"{name}{field['field']}")
        elif field["type"] == "array":
            kind = {"type": "array", "items": "string"}
        made[field["field"]] = ["null", kind] if field.get("optional") else kind
    return record_type(name, made)


ID = OF_CONNECTOR["ChangeEventHeader"]["recordIds"][0]
FLAT = record_type("Value", COLUMNS | {"__deleted": "string"})
EVENT = record_type("Contact", {"phone": "string", "email": "string", "consent": "boolean", "doNotCall": "boolean"})
EVENT_ROW = CALL | {"doNotCall": False}
UPDATED: Headers = [("eventType", b"ContactUpdated")]
DMS = {"timestamp": "2023-11-14T22:13:20Z", "record-type": "data", "operation": "update"}
TOLD, GONE = "UPDATE of '7'", "DELETE of '7'"

SAMPLES: dict[str, Sequence[Sample]] = {
    "native, Avro": [
        Sample(Event("7", 7).value(), TOLD, b"7"),
        Sample(None, GONE, b"7"),
    ],
    "Debezium, Avro": [Sample(_real_change(), TOLD, AVRO_KEY), Sample(None, GONE, AVRO_KEY)],
    "Debezium, JSON": [
        Sample(_json(CHANGE), TOLD, b'{"id": 7}'),
        Sample(
            _json(
                {
                    "schema": {
                        "type": "struct",
                        "name": "crm.public.customers.Envelope",
                        "fields": [
                            _CONNECT_ROW | {"field": "before", "optional": True},
                            _CONNECT_ROW | {"field": "after", "optional": True},
                            _struct({"ts_ms": "int64", "lsn": "int64"}, field="source"),
                            {"field": "op", "type": "string"},
                        ],
                    },
                    "payload": CHANGE,
                }
            ),
            TOLD,
            CONNECT_KEY,
        ),
        Sample(None, GONE, CONNECT_KEY),
    ],
    "flattened, Avro": [
        Sample(_framed(FLAT, ROW | {"__deleted": "false"}), TOLD, AVRO_KEY),
        Sample(_framed(FLAT, ROW | {"__deleted": "true"}), GONE, AVRO_KEY),
        Sample(None, GONE, AVRO_KEY),
    ],
    "flattened, JSON": [
        Sample(_json(ROW | {"__deleted": "false"}), TOLD, b'{"id": 7}'),
        Sample(_json({"schema": _CONNECT_ROW, "payload": ROW}), TOLD, CONNECT_KEY),
        Sample(None, GONE, CONNECT_KEY),
    ],
    "Salesforce by Kafka Connect, Avro": [
        Sample(_framed(_avro_of(SALESFORCE["schema"], "ContactChangeEvent"), OF_CONNECTOR), f"CREATE of '{ID}'")
    ],
    "Salesforce by Kafka Connect, JSON": [Sample(_json(SALESFORCE), f"CREATE of '{ID}'")],
    "outbox, Avro": [
        Sample(_framed(EVENT, EVENT_ROW), TOLD, _framed('"string"', 7), UPDATED),
        Sample(None, GONE, _framed('"string"', 7)),
    ],
    "outbox, JSON": [Sample(_json(EVENT_ROW), TOLD, b"7", UPDATED), Sample(None, GONE, b"7")],
    "DMS": [
        Sample(_json({"data": ROW, "metadata": DMS}), TOLD, b"public.customers.7"),
        Sample(_json({"data": ROW, "metadata": DMS | {"operation": "delete"}}), GONE),
    ],
    "a flat record of your own, Avro": [
        Sample(_framed(record_type("Customer", OWN_COLUMNS), OWN_ROW), TOLD, b"7"),
        Sample(None, GONE, b"7"),
    ],
    "a flat record of your own, JSON": [Sample(_json(OWN_ROW), TOLD, b"7"), Sample(None, GONE, b"7")],
}


def _documented() -> dict[str, dict[str, str]]:
    """The table: the settings of each source."""
    rows = TABLE.split("\n| source | settings |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return {name: dict(re.findall(r"([A-Z_]+)=([^\s`]+)", settings)) for name, settings, *_ in cells}


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Each command sets logging up, for its own process."""
    yield
    structlog.reset_defaults()


def test_each_source_has_samples() -> None:
    """Whoever adds a row shows that it is right."""
    assert _documented().keys() == SAMPLES.keys()


@pytest.mark.parametrize("source", SAMPLES)
def test_the_settings_of_a_source_read_its_records(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand in the document, with schemas in a directory in place of the registry."""
    settings = _documented()[source]
    assert (settings["SOURCE_FRAMING"] != "json") == ("SCHEMA_REGISTRY_URL" in settings)
    _written(tmp_path)
    _set(settings, tmp_path, monkeypatch)
    for each in SAMPLES[source]:
        assert _told(each, monkeypatch, capsys) == each.told


def test_json_of_salesforce_without_schemas_has_a_table_for_its_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else tells of what it is."""
    _written(tmp_path, f'["{TOPIC}"]\nphone = "MobilePhone"\nconsent = "Call_Consent__c"\ndo_not_call = "DoNotCall"\n')
    without = Sample(_json(OF_CONNECTOR), f"CREATE of '{ID}'")
    settings = _documented()["Salesforce by Kafka Connect, JSON"]
    _set(settings, tmp_path, monkeypatch)
    assert _told(without, monkeypatch, capsys) is None
    _set(settings | {"SOURCE_MAPPING": f"{FILES}/mapping.toml"}, tmp_path, monkeypatch)
    assert _told(without, monkeypatch, capsys) == without.told


def _set(settings: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for one topic, with what the folder holds."""
    given = {"KAFKA_BOOTSTRAP_SERVERS": "nowhere:9092", "KAFKA_SOURCE_TOPICS": TOPIC, "SCHEMAS_DIR": str(folder)}
    for name, value in {**settings, **given}.items():
        monkeypatch.setenv(name, value.replace(FILES, str(folder)))
    monkeypatch.delenv("SCHEMA_REGISTRY_URL", raising=False)


def _told(sample_: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str | None:
    """What a record tells; None where it is rejected."""
    record = Record(TOPIC, 0, 4, TIME_MS, sample_.key, sample_.value, sample_.headers)
    monkeypatch.setattr(explain, "read_one", lambda *_: record)
    code = cli.main(["check", "--output", "json", "--explain", f"{TOPIC}/0/4"])
    steps = {step["name"]: step["lines"] for step in json.loads(capsys.readouterr().out)}
    return str(steps["change event"][0]) if code == 0 else None


def _written(folder: Path, mapping: str = OWN_MAPPING) -> None:
    """Schemas with their ids, and a mapping that is not ready-made."""
    for number, schema in SCHEMAS.items():
        (folder / f"{number}.avsc").write_text(schema if isinstance(schema, str) else json.dumps(schema))
    (folder / "native.avsc").write_text((packaged_schemas() / "crm_contact_change.avsc").read_text())
    ids = {"1": "native.avsc"} | {str(number): f"{number}.avsc" for number in SCHEMAS}
    (folder / "ids.json").write_text(json.dumps(ids))
    (folder / "mapping.toml").write_text(mapping)
