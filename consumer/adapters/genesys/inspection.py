"""What Genesys says of token, lists and permissions, without anything being changed.

A permission is asked for by a request that needs it and has nothing to do: no contacts to add, none to read, and one to
delete that no list has. Genesys refuses it for the permission, or takes or refuses it for being empty. Touches Genesys
through the client.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from opentelemetry.trace import NoOpTracer

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import find_list
from consumer.adapters.genesys.contacts import ADD_CONTACTS, DELETE_CONTACTS, KEEP_QUEUE, READ_CONTACTS
from consumer.adapters.genesys.dnc_list import ADD_NUMBERS, REMOVE_NUMBERS, DncList
from consumer.adapters.genesys.named_lists import FoundList
from consumer.adapters.genesys.transport import Endpoint
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.errors import RefusedByGenesys
from consumer.settings import Settings

NOBODY = ""
"""No contact has an empty external id, so none has the id that is derived from it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that has nothing to do.

    Attributes:
        endpoint: What it needs the permission for.
        path: The list.
        query: Of the URL.
        body: JSON; None sends none.
    """

    endpoint: Endpoint
    path: Mapping[str, str]
    query: Mapping[str, str] | None = None
    body: bytes | None = None

    @property
    def permission(self) -> str:
        """What it asks for."""
        return self.endpoint.permission


class Inspection:
    """Asks Genesys. Close it at the end."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make it where the event loop runs; nothing is asked yet."""
        client = Client(
            settings,
            on_request=lambda *_: None,
            tracer=NoOpTracer(),
            monotonic=time.monotonic,
            throttle=Throttle(settings.genesys_requests_per_minute),
        )
        return cls(client, settings)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def log_in(self) -> None:
        """Get a token.

        Raises:
            Unauthorized: The client's id or secret is wrong.
            TransientError: Not now.
        """
        await self._client.log_in()

    async def contact_list(self) -> FoundList | None:
        """The contact list, None when it has to be created.

        Raises:
            ContactListMismatch: It has other columns than the settings ask for.
            FatalError: No list has the id, or a permission is missing.
            TransientError: Not now.
        """
        return await find_list(self._client, self._settings)

    async def dnc_list(self, name_or_id: str) -> FoundList | None:
        """The do-not-call list, None when it has to be created. Raises as `contact_list`."""
        list_id = await DncList.find(self._client, name_or_id)
        return None if list_id is None else FoundList(list_id)

    @staticmethod
    def contact_probes(list_id: str) -> list[Probe]:
        """One for each permission that the contacts of a list need."""
        path = {"contactListId": list_id}
        return [
            Probe(ADD_CONTACTS, path, KEEP_QUEUE, b"[]"),
            Probe(READ_CONTACTS, path, body=b"[]"),
            Probe(DELETE_CONTACTS, path, {"contactIds": contact_id(NOBODY)}),
        ]

    def dnc_probes(self, list_id: str) -> list[Probe]:
        """One for each permission that the numbers of a do-not-call list need."""
        path = {"dncListId": list_id}
        remove = Probe(REMOVE_NUMBERS, path, body=b'{"action":"Remove","phoneNumbers":[]}')
        return [Probe(ADD_NUMBERS, path, body=b"[]"), *([remove] if self._settings.genesys_dnc_release else [])]

    async def ask(self, probe: Probe) -> None:
        """Find out whether a permission is there.

        Raises:
            Unauthorized: It is not.
            TransientError: Not now.
        """
        try:
            await self._client.call(
                probe.endpoint, deadline=self._client.deadline(), path=probe.path, query=probe.query, body=probe.body
            )
        except RefusedByGenesys:  # for being empty
            return
