"""Answers for one request from its head to its answer: who may ask, what goes wrong, what is written to the socket.

The order is: token, rate, permission, body, the faults that come before the work, the work, the faults that come after.
"""

import asyncio
import math
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

from aiohttp import web

from consumer.simulator.access import Access
from consumer.simulator.api import Api, Call, named_contacts
from consumer.simulator.errors import ApiError, OAuthRefusal, Reply, bad_credentials, throttled, too_large
from consumer.simulator.faults import Fault, FaultKind, FaultPlan
from consumer.simulator.journal import Entry, Journal
from consumer.simulator.operations import UPLOAD_FORM, Operation, Route
from consumer.simulator.struck import struck_answer
from consumer.simulator.transfers import Transfers
from consumer.simulator.uploads import Incoming, StorageRefusal

_PORTAL_PAGE = b"<html><head><title>Welcome</title></head><body><h1>Please log in to this network</h1></body></html>"
_ELSEWHERE = "https://elsewhere.invalid/login"
_EDGE_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_NO_LINGER = struct.pack("ii", 1, 0)
_NO_ANSWER = "none"

_REFUSALS: Mapping[FaultKind, Callable[[Fault], ApiError]] = {
    FaultKind.INTERNAL_ERROR: lambda _: ApiError(500, "internal.server.error", "The server met an unexpected error."),
    FaultKind.UNAVAILABLE: lambda fault: ApiError(
        503, "service.unavailable", "The service is unavailable.", retry_after=_whole(fault.seconds)
    ),
    FaultKind.GATEWAY_TIMEOUT: lambda _: ApiError(504, "request.timeout", "The request timed out."),
    FaultKind.THROTTLED: lambda fault: throttled(_whole(fault.seconds) or 1),
    FaultKind.TOKEN_EXPIRED: lambda _: bad_credentials(),
    FaultKind.TOO_LARGE: lambda _: too_large(),
    FaultKind.CLEARING: lambda _: _busy("contact.list.clear.in.progress", "is being cleared"),
    FaultKind.IMPORTING: lambda _: _busy("contact.list.import.in.progress", "is being imported to"),
    FaultKind.BULK_JOB: lambda _: _busy("contact.bulk.operation.in.progress", "has a bulk operation in progress"),
}
_FOREIGN_ANSWERS = {
    FaultKind.BAD_GATEWAY: Reply(502, _EDGE_PAGE, content_type="text/html"),
    FaultKind.HTML: Reply(200, _PORTAL_PAGE, content_type="text/html"),
    FaultKind.REDIRECT: Reply(302, b"", {"Location": _ELSEWHERE}),
}
_TOKEN_REFUSALS = {
    FaultKind.THROTTLED: OAuthRefusal("invalid_request", "rate limit exceeded; too many tokens were requested"),
    FaultKind.TOKEN_EXPIRED: OAuthRefusal("invalid_client", "authentication failed", 401),
}


def _busy(code: str, state: str) -> ApiError:
    return ApiError(400, code, f"The contact list {state}.")


def _lag_s(fault: Fault | None) -> float:
    return fault.seconds or 0.0 if fault is not None and fault.kind is FaultKind.LAG else 0.0


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


Receive = Callable[[web.Request], Awaitable[Incoming]]


class _Cut(Exception):
    """The connection is closed instead of an answer."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


class _Answer(NamedTuple):
    """What is to be written, and how."""

    reply: Reply
    fault: Fault | None = None


async def _read(request: web.Request) -> Call:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large() from None
    query = request.query
    return Call(
        list_id=request.match_info.get("list_id", ""),
        contact_id=request.match_info.get("contact_id", ""),
        namespace=request.match_info.get("namespace", ""),
        job_id=request.match_info.get("job_id", ""),
        download_id=request.match_info.get("download_id", ""),
        origin=str(request.url.origin()),
        query={name: query.getall(name) for name in set(query)} if query else {},
        content_type=request.content_type if "Content-Type" in request.headers else "",
        body=body,
    )


def _cut(request: web.Request, *, reset: bool) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    return web.Response()


async def _stream(
    request: web.Request, status: int, chunks: Iterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
    return response


class Exchanges:
    """Answers requests.

    Attributes:
        answered: How many requests had which status, by operation; "none" where no answer was sent.
        struck: How many requests each kind of fault struck.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        access: Access,
        api: Api,
        transfers: Transfers,
        *,
        faults: FaultPlan,
        journal: Journal,
    ) -> None:
        self._clock = clock
        self._access = access
        self._api = api
        self._transfers = transfers
        self._faults = faults
        self._journal = journal
        self._closing = asyncio.Event()
        self.answered: dict[Operation, Counter[str]] = {}
        self.struck: Counter[str] = Counter()

    def open(self) -> None:
        """Begin to answer on the running loop."""
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Cut every request that waits in a fault."""
        self._closing.set()

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Answer the login host's request."""
        return await self._exchange(request, Operation.TOKEN, self._issue)

    async def api(self, route: Route, request: web.Request) -> web.StreamResponse:
        """Answer one of the API's requests."""

        async def answer(request: web.Request, entry: Entry) -> _Answer:
            return await self._operate(route, request, entry)

        return await self._exchange(request, route.operation, answer)

    async def upload_file(self, request: web.Request) -> web.StreamResponse:
        """Answer the file store's request: a file is put to a presigned URL."""

        async def answer(request: web.Request, entry: Entry) -> _Answer:
            return await self._receive(self._transfers.receive_file, request, entry)

        return await self._exchange(request, Operation.UPLOAD_FILE, answer)

    async def upload_form(self, request: web.Request) -> web.StreamResponse:
        """Answer the apps host's request: a file comes in a form."""

        async def answer(request: web.Request, entry: Entry) -> _Answer:
            self._access.admit(request.headers.get("Authorization", ""), UPLOAD_FORM.permission)
            return await self._receive(self._transfers.receive_form, request, entry)

        return await self._exchange(request, Operation.UPLOAD_FORM, answer)

    async def fetch_file(self, request: web.Request) -> web.StreamResponse:
        """Answer the file store's request: an exported file is fetched from a presigned URL."""

        async def answer(request: web.Request, entry: Entry) -> _Answer:
            try:
                return await self._worked(request, entry, self._draw(entry), lambda: self._transfers.fetch(request))
            except StorageRefusal as error:
                return _Answer(error.reply())

        return await self._exchange(request, Operation.FETCH_FILE, answer)

    async def unknown(self, _: web.Request) -> web.StreamResponse:
        """Answer a request for what there is not."""
        correlation_id = str(uuid4())
        reply = ApiError(404, "not.found", "The requested resource was not found.").reply(correlation_id)
        return web.Response(status=reply.status, body=reply.body, headers=self._headers(reply, correlation_id))

    async def _exchange(
        self, request: web.Request, operation: Operation, answer: Callable[[web.Request, Entry], Awaitable[_Answer]]
    ) -> web.StreamResponse:
        entry = self._journal.begin(operation, self._clock())
        correlation_id = str(uuid4())
        try:
            reply, fault = await answer(request, entry)
            entry.status = reply.status
        except ApiError as error:
            reply, fault = error.reply(correlation_id), None
            entry.status = error.status
        except _Cut as cut:
            return _cut(request, reset=cut.reset)
        finally:
            # Before anything reaches the client, so that its next request cannot seem to overlap this one.
            entry.ended = self._clock()
            self._count(entry)
        headers = self._headers(reply, correlation_id)
        struck = None if fault is None else await struck_answer(request, reply, headers, fault)
        if struck is not None:
            return struck
        if reply.chunks is not None:
            return await _stream(request, reply.status, reply.chunks, headers)
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    def _headers(self, reply: Reply, correlation_id: str) -> dict[str, str]:
        return {"Content-Type": reply.content_type, "ININ-Correlation-Id": correlation_id, **reply.headers}

    def _count(self, entry: Entry) -> None:
        counts = self.answered.setdefault(entry.operation, Counter())
        counts[_NO_ANSWER if entry.status is None else str(entry.status)] += 1

    async def _issue(self, request: web.Request, entry: Entry) -> _Answer:
        call = await _read(request)
        login = request.headers.get("Authorization", "")

        def issue() -> Reply:
            return Reply(200, self._access.issue(login, call.content_type, call.body))

        try:
            return await self._worked(request, entry, self._draw(entry), issue)
        except OAuthRefusal as error:
            return _Answer(error.reply())

    async def _operate(self, route: Route, request: web.Request, entry: Entry) -> _Answer:
        self._access.admit(request.headers.get("Authorization", ""), route.permission)
        call = await _read(request)
        if route.method == "DELETE":
            call.check_media_type()
        self._note(entry, call)
        fault = self._draw(entry)

        def carry_out() -> Reply | None:
            done = self._api.carry_out(route.operation, call, lag_s=_lag_s(fault))
            entry.contact_ids = done.contact_ids or entry.contact_ids
            entry.dnc_entries = done.dnc_entries
            headers = {"Location": done.location} if done.location else {}
            return None if done.cut else Reply(done.status, done.body, headers)

        return await self._worked(request, entry, fault, carry_out)

    async def _receive(self, receive: Receive, request: web.Request, entry: Entry) -> _Answer:
        try:
            arrived = await receive(request)
        except StorageRefusal as error:
            return _Answer(error.reply())
        except (ConnectionError, web.RequestPayloadError):
            raise _Cut from None
        entry.list_id = arrived.list_id

        def take() -> Reply:
            arrived.arrive()
            return Reply(200, b"")

        return await self._worked(request, entry, self._draw(entry), take)

    async def _worked(
        self, request: web.Request, entry: Entry, fault: Fault | None, work: Callable[[], Reply | None]
    ) -> _Answer:
        """Do the work, unless the fault comes before it; a work without a reply is cut off instead of answered."""
        refusal = await self._before(fault, request, entry.operation)
        if refusal is not None:
            return _Answer(refusal)
        reply = work()
        entry.applied = True
        if reply is None:
            raise _Cut
        return await self._after(fault, reply)

    def _note(self, entry: Entry, call: Call) -> None:
        if self._journal.kept:
            entry.list_id = call.list_id or None
            entry.contact_ids = named_contacts(entry.operation, call)
            entry.flags = call.flags() if entry.operation is Operation.ADD_CONTACTS else {}

    def _draw(self, entry: Entry) -> Fault | None:
        fault = self._faults.draw(entry.operation)
        if fault is not None:
            entry.fault = fault.kind
            self.struck[fault.kind.value] += 1
        return fault

    async def _before(self, fault: Fault | None, request: web.Request, operation: Operation) -> Reply | None:
        if fault is None:
            return None
        if operation is Operation.TOKEN and fault.kind in _TOKEN_REFUSALS:
            return _TOKEN_REFUSALS[fault.kind].reply()
        if fault.kind is FaultKind.RESET:
            raise _Cut(reset=True)
        if fault.kind is FaultKind.HANG:
            await self._wait(None)
        if fault.kind is FaultKind.TOKEN_EXPIRED:
            self._access.revoke(request.headers.get("Authorization", ""))
        if fault.kind in _REFUSALS:
            raise _REFUSALS[fault.kind](fault)
        return _FOREIGN_ANSWERS.get(fault.kind)

    async def _after(self, fault: Fault | None, reply: Reply) -> _Answer:
        if fault is None:
            return _Answer(reply)
        if fault.kind is FaultKind.LOST_REPLY:
            raise _Cut
        if fault.kind is FaultKind.SLOW:
            await self._wait(fault.seconds)
        return _Answer(reply, fault)

    async def _wait(self, seconds: float | None) -> None:
        """Wait, until the client goes (which cancels this), or cut the connection when the simulator stops."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
            raise _Cut
