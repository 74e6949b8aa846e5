"""Reads the changelog of one source partition, from where a store stands to the end.

Answers for: every entry up to the end, also of a transaction that is open when the reading begins, and none of an
aborted one. Touches the changelog topic; it joins no group and commits nothing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from consumer.adapters.kafka.connection import Admin, Connection, native
from consumer.adapters.kafka.failures import error_of, is_hopeless, policy
from consumer.adapters.kafka.messages import polled
from consumer.adapters.kafka.watermarks import low_and_high
from consumer.adapters.worker import Worker
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition
from consumer.ports import ChangelogChunk, ChangelogOvertaken
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

CHUNK_ENTRIES = 10_000
POLL_S = 0.2
SILENCE_S = 10.0

GIVES_UP_AFTER_S = 90.0
"""After so long without progress another client is to try: this one may have lost the brokers for good (#5301).

Longer than a transaction of a dead producer stays open, which is waited for: a minute, and ten seconds until the
brokers look.
"""

DEFAULTS = {
    # Small: an entry costs the library five times its size, and all partitions of a pod may be read at the same time.
    "fetch.message.max.bytes": 262_144,
    "queued.min.messages": 2_000,
    "queued.max.messages.kbytes": 1_024,
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 50,  # the end is known one empty fetch after the last entry
}
NO_PARTITION = frozenset({KafkaError._NOENT, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART})

_log = structlog.get_logger(__name__)


class PartitionMissing(Exception):
    """The source topic got more partitions, and the changelog did not."""


def prefix_of(source: TopicPartition) -> bytes:
    """What the keys of a source topic's entries begin with: source topics share the changelog's partitions."""
    return source.topic.encode() + b"\0"


async def read(
    connection: Connection, admin: Admin, settings: Settings, source: TopicPartition, start: int
) -> AsyncGenerator[ChangelogChunk, None]:
    """Chunks of the changelog of a source partition, as `EventTopics.changelog` has them.

    Args:
        connection: For the consumer that reads.
        admin: Asked for the end.
        settings: Name the changelog.
        source: The partition whose entries are wanted.
        start: Changelog offset to begin at.

    Raises:
        ChangelogOvertaken: The changelog does not have `start`, no longer or not yet.
        PartitionMissing: It has no such partition.
        TransientError: The brokers cannot tell now, or nothing came for long.
        FatalError: They never will.
    """
    worker = Worker("kafka-changelog")
    reader: _Reader | None = None
    try:
        reader = await asyncio.wrap_future(worker.submit(_Reader, connection, admin, settings, source, start))
        chunk: ChangelogChunk | None = None
        while not reader.finished:
            coming = worker.submit(reader.next)  # read while the store writes the one before
            if chunk is not None:
                yield chunk
            chunk = await asyncio.wrap_future(coming)
        if chunk is not None:
            yield chunk
    finally:
        if reader is not None:
            worker.submit(reader.let_go)
        worker.stop()


def holds(connection: Connection, admin: Admin, settings: Settings, source: TopicPartition) -> bool:
    """Whether anything of a source partition was ever settled. Blocks until the changelog is read so far.

    Args:
        connection: For the consumer that reads.
        admin: Asked for the end.
        settings: Name the changelog.
        source: A partition that the source topic has or had; the changelog has one of that number.

    Raises:
        TransientError: The brokers cannot tell now, or nothing came for long.
        FatalError: They never will.
    """
    reader = _Reader(connection, admin, settings, source, 0)
    try:
        while not reader.finished:
            if reader.next().entries:
                return True
    except ChangelogOvertaken as overtaken:
        raise SourceUnavailable(str(overtaken)) from None
    return False


class _Reader:
    """A consumer at the changelog partition. Every call blocks for a short time."""

    def __init__(
        self, connection: Connection, admin: Admin, settings: Settings, source: TopicPartition, start: int
    ) -> None:
        self._changelog = TopicPartition(settings.kafka_changelog_topic, source.partition)
        self._prefix = prefix_of(source)
        low, self._end = _bounds(admin, self._changelog)
        if start > self._end or 0 < start < low:
            raise ChangelogOvertaken(f"changelog of {source} begins at {low}, ends at {self._end}, wanted: {start}")
        self._position = max(start, low)
        self._silent_s = self._told_s = 0.0
        self._consumer = self._assigned(connection, settings) if not self.finished else None

    @property
    def finished(self) -> bool:
        return self._position >= self._end

    def next(self) -> ChangelogChunk:
        """The next stretch; an empty one when there is nothing yet."""
        assert self._consumer is not None  # noqa: S101 -- called only while not finished
        before, began = self._position, time.monotonic()
        entries = self._entries(polled(self._consumer, POLL_S, CHUNK_ENTRIES))
        self._watch(moved=self._position > before, waited_s=time.monotonic() - began)
        return ChangelogChunk(entries, self._position, self._end)

    def let_go(self) -> None:
        """End the consumer, in the thread of this call: one that has lost the brokers may take its time.

        By then nothing else refers to it. An error refers to the reader, and is kept until another one is tried.
        """
        self._consumer = None

    def _entries(self, messages: Sequence[Message]) -> list[tuple[bytes, bytes | None]]:
        entries: list[tuple[bytes, bytes | None]] = []
        prefix, length = self._prefix, len(self._prefix)
        for message in messages:
            if (error := message.error()) is not None:
                self._take_error(error, message.offset())
                continue
            key = message.key()
            if key is not None and key.startswith(prefix):
                entries.append((key[length:], message.value()))
            self._position = message.offset() + 1  # type: ignore[operator]  # a record has an offset
        return entries

    def _take_error(self, error: KafkaError, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._position = offset or 0  # past control records; it does not go past an open transaction
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise ChangelogOvertaken(f"{self._changelog} lost offset {offset} while it was read")
        elif is_hopeless(error):
            raise policy(error, "cannot read the changelog")
        else:
            _log.warning("changelog_not_readable", error=f"{error.name()}: {error.str()}", remedy="tried again")

    def _watch(self, *, moved: bool, waited_s: float) -> None:
        """Say so when nothing comes for a while: a dead instance's transaction stays open until it times out.

        Only what was waited here counts, not what the disk takes between two calls.
        """
        if moved:
            self._silent_s = self._told_s = 0.0
            return
        self._silent_s += waited_s
        if self._silent_s >= GIVES_UP_AFTER_S:
            raise SourceUnavailable(f"nothing of the changelog came for {GIVES_UP_AFTER_S:.0f} s")
        if self._silent_s - self._told_s >= SILENCE_S:
            self._told_s = self._silent_s
            _log.warning("waiting_for_changelog", partition=self._changelog, offset=self._position, end=self._end)

    def _assigned(self, connection: Connection, settings: Settings) -> Consumer:
        consumer = connection.reader(DEFAULTS, settings.kafka_group_id)
        consumer.assign([native(self._changelog, self._position)])
        return consumer


def _bounds(admin: Admin, partition: TopicPartition) -> tuple[int, int]:
    """First offset and end of a partition now; the end includes open transactions."""
    try:
        with admin.client() as client:
            low, high = low_and_high(client, [partition])
    except KafkaException as failure:
        if error_of(failure).code() in NO_PARTITION:
            raise PartitionMissing from None
        raise policy(error_of(failure), "cannot ask for the end of the changelog") from None
    return low[partition], high[partition]
