"""Puts in place what a schema refers to. Touches nothing."""

import json
from collections.abc import Mapping
from typing import Any

from fastavro.repository import SchemaRepositoryError
from fastavro.repository.base import AbstractSchemaRepository
from fastavro.schema import SchemaParseException, load_schema

from consumer.core.avro import parsable
from consumer.errors import undecodable
from consumer.formats import SchemaReference

_MALFORMED = (SchemaParseException, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What fastavro and json raise at something that is not a schema."""


class _Referenced(AbstractSchemaRepository):
    """Lets fastavro put each referenced type where it is used first. The schema itself has the name ""."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def load(self, name: str) -> Any:  # type: ignore[explicit-override]  # `typing.override` is of Python 3.12
        if name not in self._texts:
            raise SchemaRepositoryError(f"nothing defines {name}")
        return parsable(json.loads(self._texts[name]))


def inlined(text: str, referenced: Mapping[str, str], reference: SchemaReference) -> str:
    """One schema without references.

    Args:
        text: The schema.
        referenced: What it refers to, directly or not, by name.
        reference: Names the schema in errors.

    Raises:
        DecodeError: They do not fit.
    """
    try:
        schema = load_schema("", repo=_Referenced({**referenced, "": text}))
    except (SchemaRepositoryError, *_MALFORMED) as error:
        raise undecodable(f"references of schema {reference} do not fit: {error}") from error
    return json.dumps(_unmarked(schema))


def _unmarked(schema: Any) -> Any:
    """The schema without what fastavro notes in it, at its top or in the branches of a union there."""
    if isinstance(schema, list):
        return [_unmarked(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: value for key, value in schema.items() if not key.startswith("__")}
    return schema
