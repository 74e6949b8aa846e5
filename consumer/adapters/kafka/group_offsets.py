"""What a group has committed, as a consumer is told that joins nothing, and how it is committed.

An admin client could be asked as well, but falls over a null pointer, and the process with it, when the group's
coordinator is just moving. Touches the brokers; every call blocks.

Answers for telling a topic from another one of its name, which was made when that one was deleted: the id of the topic
is committed beside each offset, and comes back with it. And for telling a log that was cut off from what it was: an
offset is committed with the epoch of the leader who wrote the record before it.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition as NativePartition

from consumer.adapters.kafka.connection import NO_EPOCH, Connection, native, of_native, patiently
from consumer.adapters.kafka.failures import error_of
from consumer.adapters.kafka.watermarks import OFFSETS_WITHIN_S, Offsets
from consumer.model import TopicPartition

STABLE_WITHIN_S = 0.5
STABLE_ALONE_WITHIN_S = 0.1
"""While a transaction may still change an offset the library waits, with all that was asked for in the same call."""

SILENT_FOR_S = 30.0

TOPIC_ID = "topic-id:"
"""What is committed beside an offset, with the id behind it."""

REACHED = "reached:"
"""The same, with an offset behind it."""


class Mark(NamedTuple):
    """An offset of a partition, and of which log.

    Attributes:
        offset: Of the record that comes next.
        topic_id: What tells the topic from others of its name; "" where that is not known, as of an offset that an
            operator has set.
        epoch: That of the leader who wrote the record before it, or a later one that wrote what was read by then:
            brokers tell by it whether the log was cut off since. -1 where none is known, as of old formats.
        reached: Up to where the log was read without another record: what ends transactions has offsets too. Counts
            where it is behind `offset`.
    """

    offset: int
    topic_id: str = ""
    epoch: int = NO_EPOCH
    reached: int = 0

    def is_of(self, topic_id: str) -> bool:
        """Whether it is of the topic that has this id; believed where one of the two is not known."""
        return not self.topic_id or topic_id in {"", self.topic_id}

    def at(self, offset: int) -> "Mark":
        """The mark up to an offset of what was read up to this one.

        The epoch may be later than that of the record there, and never earlier: of an earlier one the log ends before.
        """
        if offset == self.offset:
            return self
        return Mark(offset, self.topic_id, self.epoch if offset < self.offset else NO_EPOCH)


Told = Mapping[TopicPartition, Mark | None]
"""Committed offsets, None where there is none."""


class GroupMember(NamedTuple):
    """What makes an offset commit of a consumer valid.

    Attributes:
        metadata: The library's group metadata: group, generation, member.
        owned: Partitions that may be committed.
        marks: Up to where partitions were read that have begun.
    """

    metadata: object
    owned: frozenset[TopicPartition]
    marks: Mapping[TopicPartition, Mark]

    def marked(self, offsets: Mapping[TopicPartition, int]) -> list[NativePartition]:
        """Offsets as they are to be committed."""
        return [marked(key, self.marks.get(key, Mark(offset)).at(offset)) for key, offset in offsets.items()]


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


def marked(partition: TopicPartition, mark: Mark) -> NativePartition:
    """An offset as it is to be committed."""
    # The id comes last: an earlier checkout takes all behind its name for it, and believes an offset without one.
    beside = [f"{REACHED}{mark.reached}"] if mark.reached > mark.offset else []
    if mark.topic_id:
        beside.append(f"{TOPIC_ID}{mark.topic_id}")
    return native(partition, mark.offset, " ".join(beside), mark.epoch)


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
    reached = _beside(answer, REACHED)
    epoch: int | None = answer.leader_epoch  # the stubs do not know that there may be none
    told = NO_EPOCH if epoch is None else epoch
    return Mark(answer.offset, _beside(answer, TOPIC_ID), told, int(reached) if reached.isdecimal() else 0)


def _beside(answer: NativePartition, name: str) -> str:
    """What stands beside an offset under a name; "" where nothing does."""
    words = (answer.metadata or "").split(" ")
    return next((word.removeprefix(name) for word in words if word.startswith(name)), "")
