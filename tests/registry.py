"""A schema registry on loopback whose every answer is told beforehand."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

UNKNOWN = {"error_code": 40403, "message": "Schema not found"}


class Registry:
    """A registry; another server may be one too, since any request is answered.

    Attributes:
        url: Where it is.
        answers: By raw path, query included; other paths are unknown schemas.
        requests: What came, in order.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.requests: list[web.Request] = []

    def tell(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        """Answer the path with JSON, or with bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=content, status=status, headers=headers)

        self.answers[path] = answer

    def tell_schema(self, schema_id: int, **body: Any) -> None:
        """Answer for a schema id."""
        self.tell(f"/schemas/ids/{schema_id}", body)

    def tell_subject(self, subject: str, *schemas: str, **more: Any) -> None:
        """Answer for a subject, whose versions are these, the oldest first."""
        self.tell(f"/subjects/{subject}/versions", list(range(1, len(schemas) + 1)))
        for number, schema in enumerate(schemas, 1):
            self.tell(f"/subjects/{subject}/versions/{number}", {"version": number, "schema": schema, **more})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer what was told."""
        self.requests.append(request)
        answer = self.answers.get(request.raw_path)
        return await answer(request) if answer else web.json_response(UNKNOWN, status=404)


@asynccontextmanager
async def running(tls: ssl.SSLContext | None = None) -> AsyncIterator[Registry]:
    """An empty registry on loopback."""
    registry = Registry()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", registry.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    registry.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield registry
    finally:
        await runner.cleanup()
