"""Where partitions begin: the committed offset, or what KAFKA_START says where there is none.

Answers for: asking the brokers without holding up the poll thread, and for deciding from their answers. Touches the
brokers; commits offsets only for a group that starts at the latest ones, and where a partition begins before what is
committed, so that a crash before its first settlement skips nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka.connection import Admin, Connection, native
from consumer.adapters.kafka.failures import error_of, is_hopeless, policy
from consumer.adapters.kafka.group_offsets import GroupOffsets
from consumer.adapters.kafka.seldom import Seldom
from consumer.adapters.kafka.watermarks import (
    ANSWER_WITHIN_S,
    Offsets,
    low_and_high,
    partitions_of,
    stable_ends,
    told_low_and_high,
)
from consumer.adapters.kafka.worker import Worker
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


class _Answers(NamedTuple):
    """What the brokers say of partitions.

    Attributes:
        committed: Offsets, None where there is none; without those that an open transaction may still change.
        begun: Topics that the group has read before; asked for only where it begins at the latest offsets.
        low: First offsets, of partitions that have a leader.
        high: High watermarks, likewise.
    """

    committed: Mapping[TopicPartition, int | None]
    begun: Collection[str]
    low: Offsets
    high: Offsets


class Starts:
    """Partitions without a known first offset.

    Args:
        connection: To the brokers.
        settings: Group and KAFKA_START.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._admin = Admin(connection)
        self._group = GroupOffsets(connection, settings.kafka_group_id)
        self._latest = settings.kafka_start == "latest"
        self._topics = settings.kafka_source_topics
        self._changelog = settings.kafka_changelog_topic
        self._pending: dict[TopicPartition, int | None] = {}
        self._worker = Worker("kafka-starts")
        self._answers: Future[_Answers] | None = None
        self._asked: set[TopicPartition] = set()
        self._not_before = 0.0
        self._told_at: float | None = None
        self._unknown = Seldom()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def pending(self) -> Collection[TopicPartition]:
        """Those partitions."""
        return self._pending.keys()

    def add(self, partitions: Iterable[TopicPartition], expected: int | None = None) -> None:
        """Find out where these begin; `expected` is the offset to go on from instead of the committed one."""
        self._pending.update(dict.fromkeys(partitions, expected))

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """They are not ours any more; if they come back, answers on the way are too old for them."""
        for partition in partitions:
            self._pending.pop(partition, None)
            self._asked.discard(partition)

    def close(self) -> None:
        """Ask nothing more."""
        self._worker.stop()

    def poll(self, consumer: Consumer, now: float) -> dict[TopicPartition, Start]:
        """What has become known. Asks, and asks again, without waiting for answers.

        Raises:
            FatalError: The brokers refuse to tell.
        """
        self._tell(now)
        if self._answers is None:
            if self._pending and now >= self._not_before:
                self._asked = set(self._pending)
                self._answers = self._worker.submit(self._ask, list(self._pending))
            return {}
        if not self._answers.done():
            return {}
        answers, self._answers = self._answers, None
        try:
            known = self._decide(answers.result(), consumer)
        except KafkaException as failure:
            self._fail_if_hopeless(failure)
            known = {}
        self.discard(known)
        self._not_before = now + RETRY_S if self._asked else now
        return known

    def _tell(self, now: float) -> None:
        """Say which partitions wait, from the second time on."""
        if not self._pending:
            self._told_at = None
        elif self._told_at is None:
            self._told_at = now
        elif now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            remedy = "an open transaction of a former owner ends with its time-out; a partition needs a leader"
            _log.warning("offsets_not_told", partitions=sorted(self._pending), remedy=remedy)

    def _fail_if_hopeless(self, failure: KafkaException) -> None:
        error = error_of(failure)
        if is_hopeless(error):
            raise policy(error, "cannot find out where partitions begin") from None
        if not self._unknown.told(error.code()):
            told = f"{error.name()}: {error.str()}"
            _log.warning("start_unknown", error=told, remedy="asked again until it is known")

    def _ask(self, partitions: Collection[TopicPartition]) -> _Answers:
        """Ask the brokers; the ends last, so that they are not before what is committed.

        Whether the group has begun comes before what it has committed: the other way round, a commit of another member
        between the two would show in the first alone, and the partitions would be taken for new ones.
        """
        with self._admin.client() as client:
            begun = self._begun(client) if self._latest else ()
            stable = self._group.stable(partitions)
            return _Answers(stable, begun, *told_low_and_high(client, partitions))

    def _begun(self, client: AdminClient) -> set[str]:
        """The source topics of which the group has committed any offset.

        Brokers forget the offsets of a group that was empty for long. One that has none at all, and a changelog, was
        forgotten: what came since must not be skipped. The changelog is asked for first, since a new group commits its
        first offsets before there is anything in it.
        """
        _, delivered = low_and_high(client, partitions_of(client, [self._changelog]))
        told = self._group.now(partitions_of(client, self._topics))
        begun = {partition.topic for partition, offset in told.items() if offset is not None}
        if begun or not any(delivered.values()):
            return begun
        remedy = "none needed: all is read again, what was delivered is duplicate; see offsets.retention.minutes"
        _log.warning("offsets_forgotten", changelog=self._changelog, remedy=remedy)
        return {*self._topics}

    def _decide(self, answers: _Answers, consumer: Consumer) -> dict[TopicPartition, Start]:
        known: dict[TopicPartition, Start] = {}
        for partition in self._asked & answers.committed.keys() & answers.low.keys() & answers.high.keys():
            expected = self._pending[partition]
            expected = answers.committed[partition] if expected is None else expected
            if expected is not None or not self._latest or partition.topic in answers.begun:
                low, high = answers.low[partition], answers.high[partition]
                known[partition] = Start(_first(expected, low, high), high, expected)
            elif partition.partition == 0:
                with self._admin.client() as admin:
                    _commit_latest(consumer, admin, partition.topic)
        behind = {p: start for p, start in known.items() if start.offset < (answers.committed[p] or 0)}
        self._take_back(behind, consumer)
        return {partition: start for partition, start in known.items() if partition not in behind}

    def _take_back(self, starts: Mapping[TopicPartition, Start], consumer: Consumer) -> None:
        """Commit where these begin, before they do: the topic was made anew, and what is committed is of the former.

        Otherwise whoever begins next, once the topic has grown so far, would skip what stands before that.
        """
        self._pending.update((partition, start.expected) for partition, start in starts.items())
        if starts:  # whether it worked shows in the next answers
            consumer.commit(offsets=[native(p, start.offset) for p, start in starts.items()], asynchronous=True)


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
    ends = stable_ends(admin, every)
    commit = [native(partition, end) for partition, end in ends.items()]
    consumer.commit(offsets=commit, asynchronous=True)  # whether it worked shows in the next answers
    _log.info("group_starts_at_latest", topic=topic, partitions=len(ends))
