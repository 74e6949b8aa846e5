"""Confluent's REST API: schemas by id, by GUID and by subject, with what they refer to put in place.

It answers for a schema being Avro and whole. Touches nothing but the registry, by the transport.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from consumer.adapters.schema_registry.answers import parsed
from consumer.adapters.schema_registry.references import Part, whole
from consumer.adapters.schema_registry.transport import Transport, Version
from consumer.errors import SourceUnavailable, undecodable
from consumer.formats import SchemaKind, SchemaName, SchemaReference

_UNKNOWN = (40401, 40402, 40403)
"""Error codes of the registry: no such subject, version, schema."""


async def schema(transport: Transport, reference: SchemaReference) -> str | None:
    """The schema without references; None when the registry lacks it, or some of what it refers to.

    Raises:
        DecodeError: It is not Avro, or its references do not fit.
        TransientError: The registry cannot tell now.
    """
    by = f"guids/{reference.value}" if isinstance(reference, SchemaName) else f"ids/{reference}"
    return await _whole(transport, f"/schemas/{by}", reference)


async def versions(transport: Transport, topic: str) -> list[Version]:
    """The schemas that are registered for a topic's values, the latest first.

    Raises:
        TransientError: The registry cannot tell now.
    """
    path = f"/subjects/{quote(f'{topic}-value', safe='')}/versions"
    body = await transport.get(transport.base + path, _is_unknown)
    numbers = [] if body is None else sorted(_numbers(body), reverse=True)
    reference = SchemaName(SchemaKind.TOPIC, topic)
    return [partial(_whole, transport, f"{path}/{number}", reference) for number in numbers]


def _numbers(body: str) -> list[int]:
    with suppress(ValueError, RecursionError):
        listed = json.loads(body)
        if isinstance(listed, list) and all(type(number) is int for number in listed):
            return listed
    raise SourceUnavailable("schema registry: the versions of a subject are not as a registry gives them")


async def _whole(transport: Transport, path: str, reference: SchemaReference) -> str | None:
    """The schema that an answer holds, without references."""

    async def fetch(path: str) -> Part | None:
        found = await _get(transport, path)
        return None if found is None else Part(_avro_text(found, reference), _references(found))

    part = await fetch(path)
    return None if part is None else await whole(part, fetch, reference)


async def answers(transport: Transport) -> bool:
    """Whether this API is there at all.

    Raises:
        TransientError: The registry cannot tell now.
    """
    return await transport.get(f"{transport.base}/schemas/types", lambda _: True) is not None


async def _get(transport: Transport, path: str) -> Mapping[str, Any] | None:
    body = await transport.get(transport.base + path, _is_unknown)
    try:
        return None if body is None else parsed(body)
    except (ValueError, RecursionError) as error:
        raise SourceUnavailable(f"schema registry: GET {path}: {error}") from error


def _is_unknown(answer: Mapping[str, Any]) -> bool:
    return answer.get("error_code") in _UNKNOWN


def _avro_text(found: Mapping[str, Any], reference: SchemaReference) -> str:
    """The schema's text in an answer of the registry, which leaves the type out when it is Avro."""
    kind = found.get("schemaType") or "AVRO"
    if kind != "AVRO":
        raise undecodable(f"schema {reference} is, or refers to, {kind!s:.20}, not Avro")
    text = found.get("schema")
    if not isinstance(text, str):
        raise SourceUnavailable(f"schema registry: the answer for schema {reference} holds no schema")
    return text


def _references(found: Mapping[str, Any]) -> list[str]:
    """The paths of what a schema refers to."""
    references = found.get("references") or []
    try:
        return [_path(str(each["subject"]), int(each["version"])) for each in references]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceUnavailable("schema registry: references are not as a registry gives them") from error


def _path(subject: str, version: int) -> str:
    return f"/subjects/{quote(subject, safe='')}/versions/{version}?deleted=true"
