"""The do-not-call list: found by name or id, created when missing; numbers are added to it, and removed if asked to.

Touches Genesys through the client. A number stays although its contact is deleted: other lists may hold it too.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

import orjson
import structlog

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.named_lists import ListKind, look_up
from consumer.adapters.genesys.transport import Endpoint
from consumer.errors import ContactListMismatch, FatalError, RefusedByGenesys, SinkUnavailable, TakesNoNumbers

log = structlog.get_logger(__name__)

_LISTS_PATH = "/api/v2/outbound/dnclists"
_LIST_PATH = f"{_LISTS_PATH}/{{dncListId}}"

_SETTING = "do-not-call list: check GENESYS_DNC_LIST"
_FIND = Endpoint("list_dnc_lists", "GET", _LISTS_PATH, "outbound:dncList:view", _SETTING)
_READ = Endpoint("get_dnc_list", "GET", _LIST_PATH, "outbound:dncList:view", _SETTING)
_LISTS = ListKind(_FIND, _READ, "dncListId")
_CREATE = Endpoint("create_dnc_list", "POST", _LISTS_PATH, "outbound:dncList:add", _SETTING)
ADD_NUMBERS = Endpoint(
    "add_dnc_numbers", "POST", f"{_LIST_PATH}/phonenumbers", "outbound:dnc:add", _SETTING, within=_READ
)
REMOVE_NUMBERS = Endpoint(
    "remove_dnc_numbers", "PATCH", f"{_LIST_PATH}/phonenumbers", "outbound:dnc:edit", _SETTING, within=_READ
)

_REMOVED_AT_ONCE = 250
"""As many as Genesys takes off in one request."""

_INTERNAL = "rds"
"""Only a list that Genesys keeps itself takes numbers."""

_NOT_THE_NUMBERS = frozenset(
    {
        "dnc.phone.numbers.per.list.limit.exceeded",
        "dnc.phone.numbers.per.organization.limit.exceeded",
        "dnc.records.per.list.limit.exceeded",
        "dnc.records.per.organization.limit.exceeded",
        "dnc.source.operation.not.supported",
        "dnc.list.invalid.contact.method",
        "dnc.list.not.found",
    }
)
"""Codes of a list that is full, or none that takes numbers: it would take no other ones either."""

_REMEMBERED = 10_000
"""Of so many numbers it is known at most that they were refused: more than the requests of a moment hold."""

_ANY_NUMBER = sys.maxsize


class _Action(NamedTuple):
    """What is done with numbers.

    Attributes:
        endpoint: What Genesys is asked.
        body: Of the request for some numbers.
    """

    endpoint: Endpoint
    body: Callable[[Sequence[str]], bytes]


class _Refusal(NamedTuple):
    """What is known of a number that was refused, alone or with others.

    Attributes:
        together: With how many numbers it may be asked for at most, itself included; 0: not even alone.
        code: Genesys' error code.
    """

    together: int
    code: str


def _removal(numbers: Sequence[str]) -> bytes:
    return orjson.dumps({"action": "Remove", "phoneNumbers": numbers})


_ADD = _Action(ADD_NUMBERS, orjson.dumps)
_REMOVE = _Action(REMOVE_NUMBERS, _removal)


class DncList:
    """A do-not-call list in Genesys Cloud. Use `open`."""

    def __init__(self, client: Client, list_id: str) -> None:
        self._client = client
        self._path = {"dncListId": list_id}
        self._refusals: dict[tuple[str, str], _Refusal] = {}

    @classmethod
    async def open(cls, client: Client, name_or_id: str) -> Self:
        """Find or create the list.

        Raises:
            ContactListMismatch: It is not one that Genesys keeps itself, or holds no phone numbers.
            FatalError: No list has the id, or Genesys refuses to create one.
            TransientError: Not now.
        """
        try:
            found = await look_up(client, _LISTS, name_or_id)
            return cls(client, await _create(client, name_or_id) if found is None else _checked(found))
        except RefusedByGenesys as refused:
            raise FatalError(f"Genesys refuses to look up or create the do-not-call list: {refused.code}") from None

    @staticmethod
    async def find(client: Client, name_or_id: str) -> str | None:
        """The id of the list, None when there is none of the name; otherwise as `open`, and nothing is created."""
        try:
            found = await look_up(client, _LISTS, name_or_id)
        except RefusedByGenesys as refused:
            raise FatalError(f"Genesys refuses to look up the do-not-call list: {refused.code}") from None
        return None if found is None else _checked(found)

    async def add(self, numbers: Sequence[str], deadline: float, sure: Callable[[], bool]) -> Mapping[str, str]:
        """Add phone numbers, E.164; those that stand there already are fine.

        Args:
            numbers: At least one. One that Genesys refuses alone is left out: its contact is not callable anyway.
            deadline: When it must be over, on the event loop's clock.
            sure: Asked in the moment in which a request is written; when it says no, nothing is.

        Returns:
            Those that were refused alone, with Genesys' error codes.

        Raises:
            TakesNoNumbers: The list takes none, as when it is full: somebody must act.
            TransientError: Not now.
            FatalError: As for every call.
        """
        refused = await self._do(_ADD, numbers, deadline, sure)
        self._forget(_ADD, numbers)
        return refused

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
        refused: dict[str, str] = {}
        for start in range(0, len(numbers), _REMOVED_AT_ONCE):
            refused |= await self._do(_REMOVE, numbers[start : start + _REMOVED_AT_ONCE], deadline, sure)
        self._forget(_REMOVE, numbers)
        for code in refused.values():
            log.error("number_not_released", code=code, remedy="take it off the do-not-call list by hand")

    async def _do(
        self, action: _Action, numbers: Sequence[str], deadline: float, sure: Callable[[], bool]
    ) -> dict[str, str]:
        """Do it with all numbers but those that Genesys refuses alone, which are found by halves; those, with codes.

        A try that comes to no end leaves behind how far it came: begun anew each time, the search might never end.
        Other calls go on at the same time, and may forget of a number what this one has seen.
        """
        left, alone = list(numbers), dict[str, str]()
        while left := self._askable(action, left, alone):
            asked = self._next(action, left)
            refused = await self._asked(action, asked, deadline, sure)
            self._forget(action, asked)
            if refused is None:
                done = set(asked)
                left = [number for number in left if number not in done]
            else:
                self._note(action, asked, refused.code)
        return alone

    async def _asked(
        self, action: _Action, numbers: Sequence[str], deadline: float, sure: Callable[[], bool]
    ) -> RefusedByGenesys | None:
        body = action.body(numbers)
        try:
            await self._client.call(action.endpoint, deadline=deadline, path=self._path, body=body, sure=sure)
        except RefusedByGenesys as refused:
            if action is _ADD and refused.code in _NOT_THE_NUMBERS:
                raise TakesNoNumbers(f"the do-not-call list takes no numbers: {refused.code}") from None
            return refused
        return None

    def _askable(self, action: _Action, numbers: Sequence[str], alone: dict[str, str]) -> list[str]:
        """The numbers without those that were refused alone, which are noted."""
        refusals = {number: self._refusals.get((action.endpoint.operation, number)) for number in numbers}
        alone.update({number: known.code for number, known in refusals.items() if known and not known.together})
        return [number for number in numbers if number not in alone]

    def _together(self, action: _Action, number: str) -> int:
        """As `_Refusal.together`."""
        known = self._refusals.get((action.endpoint.operation, number))
        return _ANY_NUMBER if known is None else known.together

    def _next(self, action: _Action, left: Sequence[str]) -> Sequence[str]:
        """Numbers for one request, the first that is left among them."""
        most = self._together(action, left[0])
        return [number for number in left if self._together(action, number) == most][:most]

    def _note(self, action: _Action, refused: Sequence[str], code: str) -> None:
        """Remember that numbers were refused together."""
        for number in refused:
            self._refusals[action.endpoint.operation, number] = _Refusal(len(refused) // 2, code)
        while len(self._refusals) > _REMEMBERED:
            del self._refusals[next(iter(self._refusals))]

    def _forget(self, action: _Action, numbers: Sequence[str]) -> None:
        """Ask for numbers as for any others the next time."""
        for number in numbers:
            self._refusals.pop((action.endpoint.operation, number), None)


async def _create(client: Client, name: str) -> str:
    """The id of a new list, which is told: it keeps nobody from being called before somebody has assigned it."""
    body = orjson.dumps({"name": name, "dncSourceType": _INTERNAL, "contactMethod": "Phone"})
    try:
        created = await client.call(_CREATE, deadline=client.deadline(), body=body)
    except RefusedByGenesys as refused:
        if refused.code != "duplicate.name":
            raise
        raise SinkUnavailable("a do-not-call list of this name has just been made: it is looked up again") from None
    list_id = _checked(created)
    client.created(list_id)
    remedy = "assign it to the campaigns: it blocks nobody before; or correct GENESYS_DNC_LIST, letter by letter"
    log.warning("dnc_list_created", dnc_list_id=list_id, name=name, remedy=remedy)
    return list_id


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
