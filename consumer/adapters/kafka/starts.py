"""Where partitions begin: the committed offset, or what KAFKA_START says where there is none.

Answers for: asking the brokers without holding up the poll thread, and for deciding from their answers. Touches the
brokers; commits offsets only for a group that starts at the latest ones, so that a crash before its first settlement
skips nothing.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka.connection import Connection, native, of_native
from consumer.adapters.kafka.failures import error_of, is_hopeless, policy
from consumer.adapters.kafka.watermarks import ANSWER_WITHIN_S, ask_high, ask_low, ask_stable, offsets
from consumer.model import TopicPartition
from consumer.settings import Settings

RETRY_S = 0.5
TELL_EVERY_S = 30.0
"""How often it is told that partitions wait: offsets in a dead instance's open transaction are not known yet."""

_log = structlog.get_logger(__name__)


class Start(NamedTuple):
    """Where a partition begins.

    Attributes:
        offset: First offset to read.
        end: High watermark.
        expected: The offset that should have come first, None when there was none.
    """

    offset: int
    end: int
    expected: int | None


class Starts:
    """Partitions without a known first offset.

    Args:
        connection: To the brokers.
        settings: Group and KAFKA_START.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._group = settings.kafka_group_id
        self._latest = settings.kafka_start == "latest"
        self._pending: dict[TopicPartition, int | None] = {}
        self._admin: AdminClient | None = None
        self._questions: _Questions | None = None
        self._not_before = 0.0
        self._told_at: float | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, partitions: Iterable[TopicPartition], expected: int | None = None) -> None:
        """Find out where these begin; `expected` is the offset to go on from instead of the committed one."""
        self._pending.update(dict.fromkeys(partitions, expected))

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """They are not ours any more."""
        for partition in partitions:
            self._pending.pop(partition, None)

    def poll(self, consumer: Consumer, now: float) -> dict[TopicPartition, Start]:
        """What has become known. Asks, and asks again, without waiting for answers.

        Raises:
            FatalError: The brokers refuse to tell.
        """
        if not self._pending:
            self._admin = self._questions = self._told_at = None
            return {}
        self._tell(now)
        if self._questions is None:
            if now >= self._not_before:
                self._admin = self._admin or self._connection.admin()
                self._questions = _Questions(self._admin, self._group, list(self._pending))
            return {}
        if not self._questions.answered():
            return {}
        questions, self._questions = self._questions, None
        self._not_before = now + RETRY_S
        try:
            known = self._decide(questions, consumer)
        except KafkaException as failure:
            _fail_if_hopeless(failure)
            return {}
        self.discard(known)
        return known

    def _tell(self, now: float) -> None:
        """Say which partitions wait, from the second time on."""
        if self._told_at is None:
            self._told_at = now
        elif now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            remedy = "an open transaction of a former owner ends with its time-out"
            _log.warning("offsets_not_told", partitions=sorted(self._pending), remedy=remedy)

    def _decide(self, questions: "_Questions", consumer: Consumer) -> dict[TopicPartition, Start]:
        committed, begun = questions.committed(), questions.begun_topics()
        low, high = questions.low(), questions.high()
        known: dict[TopicPartition, Start] = {}
        for partition in questions.partitions & self._pending.keys() & committed.keys():
            expected = self._pending[partition]
            expected = committed[partition] if expected is None else expected
            if expected is not None or not self._latest or partition.topic in begun:
                offset = _first(expected, low[partition], high[partition])
                known[partition] = Start(offset, high[partition], expected)
            elif partition.partition == 0:
                _commit_latest(consumer, questions.admin, partition.topic)
        return known


class _Questions:
    """What is asked of the brokers about partitions, all at the same time."""

    def __init__(self, admin: AdminClient, group: str, partitions: Collection[TopicPartition]) -> None:
        self.admin = admin
        self.partitions = frozenset(partitions)
        ours = ConsumerGroupTopicPartitions(group, [native(partition) for partition in partitions])
        limit = ANSWER_WITHIN_S
        self._committed = admin.list_consumer_group_offsets([ours], require_stable=True, request_timeout=limit)[group]
        every = ConsumerGroupTopicPartitions(group)
        self._begun = admin.list_consumer_group_offsets([every], request_timeout=limit)[group]
        self._low = ask_low(admin, partitions)
        self._high = ask_high(admin, partitions)

    def answered(self) -> bool:
        futures = [self._committed, self._begun, *self._low.values(), *self._high.values()]
        return all(future.done() for future in futures)

    def committed(self) -> dict[TopicPartition, int | None]:
        """Committed offsets, None where there is none; without those that an open transaction may still change."""
        answers: dict[TopicPartition, int | None] = {}
        for partition in self._committed.result().topic_partitions:
            if partition.error is None:
                answers[of_native(partition)] = partition.offset if partition.offset >= 0 else None
            elif partition.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise KafkaException(partition.error)
        return answers

    def begun_topics(self) -> set[str]:
        """Topics of which the group has committed any offset."""
        return {partition.topic for partition in self._begun.result().topic_partitions}

    def low(self) -> dict[TopicPartition, int]:
        return offsets(self._low)

    def high(self) -> dict[TopicPartition, int]:
        return offsets(self._high)


def _first(expected: int | None, low: int, high: int) -> int:
    """The first offset: the expected one, unless the partition does not have it any more, or not yet."""
    return expected if expected is not None and low <= expected <= high else low


def _commit_latest(consumer: Consumer, admin: AdminClient, topic: str) -> None:
    """Have a new group begin every partition of the topic at its end.

    Whoever has partition 0 does it for all of them in one request, and the others wait: so a partition without a
    committed offset, in a topic that has some, is one that was added later, and is read from its beginning.
    """
    partitions = consumer.list_topics(topic, timeout=ANSWER_WITHIN_S).topics[topic].partitions
    every = [TopicPartition(topic, number) for number in partitions]
    ends = offsets(ask_stable(admin, every))
    commit = [native(partition, end) for partition, end in ends.items()]
    consumer.commit(offsets=commit, asynchronous=True)  # whether it worked shows in the next answers
    _log.info("group_starts_at_latest", topic=topic, partitions=len(ends))


def _fail_if_hopeless(failure: KafkaException) -> None:
    error = error_of(failure)
    if is_hopeless(error):
        raise policy(error, "cannot find out where partitions begin") from None
    _log.warning("start_unknown", error=f"{error.name()}: {error.str()}", remedy="asked again until it is known")
