"""One physical request to Genesys Cloud: limits, tracing, metrics. Owns the HTTP session; knows nothing of tokens.

Whatever keeps an answer from being read whole is `SinkUnavailable`: the request may have been applied. Texts of the
HTTP library are left out, since they quote what came over the wire.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from yarl import URL

from consumer.errors import SinkUnavailable
from consumer.settings import RELEASE

MAX_ANSWER_BYTES = 16 * 2**20
"""Longest answer that is read: fifty contacts of fifty full columns, with room."""

_PART_BYTES = 262_144
_SPARE_CONNECTIONS = 2
_CONNECT_S = 10.0

OnRequest = Callable[[str, str, float], None]
"""Told of each physical request: operation, HTTP status or error, seconds."""


class Endpoint(NamedTuple):
    """Something that Genesys can be asked.

    Attributes:
        operation: Its name in metrics.
        method: HTTP method.
        template: Path, with names in braces where ids go.
        permission: What the OAuth client's role needs for it.
        asks_for: What does not exist when Genesys answers so, and where to look.
        within: Reads the list that it is about, where an answer that something is not there need not mean the list.
    """

    operation: str
    method: str
    template: str
    permission: str = ""
    asks_for: str = "contact list: check GENESYS_CONTACT_LIST"
    within: "Endpoint | None" = None


class FileBody(NamedTuple):
    """A body that is made while it is sent.

    Attributes:
        size: Bytes of it.
        chunks: Begins it, each time anew.
    """

    size: int
    chunks: Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it is sent.

    Attributes:
        endpoint: What is asked.
        url: Where, query included.
        headers: Without those that every request has.
        body: None sends none.
        resend_count: How often it was sent before.
        sure: Asked in the moment in which the request is written, also by the library's own repeats; when it says no,
            nothing is. None asks nobody.
        foreign: The host is not Genesys' own: the trace context is not for it.
    """

    endpoint: Endpoint
    url: URL
    headers: Mapping[str, str]
    body: bytes | FileBody | None = None
    resend_count: int = 0
    sure: Callable[[], bool] | None = None
    foreign: bool = False


class _Body(aiohttp.BytesPayload):
    """A body that asks before it is written; the request's head goes with it, so that nothing is sent otherwise.

    Between a request's start and this moment the event loop may do other things, and the process may stand still.
    """

    def __init__(self, value: bytes, sure: Callable[[], bool]) -> None:
        super().__init__(value)
        self._sure = sure

    async def write_with_length(  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        if not self._sure():
            raise SinkUnavailable("not sent: partitions may have moved away")
        await super().write_with_length(writer, content_length)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole; names of headers are found in any case."""

    status: int
    content_type: str
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """The HTTP session. Make it where the event loop runs.

    Args:
        timeout_s: Total time limit of a request.
        max_in_flight: Requests sent and unanswered at a time; a few connections more are allowed, for tokens.
        on_request: Told of each physical request.
        tracer: Makes one CLIENT span for each physical request.
    """

    def __init__(self, *, timeout_s: float, max_in_flight: int, on_request: OnRequest, tracer: Tracer) -> None:
        self.timeout_s = timeout_s
        self._on_request = on_request
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_in_flight + _SPARE_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"genesys-consumer/{RELEASE}"},
            raise_for_status=False,
            # The library would tell a type of the body that asks, also where that is empty: a delete has none.
            skip_auto_headers=["Content-Type"],
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, request: Request, limit_s: float) -> Answer:
        """Send a request once, and read the answer whole.

        Raises:
            SinkUnavailable: No whole answer came within the limit.
        """
        status = "cancelled"
        started = time.monotonic()
        with self._span(request) as span:
            try:
                answer = await self._exchange(request, limit_s, span)
                status = str(answer.status)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                status = type(error).__name__
                raise SinkUnavailable(f"no whole answer from {_peer(request)}: {status}{_why(error)}") from None
            finally:
                self._noted(span, request, status, started)
        return answer

    async def _exchange(self, request: Request, limit_s: float, span: Span) -> Answer:
        headers = dict(request.headers)
        if not request.foreign:
            self._propagator.inject(headers)
        if isinstance(request.body, FileBody):
            headers["Content-Length"] = str(request.body.size)
        async with self._session.request(
            request.endpoint.method,
            request.url,
            data=_data(request),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=limit_s, connect=min(limit_s, _CONNECT_S), sock_read=limit_s),
        ) as response:
            span.set_attribute("http.response.status_code", response.status)
            body = await _read(response)
            return Answer(response.status, response.content_type, response.headers, body)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request once; read its answer by `parts`, as it comes. Silence has a time limit, the whole has none.

        Raises:
            SinkUnavailable: No answer came, or it broke off while it was read.
        """
        status = "cancelled"
        started = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=self.timeout_s)
        with self._span(request) as span:
            try:
                async with self._session.request(
                    request.endpoint.method,
                    request.url,
                    headers=request.headers,
                    allow_redirects=False,
                    timeout=timeout,
                ) as response:
                    yield response
                    status = str(response.status)
            except (aiohttp.ClientError, OSError) as error:
                status = type(error).__name__
                raise SinkUnavailable(f"no whole answer from {_peer(request)}: {status}{_why(error)}") from None
            finally:
                self._noted(span, request, status, started)

    async def parts(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body of a streamed answer, as it comes.

        Raises:
            TimeoutError: Nothing came for too long. The library's own limit ends with a malformed chunk, not the body.
        """
        while True:
            async with asyncio.timeout(self.timeout_s):
                part = await response.content.read(_PART_BYTES)
            if not part:
                return
            yield part

    def _noted(self, span: Span, request: Request, status: str, started: float) -> None:
        """Tell what became of a request: an HTTP status, or what went wrong instead."""
        if not status.startswith("2"):
            span.set_attribute("error.type", status)
            span.set_status(StatusCode.ERROR)
        self._on_request(request.endpoint.operation, status, time.monotonic() - started)

    def _span(self, request: Request) -> AbstractContextManager[Span]:
        endpoint, url = request.endpoint, request.url
        attributes: dict[str, str | int] = {
            "http.request.method": endpoint.method,
            "url.template": endpoint.template,
            "server.address": url.host or "",
            "server.port": url.port or 0,
        }
        if request.resend_count:
            attributes["http.request.resend_count"] = request.resend_count
        return self._tracer.start_as_current_span(
            f"{endpoint.method} {endpoint.template}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )


def _data(request: Request) -> bytes | aiohttp.Payload | AsyncIterator[bytes] | None:
    """The body as the library takes it."""
    if isinstance(request.body, FileBody):
        return request.body.chunks()
    return request.body if request.sure is None else _Body(request.body or b"", request.sure)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError
    return bytes(body)


def _peer(request: Request) -> str:
    """Host and port; not the URL's authority, in which a password may stand."""
    return f"{request.url.host}:{request.url.port}"


def _why(error: Exception) -> str:
    """What the operating system says of it, such as a refused connection or an unknown name."""
    if isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ClientConnectorError):
        why = os.strerror(error.errno) if error.errno else None  # its own text quotes the URL, with the contacts' ids
    else:
        why = error.strerror if isinstance(error, OSError) else None
    return f" ({why})" if why else ""
