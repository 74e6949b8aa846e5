"""Whether a file may still be on its way into the contact list, whose sender is gone.

An import cannot be called back, and does not show at once. So one that does not show is over only when none has shown
for as long as one can take to. Several files may have arrived, and be imported one after the other: the time counts
anew after each.
"""

import asyncio
import math
from collections.abc import Callable

import structlog

from consumer.pipeline.partitions import Partition
from consumer.ports import Sink

log = structlog.get_logger(__name__)

UNSEEN_S = 30.0
"""So long after a file arrived, or after the import before it, it may look as if there were none."""

LOOK_S = 2.0
"""How often it is asked."""


class Imports:
    """Waits for imports into one contact list.

    Args:
        sink: Asked whether a file is being imported.
        clock: Monotonic seconds.
    """

    def __init__(self, sink: Sink, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._clock = clock
        self._asking = asyncio.Lock()
        self._looked_at = self._quiet_since = -math.inf

    async def are_over(self, partition: Partition) -> bool:
        """Come back when no file of its former owner is on its way any more, or the partition is about to go.

        What one asks is the answer for all who wait.

        Returns:
            Whether that is sure.

        Raises:
            TransientError: Genesys does not tell; whoever asks again waits anew.
        """
        came_at = self._clock()
        log.info("waiting_for_import", partition=partition.key)
        while partition.stays():
            await self._look()
            if self._looked_at - max(came_at, self._quiet_since) >= UNSEEN_S:
                return partition.stays()
            await asyncio.sleep(LOOK_S)
        return False

    async def _look(self) -> None:
        """Ask, unless somebody has just done so."""
        async with self._asking:
            asked_at = self._clock()
            if asked_at - self._looked_at < LOOK_S:
                return
            if await self._sink.is_importing():
                self._quiet_since = math.inf
            else:
                self._quiet_since = min(self._quiet_since, self._clock())
            self._looked_at = asked_at
