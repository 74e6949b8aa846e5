"""A Genesys that answers at once and keeps nothing: what is measured against it is the consumer alone.

A process of its own, `python -m bench.sink PORT`. It gives any client a token, has one contact list that takes the
columns it is created with, and echoes contacts, which is what Genesys answers.
"""

import sys

from aiohttp import web

LIST_ID = "0b5d9d2f-6a5e-4f0c-9a53-2a6b2f0d6f01"
_LISTS = "/api/v2/outbound/contactlists"
_JSON = "application/json"


async def _token(_: web.Request) -> web.Response:
    return web.json_response({"access_token": "bench", "token_type": "bearer", "expires_in": 86_400})


async def _no_lists(_: web.Request) -> web.Response:
    return web.json_response({"entities": [], "pageCount": 0})


async def _created(request: web.Request) -> web.Response:
    return web.json_response(await request.json() | {"id": LIST_ID})


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type=_JSON)


async def _nothing(_: web.Request) -> web.Response:
    return web.Response()


async def _none_known(_: web.Request) -> web.Response:
    return web.json_response([])


def _application() -> web.Application:
    application = web.Application(client_max_size=2**22)
    contacts = f"{_LISTS}/{LIST_ID}/contacts"
    application.router.add_post("/oauth/token", _token)
    application.router.add_get(_LISTS, _no_lists)
    application.router.add_post(_LISTS, _created)
    application.router.add_post(contacts, _echo)
    application.router.add_delete(contacts, _nothing)
    application.router.add_post(f"{contacts}/bulk", _none_known)
    return application


if __name__ == "__main__":
    web.run_app(_application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
