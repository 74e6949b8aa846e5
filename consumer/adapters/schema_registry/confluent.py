"""Confluent's REST API: schemas by id and by GUID, with what they refer to put in place.

It answers for a schema being Avro and whole. Touches nothing but the registry, by the transport.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastavro.repository import SchemaRepositoryError
from fastavro.repository.base import AbstractSchemaRepository
from fastavro.schema import SchemaParseException, load_schema

from consumer.adapters.schema_registry.transport import Transport, parsed
from consumer.errors import DecodeError, SourceUnavailable
from consumer.model import Reason, SchemaName, SchemaReference

_UNKNOWN = (40401, 40402, 40403)
"""Error codes of the registry: no such subject, version, schema."""

_MALFORMED = (SchemaParseException, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What fastavro and json raise at something that is not a schema."""


async def schema(transport: Transport, reference: SchemaReference) -> str | None:
    """The schema without references; None when the registry lacks it, or some of what it refers to.

    Raises:
        DecodeError: It is not Avro, or its references do not fit.
        TransientError: The registry cannot tell now.
    """
    by = f"guids/{reference.value}" if isinstance(reference, SchemaName) else f"ids/{reference}"
    found = await _get(transport, f"/schemas/{by}")
    if found is None:
        return None
    text = _avro_text(found, reference)
    referenced: dict[str, str] = {}
    if not await _collect(transport, found, reference, referenced):
        return None
    return _inlined(text, referenced, reference) if referenced else text


async def _get(transport: Transport, path: str) -> Mapping[str, Any] | None:
    body = await transport.get(transport.base + path, lambda answer: answer.get("error_code") in _UNKNOWN)
    try:
        return None if body is None else parsed(body)
    except (ValueError, RecursionError) as error:
        raise SourceUnavailable(f"schema registry: GET {path}: {error}") from error


async def _collect(
    transport: Transport, found: Mapping[str, Any], reference: SchemaReference, referenced: dict[str, str]
) -> bool:
    """Fetch what the schema refers to, and what that refers to; False when the registry lacks some of it."""
    for name, subject, version in _references(found):
        if name in referenced:
            continue
        other = await _get(transport, f"/subjects/{quote(subject, safe='')}/versions/{version}?deleted=true")
        if other is None:
            return False
        referenced[name] = _avro_text(other, reference)
        if not await _collect(transport, other, reference, referenced):
            return False
    return True


def _avro_text(found: Mapping[str, Any], reference: SchemaReference) -> str:
    """The schema's text in an answer of the registry, which leaves the type out when it is Avro."""
    kind = found.get("schemaType") or "AVRO"
    if kind != "AVRO":
        raise _not_decodable(f"schema {reference} is, or refers to, {kind!s:.20}, not Avro")
    text = found.get("schema")
    if not isinstance(text, str):
        raise SourceUnavailable(f"schema registry: the answer for schema {reference} holds no schema")
    return text


def _references(found: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Name, subject and version of what a schema refers to."""
    references = found.get("references") or []
    try:
        return [(str(each["name"]), str(each["subject"]), int(each["version"])) for each in references]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceUnavailable("schema registry: references are not as a registry gives them") from error


class _Referenced(AbstractSchemaRepository):
    """Lets fastavro put each referenced type where it is used first. The schema itself has the name ""."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def load(self, name: str) -> Any:  # type: ignore[explicit-override]  # `typing.override` is of Python 3.12
        if name not in self._texts:
            raise SchemaRepositoryError(f"nothing defines {name}")
        return json.loads(self._texts[name])


def _inlined(text: str, referenced: Mapping[str, str], reference: SchemaReference) -> str:
    """One schema without references."""
    try:
        schema = load_schema("", repo=_Referenced({**referenced, "": text}))
    except (SchemaRepositoryError, *_MALFORMED) as error:
        raise _not_decodable(f"references of schema {reference} do not fit: {error}") from error
    return json.dumps(_unmarked(schema))


def _unmarked(schema: Any) -> Any:
    """The schema without what fastavro notes in it, at its top or in the branches of a union there."""
    if isinstance(schema, list):
        return [_unmarked(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: value for key, value in schema.items() if not key.startswith("__")}
    return schema


def _not_decodable(detail: str) -> DecodeError:
    return DecodeError((Reason.NOT_DECODABLE,), detail)
