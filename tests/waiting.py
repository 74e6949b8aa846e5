"""Waiting for what another process does: for a condition, looked at again and again, within a limit."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], bool], within_s: float) -> None:
    """Come back once the condition holds.

    Raises:
        TimeoutError: It did not within the limit.
    """
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 -- another process sets no event of this one
            await asyncio.sleep(0.02)
