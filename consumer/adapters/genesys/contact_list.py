"""The contact list at start: found by id or name, created when missing, refused when its columns differ.

Touches Genesys through the client. Columns cannot be changed after creation, so a list with others is not mended.
"""

import re
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import NoReturn

import orjson
import structlog

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.transport import Endpoint
from consumer.columns import EMAIL, OWN, PHONE
from consumer.errors import ContactListMismatch, FatalError, RefusedByGenesys, SinkUnavailable
from consumer.settings import Settings

LISTS_PATH = "/api/v2/outbound/contactlists"
LIST_PATH = f"{LISTS_PATH}/{{contactListId}}"

_FIND = Endpoint("list_contact_lists", "GET", LISTS_PATH, "outbound:contactList:view")
_READ = Endpoint("get_contact_list", "GET", LIST_PATH, "outbound:contactList:view")
_CREATE = Endpoint("create_contact_list", "POST", LISTS_PATH, "outbound:contactList:add")

_PAGE_SIZE = 100
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_Properties = dict[str, object]

_log = structlog.get_logger(__name__)


def columns(settings: Settings) -> tuple[str, ...]:
    """All columns of the list, in the order in which it is created."""
    return (*OWN, *(column for _, column in settings.genesys_attribute_columns))


async def open_list(client: Client, settings: Settings, *, create: bool) -> str:
    """Find the contact list of the settings, or create it where that is asked for.

    Returns:
        Its id.

    Raises:
        ContactListMismatch: Its columns are others than the settings ask for.
        FatalError: No list has the id or name, or Genesys refuses to create one.
        TransientError: Not now.
    """
    wanted = columns(settings)
    try:
        found = await _look_up(client, settings.genesys_contact_list)
        if found is not None:
            return _checked(found, wanted)
        if create:
            return await _create(client, settings.genesys_contact_list, wanted)
    except RefusedByGenesys as refused:
        raise _not_found_out(refused) from None
    raise FatalError(f"there is no contact list named {settings.genesys_contact_list}: check GENESYS_CONTACT_LIST")


async def find_list(client: Client, settings: Settings) -> str | None:
    """The id of the list, None when there is none of the name; otherwise as `open_list`, and nothing is created."""
    try:
        found = await _look_up(client, settings.genesys_contact_list)
    except RefusedByGenesys as refused:
        raise _not_found_out(refused) from None
    return None if found is None else _checked(found, columns(settings))


async def _look_up(client: Client, name_or_id: str) -> object:
    if ID.fullmatch(name_or_id):
        return await client.call(_READ, deadline=client.deadline(), path={"contactListId": name_or_id})
    return await find(client, _FIND, name_or_id)


def _not_found_out(refused: RefusedByGenesys) -> FatalError:
    return FatalError(f"Genesys refuses to look up the contact list: {refused.code}")


async def _create(client: Client, name: str, wanted: Sequence[str]) -> str:
    """The id of a new list, which is told: with a name that was mistyped, campaigns go on calling from another one."""
    try:
        created = await client.call(_CREATE, deadline=client.deadline(), body=_creation(name, wanted))
    except RefusedByGenesys as refused:
        return _checked(await _created_by_another(client, name, refused.code), wanted)
    list_id = _checked(created, wanted)
    remedy = "none where a new list is wanted; otherwise correct GENESYS_CONTACT_LIST, letter by letter"
    _log.warning("contact_list_created", contact_list_id=list_id, name=name, remedy=remedy)
    return list_id


async def _created_by_another(client: Client, name: str, code: str) -> object:
    """Look again after a refused creation: another consumer may have been quicker."""
    if code != "duplicate.name":
        raise FatalError(f"Genesys refuses to create the contact list: {code}")
    found = await find(client, _FIND, name)
    if found is None:
        raise SinkUnavailable(
            "a contact list of this name exists but cannot be seen: wait, or check upper and lower case of the name "
            "and that the role of the OAuth client covers the list's division"
        )
    return found


async def find(client: Client, endpoint: Endpoint, name: str) -> _Properties | None:
    """The list of this name, None when there is none.

    Args:
        client: Asks Genesys.
        endpoint: Lists those whose name begins like it, page by page.
        name: Compared letter by letter.
    """
    async for listed in _named_like(client, endpoint, name):
        if listed.get("name") == name:
            return listed
    return None


async def _named_like(client: Client, endpoint: Endpoint, name: str) -> AsyncIterator[_Properties]:
    """All lists whose name begins like this."""
    for page in count(1):
        query = {"name": name, "pageSize": str(_PAGE_SIZE), "pageNumber": str(page)}
        match await client.call(endpoint, deadline=client.deadline(), query=query):
            case {"entities": list(entities), "pageCount": int(pages)}:
                for listed in entities:
                    yield listed if isinstance(listed, dict) else _unlike_a_list()
                if page >= pages:
                    return
            case _:
                _unlike_a_list()


def _creation(name: str, wanted: Sequence[str]) -> bytes:
    return orjson.dumps(
        {
            "name": name,
            "columnNames": wanted,
            "phoneColumns": [{"columnName": PHONE, "type": "cell"}],
            "emailColumns": [{"columnName": EMAIL, "type": "Personal"}],
        }
    )


def _checked(listed: object, wanted: Sequence[str]) -> str:
    """The id of a list that has exactly the wanted columns."""
    match listed:
        case {"id": str(list_id), "columnNames": list(names)} if list_id:
            _refuse_others(list_id, wanted, [str(name) for name in names])
        case _:
            _unlike_a_list()
    if PHONE not in _phone_columns(listed):
        raise ContactListMismatch(f"contact list {list_id}: {PHONE} is not one of its phone columns")
    return list_id


def _refuse_others(list_id: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted]
    problems = []
    if missing:
        problems.append(f"it lacks the columns {', '.join(missing)}")
    if extra:
        problems.append(f"it has the columns {', '.join(extra)}, and Genesys refuses contacts that leave a column out")
    if problems:
        remedy = "set GENESYS_ATTRIBUTE_COLUMNS to match, or name a new list: columns cannot be changed"
        raise ContactListMismatch(f"contact list {list_id}: {'; '.join(problems)}; {remedy}")


def _phone_columns(listed: object) -> set[object]:
    match listed:
        case {"phoneColumns": list(phones)}:
            return {phone.get("columnName") for phone in phones if isinstance(phone, dict)}
        case _:
            return set()


def _unlike_a_list() -> NoReturn:
    raise SinkUnavailable("the answer does not match: it is no contact list")
