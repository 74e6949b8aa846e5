"""Apicurio's own REST API: schemas by global id, content id and content hash, and those of an artifact.

It answers for finding that API: where Confluent's is configured, Apicurio's own is beside it. Touches nothing but the
registry, by the transport.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from consumer.adapters.schema_registry.references import Part, whole
from consumer.adapters.schema_registry.transport import Transport, Version
from consumer.errors import SourceUnavailable, undecodable
from consumer.formats import SchemaKind, SchemaName

KINDS = {
    SchemaKind.GLOBAL_ID: "globalIds",
    SchemaKind.CONTENT_ID: "contentIds",
    SchemaKind.CONTENT_HASH: "contentHashes",
}
"""What it names schemas by, with the word in its paths."""

_UNKNOWN = ("ArtifactNotFoundException", "ContentNotFoundException", "VersionNotFoundException")
_COMPATIBLE = re.compile(r"/apis/ccompat/v[0-9]+$")
_OWN = re.compile(r"/apis/registry/v[0-9]+$")
_API = "/apis/registry/v2"
"""The version that Apicurio 2 and 3 have."""


async def schema(transport: Transport, name: SchemaName) -> str | None:
    """The schema without references; None when the registry lacks it, or some of what it refers to.

    Raises:
        DecodeError: It is not JSON, as that of Protobuf, or its references do not fit.
        TransientError: The registry cannot tell now.
    """
    part = await _part(transport, f"ids/{KINDS[name.kind]}/{name.value}")
    if part is None:
        return None
    if not _is_json(part.text):
        raise undecodable(f"schema {name} is not JSON, and so not Avro")
    return await whole(part, partial(_part, transport), name)


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


async def versions(transport: Transport, topic: str) -> list[Version]:
    """The schemas that are registered for a topic's values, the latest first, in the group of those without one.

    Raises:
        TransientError: The registry cannot tell now.
    """
    body = await _get(transport, f"groups/default/artifacts/{quote(f'{topic}-value', safe='')}/versions?limit=500")
    listed = [] if body is None else sorted(_listed(body), reverse=True)
    return [partial(_version, transport, str(number), kind) for number, kind in listed]


def _listed(body: str) -> list[tuple[int, str]]:
    """Global ids, which grow, with the kinds of their schemas."""
    with suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return [(int(each["globalId"]), str(each["type"])) for each in json.loads(body)["versions"]]
    raise SourceUnavailable("schema registry: versions are not as Apicurio gives them")


async def _version(transport: Transport, number: str, kind: str) -> str | None:
    if kind != "AVRO":
        raise undecodable(f"the schema is {kind:.20}, not Avro")
    return await schema(transport, SchemaName(SchemaKind.GLOBAL_ID, number))


async def _part(transport: Transport, path: str) -> Part | None:
    """The schema at a path, with the paths of what it refers to; None when the registry lacks it."""
    text = await _get(transport, path)
    body = None if text is None else await _get(transport, f"{path}/references")
    return None if text is None or body is None else Part(text, _references(body))


def _references(body: str) -> list[str]:
    """The paths of what a schema refers to."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        listed = json.loads(body)
        if isinstance(listed, list):
            return [_path(each) for each in listed]
    raise SourceUnavailable("schema registry: references are not as Apicurio gives them")


def _path(reference: Mapping[str, Any]) -> str:
    group, artifact = (
        quote(str(part), safe="") for part in (reference.get("groupId", "default"), reference["artifactId"])
    )
    return f"groups/{group}/artifacts/{artifact}/versions/{quote(str(reference['version']), safe='')}"


async def _get(transport: Transport, path: str) -> str | None:
    return await transport.get(f"{_base(transport)}/{path}", _is_unknown)


def _base(transport: Transport) -> str:
    base = transport.base
    for pattern in (_COMPATIBLE, _OWN):
        base = pattern.sub("", base)
    return base + _API


def _is_unknown(answer: Mapping[str, Any]) -> bool:
    return answer.get("name") in _UNKNOWN
