"""Genesys' API as tests/data/genesys/contract.json describes it: endpoints, schemas, limits."""

import json
from pathlib import Path
from typing import Any

CONTRACT = json.loads((Path(__file__).parent / "data" / "genesys" / "contract.json").read_text(encoding="utf-8"))


def closed(schema: Any) -> Any:
    """The schema with no room for properties that the contract does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(part) for key, part in schema.items()}
    return {"additionalProperties": False} | inner if "properties" in inner else inner
