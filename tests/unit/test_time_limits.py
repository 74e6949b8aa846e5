"""Every HTTP request has limits: for the whole, for having a connection, and for silence."""

from typing import Any

import aiohttp
import pytest
from opentelemetry.trace import NoOpTracer
from yarl import URL

from consumer import properties
from consumer.adapters.genesys.transport import Endpoint, Request, Transport
from consumer.adapters.schema_registry.tokens import TokenEndpoint
from consumer.adapters.schema_registry.transport import Transport as RegistryTransport
from consumer.errors import ConsumerError

NOWHERE = "http://127.0.0.1:1"
LISTS = "/api/v2/outbound/contactlists"
REQUEST = Request(Endpoint("list_contact_lists", "GET", LISTS), URL(NOWHERE + LISTS), {})

Limits = tuple[float | None, float | None, float | None]
"""Seconds for the whole, for having a connection, and for silence."""


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
