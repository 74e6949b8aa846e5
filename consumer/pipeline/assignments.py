"""Partitions come and go, as the group gives them out.

One that is assigned gets its store brought up to the changelog before its first record is judged. One that is revoked
takes in nothing more, waits for the requests under way, settles, and lets go; one that is lost is forgotten at once.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from consumer.core.offsets import Tracker, decode_settled
from consumer.model import Assignment, TopicPartition
from consumer.pipeline.feed import Feed
from consumer.pipeline.finish import Finisher
from consumer.pipeline.fuses import Fuses
from consumer.pipeline.outbound import Outbound
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.readers import Spawn
from consumer.pipeline.restore import Restorer
from consumer.pipeline.settle import SETTLED_KEY
from consumer.ports import Assigned, Source, Store
from consumer.settings import Settings

log = structlog.get_logger(__name__)

REVOKE_MARGIN_S = 5
"""What a revocation may take beyond the time limit of a request."""

NO_PARTITIONS_AFTER_S = 5.0
"""A group that is at rest gives out partitions sooner."""

NO_PARTITIONS = "the group has not given out partitions yet: up to the session time-out after a process was killed"


class Assignments:
    """Keeps the partitions of this process what the group says.

    Args:
        settings: How long a request may take.
        partitions: The assigned ones, which are kept here.
        source: Told up to where partitions were settled.
        store: What was delivered.
        fuses: Of the topics.
        outbound: Where contacts are on their way.
        restorer: Has stores stand.
        feed: Holds records until the store of their partition stands.
        finisher: Ends what is under way.
        progress: Told when partitions have gone.
        spawn: Lets a task go on beside the rest.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        partitions: Partitions,
        source: Source,
        store: Store,
        fuses: Fuses,
        outbound: Outbound,
        restorer: Restorer,
        feed: Feed,
        finisher: Finisher,
        progress: Progress,
        spawn: Spawn,
        clock: Callable[[], float],
    ) -> None:
        self._request_timeout_s = settings.genesys_request_timeout_s
        self._partitions = partitions
        self._source = source
        self._store = store
        self._fuses = fuses
        self._lanes, self._admission = outbound.lanes, outbound.admission
        self._restorer = restorer
        self._feed = feed
        self._finisher = finisher
        self._progress = progress
        self._spawn = spawn
        self._clock = clock
        self._member = self._is_late = False

    @property
    def ready(self) -> bool:
        """Whether this is a member of the group, possibly one without partitions, and all that it has is restored."""
        assigned = self._member and not self._partitions.starting
        return assigned and all(partition.restored for partition in self._partitions.values())

    @property
    def waits_for(self) -> str | None:
        """Why there are no partitions although the first are late; None when there are some, or none are to be."""
        late = self._is_late and not (self._member or self._partitions.starting)
        return NO_PARTITIONS if late else None

    async def tell_no_partitions(self) -> None:
        """Say why nothing happens after a start: the group may wait for a process that was killed."""
        await asyncio.sleep(NO_PARTITIONS_AFTER_S)
        self._is_late = True
        if self.waits_for is not None:
            log.info("waiting_for_partitions", reason=self.waits_for)

    def assign(self, assigned: Assigned) -> None:
        """Take partitions on."""
        self._member = True
        for key, position in assigned.positions.items():
            assignment = Assignment(key)
            partition = Partition(
                assignment,
                Tracker(assignment, position),
                assigned.ends.get(key, position),
                assigned.topic_ids.get(key, ""),
                fuse=self._fuses.of(key.topic),
            )
            partition.since = self._clock()
            self._partitions[key] = partition
            log.info("assigned", partition=key, offset=position)
            self._spawn(self._restore(partition))

    async def _restore(self, partition: Partition) -> None:
        """Have its store stand; then its records may be judged."""
        await self._restorer.restore(partition)
        self._recall(partition)
        await self._feed.unblock(partition, None)

    def _recall(self, partition: Partition) -> None:
        """Tell the source up to where it was settled, as its store has it."""
        if partition.stays() and (raw := self._store.read(partition.key, [SETTLED_KEY])[0]) is not None:
            self._source.recall(partition.key, *decode_settled(raw))

    def revoke(self, keys: Sequence[TopicPartition], release: Callable[[], None]) -> None:
        """Let go of partitions in an orderly way, within a deadline longer than any request may take.

        Those that are here now: by the time that there is a turn for it, others may have come in their place.
        """
        leaving = self._assigned(keys)
        for partition in leaving:
            partition.closing = True
        for partition in leaving:
            self._admission.drop(partition.assignment)
        self._spawn(self._let_go(leaving, keys, release))

    async def _let_go(
        self, leaving: Sequence[Partition], keys: Sequence[TopicPartition], release: Callable[[], None]
    ) -> None:
        """Wait for what is under way, also from before of those that have just begun anew, or are about to."""
        concerned = self._lanes.under_way(keys) | {partition.assignment for partition in leaving}
        await self._finisher.finish(
            leaving, lambda: any(map(self._lanes.busy, concerned)), self._request_timeout_s, REVOKE_MARGIN_S
        )
        await self._lose(leaving)
        release()

    async def lose(self, keys: Sequence[TopicPartition]) -> None:
        """Forget partitions: from here on nothing of them is sent or settled."""
        await self._lose(self._assigned(keys))

    def _assigned(self, keys: Sequence[TopicPartition]) -> list[Partition]:
        return [self._partitions[key] for key in keys if key in self._partitions]

    async def _lose(self, partitions: Sequence[Partition]) -> None:
        gone = []
        for partition in partitions:
            partition.assignment.alive = False
            partition.closing = True
            self._admission.drop(partition.assignment)
            if self._partitions.of(partition.assignment):  # else the fuse counts what came of another assignment
                partition.fuse.forget(partition.key.partition)
                del self._partitions[partition.key]
                gone.append(partition.key)
                log.info("let_go", partition=partition.key, offset=partition.tracker.committable)
        await self._store.close(*gone)
        if gone:
            self._member = bool(self._partitions)  # else the group will say what this one is to have
        self._progress.made()
