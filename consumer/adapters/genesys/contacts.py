"""The contacts of one list in Genesys: added, read and deleted, by their ids there.

Answers for an answer being about the contacts that were asked for. Touches Genesys through the client.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, NoReturn

import orjson
import structlog
from msgspec import Struct
from msgspec.json import Decoder, Encoder

from consumer.adapters.genesys.answers import NO_CONTACT
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import LIST_PATH, READ_LIST
from consumer.adapters.genesys.transport import Endpoint
from consumer.errors import NoneCameBack, RefusedByGenesys, SinkUnavailable
from consumer.ports import Sure

log = structlog.get_logger(__name__)

ADD_CONTACTS = Endpoint("add_contacts", "POST", f"{LIST_PATH}/contacts", "outbound:contact:add", within=READ_LIST)
DELETE_CONTACTS = Endpoint(
    "delete_contacts", "DELETE", f"{LIST_PATH}/contacts", "outbound:contact:delete", within=READ_LIST
)
READ_CONTACTS = Endpoint(
    "read_contacts", "POST", f"{LIST_PATH}/contacts/bulk", "outbound:contact:view", within=READ_LIST
)

KEEP_QUEUE = {"doNotQueue": "true"}
"""A contact that was dialled already is not dialled again because its data came again."""

_DOES_NOT_MATCH = "the answer does not match: it holds other contacts than were asked for"
_READ_AT_ONCE = 50


class _Contact(Struct, rename="camel", gc=False):
    """A contact as Genesys' API writes it."""

    id: str
    contact_list_id: str
    callable: bool
    data: dict[str, str]


class _Named(Struct, gc=False):
    """Which contact it is, and whether it is callable, as far as an answer tells."""

    id: str
    callable: bool | None = None


class Held(NamedTuple):
    """A contact as Genesys has it: its data, and whether it is callable."""

    data: Mapping[str, str | None]
    callable: object


_encode = Encoder().encode
_named = Decoder(list[_Named]).decode
"""Reads which contacts an array holds, and not their data: a third of the time that a hundred of them would take."""


def encoded(id_: str, list_id: str, data: dict[str, str], *, callable_: bool) -> bytes:
    """A contact as it is added: JSON."""
    return _encode(_Contact(id_, list_id, callable_, data))


class Added(NamedTuple):
    """What an answer says of contacts that were sent, by Genesys' ids.

    Attributes:
        missing: Those that do not come back, or come back callable where they were not sent so: they are not applied.
        held: Those that come back not callable where they were sent so: an agent or a campaign has made them so.
    """

    missing: Collection[str] = frozenset()
    held: Collection[str] = frozenset()


class Contacts:
    """The contacts of a list.

    Deadlines are on the event loop's clock. `paid` says that the throttle knows of the request; it is asked otherwise.

    Args:
        client: Asks Genesys.
        list_id: Genesys' id of the list.
        column_names: All its columns.

    Attributes:
        list_id: As given.
    """

    def __init__(self, client: Client, list_id: str, column_names: Sequence[str]) -> None:
        self._client = client
        self._path = {"contactListId": list_id}
        self._columns = tuple(column_names)
        self.list_id = list_id

    async def read_all(self, ids: Sequence[str], deadline: float, *, paid: bool = False) -> dict[str, Held]:
        """What Genesys has of these contacts, by id, in as many requests as it takes.

        Raises:
            ConsumerError: As `Client.call`.
        """
        found: dict[str, Held] = {}
        for start in range(0, len(ids), _READ_AT_ONCE):
            found |= await self.read(ids[start : start + _READ_AT_ONCE], deadline, paid=paid)
        return found

    async def read(self, ids: Sequence[str], deadline: float, *, paid: bool) -> dict[str, Held]:
        """What Genesys has of these contacts, at most 50, by id.

        Raises:
            ConsumerError: As `Client.call`.
        """
        try:
            answer = await self._client.call(
                READ_CONTACTS, deadline=deadline, path=self._path, body=orjson.dumps(ids), paid=paid
            )
        except RefusedByGenesys as refused:
            if refused.code != NO_CONTACT or len(ids) > 1:  # the others may be there
                raise
            return {}
        if not isinstance(answer, list):
            _does_not_match()
        found: dict[str, Held] = {}
        for contact in answer:
            match contact:
                case {"id": str(id_), "data": dict(data)} if id_ in ids:
                    found[id_] = Held(data, contact.get("callable"))
                case _:
                    _does_not_match()
        return found

    async def add_all(self, contacts: Sequence[bytes], deadline: float, sure: Sure, *, paid: bool = False) -> None:
        """Add contacts that all have to come back in the answer.

        Raises:
            ConsumerError: As `Client.call`.
        """
        if (await self.add(contacts, deadline, sure, paid=paid)).missing:
            _does_not_match()

    async def add(self, contacts: Sequence[bytes], deadline: float, sure: Sure, *, paid: bool) -> Added:
        """Add contacts. Where an answer does not tell whether they are callable, it is taken for what was sent.

        Raises:
            NoneCameBack: Not one of them.
            ConsumerError: As `Client.call`.
        """
        body = b"[" + b",".join(contacts) + b"]"
        added = await self._client.call(
            ADD_CONTACTS,
            deadline=deadline,
            path=self._path,
            query=KEEP_QUEUE,
            body=body,
            sure=sure,
            paid=paid,
            parse=_named,
        )
        if not isinstance(added, list):
            _does_not_match()
        sent = _named(body)
        if added == sent:  # as they nearly always are
            return Added()
        told = {each.id: each.callable for each in added}
        missing = {each.id for each in sent if each.id not in told or (told[each.id] and not each.callable)}
        held = {each.id for each in sent if each.callable and told.get(each.id) is False}
        _tell_held(len(held))
        if missing and len(missing) == len(contacts):
            raise NoneCameBack(_DOES_NOT_MATCH)
        return Added(missing, held)

    async def delete(
        self, contact_ids: Sequence[str], deadline: float, sure: Sure
    ) -> RefusedByGenesys | SinkUnavailable | None:
        """Delete contacts; the refusal where none was deleted, or why nobody knows whether they are.

        Raises:
            ConsumerError: As `Client.call`, but for what is returned.
        """
        query = {"contactIds": ",".join(contact_ids)}
        try:
            await self._client.call(
                DELETE_CONTACTS, deadline=deadline, path=self._path, query=query, sure=sure, paid=True
            )
        except RefusedByGenesys as refused:
            if refused.code != NO_CONTACT:  # who is not there is deleted; the others show when they are read
                return refused
        except SinkUnavailable as unanswered:
            return unanswered
        return None

    def complete(self, has: Mapping[str, str | None]) -> dict[str, str]:
        """Data as it was read, with a value in every column: Genesys takes no other."""
        return {column: str(has.get(column) or "") for column in self._columns}


def _tell_held(contacts: int) -> None:
    if contacts:
        remedy = "none where an agent or a campaign did that; the CRM learns of it by other ways only"
        log.info("held_in_genesys", contacts=contacts, remedy=remedy)


def _does_not_match() -> NoReturn:
    raise SinkUnavailable(_DOES_NOT_MATCH)
