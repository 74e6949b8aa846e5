"""Finishes what is under way, of partitions that move away or of all at the end, and settles it, in good time."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from consumer.pipeline.partitions import Partition
from consumer.pipeline.progress import Progress
from consumer.pipeline.readers import Spawn
from consumer.pipeline.settle import Settler


class Finisher:
    """Waits for the end of what is under way.

    Args:
        settler: Settles.
        progress: Tells that something got done.
        spawn: Lets a task go on beside the rest.
    """

    def __init__(self, settler: Settler, progress: Progress, spawn: Spawn) -> None:
        self._settler = settler
        self._progress = progress
        self._spawn = spawn

    async def finish(
        self, partitions: Sequence[Partition], under_way: Callable[[], bool], within_s: float, margin_s: float
    ) -> None:
        """Wait until nothing of these is under way, or for so many seconds; then settle what has its outcome.

        That is waited for until the margin has passed as well. A settlement is never cancelled: whether its transaction
        committed must be known before the next one.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s + margin_s):
                await self.wait_while(under_way, within_s)
                settled = asyncio.Event()
                self._spawn(self._settle(partitions, settled))
                await settled.wait()

    async def wait_while(self, under_way: Callable[[], bool], within_s: float) -> None:
        """Wait until nothing is under way, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while under_way():
                    await self._progress.wait()

    async def _settle(self, partitions: Sequence[Partition], settled: asyncio.Event) -> None:
        await self._settler.settle(partitions)
        settled.set()
