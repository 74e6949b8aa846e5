"""What HTTP answers hold, with limits. Touches nothing."""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

_BODY_LIMIT = 16 * 2**20


class UnusableError(ValueError):
    """The body cannot be what was asked for; the message says why, and quotes nothing of it."""


async def text(response: aiohttp.ClientResponse) -> str:
    """The whole body.

    Raises:
        ValueError: It is too long, or no text.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise UnusableError(f"the answer is longer than {_BODY_LIMIT} bytes")
    return body.decode()


def parsed(body: str) -> Mapping[str, Any]:
    """The object that a body holds.

    Raises:
        ValueError: It holds none.
        RecursionError: It is nested too deep.
    """
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise UnusableError("the answer is not an object")
    return answer


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that the other side asks to wait; None when it does not say."""
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else None
