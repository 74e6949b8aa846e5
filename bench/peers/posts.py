"""Eight requests at once with aiohttp, for the libraries that run on asyncio."""

import asyncio
from collections.abc import Iterable, Sequence

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
        await asyncio.gather(*map(self._post, job.batches(list(changed))))

    async def _post(self, changed: Sequence[job.Judged]) -> None:
        """Encodes its contacts when it is its turn, while others are under way."""
        async with self._slots:
            body = orjson.dumps([job.contact(each.change, self._task.list_id) for each in changed])
            async with self._session.post(self._task.contacts_url, data=body, headers=_HEADERS) as answer:
                answer.raise_for_status()
                job.check(await answer.read(), len(changed))
