"""Answers for how an answer that a fault has struck goes over the wire: cut, in drips, without end, or too deep."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain

from aiohttp import web

from consumer.simulator.errors import Reply
from consumer.simulator.faults import Fault, FaultKind

_CHUNK = b"0," * 32_768
_DEPTH = 100_000
_STATUS_WITH_A_BODY = {204: 200}


async def struck_answer(
    request: web.Request, reply: Reply, headers: Mapping[str, str], fault: Fault
) -> web.StreamResponse | None:
    """Write an answer as its fault has it; None when that is as any other.

    A 204 has no body that could be struck: it becomes a 200. What lasts is ended by the client, which leaves, or soon
    after the simulator is told to stop.
    """
    response = web.StreamResponse(status=_STATUS_WITH_A_BODY.get(reply.status, reply.status), headers=headers)
    parts = reply.chunks if reply.chunks is not None else iter([reply.body or b"{}"])
    match fault.kind:
        case FaultKind.TRUNCATED:
            await _half(request, response, next(parts))
        case FaultKind.DRIP:
            await _drip(request, response, parts, fault.seconds or 0)
        case FaultKind.ENDLESS:
            await _endless(request, response)
        case FaultKind.DEEP:
            await _whole(request, response, b"[" * _DEPTH + b"]" * _DEPTH)
        case FaultKind.BAD_JSON:
            await _whole(request, response, b'{"entities": [')
        case _:
            return None
    return response


async def _whole(request: web.Request, response: web.StreamResponse, body: bytes) -> None:
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body)


async def _half(request: web.Request, response: web.StreamResponse, body: bytes) -> None:
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: (len(body) + 1) // 2])
    if request.transport is not None:
        request.transport.close()


async def _drip(request: web.Request, response: web.StreamResponse, parts: Iterator[bytes], seconds: float) -> None:
    await response.prepare(request)
    for byte in chain.from_iterable(parts):
        await response.write(bytes([byte]))
        await asyncio.sleep(seconds)


async def _endless(request: web.Request, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write(b"[")
    with suppress(ConnectionError):
        while True:
            await response.write(_CHUNK)
            await asyncio.sleep(0)  # a client as fast as this would let nobody else run
