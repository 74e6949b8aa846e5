"""Debezium's rows and Salesforce's changes on real Kafka, through the program as a process, into the simulator."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from consumer.simulator.app import Simulator
from tests.envelopes import COLUMNS, ROW, TIME_MS, encoded, record_type
from tests.kafka_clients import produce
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

HEARTBEAT = record_type("Heartbeat", {"ts_ms": "long"}, namespace="io.debezium.connector.common")
DEBEZIUM = record_type(
    "Envelope",
    {
        "before": ["null", record_type("Value", COLUMNS)],
        "after": ["null", "Value"],
        "source": record_type("Source", {"ts_ms": "long", "lsn": "long"}),
        "op": "string",
    },
)
NAMES = {"type": "array", "items": "string"}
HEADER = {"recordIds": NAMES, "changeType": "string", "commitTimestamp": "long", "sequenceNumber": "int"}
SALESFORCE = record_type(
    "LeadChangeEvent",
    {
        "ChangeEventHeader": record_type("Header", HEADER),
        **{name: ["null", "string"] for name in ("MobilePhone", "Email")},
        **{name: ["null", "boolean"] for name in ("DoNotCall", "Call_Consent__c")},
    },
)
SCHEMAS = {1: DEBEZIUM, 2: SALESFORCE, 3: HEARTBEAT}
MAPPING = """
["{topic}"]
external_id = "id"
phone = "phone"
email = "email"
consent = {{ path = "consent", values = {{ granted = true, denied = false }} }}
do_not_call = {{ path = "dnc", values = {{ Y = true, N = false }} }}
attributes = {{ city = "city" }}
"""


def _value(schema_id: int, fields: dict[str, object]) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + encoded(SCHEMAS[schema_id], fields)


def _row(op: str, lsn: int, before: object, after: object) -> bytes:
    return _value(1, {"op": op, "before": before, "after": after, "source": {"ts_ms": TIME_MS, "lsn": lsn}})


def _leads(change_type: str, at: int, **body: object) -> bytes:
    header = {"recordIds": ["00QA", "00QB"], "changeType": change_type, "commitTimestamp": TIME_MS + at}
    fields = dict.fromkeys(["MobilePhone", "Email", "DoNotCall", "Call_Consent__c"]) | body
    return _value(2, {"ChangeEventHeader": header | {"sequenceNumber": 1}, **fields})


def _environ(kafka: KafkaCluster, rows: str, leads: str, simulator: Simulator, directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "GENESYS_", "OTEL_"))}
    mapping = directory / "mapping.toml"
    mapping.write_text(MAPPING.format(topic=rows))
    for schema_id, schema in SCHEMAS.items():
        (directory / f"{schema_id}.avsc").write_text(json.dumps(schema))
    (directory / "ids.json").write_text(json.dumps({schema_id: f"{schema_id}.avsc" for schema_id in SCHEMAS}))
    return kept | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_SOURCE_TOPICS": f"{rows},{leads}",
        "KAFKA_GROUP_ID": f"{rows}-group",
        "KAFKA_AUDIT_TOPIC": f"{rows}-audit",
        "KAFKA_DEAD_LETTER_TOPIC": f"{rows}-dead-letters",
        "SOURCE_ENVELOPE": f"debezium,{leads}=salesforce",
        "SOURCE_MAPPING": str(mapping),
        "SCHEMAS_DIR": str(directory),
        "GENESYS_OAUTH_CLIENT_ID": "id",
        "GENESYS_OAUTH_CLIENT_SECRET": "secret",
        "GENESYS_CONTACT_LIST": "list",
        "GENESYS_ATTRIBUTE_COLUMNS": "city",
        "GENESYS_LOGIN_URL": simulator.url,
        "GENESYS_API_URL": simulator.url,
        "STATE_DIR": str(directory / "state"),
        "HTTP_ADDRESS": "127.0.0.1:0",
    }


async def test_two_envelopes_reach_one_list(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Each topic has its envelope and its mapping: rows come, change their id and go, leads come two at a time."""
    rows, leads = kafka.create_topic("rows"), kafka.create_topic("leads")
    produce(
        kafka.bootstrap,
        rows,
        [
            _value(3, {"ts_ms": TIME_MS}),
            _row("r", 1, None, ROW),
            _row("c", 2, None, ROW | {"id": 8, "consent": "denied"}),
            _row("u", 3, ROW, ROW | {"id": 9, "city": "Bern"}),
            _row("c", 4, None, ROW | {"id": 10}),
            _row("d", 5, ROW | {"id": 10}, None),
        ],
    )
    granted = {"MobilePhone": "+14155550100", "DoNotCall": False, "Call_Consent__c": True}
    produce(kafka.bootstrap, leads, [_leads("CREATE", 1, **granted), _leads("GAP_UPDATE", 2)])
    async with Simulator() as simulator:
        environ = _environ(kafka, rows, leads, simulator, tmp_path)
        run = [sys.executable, "-m", "consumer", "run", "--until-caught-up"]
        process = await asyncio.create_subprocess_exec(*run, env=environ, stdout=sys.stderr.fileno())
        assert await process.wait() == 0
        contacts = {contact["data"]["external_id"]: contact for contact in simulator.contacts("list").values()}
    assert {name: contact["callable"] for name, contact in contacts.items()} == {
        "8": False,
        "9": True,
        "00QA": False,
        "00QB": False,
    }
    assert contacts["9"]["data"]["city"] == "Bern"
