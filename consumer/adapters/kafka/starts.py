"""Where partitions begin: the committed offset, or what KAFKA_START says where there is none.

Answers for: asking the brokers without holding up the poll thread, and for deciding from their answers. Touches the
brokers; commits offsets only for a group that starts at the latest ones, and where a partition begins before where the
next process would, so that a crash before its first settlement skips nothing.

A topic that is deleted and made anew has the same name and another id. An offset of the former says nothing of it.
"""

import math
import time
from collections.abc import Collection, Hashable, Iterable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka import changelog
from consumer.adapters.kafka.connection import NO_EPOCH, Admin, Connection
from consumer.adapters.kafka.cut_logs import goes_on_at
from consumer.adapters.kafka.failures import error_of, is_gone, is_hopeless, policy
from consumer.adapters.kafka.group_offsets import GroupOffsets, Mark, Told, marked
from consumer.adapters.kafka.topics import TopicIds
from consumer.adapters.kafka.watermarks import (
    OFFSETS_WITHIN_S,
    Offsets,
    low_and_high,
    partitions_of,
    stable_ends,
    told_low_and_high,
)
from consumer.adapters.worker import Worker
from consumer.core.seldom import Seldom
from consumer.errors import FatalError, SettingsError, TransientError
from consumer.model import TopicPartition
from consumer.settings import Settings

RETRY_S = 0.5
TELL_EVERY_S = 30.0
"""How often it is told that partitions wait: offsets in a dead instance's open transaction are not known yet."""
LOOK_EVERY_S = 30.0
"""How often it is asked whether the source topics and the changelog are still those that they were.

While one that is gone is not let go of, no settlement that has an offset of it succeeds, and so none of the others. But
asked every 5 s, the library failed an assertion of its own while a broker died, in one round of chaos.
"""

_log = structlog.get_logger(__name__)


class Start(NamedTuple):
    """Where a partition begins.

    Attributes:
        offset: First offset to read.
        end: High watermark.
        expected: What should have come first, None when nothing was known.
        topic_id: Of its topic, as it was before anything else was asked; "" where brokers tell none.
    """

    offset: int
    end: int
    expected: Mark | None
    topic_id: str

    @property
    def made_anew(self) -> bool:
        """Whether what should have come first is of a former topic of this name."""
        return self.expected is not None and not self.expected.is_of(self.topic_id)

    @property
    def goes_back(self) -> bool:
        """Whether offsets come again for other records: the topic was made anew, or its log was cut off."""
        return self.made_anew or (self.expected is not None and self.offset < self.expected.offset)

    @property
    def misses(self) -> bool:
        """Whether what should have come first is gone. What only ended transactions may be."""
        if self.expected is None or self.goes_back:
            return self.expected is not None
        return self.offset > max(self.expected.offset, self.expected.reached)

    @property
    def mark(self) -> Mark:
        """Where it begins; who wrote what stands before that is known only where it begins as it should."""
        if self.expected is None or self.made_anew or self.offset != self.expected.offset:
            return Mark(self.offset, self.topic_id)
        return self.expected._replace(topic_id=self.topic_id)


class _Answers(NamedTuple):
    """What the brokers say of partitions.

    Attributes:
        topic_ids: Of the topics of which they can be had; None of those that there are not.
        there: Partitions of those topics; of a topic that a broker does not know yet there are none.
        begun: Topics that the group has read before; asked for only where it begins at the latest offsets.
        committed: Offsets, without those that an open transaction may still change.
        low: First offsets, of partitions that have a leader, and whose log is known as far as it is asked for.
        high: High watermarks, of partitions that have a leader.
        goes_on: Where logs go on from where their partitions are to do so, of which brokers said that it is not there,
            or not as it was.
    """

    topic_ids: Mapping[str, str | None]
    there: Collection[TopicPartition]
    begun: Collection[str]
    committed: Told
    low: Offsets
    high: Offsets
    goes_on: Offsets


class Starts:
    """Partitions without a known first offset.

    Args:
        connection: To the brokers.
        settings: Group and KAFKA_START.
        changelog_id: That of the changelog to which the stores belong; "" where it is not known.
    """

    def __init__(self, connection: Connection, settings: Settings, changelog_id: str = "") -> None:
        self._connection = connection
        self._settings = settings
        self._admin = Admin(connection)
        self._topic_ids = TopicIds()
        self._group = GroupOffsets(connection, settings.kafka_group_id)
        self._latest = settings.kafka_start == "latest"
        self._topics = settings.kafka_source_topics
        self._changelog, self._changelog_id = settings.kafka_changelog_topic, changelog_id
        self._pending: dict[TopicPartition, Mark | None] = {}
        self._gone: set[TopicPartition] = set()
        self._unmarked: dict[TopicPartition, Start] = {}  # how those begin of which the group has no offset
        self._worker = Worker("kafka-starts")
        self._answers: Future[_Answers] | None = None
        self._asked: set[TopicPartition] = set()
        self._looking: Future[dict[str, str | None]] | None = None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._not_before = 0.0
        self._told_at: float | None = None
        self._unknown = Seldom(time.monotonic)

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def pending(self) -> Mapping[TopicPartition, Mark | None]:
        """Those partitions, with where they are to go on instead of at the committed offset."""
        return self._pending

    def add(self, partitions: Iterable[TopicPartition], expected: Mark | None = None) -> None:
        """Find out where these begin; `expected` is where to go on instead of at the committed offset."""
        added = dict.fromkeys(partitions, expected)
        self._pending.update(added)
        for partition in self._unmarked.keys() & added:
            del self._unmarked[partition]

    def add_gone(self, partitions: Iterable[TopicPartition], was: Mark | None) -> None:
        """Find out where these begin once their topic is there again; `was` came next in the one that is gone.

        Should it be the same after all, the committed offset counts: what was read behind that was given up.
        """
        self.add(partitions, was)
        self._gone.update(partitions)

    def recall(self, partition: TopicPartition, settled: Mark) -> Start | None:
        """Where a partition began for which the group had no offset, with `settled` as the offset expected there.

        Answers once for each beginning. None where it had one, or where what was settled is of a former topic.
        """
        start = self._unmarked.pop(partition, None)
        if start is None:
            return None
        if not self._latest and not self._unknown.told(("forgotten", partition.topic)):  # else it was told before
            self._tell_forgotten([partition.topic])
        return start._replace(expected=settled) if settled.is_of(start.topic_id) else None

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """They are not ours any more; if they come back, answers on the way are too old for them."""
        for partition in partitions:
            self._pending.pop(partition, None)
            self._gone.discard(partition)
            self._asked.discard(partition)

    def close(self) -> None:
        """Ask nothing more."""
        self._worker.stop()

    def poll(self, consumer: Consumer, now: float) -> dict[TopicPartition, Start]:
        """What has become known. Asks, and asks again, without waiting for answers.

        Raises:
            FatalError: The brokers refuse to tell, or a topic was made anew with fewer partitions.
        """
        self._tell(now)
        if self._answers is None:
            if self._pending and now >= self._not_before:
                self._asked = set(self._pending)
                self._answers = self._worker.submit(self._ask, dict(self._pending))
            return {}
        if not self._answers.done():
            return {}
        answers, self._answers = self._answers, None
        try:
            known = self._decide(answers.result(), consumer)
        except KafkaException as failure:
            self._fail_if_hopeless(failure)
            known = {}
        except (TransientError, SettingsError) as failure:  # a file that was good at start is being exchanged
            self._tell_unknown(str(failure), str(failure))
            known = {}
        self.discard(known)
        self._not_before = now + RETRY_S if self._asked else now
        return known

    def look(self, now: float) -> Mapping[str, str | None]:
        """As `TopicIds.of` the source topics, now and then; none in between. Asks without waiting for the answer.

        Raises:
            FatalError: The changelog is another one.
        """
        if self._looking is None:
            if now >= self._look_at:
                self._look_at = now + LOOK_EVERY_S
                self._looking = self._worker.submit(self._ask_ids, (*self._topics, self._changelog))
            return {}
        if not self._looking.done():
            return {}
        looked, self._looking = self._looking, None
        try:
            ids = looked.result()
        except (KafkaException, SettingsError):
            ids = {}
        self._fail_if_another(ids.pop(self._changelog, None))
        missing = tuple(topic for topic in self._topics if ids.get(topic) is None)
        if missing and not self._unknown.told(missing):
            remedy = "asked again; a topic that was deleted must be made anew, or named no longer"
            _log.warning("source_topics_not_told", topics=missing, remedy=remedy)
        return ids

    def _fail_if_another(self, changelog_id: str | None) -> None:
        """A producer may write on where the changelog was deleted and made anew, and the stores are of the former."""
        if changelog_id and self._changelog_id and changelog_id != self._changelog_id:
            raise FatalError(f"{self._changelog} was deleted and made anew: what was delivered is not known")

    def _ask_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        with self._admin.client() as client:
            return self._topic_ids.of(client, topics)

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
        if is_hopeless(error) and not is_gone(error):  # it was there a moment ago, as another broker said
            raise policy(error, "cannot find out where partitions begin") from None
        self._tell_unknown(error.code(), f"{error.name()}: {error.str()}")

    def _tell_unknown(self, why: Hashable, told: str) -> None:
        if not self._unknown.told(why):
            _log.warning("start_unknown", error=told, remedy="asked again until it is known")

    def _ask(self, partitions: Told) -> _Answers:
        """Ask the brokers; the ends last, so that they are not before what is committed.

        Ids of topics come first: when one is made anew meanwhile, the rest is taken for the former's, and the next look
        finds that out. The other way round an offset of the former would be committed as one of the new topic.

        Whether the group has begun comes before what it has committed: the other way round, a commit of another member
        between the two would show in the first alone, and the partitions would be taken for new ones.
        """
        with self._admin.client() as client:
            ids = self._topic_ids.of(client, {partition.topic for partition in partitions})
            there = {*partitions_of(client, (topic for topic, topic_id in ids.items() if topic_id is not None))}
            if not (asked := there.intersection(partitions)):
                return _Answers(ids, there, (), {}, {}, {}, {})
            begun = self._begun(client) if self._latest else ()
            stable = self._group.stable(asked)
            low, high = told_low_and_high(client, asked)
        doubted = _perhaps_cut(partitions, stable, ids, low, high)
        goes_on = self._goes_on_at(doubted)
        known = {partition: first for partition, first in low.items() if partition not in doubted.keys() - goes_on}
        return _Answers(ids, there, begun, stable, known, high, goes_on)

    def _goes_on_at(self, marks: Mapping[TopicPartition, Mark]) -> Offsets:
        return goes_on_at(self._connection, self._settings.kafka_group_id, marks) if marks else {}

    def _begun(self, client: AdminClient) -> set[str]:
        """The source topics of which the group has committed any offset, or had done so.

        Brokers forget the offsets of a group that was empty for long. One that has none at all, and a changelog, was
        forgotten: what came since must not be skipped. The changelog is asked for first, since a new group commits its
        first offsets before there is anything in it. They forget those of a topic that is deleted, too: one of which
        anything was settled was made anew, another one joins the others.
        """
        _, delivered = low_and_high(client, partitions_of(client, [self._changelog]))
        told = self._group.now(partitions_of(client, self._topics))
        begun = {partition.topic for partition, offset in told.items() if offset is not None}
        if not any(delivered.values()):
            return begun
        others = [topic for topic in self._topics if topic not in begun]
        forgotten = [topic for topic in others if not begun or self._was_settled(topic, delivered)]
        if forgotten:
            self._tell_forgotten(forgotten)
        return begun | {*forgotten}

    def _tell_forgotten(self, topics: Collection[str]) -> None:
        remedy = "none needed: all is read again, what was delivered is duplicate; see offsets.retention.minutes"
        _log.warning("offsets_forgotten", topics=topics, changelog=self._changelog, remedy=remedy)

    def _was_settled(self, topic: str, delivered: Offsets) -> bool:
        """Whether anything of a topic stands in the changelog, in any of the partitions that the topic may have had."""
        sources = [TopicPartition(topic, each.partition) for each, end in delivered.items() if end]
        return any(changelog.holds(self._connection, self._admin, self._settings, source) for source in sources)

    def _decide(self, answers: _Answers, consumer: Consumer) -> dict[TopicPartition, Start]:
        self._fail_if_fewer(answers)
        known: dict[TopicPartition, Start] = {}
        for partition in self._asked & answers.committed.keys() & answers.low.keys() & answers.high.keys():
            if (topic_id := answers.topic_ids.get(partition.topic)) is None:
                continue
            expected = self._expected(partition, topic_id) or answers.committed[partition]
            if expected is not None or not self._latest or partition.topic in answers.begun:
                low, high = answers.low[partition], answers.high[partition]
                first = _first(expected, topic_id, low, high, answers.goes_on.get(partition))
                start = known[partition] = Start(first, high, expected, topic_id)
                if expected is None:
                    self._unmarked[partition] = start
            elif partition.partition == 0:
                with self._admin.client() as admin:
                    _commit_latest(consumer, admin, partition.topic, topic_id)
        unsafe = {p: start for p, start in known.items() if self._is_unsafe(start, answers.committed[p])}
        self._commit_first(unsafe, consumer)
        return {partition: start for partition, start in known.items() if partition not in unsafe}

    def _fail_if_fewer(self, answers: _Answers) -> None:
        """A topic that was made anew with fewer partitions has its contacts in others than they were."""
        told = {partition.topic for partition in answers.there}
        for partition in self._asked - {*answers.there}:
            was, topic_id = self._pending[partition], answers.topic_ids.get(partition.topic)
            if partition.topic in told and topic_id is not None and was is not None and not was.is_of(topic_id):
                raise FatalError(f"{partition.topic} was made anew with fewer partitions: change KAFKA_GROUP_ID")

    def _expected(self, partition: TopicPartition, topic_id: str) -> Mark | None:
        """What is to come first whatever is committed, if that was told."""
        told = self._pending[partition]
        return None if told is not None and partition in self._gone and told.is_of(topic_id) else told

    def _is_unsafe(self, start: Start, committed: Mark | None) -> bool:
        """Whether the next process would begin behind it, now or once the topic has grown."""
        return self._latest if committed is None else committed.offset > start.offset

    def _commit_first(self, starts: Mapping[TopicPartition, Start], consumer: Consumer) -> None:
        """Commit where these begin, before they do.

        An offset of a former topic is known as such by its id. But it may have none; a broker that lost what others had
        cuts off the log of a topic that stays the same; and with the latest offsets it counts that there is none.
        """
        self._pending.update((partition, start.expected) for partition, start in starts.items())
        if starts:  # whether it worked shows in the next answers
            offsets = [marked(partition, start.mark) for partition, start in starts.items()]
            consumer.commit(offsets=offsets, asynchronous=True)


def _perhaps_cut(
    told: Told, committed: Told, topic_ids: Mapping[str, str | None], low: Offsets, high: Offsets
) -> dict[TopicPartition, Mark]:
    """Those marks before which the log may have been cut off, as far as brokers can tell.

    Of what is committed they do so when it is fetched, unless the log does not reach so far.
    """
    beyond = {
        key: mark for key, mark in committed.items() if mark is not None and mark.offset > high.get(key, math.inf)
    }
    marks = beyond | {key: mark for key, mark in told.items() if mark is not None}
    return {
        key: mark
        for key, mark in marks.items()
        if mark.epoch != NO_EPOCH and mark.offset >= low.get(key, math.inf) and mark.is_of(topic_ids[key.topic] or "")
    }


def _first(expected: Mark | None, topic_id: str, low: int, high: int, goes_on: int | None) -> int:
    """The first offset: the expected one, unless the partition does not have it any more, or not yet.

    Where the log was cut off before that, it is the one at which it goes on.
    """
    if expected is None or not expected.is_of(topic_id):
        return low
    if goes_on is not None and low <= goes_on < expected.offset:
        return goes_on
    return expected.offset if low <= expected.offset <= high else low


def _commit_latest(consumer: Consumer, admin: AdminClient, topic: str, topic_id: str) -> None:
    """Have a new group begin every partition of the topic at its end.

    Whoever has partition 0 does it for all of them in one request, and the others wait: so a partition without a
    committed offset, in a topic that has some, is one that was added later, and is read from its beginning.
    """
    partitions = consumer.list_topics(topic, timeout=OFFSETS_WITHIN_S).topics[topic].partitions
    every = [TopicPartition(topic, number) for number in partitions]
    ends = stable_ends(admin, every)
    commit = [marked(partition, Mark(end, topic_id)) for partition, end in ends.items()]
    consumer.commit(offsets=commit, asynchronous=True)  # whether it worked shows in the next answers
    _log.info("group_starts_at_latest", topic=topic, partitions=len(ends))
