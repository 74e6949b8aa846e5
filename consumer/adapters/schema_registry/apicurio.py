"""Apicurio's own REST API: schemas by global id, content id and content hash.

It answers for finding that API: where Confluent's is configured, Apicurio's own is beside it. Touches nothing but the
registry, by the transport.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from consumer.adapters.schema_registry.transport import Transport
from consumer.model import SchemaKind, SchemaName

KINDS = {
    SchemaKind.GLOBAL_ID: "globalIds",
    SchemaKind.CONTENT_ID: "contentIds",
    SchemaKind.CONTENT_HASH: "contentHashes",
}
"""What it names schemas by, with the word in its paths."""

_COMPATIBLE = re.compile(r"/apis/ccompat/v[0-9]+$")
_OWN = re.compile(r"/apis/registry/v[0-9]+$")
_API = "/apis/registry/v2"
"""The version that Apicurio 2 and 3 have."""


async def schema(transport: Transport, name: SchemaName) -> str | None:
    """The schema, with what it refers to in place where the registry does that; None when the registry lacks it.

    Raises:
        TransientError: The registry cannot tell now.
    """
    suffix = "?dereference=true" if name.kind is SchemaKind.GLOBAL_ID else ""
    return await transport.get(f"{_base(transport)}/ids/{KINDS[name.kind]}/{name.value}{suffix}", _is_unknown)


def _base(transport: Transport) -> str:
    base = transport.base
    for pattern in (_COMPATIBLE, _OWN):
        base = pattern.sub("", base)
    return base + _API


def _is_unknown(answer: Mapping[str, Any]) -> bool:
    return str(answer.get("name")).endswith("NotFoundException") and answer.get("error_code") == HTTPStatus.NOT_FOUND
