"""The newest records of a topic, by which it shows how it is filled, before a first fill, and whether it can be read.

Answers for: the newest ones of each partition, and no more of them at a time than a poll brings. Touches the brokers;
joins no group and commits nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, Message

from consumer.adapters.kafka.connection import Admin, Connection, native
from consumer.adapters.kafka.messages import polled, record_of
from consumer.adapters.kafka.watermarks import low_and_high
from consumer.adapters.worker import Worker
from consumer.errors import SourceUnavailable
from consumer.model import Record, TopicPartition

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

PER_PARTITION = 200
"""The newest records of each partition: an older one may be of a time when the topic had fewer partitions."""

AT_ONCE = 500
POLL_S = 0.2
READ_WITHIN_S = 30.0


async def newest_records(
    connection: Connection, topic: str, partitions: int, each: int = PER_PARTITION
) -> AsyncIterator[Sequence[Record]]:
    """The newest records of a topic, some at a time.

    Args:
        connection: To the brokers.
        topic: Must exist.
        partitions: How many it has.
        each: How many offsets of each are looked at; what ends a transaction has one, and is no record.

    Raises:
        TransientError: The brokers cannot tell now.
        FatalError: They never will.
    """
    keys = [TopicPartition(topic, number) for number in range(partitions)]
    worker = Worker("kafka-sampling")
    try:
        reader = await asyncio.wrap_future(worker.submit(_Reader, connection, keys, each))
        while not reader.finished:
            yield await asyncio.wrap_future(worker.submit(reader.next))
    finally:
        worker.stop()  # the reader goes with it, and its consumer


class _Reader:
    """A consumer at the end of partitions. Every call blocks for a short time."""

    def __init__(self, connection: Connection, partitions: Sequence[TopicPartition], each: int) -> None:
        with Admin(connection).asking("cannot look at the source topic") as client:
            low, self._ends = low_and_high(client, partitions)
        starts = {key: max(low[key], self._ends[key] - each) for key in partitions}
        self._left = {key for key, start in starts.items() if self._ends[key] > start}
        self._consumer = _assigned(connection, {key: starts[key] for key in self._left}) if self._left else None
        self._waited_s = 0.0

    @property
    def finished(self) -> bool:
        return not self._left

    def next(self) -> list[Record]:
        """The next records; none when there are none yet."""
        assert self._consumer is not None  # noqa: S101 -- called only while not finished
        if self._waited_s >= READ_WITHIN_S:
            raise SourceUnavailable("the source topic could not be read in time")
        records: list[Record] = []
        began = time.monotonic()
        for message in polled(self._consumer, POLL_S, AT_ONCE):
            partition = TopicPartition(message.topic() or "", message.partition() or 0)
            if _is_last(message, self._ends.get(partition, 0)):
                self._left.discard(partition)
            if message.error() is None:
                records.append(record_of(message, partition))
        self._waited_s += time.monotonic() - began  # not what is done with records meanwhile
        return records


def _assigned(connection: Connection, starts: Mapping[TopicPartition, int]) -> Consumer:
    consumer = connection.consumer({"fetch.wait.max.ms": 50}, {"group.id": "unused", "enable.partition.eof": True})
    consumer.assign([native(partition, offset) for partition, offset in starts.items()])
    return consumer


def _is_last(message: Message, end: int) -> bool:
    """Whether nothing follows that stood there when the reading began."""
    error = message.error()
    if error is not None:
        return error.code() == KafkaError._PARTITION_EOF
    return (message.offset() or 0) >= end - 1
