"""Reads a single record of a topic, for whoever wants to look at it.

Answers for: the record at an offset, or why there is none. Touches the topic; it joins no group and commits nothing.
"""

import time

from confluent_kafka import Consumer, KafkaException, Message

from consumer.adapters.kafka.bounded import spans
from consumer.adapters.kafka.connection import Admin, Connection, native
from consumer.adapters.kafka.failures import error_of, is_beside_reading, policy, reading_policy
from consumer.adapters.kafka.messages import record_of
from consumer.errors import FatalError, SourceUnavailable
from consumer.model import Record, TopicPartition

WAIT_S = 15.0


def read_one(connection: Connection, group_id: str, partition: TopicPartition, offset: int) -> Record:
    """The record at an offset.

    Args:
        connection: To the brokers.
        group_id: The library asks for one; nothing is joined or committed.
        partition: Where it is.
        offset: Of it.

    Raises:
        FatalError: There is none, or no longer.
        SourceUnavailable: There is none yet, or the brokers cannot tell now.
    """
    end = _end(connection, partition, offset)
    consumer = connection.consumer({}, {"group.id": group_id, "auto.offset.reset": "error"})
    try:
        consumer.assign([native(partition, offset)])
        message = _first(consumer)
    except KafkaException as failure:
        raise policy(error_of(failure), "cannot read the record") from None
    finally:
        consumer.close()
    if message is None and offset == end:
        raise _not_yet(partition, offset, end)
    if message is None:
        raise SourceUnavailable(f"no record came within {WAIT_S:.0f} s: do the brokers answer?")
    return _record(message, partition, offset)


def _end(connection: Connection, partition: TopicPartition, offset: int) -> int:
    """Where the partition ends now. Where no record can come the library would let one wait, or say it in its own way.

    Raises:
        FatalError: There is no such partition, or what stood there is gone.
        SourceUnavailable: It does not reach so far, or the brokers cannot tell now.
    """
    found = spans(Admin(connection), partition.topic)
    if partition not in found:
        raise FatalError(f"there is no partition {partition.partition} of {partition.topic}: it has {len(found)}")
    first, end = found[partition]
    if offset < first:
        raise FatalError(f"there is no record at {offset} any more: {partition} begins at {first}")
    if offset > end:
        raise _not_yet(partition, offset, end)
    return end


def _not_yet(partition: TopicPartition, offset: int, end: int) -> SourceUnavailable:
    return SourceUnavailable(f"there is no record at {offset} yet: {partition} ends before {end}")


def _first(consumer: Consumer) -> Message | None:
    """What comes of the partition first; None when nothing does within the wait."""
    deadline = time.monotonic() + WAIT_S
    while True:
        message = consumer.poll(max(0.0, deadline - time.monotonic()))
        if message is None or not is_beside_reading(message):
            return message


def _record(message: Message, partition: TopicPartition, offset: int) -> Record:
    error = message.error()
    if error is not None:
        raise reading_policy(error, partition.topic)
    if message.offset() != offset:
        raise FatalError(f"there is no record at {offset}; the next one is at {message.offset()}")
    return record_of(message, partition)
