"""Feeds polled records to the intake, each partition as far as it may be judged now.

What comes for a partition that waits, for its store, a schema or the release of a fuse, is held there in its order.
Pauses and resumes partitions of the source; touches nothing else.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence

import structlog

from consumer.core.decode import ReaderName
from consumer.model import Record, TopicPartition
from consumer.pipeline.back_pressure import BackPressure
from consumer.pipeline.fuses import Fuses
from consumer.pipeline.intake import Intake
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.readers import reference
from consumer.ports import Source, Telemetry
from consumer.settings import Settings

_ASK_IT = "have the registry answer, and know it; schema_not_available says why it does not answer"
_ADD_IT = (
    "set SCHEMA_REGISTRY_URL, or add it to SCHEMAS_DIR, and restart; "
    "what was rejected by then for schema_unknown can be replayed"
)
"""Without a registry: what a directory has is read at start alone."""

TOLD_AFTER_S = 1.0
"""A registry that is there answers sooner: until then nobody is told that a partition waits for a schema."""

log = structlog.get_logger(__name__)


class Feed:
    """What comes from the source, until it ends.

    Args:
        settings: How many records are held at the most, and whether there is a registry.
        partitions: The assigned ones.
        source: Where they are paused; polling goes on.
        intake: Where records go.
        fuses: Asked whether a topic has to stop.
        telemetry: Spans of polls.
        progress: Tells that there may be room again; told when a partition flows again.
        spawn: Lets a task go on beside the rest.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        partitions: Partitions,
        source: Source,
        intake: Intake,
        fuses: Fuses,
        telemetry: Telemetry,
        progress: Progress,
        spawn: Callable[[Coroutine[object, object, None]], None],
        clock: Callable[[], float],
    ) -> None:
        self._partitions = partitions
        self._source = source
        self._intake = intake
        self._fuses = fuses
        self._back_pressure = BackPressure(partitions, source, settings.read_ahead_records)
        self._remedy = _ADD_IT if settings.schema_registry_url is None else _ASK_IT
        self._telemetry = telemetry
        self._progress = progress
        self._spawn = spawn
        self._clock = clock
        self._ended = False

    def end(self) -> None:
        """Take nothing more."""
        self._ended = True
        self._source.pause(list(self._partitions))

    async def take(self, records: Sequence[Record], ends: Mapping[TopicPartition, int]) -> None:
        """Take what was polled.

        Args:
            records: Of any partitions.
            ends: Where partitions ended at the time.
        """
        if self._ended:
            return
        with self._telemetry.poll_span(len(records)):
            for key, run in _runs(records):
                partition = self._partitions.get(key)
                if partition is not None:
                    await self._feed(partition, run)
        for key, end in ends.items():
            if key in self._partitions:
                self._partitions[key].reached = end
        self._back_pressure.hold_back()

    async def _feed(self, partition: Partition, records: Sequence[Record]) -> None:
        if partition.idle:
            partition.since = self._clock()
        if partition.blocked:
            partition.hold(records)
            return
        missing = await self._intake.take(partition, records)
        self._fuses.heed(partition)
        if missing is not None:
            partition.blocked = True
            self._source.pause([partition.key])
            self._spawn(self.unblock(partition, missing))

    async def unblock(self, partition: Partition, missing: ReaderName | None) -> None:
        """Take in what was held, learning schemas on the way, until nothing is; then the partition flows again."""
        while not partition.fused:
            if missing is not None:
                await self._learn(partition, missing)
            records = partition.let_in()
            if not records or partition.closing:
                break
            missing = await self._intake.take(partition, records)
            self._fuses.heed(partition)
        if self._partitions.of(partition.assignment) is None:
            return  # whether it flows is for the next assignment to say
        partition.blocked = partition.fused
        if not (partition.blocked or partition.held_back or self._ended):
            self._source.resume([partition.key])
        self._progress.made()

    async def _learn(self, partition: Partition, missing: ReaderName) -> None:
        """Wait until a schema is learnt, but not once the partition goes: all that it holds would stay in memory."""
        told = asyncio.get_running_loop().call_later(TOLD_AFTER_S, self._tell_waiting, partition, missing)
        learning = asyncio.create_task(self._intake.learn(partition, missing))
        learning.add_done_callback(lambda _: self._progress.made())
        try:
            while partition.stays() and not learning.done():
                await self._progress.wait()
            if learning.done():
                learning.result()  # raises what it failed for
        finally:
            learning.cancel()
            told.cancel()
            partition.lacks = None

    def _tell_waiting(self, partition: Partition, missing: ReaderName) -> None:
        if self._partitions.of(partition.assignment) is None:
            return
        partition.lacks = str(reference(missing))
        topic, number = partition.key.topic, partition.key.partition
        schema_id, remedy = partition.lacks, self._remedy
        log.warning("waiting_for_schema", topic=topic, partition=number, schema_id=schema_id, remedy=remedy)

    async def balance(self) -> None:
        """Whenever something got done there may be room again."""
        while True:
            await self._progress.wait()
            if not self._ended:
                self._back_pressure.let_go()


def _runs(records: Sequence[Record]) -> list[tuple[TopicPartition, list[Record]]]:
    """The records of a poll by partition, in their order."""
    runs: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        runs.setdefault((record.topic, record.partition), []).append(record)
    return [(TopicPartition(*key), run) for key, run in runs.items()]
