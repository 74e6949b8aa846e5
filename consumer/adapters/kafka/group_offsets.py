"""What a group has committed, as a consumer is told that joins nothing, and how it is committed.

An admin client could be asked as well, but falls over a null pointer, and the process with it, when the group's
coordinator is just moving. Touches the brokers; every call blocks.

Answers for telling a topic from another one of its name, which was made when that one was deleted: the id of the topic
is committed beside each offset, and comes back with it.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition as NativePartition

from consumer.adapters.kafka.connection import Connection, native, of_native, patiently
from consumer.adapters.kafka.failures import error_of
from consumer.adapters.kafka.watermarks import OFFSETS_WITHIN_S, Offsets
from consumer.model import TopicPartition

STABLE_WITHIN_S = 0.5
STABLE_ALONE_WITHIN_S = 0.1
"""While a transaction may still change an offset the library waits, with all that was asked for in the same call."""

SILENT_FOR_S = 30.0

TOPIC_ID = "topic-id:"
"""What is committed beside an offset, with the id behind it."""


class Mark(NamedTuple):
    """An offset of a partition, and of which topic.

    Attributes:
        offset: Of the record that comes next.
        topic_id: What tells the topic from others of its name; "" where that is not known, as of an offset that an
            operator has set.
    """

    offset: int
    topic_id: str = ""

    def is_of(self, topic_id: str) -> bool:
        """Whether it is of the topic that has this id; believed where one of the two is not known."""
        return not self.topic_id or topic_id in {"", self.topic_id}


Told = Mapping[TopicPartition, Mark | None]
"""Committed offsets, None where there is none."""


class GroupMember(NamedTuple):
    """What makes an offset commit of a consumer valid.

    Attributes:
        metadata: The library's group metadata: group, generation, member.
        owned: Partitions that may be committed.
        topic_ids: Those under which partitions began.
    """

    metadata: object
    owned: frozenset[TopicPartition]
    topic_ids: Mapping[TopicPartition, str]

    def marked(self, offsets: Mapping[TopicPartition, int]) -> list[NativePartition]:
        """Offsets as they are to be committed."""
        return [marked(partition, offset, self.topic_ids.get(partition, "")) for partition, offset in offsets.items()]


class GroupOffsets:
    """Asks for the offsets of one group, again and again.

    Args:
        connection: To the brokers.
        group_id: Of the group.
    """

    def __init__(self, connection: Connection, group_id: str) -> None:
        self._connection = connection
        self._group_id = group_id
        self._consumers: dict[str, Consumer] = {}
        self._heard_at = 0.0

    def now(self, partitions: Collection[TopicPartition]) -> Told:
        """Offsets as they are, whatever an open transaction may do to them.

        Raises:
            KafkaException: The brokers do not tell.
        """
        with self._consumer("read_uncommitted") as consumer:
            return _told(consumer, partitions, OFFSETS_WITHIN_S)

    def stable(self, partitions: Collection[TopicPartition]) -> Told:
        """Offsets, without those that an open transaction may still change.

        Raises:
            KafkaException: The brokers do not tell.
        """
        with self._consumer("read_committed") as consumer:
            told = _told_in_time(consumer, partitions, STABLE_WITHIN_S)
            if told is not None:
                self._heard_at = time.monotonic()
                return told
            alone = [_told_in_time(consumer, [partition], STABLE_ALONE_WITHIN_S) for partition in partitions]
            self._give_up_in_silence(heard=any(alone))
            return {partition: offset for told in alone if told for partition, offset in told.items()}

    def _give_up_in_silence(self, *, heard: bool) -> None:
        """After a while without any answer the next one asks anew: this one may have lost the brokers for good.

        (librdkafka #5301). Not before: a slow network needs more than one round until there is a first answer.
        """
        now = time.monotonic()
        if heard:
            self._heard_at = now
        elif now - self._heard_at >= SILENT_FOR_S:
            del self._consumers["read_committed"]

    @contextmanager
    def _consumer(self, isolation: str) -> Iterator[Consumer]:
        """A consumer that is kept while it works; after a failure the next one is new."""
        if isolation not in self._consumers:
            own = {"group.id": self._group_id, "isolation.level": isolation}
            self._consumers[isolation] = self._connection.consumer({}, own)
            self._heard_at = time.monotonic()
        try:
            yield self._consumers[isolation]
        except KafkaException:
            del self._consumers[isolation]
            raise


def committed(connection: Connection, group_id: str, partitions: Collection[TopicPartition]) -> Offsets:
    """Committed offsets of a group as they are; partitions without one are left out.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: They refuse.
    """
    group = GroupOffsets(connection, group_id)
    told = patiently(lambda: group.now(partitions), "cannot ask for the group's offsets")
    return {partition: mark.offset for partition, mark in told.items() if mark is not None}


def marked(partition: TopicPartition, offset: int, topic_id: str) -> NativePartition:
    """An offset as it is to be committed."""
    return native(partition, offset, f"{TOPIC_ID}{topic_id}" if topic_id else "")


def _told_in_time(consumer: Consumer, partitions: Collection[TopicPartition], limit_s: float) -> Told | None:
    """What the coordinator says; None when that takes too long."""
    try:
        return _told(consumer, partitions, limit_s)
    except KafkaException as failure:
        if error_of(failure).code() == KafkaError._TIMED_OUT:  # noqa: SLF001 -- public, as all such codes
            return None
        raise


def _told(consumer: Consumer, partitions: Collection[TopicPartition], limit_s: float) -> Told:
    told: dict[TopicPartition, Mark | None] = {}
    for answer in consumer.committed([native(partition) for partition in partitions], limit_s):
        if answer.error is not None:
            raise KafkaException(answer.error)
        told[of_native(answer)] = _mark_of(answer) if answer.offset >= 0 else None
    return told


def _mark_of(answer: NativePartition) -> Mark:
    """What others have put beside an offset tells nothing of topics; tools that copy groups copy ours with it."""
    metadata = answer.metadata or ""
    return Mark(answer.offset, metadata.removeprefix(TOPIC_ID) if metadata.startswith(TOPIC_ID) else "")
