"""A Genesys that takes everything and keeps nothing: what is measured against it is the program alone.

A process of its own: `python -m bench.sink PORT [--log FILE] [--delay-ms N]`. It gives any client a token, has one
contact list that takes the columns it is created with, and echoes contacts, which is what Genesys answers. A request
with contacts is a line of the log: when it came and when it was answered, in seconds since the epoch, and its body.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiohttp import web

LIST_ID = "0b5d9d2f-6a5e-4f0c-9a53-2a6b2f0d6f01"
_LISTS = "/api/v2/outbound/contactlists"
_JSON = "application/json"


class Request(NamedTuple):
    """A request with contacts, as the log has it; times are seconds since the epoch."""

    received: float
    answered: float
    contacts: list[dict[str, Any]]


def requests(log: Path) -> Iterator[Request]:
    """What a sink has logged so far."""
    for line in log.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            received, answered, body = line.split(b" ", 2)
            yield Request(float(received), float(answered), orjson.loads(body))


class _Contacts:
    """The contacts of the list."""

    def __init__(self, log: Path, delay_s: float) -> None:
        self._log = log.open("ab", buffering=0)
        self._delay_s = delay_s

    async def add(self, request: web.Request) -> web.Response:
        received, body = time.time(), await request.read()
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        self._log.write(b"%.6f %.6f %s\n" % (received, time.time(), body))
        return web.Response(body=body, content_type=_JSON)


async def _token(_: web.Request) -> web.Response:
    return web.json_response({"access_token": "bench", "token_type": "bearer", "expires_in": 86_400})


async def _no_lists(_: web.Request) -> web.Response:
    return web.json_response({"entities": [], "pageCount": 0})


async def _created(request: web.Request) -> web.Response:
    return web.json_response(await request.json() | {"id": LIST_ID})


async def _nothing(_: web.Request) -> web.Response:
    return web.Response()


async def _none_known(_: web.Request) -> web.Response:
    return web.json_response([])


def _application(contacts: _Contacts) -> web.Application:
    application = web.Application(client_max_size=2**22)
    path = f"{_LISTS}/{LIST_ID}/contacts"
    application.router.add_post("/oauth/token", _token)
    application.router.add_get(_LISTS, _no_lists)
    application.router.add_post(_LISTS, _created)
    application.router.add_post(path, contacts.add)
    application.router.add_delete(path, _nothing)
    application.router.add_post(f"{path}/bulk", _none_known)
    return application


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sink")
    parser.add_argument("port", type=int)
    parser.add_argument("--log", type=Path, default=Path("/dev/null"))
    parser.add_argument("--delay-ms", type=float, default=0)
    arguments = parser.parse_args()
    contacts = _Contacts(arguments.log, arguments.delay_ms / 1000)
    web.run_app(_application(contacts), host="127.0.0.1", port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    _main()
