"""Probes, metrics and status over a real socket, and the status page in a real browser."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from consumer.adapters.health import StatusServer
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.errors import FatalError
from tests.browser import cells, seen_in_browser

STATUS: dict[str, object] = {
    "state": "degraded",
    "reason": "<b>503</b> from Genesys",
    "breaker": "open",
    "in_flight": 4,
    "error_rate": 0.125,
    "outcomes": {"delivered": 1234567, "rejected": 89},
    "partitions": [{"topic": "crm.contacts.changes", "partition": 3, "lag": 4321}],
}


@dataclass
class Told:
    """What the server under test tells."""

    live: dict[str, bool] = field(default_factory=lambda: {"event_loop": True, "poll_loop": True})
    ready: dict[str, bool | None] = field(default_factory=lambda: {"assigned": True, "restored": True})
    asked: int = 0
    answers: int = 1000

    def status(self) -> Mapping[str, object]:
        """The status, which fails once it was asked for too often."""
        self.asked += 1
        if self.asked > self.answers:
            raise FatalError("nothing to tell any more")
        return STATUS | {"asked": self.asked}


@pytest.fixture
def told() -> Told:
    """A process that is well."""
    return Told()


@pytest.fixture
async def server(told: Told) -> AsyncIterator[StatusServer]:
    """A server on a free port."""
    server = StatusServer(
        ("127.0.0.1", 0),
        live=lambda: told.live,
        ready=lambda: told.ready,
        status=told.status,
        metrics=Telemetry(["changes"], "group").render,
    )
    await server.start()
    yield server
    await server.stop()


@dataclass
class Answer:
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    text: str


async def get(server: StatusServer, path: str, **headers: str) -> Answer:
    """Ask the server."""
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return Answer(response.status, response.headers, await response.text())


@pytest.mark.parametrize("probe", ["live", "ready"])
async def test_a_probe_names_its_checks(probe: str, server: StatusServer, told: Told) -> None:
    """A probe must answer 200 while all its checks hold, else 503, and name each in either case."""
    checks: dict[str, bool] = getattr(told, probe)
    answer = await get(server, f"/{probe}z")
    assert (answer.status, json.loads(answer.text)) == (200, {"status": "ok", "checks": checks})
    name = next(iter(checks))
    checks[name] = False
    answer = await get(server, f"/{probe}z")
    assert (answer.status, json.loads(answer.text)) == (503, {"status": "failing", "checks": checks})
    assert json.loads(answer.text)["checks"][name] is False


async def test_what_nobody_has_asked_yet_is_neither_well_nor_ill(server: StatusServer, told: Told) -> None:
    """It keeps a process from being ready, and must not look like what is away."""
    told.ready["kafka"] = None
    answer = await get(server, "/readyz")
    assert (answer.status, json.loads(answer.text)["checks"]["kafka"]) == (503, None)


async def test_probes_do_not_share_their_checks(server: StatusServer, told: Told) -> None:
    """Not being ready must not look like being dead: Kubernetes would restart for it."""
    told.ready["assigned"] = False
    assert [(await get(server, path)).status for path in ("/livez", "/readyz")] == [200, 503]


async def test_metrics_are_served_as_asked_for(server: StatusServer) -> None:
    """Prometheus must get OpenMetrics when it asks for it, the classic format otherwise."""
    for accept, content_type in (
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("*/*", "text/plain"),
    ):
        answer = await get(server, "/metrics", Accept=accept)
        assert answer.headers["Content-Type"].startswith(content_type)
        assert "genesys_consumer_records_total" in answer.text


async def test_status_is_json(server: StatusServer) -> None:
    """Scripts must find at /status what the page shows."""
    answer = await get(server, "/status")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.text) == STATUS | {"asked": 1}


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/status", "/unknown"])
async def test_every_answer_is_guarded(path: str, server: StatusServer) -> None:
    """No answer may be cached, sniffed, framed, or load anything from elsewhere; the software is not named."""
    headers = (await get(server, path)).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "aiohttp" not in str(headers).lower()


async def test_the_page_needs_nothing_from_elsewhere(server: StatusServer) -> None:
    """Clusters have no way out: the page must not name any other host."""
    page = (await get(server, "/")).text
    assert "//" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in page


async def test_a_busy_port_is_said_clearly() -> None:
    """A port in use must stop the start with a sentence that names the setting, the address and the cause."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = StatusServer(("127.0.0.1", port), live=dict, ready=dict, status=dict, metrics=lambda _: (b"", ""))
        with pytest.raises(FatalError, match=f"HTTP_ADDRESS.*127.0.0.1:{port} .Address already in use") as caught:
            await server.start()
    assert str(caught.value).count("Address already in use") == 1


async def test_without_a_host_both_families_are_answered(told: Told) -> None:
    """Probes come to the address of a pod, which may be of either; `::` alone would serve IPv6 and nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = StatusServer((None, port), live=lambda: told.live, ready=dict, status=dict, metrics=lambda _: (b"", ""))
    await server.start()
    try:
        assert await _is_live("127.0.0.1", port)
        if _has("::1"):  # a machine without IPv6 cannot show more, and lacks nothing that could be installed
            assert await _is_live("[::1]", port)
    finally:
        await server.stop()


async def _is_live(host: str, port: int) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/livez") as response:
        return response.status == 200


def _has(address: str) -> bool:
    """Whether this machine has an address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind((address, 0))
    except OSError:
        return False
    return True


async def test_all_addresses_are_said_when_the_port_is_busy() -> None:
    """As they are written in the setting."""
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 -- another would not be in the way
        port = taken.getsockname()[1]
        server = StatusServer((None, port), live=dict, ready=dict, status=dict, metrics=lambda _: (b"", ""))
        with pytest.raises(FatalError, match=rf"cannot listen on \*:{port} .Address already in use"):
            await server.start()


async def test_a_host_that_is_none_is_said_clearly() -> None:
    """A host name that does not resolve must stop the start as clearly."""
    server = StatusServer(("host.invalid", 0), live=dict, ready=dict, status=dict, metrics=lambda _: (b"", ""))
    with pytest.raises(FatalError, match="cannot be resolved"):
        await server.start()


async def test_open_connections_do_not_hold_the_end(told: Told) -> None:
    """A browser keeps its connection open: stopping must not wait for it."""
    server = StatusServer(
        ("127.0.0.1", 0), live=lambda: told.live, ready=dict, status=dict, metrics=lambda _: (b"", "")
    )
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await reader.readline()
    started = time.monotonic()
    await server.stop()
    assert time.monotonic() - started < 20
    writer.close()


async def test_the_page_shows_the_status(server: StatusServer, told: Told, tmp_path: Path) -> None:
    """In a browser, under its own policy, the page must show the numbers of /status, and markup in it as text."""
    seen = cells(await seen_in_browser(f"http://127.0.0.1:{server.port}/", tmp_path))
    assert "degraded: &lt;b&gt;503&lt;/b&gt; from Genesys" in seen
    assert "delivered 1,234,567" in seen
    assert "topic partition lag crm.contacts.changes 3 4,321" in seen
    assert "breaker open" in seen
    assert "error rate 0.125" in seen
    assert told.asked > 2
    assert f"asked {told.asked}" in seen


async def test_the_page_says_when_its_numbers_are_old(server: StatusServer, told: Told, tmp_path: Path) -> None:
    """When the server stops telling, the page must say so and keep the last numbers."""
    told.answers = 2
    seen = cells(await seen_in_browser(f"http://127.0.0.1:{server.port}/", tmp_path))
    assert "no answer: the numbers below are old" in seen
    assert "asked 2" in seen
    assert told.asked > 3
