"""Records that Debezium wrote, as they came from Kafka: `tests/data/debezium`."""

import json
from pathlib import Path
from typing import Any

from consumer.model import Record

DEBEZIUM = Path(__file__).parent / "data" / "debezium"


def captured(name: str) -> Record:
    """One of them, by its name in `records.json`; keys and headers that are bytes are there as Latin-1."""
    each = json.loads((DEBEZIUM / "records.json").read_text())[name]
    headers = [(header, value.encode("latin-1")) for header, value in each["headers"]]
    is_text = each["value"].startswith(("{", '"'))
    value = each["value"].encode() if is_text else bytes.fromhex(each["value"])
    return Record(
        each["topic"], each["partition"], each["offset"], each["ts"], each["key"].encode("latin-1"), value, headers
    )


def schema_with_a_default_that_grants() -> dict[str, Any]:
    """The one of a table whose column `consent` may be null, and is true by default."""
    schema: dict[str, Any] = json.loads((DEBEZIUM / "default_that_grants.avsc").read_text())
    return schema
