"""Where a log goes on from an offset before which it may have been cut off.

An unclean election cuts logs off, and so does a broker that lost what nobody else had. Once such a log has grown past
the offset that comes next, that one is there again, with another record. By the epoch of the leader who wrote what was
read before it, the leader of now knows up to where the log is still the same (KIP-320). The library asks for that and
tells the answer in words alone; but a client that may reset offsets goes on there. So what comes first tells it.

Touches the brokers; joins no group and commits nothing. Every call blocks.
"""

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, Message

from consumer.adapters.kafka.connection import Connection, native
from consumer.adapters.kafka.group_offsets import Mark
from consumer.adapters.kafka.messages import polled
from consumer.adapters.kafka.watermarks import OFFSETS_WITHIN_S, Offsets
from consumer.model import TopicPartition

POLL_S = 0.1
AT_ONCE = 100


def goes_on_at(connection: Connection, group_id: str, marks: Mapping[TopicPartition, Mark]) -> Offsets:
    """The first offsets that come from these marks on, or from where the logs were cut off before them.

    Args:
        connection: To the brokers.
        group_id: The library asks for one; nothing is joined or committed.
        marks: Of partitions that have these offsets, or had them.

    Returns:
        Offsets of records, or of the end where none follows; without the partitions of which nothing came in time.
    """
    own = {"group.id": group_id, "auto.offset.reset": "earliest", "enable.partition.eof": True}
    consumer = connection.consumer({}, {**own, "isolation.level": "read_uncommitted"})
    consumer.assign([native(key, mark.offset, epoch=mark.epoch) for key, mark in marks.items()])
    try:
        return _first_of(consumer, len(marks))
    finally:
        consumer.close()


def _first_of(consumer: Consumer, partitions: int) -> Offsets:
    first: Offsets = {}
    deadline = time.monotonic() + OFFSETS_WITHIN_S
    while len(first) < partitions and time.monotonic() < deadline:
        for message in filter(_tells, polled(consumer, POLL_S, AT_ONCE)):
            first.setdefault(TopicPartition(message.topic() or "", message.partition() or 0), message.offset() or 0)
    return first


def _tells(message: Message) -> bool:
    error = message.error()
    return error is None or error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 -- public, as all such codes
