"""Answers for the view inside from other processes: `/simulator/...`, JSON, no token. Reads, never changes."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import orjson
from aiohttp import web

from consumer.simulator.contacts import Contacts
from consumer.simulator.dnc import DncLists
from consumer.simulator.lists import ContactLists

_CHUNK_CONTACTS = 1_000


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _limit(request: web.Request) -> int | None:
    """How many contacts, or entries of each kind, are wanted; None is all."""
    limit = request.query.get("limit")
    if limit is None:
        return None
    if not limit.isdecimal():
        raise web.HTTPBadRequest(text="limit must be a number")
    return int(limit)


async def _stream(request: web.Request, contacts: Contacts) -> web.StreamResponse:
    wanted = islice(contacts.views(), _limit(request))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    chunk: list[bytes] = []
    opening = b"{"
    for contact_id, view in wanted:
        applied = contacts.applied[contact_id]
        chunk.append(orjson.dumps(contact_id) + b":" + orjson.dumps(view | {"applied": applied}))
        if len(chunk) == _CHUNK_CONTACTS:
            await response.write(opening + b",".join(chunk))
            chunk, opening = [], b","
    await response.write((opening if chunk or opening == b"{" else b"") + b",".join(chunk) + b"}")
    return response


def add_routes(
    router: web.UrlDispatcher, lists: ContactLists, dnc_lists: DncLists, stats: Callable[[], dict[str, Any]]
) -> None:
    """Serve the lists and what each holds (by id or name), contacts and do-not-call entries, and the statistics."""

    async def show_lists(_: web.Request) -> web.StreamResponse:
        return _json([contact_list.body(with_size=True) for contact_list in lists.all()])

    async def show_contacts(request: web.Request) -> web.StreamResponse:
        try:
            contact_list = lists.look_up(request.match_info["name_or_id"])
        except LookupError:
            raise web.HTTPNotFound from None
        return await _stream(request, contact_list.contacts)

    async def show_dnc_lists(_: web.Request) -> web.StreamResponse:
        return _json([dnc_list.body(with_size=True) for dnc_list in dnc_lists.all()])

    async def show_dnc_entries(request: web.Request) -> web.StreamResponse:
        try:
            dnc_list = dnc_lists.look_up(request.match_info["name_or_id"])
        except LookupError:
            raise web.HTTPNotFound from None
        limit = _limit(request)
        return _json({kind.value: dict(islice(held.items(), limit)) for kind, held in dnc_list.entries.items()})

    async def show_stats(_: web.Request) -> web.StreamResponse:
        return _json(stats())

    router.add_get("/simulator/lists", show_lists)
    router.add_get("/simulator/lists/{name_or_id}/contacts", show_contacts)
    router.add_get("/simulator/dnc-lists", show_dnc_lists)
    router.add_get("/simulator/dnc-lists/{name_or_id}/entries", show_dnc_entries)
    router.add_get("/simulator/stats", show_stats)
