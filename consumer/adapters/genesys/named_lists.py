"""Lists of an organisation by name or id, whatever they hold. Touches Genesys through the client."""

import re
from collections.abc import AsyncIterator
from itertools import count
from typing import NamedTuple, NoReturn

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.transport import Endpoint
from consumer.errors import SinkUnavailable

_PAGE_SIZE = 100
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_Properties = dict[str, object]


class ListKind(NamedTuple):
    """How lists of a kind are asked for.

    Attributes:
        find: Lists those whose name begins like one, page by page.
        read: Reads one.
        id_name: What its path calls the id.
    """

    find: Endpoint
    read: Endpoint
    id_name: str


class FoundList(NamedTuple):
    """A list that is there.

    Attributes:
        list_id: Its id.
        doubt: Why it may not take all that is sent, and the remedy; "" where nothing is known against it.
    """

    list_id: str
    doubt: str = ""


async def look_up(client: Client, kind: ListKind, name_or_id: str) -> object:
    """The list of this name or id; None when there is none of the name."""
    if _ID.fullmatch(name_or_id):
        return await client.call(kind.read, deadline=client.deadline(), path={kind.id_name: name_or_id})
    return await find(client, kind, name_or_id)


async def find(client: Client, kind: ListKind, name: str) -> _Properties | None:
    """The list of this name, letter by letter; None when there is none."""
    async for listed in _named_like(client, kind.find, name):
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


def _unlike_a_list() -> NoReturn:
    raise SinkUnavailable("the answer does not match: it holds no lists")
