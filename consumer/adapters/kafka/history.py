"""Reads again what the source topics hold, and asks how far the group has come.

Answers for: every record that a partition still has up to a given offset. Touches source topics, changelog and the
group's offsets, all only to look: no group is joined, nothing is committed, no topic is made.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka import changelog
from consumer.adapters.kafka.changelog import GIVES_UP_AFTER_S
from consumer.adapters.kafka.connection import Admin, Connection, native
from consumer.adapters.kafka.failures import error_of, is_hopeless, policy
from consumer.adapters.kafka.group_offsets import committed
from consumer.adapters.kafka.messages import polled, record_of
from consumer.adapters.kafka.topics import source_counts
from consumer.adapters.kafka.watermarks import OFFSETS_WITHIN_S, know_leaders, low_and_high, open_ends, stable_ends
from consumer.adapters.worker import Worker, in_a_thread
from consumer.errors import SourceUnavailable
from consumer.model import Record, TopicPartition
from consumer.ports import ChangelogChunk, ChangelogOvertaken
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

CHUNK_RECORDS = 5_000
POLL_S = 0.2

DEFAULTS = {
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.wait.max.ms": 50,
}

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class KafkaHistory:
    """The `History` of the source topics of a group.

    Args:
        connection: To the brokers.
        settings: Topics and group.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._admin = Admin(connection)
        self._changelog = settings.kafka_changelog_topic
        self._group = settings.kafka_group_id

    async def committed(self) -> Mapping[TopicPartition, int]:
        partitions = await self._ask("cannot ask for the source topics", self._partitions)
        found = await in_a_thread("kafka-history", committed, self._connection, self._group, partitions)
        return dict.fromkeys(partitions, 0) | found

    async def empty(self) -> Collection[TopicPartition]:
        return await self._ask("cannot ask for the first offsets of the source topics", self._empty)

    async def ends(self) -> Mapping[TopicPartition, int]:
        return await self._ask("cannot ask for the ends of the source topics", self._ends)

    async def members(self) -> int:
        return await self._ask("cannot ask for the members of the group", self._members)

    async def changelog_ends(self) -> Mapping[TopicPartition, int]:
        return await self._ask("cannot ask for the ends of the changelog", self._changelog_ends)

    async def read(self, partition: TopicPartition, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        worker = Worker("kafka-history")
        try:
            reader = await asyncio.wrap_future(
                worker.submit(_Reader, self._connection, self._group, partition, start, end)
            )
            while not reader.finished:
                yield await asyncio.wrap_future(worker.submit(reader.next))
        finally:
            worker.stop()  # the reader goes with it, and its consumer

    async def changelog(self, partition: TopicPartition) -> AsyncIterator[ChangelogChunk]:
        try:
            async for chunk in changelog.read(self._connection, self._admin, self._settings, partition, 0):
                yield chunk
        except changelog.PartitionMissing:
            return  # nothing was delivered from it
        except ChangelogOvertaken as overtaken:
            raise SourceUnavailable(str(overtaken)) from None

    async def _ask(self, what: str, ask: Callable[[AdminClient], T]) -> T:
        def answer() -> T:
            with self._admin.asking(what) as client:
                return ask(client)

        return await in_a_thread("kafka-history", answer)

    def _partitions(self, client: AdminClient) -> list[TopicPartition]:
        counts = source_counts(client.list_topics(timeout=OFFSETS_WITHIN_S), self._settings)
        return [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]

    def _empty(self, client: AdminClient) -> list[TopicPartition]:
        low, high = low_and_high(client, self._partitions(client))
        return [partition for partition, first in low.items() if first == high[partition]]

    def _ends(self, client: AdminClient) -> dict[TopicPartition, int]:
        partitions = self._partitions(client)
        know_leaders(client, partitions)
        return stable_ends(client, partitions)

    def _changelog_ends(self, client: AdminClient) -> dict[TopicPartition, int]:
        known = client.list_topics(self._changelog, timeout=OFFSETS_WITHIN_S).topics[self._changelog]
        if known.error is not None:
            if known.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return {}
            raise KafkaException(known.error)
        return open_ends(client, [TopicPartition(self._changelog, number) for number in known.partitions])

    def _members(self, client: AdminClient) -> int:
        answer = client.describe_consumer_groups([self._group], request_timeout=OFFSETS_WITHIN_S)[self._group]
        try:
            return len(answer.result().members)
        except KafkaException as failure:
            if error_of(failure).code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise


class _Reader:
    """A consumer at one partition. Every call blocks for a short time."""

    def __init__(self, connection: Connection, group: str, partition: TopicPartition, start: int, end: int) -> None:
        self._partition = partition
        self._position = start
        self._end = end
        self._silent_s = 0.0
        self._consumer = self._assigned(connection, group) if not self.finished else None

    @property
    def finished(self) -> bool:
        return self._position >= self._end

    def next(self) -> list[Record]:
        """The next records; none when there are none yet."""
        assert self._consumer is not None  # noqa: S101 -- called only while not finished
        before, began = self._position, time.monotonic()
        messages = polled(self._consumer, POLL_S, CHUNK_RECORDS)
        records = [record_of(message, self._partition) for message in messages if not self._is_past(message)]
        self._silent_s = 0.0 if self._position > before else self._silent_s + time.monotonic() - began
        if self._silent_s >= GIVES_UP_AFTER_S:
            raise SourceUnavailable(f"nothing of {self._partition} came for {GIVES_UP_AFTER_S:.0f} s")
        return records

    def _is_past(self, message: Message) -> bool:
        """Whether this is no record of those that are wanted; moves on either way."""
        offset = message.offset() or 0
        if (error := message.error()) is None:
            self._position = offset + 1
            return offset >= self._end
        if error.code() == KafkaError._PARTITION_EOF:
            self._position = max(self._position, offset)  # past what has no record: markers of transactions
        elif is_hopeless(error):
            raise policy(error, "cannot read a source topic again")
        else:
            _log.warning("source_not_readable", error=f"{error.name()}: {error.str()}", remedy="tried again")
        return True

    def _assigned(self, connection: Connection, group: str) -> Consumer:
        consumer = connection.reader(DEFAULTS, group, reset="earliest")  # what retention removed cannot be read
        consumer.assign([native(self._partition, self._position)])
        return consumer
