"""Brings the store of a partition up to the end of its changelog, and tells how far it is.

Nothing else writes a store until it stands, and no record of its partition is judged before. The other partitions go on
meanwhile. Where the store says that a file may be on its way into the contact list, and whoever sent it is gone, its
import is waited for: it cannot be called back, and would come after what is sent now.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog

from consumer.core import audit, deleted, epochs
from consumer.core.seldom import Seldom, kind_of
from consumer.errors import TransientError
from consumer.pipeline.imports import Imports
from consumer.pipeline.partitions import Partition
from consumer.pipeline.settle import CHAIN_KEY, DELETED_KEY, EPOCHS_KEY, IMPORT_KEY
from consumer.ports import ChangelogChunk, ChangelogOvertaken, EventTopics, Sink, Store, Telemetry

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""Partitions being restored: each holds what was read ahead of it. The others wait for their turn."""

TELL_EVERY_S = 5.0

_REMEDY = "tried again until it works; where the volume of STATE_DIR is full, make room, or grow it"

_RETRY_S = 1.0
_RETRY_MAX_S = 60.0
"""Whoever asks for more is asked all the same: all records of the partition wait."""


class Restorer:
    """Restores partitions, a few at the same time.

    Args:
        topics: Where the changelog is.
        store: What is brought up to it.
        sink: Asked whether a file is being imported.
        telemetry: Told how long each took.
        clock: Monotonic seconds.
    """

    def __init__(
        self, topics: EventTopics, store: Store, sink: Sink, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self._topics = topics
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._imports = Imports(sink, clock)

    async def restore(self, partition: Partition) -> None:
        """Come back when the store stands, or the partition is about to go."""
        started, seldom = self._clock(), Seldom(self._clock)
        while partition.stays():
            try:
                async with self._turns:
                    await self._bring_up(partition)
                mark = await self._await_import(partition)  # takes no turn: it can be long, and holds nothing
            except TransientError as error:
                partition.unrestored = str(error)
                if not seldom.told(kind_of(error)):
                    log.warning("restore_failed", partition=partition.key, error=str(error), remedy=_REMEDY)
                await asyncio.sleep(min(error.retry_after or _RETRY_S, _RETRY_MAX_S))
            else:
                self._done(partition, mark, self._clock() - started)
                return

    async def _bring_up(self, partition: Partition) -> None:
        if not partition.stays():
            return
        try:
            await self._replay(partition, await self._store.open(partition.key))
        except ChangelogOvertaken:
            if not partition.stays():
                return
            await self._store.reset(partition.key)
            await self._replay(partition, 0)

    async def _replay(self, partition: Partition, position: int) -> None:
        told_at = self._clock()
        async with aclosing(self._topics.changelog(partition.key, position)) as chunks:
            async for chunk in chunks:
                if not partition.stays():
                    return
                if chunk.position > position:
                    await self._store.write((partition.key, chunk.entries, chunk.position))
                    position = chunk.position
                partition.changelog_left = chunk.end - chunk.position
                partition.unrestored = None
                if self._clock() - told_at >= TELL_EVERY_S:
                    told_at = self._clock()
                    _tell(partition, chunk)

    async def _await_import(self, partition: Partition) -> bytes | None:
        """Come back when no file is on its way any more, or the partition is about to go.

        Returns:
            The mark of a file that is surely not on its way any more; None where there is none.
        """
        if not partition.stays() or (mark := self._store.read(partition.key, [IMPORT_KEY])[0]) is None:
            return None
        return mark if await self._imports.are_over(partition) else None

    def _done(self, partition: Partition, mark: bytes | None, seconds: float) -> None:
        if not partition.stays():
            return
        head, begun, last = self._store.read(partition.key, [CHAIN_KEY, EPOCHS_KEY, DELETED_KEY])
        partition.head, partition.epochs = audit.decode_head(head), epochs.decode(begun)
        partition.deleted, partition.ends_in_delete = deleted.decode(last), last is not None
        partition.restored, partition.unrestored = True, None
        if mark is not None:
            partition.expired[IMPORT_KEY] = mark  # whoever set it is gone
        self._telemetry.restored(seconds)
        log.info("restored", partition=partition.key, seconds=round(seconds, 3))


def _tell(partition: Partition, chunk: ChangelogChunk) -> None:
    log.info("restoring", partition=partition.key, position=chunk.position, end=chunk.end)
