"""The output topics: audit, dead letters, changelog, and the source offsets that move with them.

Answers for settlements one after the other, in a thread of their own, and for which producer makes them. Touches the
output topics.

A producer that cannot end its transaction is left behind: after an answer without brokers the library may never look
for them again (librdkafka #5301). The next one fences it, and that aborts the transaction. It must not be left behind
once a commit was asked for and nobody knows whether it happened: the works would be settled twice.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import TypeVar

import structlog
from confluent_kafka import TopicPartition as NativePartition

from consumer.adapters.kafka import changelog
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.group_offsets import GroupMember
from consumer.adapters.kafka.settling_producer import SettlingProducer
from consumer.adapters.kafka.topics import ensure
from consumer.adapters.worker import Worker
from consumer.errors import FatalError, SettingsError, SourceUnavailable, TransientError
from consumer.model import Settlement, TopicPartition
from consumer.ports import ChangelogChunk
from consumer.settings import Settings

CLOSE_WITHIN_S = 10.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


@contextmanager
def _at_work() -> Iterator[None]:
    """Clients could be made at start: where none can be now, a file of theirs is being exchanged, and soon whole."""
    try:
        yield
    except SettingsError as error:
        raise SourceUnavailable(str(error)) from None


class KafkaEventTopics:
    """The `EventTopics` of a Kafka cluster.

    Args:
        connection: To the brokers.
        settings: Topics and guarantee.
        transactional_id: Same as before after a restart of the same instance, and of no other one.
        group_metadata: The source's, for the offsets of these partitions; raises where they may be somebody else's.
        commit: The source's, for offsets outside of a transaction, as `GroupMember.marked` gives them.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        transactional_id: str,
        group_metadata: Callable[[Collection[TopicPartition]], GroupMember],
        commit: Callable[[Sequence[NativePartition]], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._exactly_once = settings.kafka_guarantee == "exactly_once"
        self._transactional_id = transactional_id
        self._group_metadata = group_metadata
        self._commit = commit
        self._admin = Admin(connection)
        self._worker = Worker("kafka-produce")
        self._producer: SettlingProducer | None = None
        self._closing = threading.Event()
        self._ended_by: FatalError | None = None

    async def open(self) -> None:
        """Make the producer; end whatever transaction a former instance left open.

        Raises:
            TransientError: The brokers do not answer.
            FatalError: They refuse.
        """
        await self._run(self._open)

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        """Make the settlement visible as one. Comes back only when it is known whether that happened.

        Whoever does not own its partitions is refused before. Without a transaction nobody else would do so: the states
        of a former owner would stand behind those of the new one.
        """
        membership = self._group_metadata(settlement.offsets)
        if self._exactly_once:
            return await self._run(lambda: self._transact(settlement, membership))
        positions = await self._run(lambda: self._deliver(settlement))
        await self._commit(membership.marked(settlement.offsets))  # a topic may have been made anew meanwhile
        return positions

    async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        try:
            with _at_work():
                reading = changelog.read(self._connection, self._admin, self._settings, partition, start)
                async with aclosing(reading) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except changelog.PartitionMissing:
            with _at_work():
                await ensure(self._connection, self._settings)
            raise SourceUnavailable(f"the changelog had no partition for {partition}, which is new") from None

    async def close(self) -> None:
        """Give the producer up; a settlement under way gets a little time."""
        self._closing.set()
        last = self._worker.submit(self._forget)
        self._worker.stop()
        try:
            await asyncio.wait_for(asyncio.wrap_future(last), CLOSE_WITHIN_S)
        except TimeoutError:
            _log.warning("producer_not_closed", seconds=CLOSE_WITHIN_S, remedy="a transaction left open times out")

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._worker.submit(call))

    def _transact(self, settlement: Settlement, membership: GroupMember) -> Mapping[TopicPartition, int]:
        """Settle in a transaction; a producer that cannot end its own is left behind, and fenced by the next one."""
        if self._ended_by is not None:  # who waited for his turn does not know yet
            raise self._ended_by
        self._reopen()
        try:
            return self._opened().transact(settlement, membership)
        except FatalError as error:
            if self._opened().in_transaction:
                self._ended_by = error
            raise
        except TransientError:
            if self._opened().in_transaction:
                self._forget()
                self._abort_by_another(settlement.offsets)
            raise

    def _abort_by_another(self, partitions: Collection[TopicPartition]) -> None:
        """At once, since every reader of the topics waits for it; but only while the partitions are ours."""
        if not self._closing.is_set():
            with suppress(SourceUnavailable):
                self._group_metadata(partitions)
                self._reopen()

    def _deliver(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        """Settle without a transaction; a producer that has lost the brokers is left behind."""
        self._reopen()
        try:
            return self._opened().deliver(settlement)
        except TransientError:
            if self._opened().is_cut_off():
                self._forget()
            raise

    def _reopen(self) -> None:
        """Have a producer, as at start."""
        with _at_work():
            self._open()

    def _open(self) -> None:
        if self._producer is None:
            transactional_id = self._transactional_id if self._exactly_once else None
            self._producer = SettlingProducer(self._connection, self._settings, transactional_id, self._closing)
        if self._exactly_once and not self._producer.ready:
            self._producer.init()

    def _opened(self) -> SettlingProducer:
        assert self._producer is not None, "open() comes first"  # noqa: S101
        return self._producer

    def _forget(self) -> None:
        if self._producer is not None:
            self._producer.stop()
        self._producer = None
