"""Every HTTP request has limits: for the whole, for having a connection, for silence, and of how many there may be."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from opentelemetry.trace import NoOpTracer
from yarl import URL

from consumer import properties
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.limits import follow
from consumer.adapters.genesys.transport import Answer, Endpoint, FileBody, Request, Transport
from consumer.adapters.schema_registry.tokens import TokenEndpoint
from consumer.adapters.schema_registry.transport import Transport as RegistryTransport
from consumer.core.delivery import Throttle
from consumer.errors import ConsumerError, SinkUnavailable, Throttled
from consumer.settings import load
from tests import virtual_time

NOWHERE = "http://127.0.0.1:1"
LISTS = "/api/v2/outbound/contactlists"
REQUEST = Request(Endpoint("list_contact_lists", "GET", LISTS), URL(NOWHERE + LISTS), {})

SETTINGS = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "GENESYS_OAUTH_CLIENT_ID": "client",
    "GENESYS_OAUTH_CLIENT_SECRET": "secret",
    "GENESYS_CONTACT_LIST": "People",
    "GENESYS_REQUEST_TIMEOUT_S": "30",
}

Limits = tuple[float | None, float | None, float | None]
"""Seconds for the whole, for having a connection, and for silence."""


def made(throttle: Throttle) -> Client:
    """A client whose requests have 30 seconds."""
    return Client(
        load(SETTINGS), on_request=lambda *_: None, tracer=NoOpTracer(), monotonic=time.monotonic, throttle=throttle
    )


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """Those of each request that is made, none of which is answered."""
    given: list[Limits] = []

    async def request(session: aiohttp.ClientSession, *_: object, **options: Any) -> None:
        limit = options.get("timeout", session.timeout)
        given.append((limit.total, limit.connect, limit.sock_read))
        raise aiohttp.ClientError

    monkeypatch.setattr(aiohttp.ClientSession, "_request", request)
    return given


async def test_genesys_answers_in_time_or_not_at_all(limits: list[Limits]) -> None:
    """A host that takes no connection is given up sooner; what is streamed may take long, and not be silent."""
    subject = Transport(timeout_s=20.0, max_in_flight=1, on_request=lambda *_: None, tracer=NoOpTracer())
    for limit_s in (8.0, 30.0):
        with pytest.raises(ConsumerError):
            await subject.send(REQUEST, limit_s)
    with pytest.raises(ConsumerError):
        async with subject.stream(REQUEST):
            pass
    await subject.close()
    assert limits == [(8.0, 8.0, 8.0), (30.0, 10.0, 30.0), (None, 10.0, 20.0)]


async def test_a_file_has_as_long_as_its_size_may_take(limits: list[Limits]) -> None:
    """By a hundred thousand bytes in a second, beside the time of any request: a large one is not cut off."""
    client = made(Throttle(120))
    with pytest.raises(ConsumerError):
        await client.send_file(REQUEST.endpoint, REQUEST.url, {}, FileBody(1_000_000, _nothing), with_token=False)
    await client.close()
    assert limits == [(40.0, 10.0, 40.0)]


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


class Told:
    """A client that is told of a limit, but for the second time that it asks.

    Attributes:
        asked_at: When it asked.
    """

    def __init__(self) -> None:
        self.throttle = Throttle(300)
        self.asked_at: list[float] = []

    def deadline(self) -> float:
        """When a call that starts now must be over."""
        return asyncio.get_running_loop().time()

    async def call(self, *_: object, **__: object) -> object:
        """Ask."""
        self.asked_at.append(asyncio.get_running_loop().time() - virtual_time.START)
        if len(self.asked_at) == 2:
            raise SinkUnavailable("not now")
        return {"entities": [{"key": "client.credentials.token.rate.per.minute", "value": 120}]}


def test_the_limit_is_asked_for_every_hour_and_every_minute_while_it_is_not_told() -> None:
    """More often it would cost requests that are for contacts."""
    client: Any = Told()

    async def main() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(7000):
                await follow(client)

    virtual_time.run(main())
    assert client.asked_at == pytest.approx([0, 3600, 3660], abs=1)


async def test_so_do_the_registry_and_its_token_endpoint(limits: list[Limits]) -> None:
    """Who waits for them holds a partition up."""
    registry = RegistryTransport(NOWHERE, None, None)
    with pytest.raises(ConsumerError):
        await registry.get(NOWHERE, lambda _: False)
    await registry.close()
    chosen = {properties.CLIENT_ID: "id", properties.CLIENT_SECRET: "secret", properties.TOKEN_URL: NOWHERE}
    with pytest.raises(ConsumerError):
        await TokenEndpoint(chosen).fetch()
    assert limits == [(10, 5, 10), (10, 5, 10)]


def test_requests_beyond_the_limit_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may not wait so long goes into debt, which the next one pays; none is made where Genesys said so."""
    sent: list[float] = []

    async def send(_: Transport, request: Request, __: float) -> Answer:
        if request.endpoint.operation != "token":
            sent.append(asyncio.get_running_loop().time() - virtual_time.START)
        return Answer(200, "application/json", {}, b'{"access_token": "token", "expires_in": 3600}')

    async def main() -> None:
        throttle, clock = Throttle(120), asyncio.get_running_loop().time  # four at once, then one in 0.517 s
        client = made(throttle)
        for may_wait_s in (1, 1, 1, 1, 1, 0.1, 9):
            await client.call(REQUEST.endpoint, deadline=clock() + may_wait_s)
        throttle.told_to_wait(clock(), 0.9)
        with pytest.raises(Throttled):
            await client.call(REQUEST.endpoint, deadline=clock() + 0.1)
        await client.close()

    monkeypatch.setattr(Transport, "send", send)
    virtual_time.run(main())
    assert sent == pytest.approx([0, 0, 0, 0, 0.517, 0.517, 1.552], abs=0.01)
