"""Exports of the contact list: ordered, waited for, and read as they stream in.

Touches Genesys through the client. An older export that is still there is not taken for the one that was ordered.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from consumer.adapters.genesys.answers import NotMadeYet
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import LIST_PATH
from consumer.adapters.genesys.export_file import ExportFile
from consumer.adapters.genesys.transport import Endpoint
from consumer.errors import FatalError, RefusedByGenesys, SinkUnavailable
from consumer.model import ExportedContact

LOOK_EVERY_S = 2.0
MADE_WITHIN_S = 3600.0

_PERMISSIONS = "outbound:contact:view and outbound:contactList:view"
_START = Endpoint("start_export", "POST", f"{LIST_PATH}/export", _PERMISSIONS)
_FIND = Endpoint("get_export", "GET", f"{LIST_PATH}/export", _PERMISSIONS)
_DOWNLOAD = Endpoint("get_download", "GET", "/api/v2/downloads/{downloadId}")


class _Made(NamedTuple):
    """An export that is there.

    Attributes:
        uri: Where; it may be signed anew for each who asks.
        when: When it was made; None where Genesys does not say.
    """

    uri: str
    when: str | None

    def is_another_than(self, before: "_Made | None") -> bool:
        """Whether it was made after the one that was there before, if any."""
        if before is None:
            return True
        if self.when is None or before.when is None:
            return self.uri != before.uri
        return self.when != before.when


async def exported(
    client: Client, path: Mapping[str, str], columns: Sequence[str]
) -> AsyncIterator[Sequence[ExportedContact]]:
    """All contacts of a list, some at a time.

    Args:
        client: Asks Genesys.
        path: Names the list.
        columns: The managed columns, in the order in which their values are wanted.

    Raises:
        TransientError: Not now, or the file broke off: it must be read anew.
        FatalError: A permission is missing, or a column; or Genesys refuses to export.
    """
    before: _Made | None = None
    with suppress(NotMadeYet):
        before = await _find(client, path)
    await _ask(client, _START, path, body=b"{}")
    made = await _made(client, path, before)
    file = ExportFile(columns)
    async with client.download(_DOWNLOAD, made.uri) as parts:
        async for part in parts:
            yield file.feed(part)
    yield file.end()


async def _made(client: Client, path: Mapping[str, str], before: _Made | None) -> _Made:
    """The export that was ordered, once it is there."""
    try:
        async with asyncio.timeout(MADE_WITHIN_S):
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                with suppress(NotMadeYet):
                    found = await _find(client, path)
                    if found.is_another_than(before):
                        return found
    except TimeoutError:
        raise SinkUnavailable(f"Genesys made no export within {MADE_WITHIN_S:.0f} s") from None


async def _find(client: Client, path: Mapping[str, str]) -> _Made:
    match await _ask(client, _FIND, path, query={"download": "false"}):
        case {"uri": str(uri), **more}:
            when = more.get("exportTimestamp")
            return _Made(uri, None if when is None else str(when))
        case _:
            raise SinkUnavailable("the answer does not match: it names no export")


async def _ask(
    client: Client,
    endpoint: Endpoint,
    path: Mapping[str, str],
    *,
    query: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> object:
    """What Genesys answers. No data of contacts is in the request, so a refusal blames none."""
    try:
        return await client.call(endpoint, deadline=client.deadline(), path=path, query=query, body=body)
    except RefusedByGenesys as refused:
        remedy = "ask its support whether this organisation may export lists, then run it again"
        raise FatalError(f"Genesys refuses to export the contact list: {refused.code}; {remedy}") from None
