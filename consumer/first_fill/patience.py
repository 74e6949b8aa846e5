"""What fails for now is tried again, for as long as it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from consumer.errors import TransientError

log = structlog.get_logger(__name__)

RETRY_S = 1.0
RETRY_MAX_S = 60.0

T = TypeVar("T")


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """What the call comes to once it does not fail for now."""
    delay = RETRY_S
    while True:
        try:
            return await call()
        except TransientError as error:
            wait = error.retry_after or delay
            log.warning("load_waits", error=str(error), retry_s=wait, remedy="nothing is lost; tried again")
            await asyncio.sleep(wait)
            delay = min(delay * 2, RETRY_MAX_S)
