"""The do-not-call list: found by name or id, created when missing; numbers are added to it, and removed if asked to.

Touches Genesys through the client. A number stays although its contact is deleted: other lists may hold it too.
"""

from collections.abc import Callable, Sequence
from typing import Self

import orjson
import structlog

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import ID, find
from consumer.adapters.genesys.transport import Endpoint
from consumer.errors import ContactListMismatch, FatalError, RefusedByGenesys, SinkUnavailable

log = structlog.get_logger(__name__)

_LISTS_PATH = "/api/v2/outbound/dnclists"
_LIST_PATH = f"{_LISTS_PATH}/{{dncListId}}"

_SETTING = "do-not-call list: check GENESYS_DNC_LIST"
_FIND = Endpoint("list_dnc_lists", "GET", _LISTS_PATH, "outbound:dncList:view", _SETTING)
_READ = Endpoint("get_dnc_list", "GET", _LIST_PATH, "outbound:dncList:view", _SETTING)
_CREATE = Endpoint("create_dnc_list", "POST", _LISTS_PATH, "outbound:dncList:add", _SETTING)
ADD_NUMBERS = Endpoint("add_dnc_numbers", "POST", f"{_LIST_PATH}/phonenumbers", "outbound:dnc:add", _SETTING)
REMOVE_NUMBERS = Endpoint("remove_dnc_numbers", "PATCH", f"{_LIST_PATH}/phonenumbers", "outbound:dnc:edit", _SETTING)

_REMOVED_AT_ONCE = 250
"""As many as Genesys takes off in one request."""

_INTERNAL = "rds"
"""Only a list that Genesys keeps itself takes numbers."""

_FULL = frozenset(
    {
        "dnc.phone.numbers.per.list.limit.exceeded",
        "dnc.phone.numbers.per.organization.limit.exceeded",
        "dnc.records.per.list.limit.exceeded",
        "dnc.records.per.organization.limit.exceeded",
    }
)


class DncList:
    """A do-not-call list in Genesys Cloud. Use `open`."""

    def __init__(self, client: Client, list_id: str) -> None:
        self._client = client
        self._path = {"dncListId": list_id}

    @classmethod
    async def open(cls, client: Client, name_or_id: str) -> Self:
        """Find or create the list.

        Raises:
            ContactListMismatch: It is not one that Genesys keeps itself, or holds no phone numbers.
            FatalError: No list has the id, or Genesys refuses to create one.
            TransientError: Not now.
        """
        try:
            found = await _look_up(client, name_or_id)
            return cls(client, _checked(await _create(client, name_or_id) if found is None else found))
        except RefusedByGenesys as refused:
            raise FatalError(f"Genesys refuses to look up or create the do-not-call list: {refused.code}") from None

    @staticmethod
    async def find(client: Client, name_or_id: str) -> str | None:
        """The id of the list, None when there is none of the name; otherwise as `open`, and nothing is created."""
        try:
            found = await _look_up(client, name_or_id)
        except RefusedByGenesys as refused:
            raise FatalError(f"Genesys refuses to look up the do-not-call list: {refused.code}") from None
        return None if found is None else _checked(found)

    async def add(self, numbers: Sequence[str], deadline: float, sure: Callable[[], bool]) -> None:
        """Add phone numbers, E.164; those that stand there already are fine.

        Args:
            numbers: At least one. One that Genesys refuses alone is left out: its contact is not callable anyway.
            deadline: When it must be over, on the event loop's clock.
            sure: Asked in the moment in which a request is written; when it says no, nothing is.

        Raises:
            TransientError: Not now, or the list is full: then somebody must make room.
            FatalError: As for every call.
        """
        refused = await self._asked(ADD_NUMBERS, orjson.dumps(numbers), deadline, sure)
        if refused is None:
            return
        if refused.code in _FULL:
            raise SinkUnavailable(f"the do-not-call list takes no more numbers: {refused.code}")
        if len(numbers) == 1:
            log.error("number_refused", code=refused.code, remedy="add it to the do-not-call list by hand")
            return
        for half in _halves(numbers):
            await self.add(half, deadline, sure)

    async def remove(self, numbers: Sequence[str], deadline: float, sure: Callable[[], bool]) -> None:
        """Take phone numbers off; those that do not stand there are fine.

        Args:
            numbers: E.164. One that Genesys refuses alone stays on the list.
            deadline: When it must be over, on the event loop's clock.
            sure: Asked in the moment in which a request is written; when it says no, nothing is.

        Raises:
            TransientError: Not now.
            FatalError: As for every call.
        """
        for start in range(0, len(numbers), _REMOVED_AT_ONCE):
            await self._remove(numbers[start : start + _REMOVED_AT_ONCE], deadline, sure)

    async def _remove(self, numbers: Sequence[str], deadline: float, sure: Callable[[], bool]) -> None:
        body = orjson.dumps({"action": "Remove", "phoneNumbers": numbers})
        refused = await self._asked(REMOVE_NUMBERS, body, deadline, sure)
        if refused is None:
            return
        if len(numbers) == 1:
            log.error("number_not_released", code=refused.code, remedy="take it off the do-not-call list by hand")
            return
        for half in _halves(numbers):
            await self._remove(half, deadline, sure)

    async def _asked(
        self, endpoint: Endpoint, body: bytes, deadline: float, sure: Callable[[], bool]
    ) -> RefusedByGenesys | None:
        try:
            await self._client.call(endpoint, deadline=deadline, path=self._path, body=body, sure=sure)
        except RefusedByGenesys as refused:
            return refused
        return None


def _halves(numbers: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    middle = len(numbers) // 2
    return numbers[:middle], numbers[middle:]


async def _look_up(client: Client, name_or_id: str) -> object:
    if ID.fullmatch(name_or_id):
        return await client.call(_READ, deadline=client.deadline(), path={"dncListId": name_or_id})
    return await find(client, _FIND, name_or_id)


async def _create(client: Client, name: str) -> object:
    body = orjson.dumps({"name": name, "dncSourceType": _INTERNAL, "contactMethod": "Phone"})
    try:
        return await client.call(_CREATE, deadline=client.deadline(), body=body)
    except RefusedByGenesys as refused:
        if refused.code != "duplicate.name":
            raise
        raise SinkUnavailable("a do-not-call list of this name has just been made: it is looked up again") from None


def _checked(listed: object) -> str:
    """The id of a list that takes phone numbers."""
    match listed:
        case {"id": str(list_id), "dncSourceType": str(source), **more} if list_id:
            method = more.get("contactMethod")
        case _:
            raise SinkUnavailable("the answer does not match: it is no do-not-call list")
    if source != _INTERNAL or method not in {"Phone", "Any"}:
        remedy = "name one of dncSourceType rds and contactMethod Phone, or a new one"
        raise ContactListMismatch(f"do-not-call list {list_id}: it takes no phone numbers; {remedy}")
    return list_id
