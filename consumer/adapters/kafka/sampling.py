"""How the records of a topic are spread over its partitions: asked before a first fill.

Answers for: finding out by which partitioner the newest records came to their partitions. Touches the brokers; joins no
group and commits nothing.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message

from consumer.adapters.kafka.connection import Connection, native
from consumer.adapters.kafka.failures import error_of, policy
from consumer.adapters.kafka.watermarks import low_and_high
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

PER_PARTITION = 200
"""The newest records of each partition: an older one may be of a time when the topic had fewer partitions."""

POLL_S = 0.2
READ_WITHIN_S = 30.0

Samples = list[tuple[bytes, int]]


async def sample_keys(connection: Connection, topic: str, partitions: int) -> Samples:
    """Keys of the newest records of a topic, each with the partition in which it stands.

    Raises:
        TransientError: The brokers cannot tell now.
        FatalError: They never will.
    """
    return await asyncio.to_thread(_sample, connection, [TopicPartition(topic, number) for number in range(partitions)])


def _sample(connection: Connection, partitions: Sequence[TopicPartition]) -> Samples:
    try:
        low, high = low_and_high(connection.admin(), partitions)
        starts = {key: max(low[key], high[key] - PER_PARTITION) for key in partitions if high[key] > low[key]}
        return _read(connection, starts, high) if starts else []
    except KafkaException as failure:
        raise policy(error_of(failure), "cannot look at the source topic") from None


def _read(connection: Connection, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> Samples:
    own = {"group.id": "unused", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = connection.consumer({"fetch.wait.max.ms": 50}, {**own, "enable.partition.eof": True})
    consumer.assign([native(partition, offset) for partition, offset in starts.items()])
    samples: Samples = []
    left = set(starts)
    deadline = time.monotonic() + READ_WITHIN_S
    try:
        while left:
            if time.monotonic() >= deadline:
                raise SourceUnavailable("the source topic could not be read in time")
            for message in consumer.consume(PER_PARTITION, POLL_S):
                partition = TopicPartition(message.topic() or "", message.partition() or 0)
                if _is_last(message, ends.get(partition, 0)):
                    left.discard(partition)
                if message.error() is None and (key := message.key()):
                    samples.append((key, partition.partition))
    finally:
        consumer.close()
    return samples


def _is_last(message: Message, end: int) -> bool:
    """Whether nothing follows that stood there when the reading began."""
    error = message.error()
    if error is not None:
        return error.code() == KafkaError._PARTITION_EOF
    return (message.offset() or 0) >= end - 1
