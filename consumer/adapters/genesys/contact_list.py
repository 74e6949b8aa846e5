"""The contact list at start: found by id or name, created when missing, refused when its columns differ.

Touches Genesys through the client. Columns cannot be changed after creation, so a list with others is not mended.
"""

from collections.abc import Mapping, Sequence
from typing import NoReturn

import orjson
import structlog

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.named_lists import FoundList, ListKind, find, look_up
from consumer.adapters.genesys.transport import Endpoint
from consumer.columns import CONSENT, DO_NOT_CALL, EMAIL, EXTERNAL_ID, OWN, PHONE
from consumer.core.validate import MAX_EMAIL_CHARACTERS, MAX_PHONE_CHARACTERS
from consumer.errors import ContactListMismatch, FatalError, RefusedByGenesys, SinkUnavailable
from consumer.settings import Settings

LISTS_PATH = "/api/v2/outbound/contactlists"
LIST_PATH = f"{LISTS_PATH}/{{contactListId}}"

_FIND = Endpoint("list_contact_lists", "GET", LISTS_PATH, "outbound:contactList:view")
READ_LIST = Endpoint("get_contact_list", "GET", LIST_PATH, "outbound:contactList:view")
_LISTS = ListKind(_FIND, READ_LIST, "contactListId")
_CREATE = Endpoint("create_contact_list", "POST", LISTS_PATH, "outbound:contactList:add")

_LONGEST: Mapping[str, int] = {
    EXTERNAL_ID: 36,
    PHONE: MAX_PHONE_CHARACTERS,
    EMAIL: MAX_EMAIL_CHARACTERS,
    CONSENT: 5,
    DO_NOT_CALL: 5,
}
"""Characters that a column has to take: a UUID, what the rules let through, `false`; of attributes nobody knows."""

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
        found = await look_up(client, _LISTS, settings.genesys_contact_list)
        if found is not None:
            return _told(found, wanted)
        if create:
            return await _create(client, settings.genesys_contact_list, wanted)
    except RefusedByGenesys as refused:
        raise _not_found_out(refused) from None
    raise FatalError(f"there is no contact list named {settings.genesys_contact_list}: check GENESYS_CONTACT_LIST")


async def find_list(client: Client, settings: Settings) -> FoundList | None:
    """The list, None when there is none of the name; otherwise as `open_list`, and nothing is created."""
    try:
        found = await look_up(client, _LISTS, settings.genesys_contact_list)
    except RefusedByGenesys as refused:
        raise _not_found_out(refused) from None
    if found is None:
        return None
    wanted = columns(settings)
    return FoundList(_checked(found, wanted), _doubt(found, wanted))


def _not_found_out(refused: RefusedByGenesys) -> FatalError:
    return FatalError(f"Genesys refuses to look up the contact list: {refused.code}")


async def _create(client: Client, name: str, wanted: Sequence[str]) -> str:
    """The id of a new list, which is told: with a name that was mistyped, campaigns go on calling from another one."""
    try:
        created = await client.call(_CREATE, deadline=client.deadline(), body=_creation(name, wanted))
    except RefusedByGenesys as refused:
        list_id = _told(await _created_by_another(client, name, refused.code), wanted)
        client.created(list_id)
        return list_id
    list_id = _checked(created, wanted)
    client.created(list_id)
    remedy = (
        "none where a new list is wanted, and one without time zones will do: these are fixed now, so make the list "
        "yourself where you call across zones; otherwise correct GENESYS_CONTACT_LIST, letter by letter"
    )
    _log.warning("contact_list_created", contact_list_id=list_id, name=name, remedy=remedy)
    return list_id


async def _created_by_another(client: Client, name: str, code: str) -> object:
    """Look again after a refused creation: another consumer may have been quicker."""
    if code != "duplicate.name":
        raise FatalError(f"Genesys refuses to create the contact list: {code}")
    found = await find(client, _LISTS, name)
    if found is None:
        raise SinkUnavailable(
            "a contact list of this name exists but cannot be seen: wait, or check upper and lower case of the name "
            "and that the role of the OAuth client covers the list's division"
        )
    return found


def _creation(name: str, wanted: Sequence[str]) -> bytes:
    return orjson.dumps(
        {
            "name": name,
            "columnNames": wanted,
            "phoneColumns": [{"columnName": PHONE, "type": "cell"}],
            "emailColumns": [{"columnName": EMAIL, "type": "Personal"}],
        }
    )


def _told(listed: object, wanted: Sequence[str]) -> str:
    """The id of a list as it must be; a warning where it may not take what is sent."""
    list_id = _checked(listed, wanted)
    if doubt := _doubt(listed, wanted):
        _log.warning("contact_list_doubted", contact_list_id=list_id, remedy=doubt)
    return list_id


def _doubt(listed: object, wanted: Sequence[str]) -> str:
    """Which managed columns may not take what is sent, as far as the list tells; "" where it tells of none."""
    match listed:
        case {"columnDataTypeSpecifications": list(told)}:
            specified = {each.get("columnName"): each for each in told if isinstance(each, dict)}
        case _:
            specified = {}
    if not (names := [name for name in wanted if _is_narrow(name, specified.get(name, {}))]):
        return ""
    return (
        f"the columns {', '.join(names)} are of another type than TEXT, or too short: contacts whose values they do "
        "not take are refused one by one. If there may be such, name another list: types cannot be changed"
    )


def _is_narrow(name: str, specified: Mapping[str, object]) -> bool:
    longest = specified.get("maxLength")
    is_short = isinstance(longest, int) and longest < _LONGEST.get(name, 0)
    return specified.get("columnDataType") not in {None, "TEXT"} or is_short


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
