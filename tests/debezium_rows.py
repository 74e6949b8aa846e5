"""Rows of Debezium on a world in memory: their schema, the settings that read them, and who may be called then."""

import json
from pathlib import Path
from typing import Any

from consumer.model import TopicPartition
from tests.envelopes import COLUMNS, MAPPING, TOPIC, record_type
from tests.memory_ports import MemorySchemas, World

PARTITION = TopicPartition(TOPIC, 0)
ROWS = record_type(
    "Envelope",
    {
        "before": ["null", record_type("Value", COLUMNS)],
        "after": ["null", "Value"],
        "source": record_type("Source", {"ts_ms": "long", "file": "string", "pos": "long"}),
        "op": "string",
    },
)


def schemas() -> MemorySchemas:
    """What the records were written with."""
    return MemorySchemas({1: [json.dumps(ROWS)]})


def reading(directory: Path) -> dict[str, Any]:
    """Settings that read them, without long waits; the mapping is written into the directory."""
    values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in MAPPING.items() if isinstance(value, str))
    flags = '[default.consent]\npath = "consent"\nvalues = { granted = true, denied = false }\n'
    path = directory / "mapping.toml"
    path.write_text(f'[default]\n{values}\ndo_not_call = {{ path = "dnc", values = {{ N = false }} }}\n{flags}')
    quick = {"batch_linger_ms": 20, "settle_interval_ms": 10}
    return {"source_envelope": "debezium", "source_mapping": str(path), **quick}


def callable_(world: World) -> dict[str, object]:
    """Who of the list may be called."""
    return {name: contact["callable"] for name, contact in world.list.items()}
