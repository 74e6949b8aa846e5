"""Eight requests at once with aiohttp, for the libraries that run on asyncio."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp
import orjson

from bench.peers import job

_HEADERS = {"Content-Type": "application/json"}


class Posts:
    """Where contacts are sent to. Must be made in the event loop, and closed."""

    def __init__(self, task: job.Task) -> None:
        self._task = task
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30))
        self._slots = asyncio.Semaphore(job.AT_ONCE)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def deliver(self, changed: Iterable[job.Judged]) -> None:
        """Send the contacts; any error is the caller's."""
        contacts = [job.contact(each.change, self._task.list_id) for each in changed]
        await asyncio.gather(*map(self._post, job.batches(contacts)))

    async def _post(self, contacts: Sequence[dict[str, Any]]) -> None:
        url, body = self._task.contacts_url, orjson.dumps(contacts)
        async with self._slots, self._session.post(url, data=body, headers=_HEADERS) as answer:
            answer.raise_for_status()
            job.check(await answer.read(), len(contacts))
