"""A mistyped path of an optional field shows in the log where schemas come with the records, and with no registry."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from consumer.core.envelopes.choice import Envelopes
from consumer.model import Record
from tests.captured import captured
from tests.envelopes import ROW, TIME_MS
from tests.lives import live
from tests.memory_ports import MemorySchemas, World
from tests.stories import TOPIC

MAPPING = """
["{table}"]
external_id = "id"
phone = "phone"
email = "e_mial"
consent = {{ path = "consent", values = {{ granted = true }} }}
do_not_call = {{ path = "dnc", values = {{ N = false }} }}
attributes = {{ segment = "kind", city = ["town", "city"] }}
"""


def of_connect(row: dict[str, object], name: str = "Row") -> bytes:
    """A row with the schema that Kafka Connect's converter writes."""
    kinds = {int: "int32", str: "string"}
    fields = [{"field": column, "type": kinds[type(value)]} for column, value in row.items()]
    return json.dumps({"schema": {"type": "struct", "name": name, "fields": fields}, "payload": row}).encode()


def warnings(folder: Path, values: list[bytes], table: str = TOPIC) -> list[dict[str, Any]]:
    """What a consumer says of the mapping when it reads these rows."""
    path = folder / "mapping.toml"
    path.write_text(MAPPING.format(table=table))
    world = World()
    world.append([Record(TOPIC, 0, offset, TIME_MS, b"7", value) for offset, value in enumerate(values)])
    chosen = {"source_envelope": "flattened", "source_framing": "json", "source_mapping": str(path)}
    with capture_logs() as lines:
        live(world, MemorySchemas({}), **chosen)
    assert {event["outcome"] for event in world.events()} <= {"delivered", "duplicate"}
    return [dict(line) for line in lines if line["event"].startswith("mapping")]


def test_what_a_schema_in_json_does_not_have_is_told_once(tmp_path: Path) -> None:
    """Another schema that lacks the same is no news; one that lacks something else is."""
    rows = [of_connect(ROW), of_connect(ROW), of_connect(ROW, "Other"), of_connect({**ROW, "kind": "gold"})]
    told = {"event": "mapping_lacks_fields", "log_level": "warning", "topic": TOPIC}
    assert warnings(tmp_path, rows) == [
        {**told, "fields": "email (e_mial); attributes.segment (kind)"},
        {**told, "fields": "email (e_mial)"},
    ]


@pytest.mark.parametrize(
    ("values", "table"),
    [
        ([json.dumps(ROW).encode()], TOPIC),
        ([of_connect(ROW)], "default"),
        ([of_connect({**ROW, "e_mial": "jane@example.com", "kind": "gold"})], TOPIC),
    ],
    ids=["no schema", "a table for many", "nothing is lacking"],
)
def test_otherwise_nothing_is_told(tmp_path: Path, values: list[bytes], table: str) -> None:
    """A row without a schema may leave out what is null, and a table for many has names that are not for all."""
    assert warnings(tmp_path, values, table) == []


def test_a_schema_that_cannot_be_looked_at_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records can be read."""
    monkeypatch.setattr(Envelopes, "fitness", lambda *_: 1 / 0)
    assert warnings(tmp_path, [of_connect(ROW)]) == []


def test_a_null_that_may_have_come_as_a_default_that_grants_is_told_once() -> None:
    """Of JSON no registry has the schema, so a record that came so is the first to tell."""
    record = captured("null as default")
    world = World()
    world.append([replace(record, topic=TOPIC, offset=offset) for offset in range(2)])
    with capture_logs() as lines:
        live(world, MemorySchemas({}), source_envelope="debezium", source_framing="json")
    (line,) = [line for line in lines if line["event"] == "mapping_null_grants"]
    assert (line["log_level"], line["topic"]) == ("warning", TOPIC)
    assert "consent: consent may be null, and its default is true: drop the column's default" in line["problems"]
