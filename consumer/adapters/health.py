"""The HTTP server of probes, metrics and the status page.

Answers for status codes, content types and security headers; what it tells comes from the callables that it is given.
Touches one listening socket. Nothing that it shows may hold contact data.

`/status` and the page understand these keys, all optional but `state`; the page shows every other as a number:
`state` (`running` and `degraded` are coloured), `reason`, `outcomes` (outcome -> count), `partitions` (a list of rows
with equal keys).
"""

import base64
import hashlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
from aiohttp import web

from consumer.errors import FatalError

_PAGE = Path(__file__).with_name("status_page.html")
_LAST_ANSWERS_S = 0.5
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class StatusServer:
    """Serves `/livez`, `/readyz`, `/metrics`, `/status` and `/`.

    Args:
        address: Host, or None for all addresses of IPv4 and IPv6, and port; port 0 takes a free one.
        live: Checks that must hold for the process to be worth keeping, by name.
        ready: Checks that must hold for it to be at work, by name; None: nobody knows yet, so that it is not.
        status: What the status page shows, as JSON knows it.
        metrics: Makes the metrics and their content type from an `Accept` header.

    Attributes:
        port: The port that is listened on.
    """

    def __init__(
        self,
        address: tuple[str | None, int],
        *,
        live: Callable[[], Mapping[str, bool]],
        ready: Callable[[], Mapping[str, bool | None]],
        status: Callable[[], Mapping[str, object]],
        metrics: Callable[[str], tuple[bytes, str]],
    ) -> None:
        self._host, self.port = address
        self._live = live
        self._ready = ready
        self._status = status
        self._metrics = metrics
        self._page = _PAGE.read_text(encoding="utf-8")
        self._page_headers = {"Content-Security-Policy": _policy(self._page)}
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=_LAST_ANSWERS_S)

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/livez", self._get_livez)
        app.router.add_get("/readyz", self._get_readyz)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/status", self._get_status)
        app.router.add_get("/", self._get_page)
        app.on_response_prepare.append(_add_headers)
        return app

    async def start(self) -> None:
        """Listen.

        Raises:
            FatalError: The address cannot be had.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise FatalError(
                f"HTTP_ADDRESS: cannot listen on {self._host or '*'}:{self.port} ({_why(error)}); choose another "
                "address, or stop what uses this one"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, with half a second for answers under way."""
        await self._runner.cleanup()

    async def _get_livez(self, _: web.Request) -> web.Response:
        return _probe(self._live())

    async def _get_readyz(self, _: web.Request) -> web.Response:
        return _probe(self._ready())

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_status(self, _: web.Request) -> web.Response:
        return _json(dict(self._status()))

    async def _get_page(self, _: web.Request) -> web.Response:
        return web.Response(text=self._page, content_type="text/html", headers=self._page_headers)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "genesys-consumer"


def _probe(checks: Mapping[str, bool | None]) -> web.Response:
    passed = all(checks.values())
    return _json({"status": "ok" if passed else "failing", "checks": dict(checks)}, 200 if passed else 503)


def _json(content: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def _policy(page: str) -> str:
    """Only the page's own script and style run, and it only asks this server."""
    sources = {tag: _hashes(tag, page) for tag in ("script", "style")}
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(tag: str, page: str) -> str:
    blocks = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'" for block in blocks
    )


def _why(error: OSError) -> str:
    """The system's words for it; asyncio's own repeat the address."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return "the host name cannot be resolved"
    return os.strerror(error.errno)
