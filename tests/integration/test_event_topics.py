"""Settling on a real Kafka: as one, once, and only by who owns the partitions; and reading the changelog back."""

import asyncio
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition as NativePartition

from consumer.adapters.kafka import changelog, connection, settling_producer
from consumer.adapters.kafka.connection import Connection, of_native
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.failures import REBALANCING
from consumer.adapters.kafka.group_offsets import GroupMember
from consumer.adapters.kafka.topics import ensure
from consumer.errors import FatalError, Rebalancing, SourceUnavailable
from consumer.model import DeadLetter, Record, TopicPartition
from consumer.ports import ChangelogChunk, ChangelogOvertaken
from consumer.settings import Settings
from tests.changelog_contract import entries_of, next_entries
from tests.kafka_clients import (
    WITHIN_S,
    Watcher,
    both,
    committed,
    delete_records,
    grow,
    produce,
    properties,
    proxied,
    read,
    remake,
    settings,
    settlement,
    transactional,
    watched,
)
from tests.kafka_cluster import KafkaCluster
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

NOW_MS = time.time_ns() // 1_000_000  # of this day: the brokers delete what is older than a week


async def not_asked(_: Sequence[NativePartition]) -> None:
    """Stands where nothing may be committed."""
    raise AssertionError("nothing may be committed here")


def names(kafka: KafkaCluster, partitions: int = 1, **more: str) -> Settings:
    """Settings whose topics exist."""
    topic = kafka.create_topic(partitions=partitions)
    audit, letters, log = (kafka.create_topic(partitions=partitions) for _ in range(3))
    return settings(
        kafka.bootstrap,
        topic,
        KAFKA_AUDIT_TOPIC=audit,
        KAFKA_DEAD_LETTER_TOPIC=letters,
        KAFKA_CHANGELOG_TOPIC=log,
        **more,
    )


@asynccontextmanager
async def opened(
    chosen: Settings,
    metadata: Callable[[Collection[TopicPartition]], Any],
    commit: Callable[[Sequence[NativePartition]], Any] = not_asked,
) -> AsyncIterator[KafkaEventTopics]:
    """Event topics, open until the block ends."""
    topics = KafkaEventTopics(
        Connection.of(chosen),
        chosen,
        transactional_id=chosen.kafka_group_id,
        group_metadata=metadata,
        commit=commit,
    )
    await topics.open()
    try:
        yield topics
    finally:
        await topics.close()


@asynccontextmanager
async def at_work(chosen: Settings) -> AsyncIterator[tuple[Watcher, KafkaEventTopics]]:
    """A source that has partitions, and the event topics that settle for it."""
    async with watched(chosen) as watcher, opened(chosen, watcher.source.group_metadata) as topics:
        await watcher.until(lambda: watcher.assigned)
        yield watcher, topics


def first_of(chosen: Settings) -> TopicPartition:
    """The first source partition."""
    return TopicPartition(chosen.kafka_source_topics[0], 0)


def iso(moment_ms: int) -> str:
    """ISO 8601 in UTC, with milliseconds."""
    return f"{datetime.fromtimestamp(moment_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{moment_ms % 1000:03d}Z"


def values(messages: list[Message]) -> list[bytes | None]:
    """What the records hold."""
    return [message.value() for message in messages]


async def entries_at_last(topics: KafkaEventTopics, partition: TopicPartition) -> list[tuple[bytes, Any]]:
    """As `entries`, once a partition that was just made has a leader."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with suppress(SourceUnavailable):
                return await entries(topics, partition)


async def entries(topics: KafkaEventTopics, partition: TopicPartition, start: int = 0) -> list[tuple[bytes, Any]]:
    """The changelog of a source partition, whole."""
    return await entries_of(topics.changelog(partition, start), start)


# -- settling


async def test_a_settlement_becomes_visible_as_one(kafka: KafkaCluster) -> None:
    """Audit events, dead letters, changelog and offsets are there; the changelog's position is told."""
    chosen = names(kafka)
    tp = first_of(chosen)
    letter = DeadLetter(Record(*tp, 3, 1000, b"k", b"v"), "not_decodable", "", NOW_MS)
    async with at_work(chosen) as (_, topics):
        positions = await topics.settle(
            settlement(
                {tp: 4},
                audit=[(b"a", b"1"), (b"b", b"2")],
                changelog=[(tp, b"x", b"1"), (tp, b"y", None), (tp, b"x", b"2")],
                dead_letters=[letter],
            )
        )
        assert positions == {tp: 3}
        again = await topics.settle(settlement({tp: 5}, changelog=[(tp, b"z", b"3")]))
        assert again == {tp: 5}, "past the control record of the first transaction"
    assert [(m.key(), m.value()) for m in read(kafka.bootstrap, chosen.kafka_audit_topic)] == [
        (b"a", b"1"),
        (b"b", b"2"),
    ]
    assert values(read(kafka.bootstrap, chosen.kafka_dead_letter_topic)) == [b"v"]
    topic = tp.topic.encode()
    assert [(m.key(), m.value()) for m in read(kafka.bootstrap, chosen.kafka_changelog_topic)] == [
        (topic + b"\0x", b"1"),
        (topic + b"\0y", None),
        (topic + b"\0x", b"2"),
        (topic + b"\0z", b"3"),
    ]
    assert committed(kafka.bootstrap, chosen, tp) == [5]


async def test_the_changelog_goes_to_the_partition_of_its_source(kafka: KafkaCluster) -> None:
    """Entries of source partition n are in changelog partition n, and each partition's position is its own."""
    chosen = names(kafka, partitions=3)
    one, two = (TopicPartition(first_of(chosen).topic, number) for number in (1, 2))
    async with at_work(chosen) as (_, topics):
        both_settled = settlement({one: 1, two: 1}, changelog=[(two, b"x", b""), (one, b"y", b""), (two, b"z", b"")])
        assert await topics.settle(both_settled) == {one: 1, two: 2}
    assert [m.partition() for m in read(kafka.bootstrap, chosen.kafka_changelog_topic, partitions=3)] == [1, 2, 2]


async def test_dead_letters_are_unchanged(kafka: KafkaCluster) -> None:
    """Key, value and headers are the record's, to the byte, also none at all and a whole megabyte."""
    chosen = names(kafka)
    headers = [("a", b"\xff"), ("a", None)]
    whole = Record(*first_of(chosen), 0, 1000, b"\x00k", b"\xff" * 1_000_000, headers)
    tombstone = Record(*first_of(chosen), 1, 1000, None, None)
    letters = [DeadLetter(whole, "not_decodable", "magic byte", NOW_MS), DeadLetter(tombstone, "any", "", NOW_MS + 1)]
    async with at_work(chosen) as (_, topics):
        await topics.settle(settlement({first_of(chosen): 2}, dead_letters=letters))
    first, second = read(kafka.bootstrap, chosen.kafka_dead_letter_topic)
    assert (first.key(), first.value()) == (b"\x00k", b"\xff" * 1_000_000)
    assert first.headers() == [
        ("a", b"\xff"),
        ("a", None),
        ("dead-letter.reason", b"not_decodable"),
        ("dead-letter.detail", b"magic byte"),
        ("dead-letter.source", f"{first_of(chosen).topic}/0/0".encode()),
        ("dead-letter.time", iso(NOW_MS).encode()),
        ("dead-letter.timestamp", iso(1000).encode()),
    ]
    assert (second.key(), second.value()) == (None, None)


async def test_the_dead_letter_of_an_old_record_is_young(kafka: KafkaCluster) -> None:
    """Its time is when it was given up: with the record's, the topic's retention could delete it at once."""
    chosen = names(kafka)
    letter = DeadLetter(Record(*first_of(chosen), 0, 1000, b"k", b"v"), "any", "", 1000)
    async with at_work(chosen) as (_, topics):
        await topics.settle(settlement({first_of(chosen): 1}, dead_letters=[letter]))
    (found,) = read(kafka.bootstrap, chosen.kafka_dead_letter_topic)
    assert NOW_MS <= found.timestamp()[1] <= time.time() * 1000


async def test_a_clock_far_ahead_is_named(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers refuse records from an hour ahead: nothing is lost, and the error says where to look."""
    chosen = names(kafka)
    tp = first_of(chosen)
    events = [(b"%d" % number, b"v") for number in range(2000)]
    async with at_work(chosen) as (_, topics):
        assert topics._producer is not None
        real = topics._producer._producer
        ahead = Interfering(real, "", lambda: None, lambda: None)
        monkeypatch.setattr(ahead, "produce", partial(real.produce, timestamp=NOW_MS + 7_200_000), raising=False)
        topics._producer._producer = ahead  # type: ignore[assignment]
        with pytest.raises(SourceUnavailable, match="is the clock of this machine"):
            await topics.settle(settlement({tp: 1}, audit=events))
        topics._producer._producer = real
        await in_the_end(lambda: topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")])))
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


@pytest.mark.parametrize("topic", ["audit", "changelog"])
async def test_why_a_record_was_refused_is_told_also_where_no_more_are_taken(kafka: KafkaCluster, topic: str) -> None:
    """Once brokers have refused one, the library takes none, and so not the last ones, whose answers tell why."""
    chosen = names(kafka)
    tp = first_of(chosen)
    refused = chosen.kafka_audit_topic if topic == "audit" else chosen.kafka_changelog_topic
    told = settlement({tp: 1}, audit=[(b"k", b"v")] * 3, changelog=[(tp, bytes(32), b"s")] * 3)
    async with at_work(chosen) as (_, topics):
        assert topics._producer is not None
        topics._producer._producer = _Slow(topics._producer._producer, refused)  # type: ignore[assignment]
        with pytest.raises(SourceUnavailable, match="is the clock of this machine"):
            await topics.settle(told)


class _Slow:
    """A producer whose clock is ahead, and that goes on once brokers have refused its first record of a topic."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._queue: Callable[..., None] = producer.produce
        self._topic = topic
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def produce(self, topic: str, *record: Any, **more: Any) -> None:
        ahead = {"timestamp": NOW_MS + 7_200_000} if topic == self._topic else {}
        self._queue(topic, *record, **more, **ahead)
        while ahead and self._begun:
            with suppress(BufferError):
                self._queue(topic, **ahead)
        self._begun = bool(ahead)


async def in_the_end(settle: Callable[[], Awaitable[object]]) -> None:
    """Settle again as often as the settler would: after a refused record the library needs an attempt to find back."""
    for _ in range(5):
        with suppress(SourceUnavailable):
            await settle()
            return
    raise AssertionError("never settled")


async def test_what_never_fits_is_fatal(kafka: KafkaCluster) -> None:
    """A record that the topic does not take stops the program with the remedy, and nothing becomes visible."""
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (_, topics):
        with pytest.raises(FatalError, match=r"max\.message\.bytes"):
            await topics.settle(settlement({tp: 1}, audit=[(b"small", b""), (b"large", os.urandom(1_500_000))]))
        assert committed(kafka.bootstrap, chosen, tp) == [-1001]
    assert read(kafka.bootstrap, chosen.kafka_audit_topic) == []


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_partitions_that_moved_away_are_not_settled(kafka: KafkaCluster, guarantee: str) -> None:
    """What the source does not own is refused before anything is sent."""
    chosen = names(kafka, KAFKA_GUARANTEE=guarantee)
    tp, foreign = first_of(chosen), TopicPartition(first_of(chosen).topic, 5)
    async with at_work(chosen) as (_, topics):
        with pytest.raises(Rebalancing, match="moved away"):
            await topics.settle(settlement({tp: 1, foreign: 1}, audit=[(b"k", b"v")], changelog=[(tp, b"x", b"old")]))
    assert written(kafka, chosen) == []


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_who_stood_still_settles_nothing(kafka: KafkaCluster, guarantee: str) -> None:
    """He owns the partitions as far as he knows; the group may have given them to somebody who settled since."""
    chosen = names(kafka, KAFKA_GUARANTEE=guarantee)
    tp = first_of(chosen)
    async with at_work(chosen) as (watcher, topics):
        watcher.source._poller.last_poll -= 3600
        with pytest.raises(Rebalancing, match="moved away"):
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")], changelog=[(tp, b"x", b"old")]))
    assert written(kafka, chosen) == []


def written(kafka: KafkaCluster, chosen: Settings) -> list[Message]:
    """All that stands in audit topic and changelog, aborted or not."""
    topics = [chosen.kafka_audit_topic, chosen.kafka_changelog_topic]
    return [message for topic in topics for message in read(kafka.bootstrap, topic, isolation="read_uncommitted")]


async def test_a_zombie_settles_nothing(kafka: KafkaCluster) -> None:
    """With the generation of before a rebalance the transaction is refused and leaves no trace."""
    chosen = names(kafka, partitions=2)
    stale: list[GroupMember] = []
    async with watched(chosen, revoke_timeout_s=0.1) as watcher:
        await watcher.until(lambda: len(watcher.positions) == 2)

        def metadata(partitions: Collection[TopicPartition]) -> GroupMember:
            return stale[0] if stale else watcher.source.group_metadata(partitions)

        async with opened(chosen, metadata) as topics, watched(chosen) as other:
            stale.append(watcher.source.group_metadata([]))
            await both(watcher, other, lambda: len(watcher.positions) == len(other.positions) == 1)
            (ours,) = watcher.positions
            attempt = settlement({ours: 3}, audit=[(b"k", b"v")], changelog=[(ours, b"x", b"1")])
            with pytest.raises(SourceUnavailable, match="GENERATION"):
                await topics.settle(attempt)
            assert read(kafka.bootstrap, chosen.kafka_audit_topic, partitions=2) == []
            assert committed(kafka.bootstrap, chosen, ours) == [-1001]
            stale.clear()
            await topics.settle(attempt)
            assert values(read(kafka.bootstrap, chosen.kafka_audit_topic, partitions=2)) == [b"v"]
            assert committed(kafka.bootstrap, chosen, ours) == [3]


def held_settlements(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have settlements wait until this is set."""
    goes_on = threading.Event()
    produces = settling_producer.SettlingProducer._produce
    monkeypatch.setattr(
        settling_producer.SettlingProducer, "_produce", lambda *given: goes_on.wait(WITHIN_S) and produces(*given)
    )
    return goes_on


async def test_a_topic_that_was_made_anew_waits_for_the_settlement_of_the_former(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group is the same, so it may succeed: what it commits is taken back before the new one is read."""
    chosen = names(kafka)
    tp = first_of(chosen)
    goes_on = held_settlements(monkeypatch)
    produce(kafka.bootstrap, tp.topic, [b"former"] * 20)
    async with at_work(chosen) as (watcher, topics):
        await watcher.until(lambda: len(watcher.records) == 20)
        watcher.forgets = False
        former = asyncio.create_task(topics.settle(settlement({tp: 20}, changelog=[(tp, b"k", b"former")])))
        await asyncio.to_thread(remake, kafka.bootstrap, tp.topic)
        produce(kafka.bootstrap, tp.topic, [b"new"] * 5)
        await watcher.until(lambda: watcher.lost)
        await watcher.stay(lambda: len(watcher.assigned) == 1, polls_for=2)
        goes_on.set()
        await former
        assert committed(kafka.bootstrap, chosen, tp) == [20]
        produce(kafka.bootstrap, tp.topic, [b"new"] * 25)
        watcher.lost[0].forgotten()
        await watcher.until(lambda: len(watcher.assigned) == 2)
        assert watcher.assigned[1].positions == {tp: 0}
        assert committed(kafka.bootstrap, chosen, tp) == [0]
        assert [key for key, _ in await entries(topics, tp)] == [b"k"]
        await watcher.until(lambda: len(watcher.records) == 50)
        assert watcher.values()[20:] == [b"new"] * 30


async def test_a_fenced_instance_stops(kafka: KafkaCluster) -> None:
    """Once another instance has taken over the transactional id, the former one never settles again."""
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (watcher, topics):
        await topics.settle(settlement({tp: 1}, audit=[(b"k", b"mine")]))
        async with opened(chosen, watcher.source.group_metadata) as successor:
            for _ in range(2):
                with pytest.raises(FatalError, match="another instance took over"):
                    await topics.settle(settlement({tp: 2}, audit=[(b"k", b"late")]))
            await successor.settle(settlement({tp: 2}, audit=[(b"k", b"theirs")]))
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"mine", b"theirs"]


async def test_a_name_that_the_library_never_settles_under_ends_the_process(kafka: KafkaCluster) -> None:
    """Settings refuse such names. With one all the same, nothing would be settled until somebody looks."""
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(replace(chosen, kafka_group_instance_id="pod-\u00e4")) as (_, topics):
        with pytest.raises(FatalError, match=r"KAFKA_GROUP_INSTANCE_ID .* must be printable ASCII"):
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_fatal_error_that_the_binding_lost_is_still_fatal(kafka: KafkaCluster, guarantee: str) -> None:
    """The log line of a fatal error, written while that error is being raised, may leave nothing but a SystemError."""
    chosen = names(kafka, KAFKA_GUARANTEE=guarantee)
    tp = first_of(chosen)

    def lose() -> None:
        with suppress(KafkaException, SystemError):
            real.flush(WITHIN_S)
        raise SystemError("<built-in method flush of cimpl.Producer object> returned NULL without setting an exception")

    async with at_work(chosen) as (watcher, topics), opened(chosen, watcher.source.group_metadata):
        assert topics._producer is not None
        real = topics._producer._producer
        topics._producer._producer = Interfering(real, "flush", lose, lambda: None)  # type: ignore[assignment]
        expected = "another instance took over" if guarantee == "exactly_once" else "the client gave up"
        with pytest.raises(FatalError, match=expected):
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
    assert committed(kafka.bootstrap, chosen, tp) == [-1001]


class Interfering:
    """A producer that does something before one of its calls, the first time."""

    def __init__(self, producer: Producer, call: str, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._producer = producer
        self._call = call
        self._before = before
        self._after = after
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            count = self.calls.count(name)
            if name == self._call and count == 1:
                self._before()
            if name == self._call and count == 2:
                self._after()
            return getattr(self._producer, name)(*arguments, **more)

        return call


@contextmanager
def stop_and_go(kafka: KafkaCluster, topics: KafkaEventTopics, call: str) -> Iterator[Interfering]:
    """Have the broker stand still from the first such call until the second, or the end: it is everybody's."""
    process = kafka._brokers[1].process
    assert process is not None
    assert topics._producer is not None

    def stop() -> None:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # until the last of its threads stands still

    interfering = Interfering(topics._producer._producer, call, stop, lambda: process.send_signal(signal.SIGCONT))
    topics._producer._producer = interfering  # type: ignore[assignment]
    try:
        yield interfering
    finally:
        process.send_signal(signal.SIGCONT)


def first_unstable(kafka: KafkaCluster, topic: str) -> int:
    """Where committed readers of the topic's first partition have to stop for now."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "r", "isolation.level": "read_committed"})
    bounds = consumer.get_watermark_offsets(NativePartition(topic, 0), WITHIN_S)
    assert bounds is not None
    return bounds[1]


async def test_a_call_that_never_comes_back_costs_a_producer_and_nothing_else(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the library waits for ever, the settlement is tried again by another producer, and is there once.

    What hung may come back at any time later: it is fenced.
    """
    monkeypatch.setattr(settling_producer, "HANGS_AFTER_S", 0.3)
    comes_back = threading.Event()
    chosen = names(kafka)
    tp = first_of(chosen)
    attempt = settlement({tp: 1}, audit=[(b"k", b"v")])
    async with at_work(chosen) as (_, topics):
        former = topics._producer
        assert former is not None
        former._producer = Interfering(former._producer, "send_offsets_to_transaction", comes_back.wait, lambda: None)  # type: ignore[assignment,arg-type]
        hung = [thread for thread in threading.enumerate() if thread.name == "kafka-offsets"]
        with pytest.raises(SourceUnavailable, match="hangs"):
            await topics.settle(attempt)
        assert first_unstable(kafka, chosen.kafka_audit_topic) == 2  # the record and its end: nobody waits
        await topics.settle(attempt)
        comes_back.set()
        await eventually(lambda: not any(thread.is_alive() for thread in hung), WITHIN_S)
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]
    assert committed(kafka.bootstrap, chosen, tp) == [1]


@pytest.mark.parametrize("code", sorted(REBALANCING | {KafkaError.FENCED_INSTANCE_ID}))
async def test_a_membership_of_the_past_is_no_reason_to_stop(kafka: KafkaCluster, code: int) -> None:
    """The group has moved on, or a static member has rejoined: the same settlement succeeds with the next one."""
    chosen = names(kafka)
    tp = first_of(chosen)

    def refuse() -> None:
        raise KafkaException(KafkaError(code))

    async with at_work(chosen) as (_, topics):
        assert topics._producer is not None
        real = topics._producer._producer
        refusing = Interfering(real, "send_offsets_to_transaction", refuse, lambda: None)
        topics._producer._producer = refusing  # type: ignore[assignment]
        with pytest.raises(Rebalancing):
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
        await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


async def test_an_unknown_commit_is_asked_for_again(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the broker does not answer a commit, it is neither aborted nor sent anew: it is there once."""
    monkeypatch.setattr(settling_producer, "CALL_S", 0.3)
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (_, topics):
        with stop_and_go(kafka, topics, "commit_transaction") as producer:
            positions = await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")], changelog=[(tp, b"x", b"1")]))
            assert positions == {tp: 1}
            assert producer.calls.count("commit_transaction") >= 2
            assert "abort_transaction" not in producer.calls
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]
    assert committed(kafka.bootstrap, chosen, tp) == [1]


@asynccontextmanager
async def cut_off_at(
    kafka: KafkaCluster, call: str, monkeypatch: pytest.MonkeyPatch, guarantee: str = "exactly_once"
) -> AsyncIterator[tuple[Settings, KafkaEventTopics]]:
    """Event topics whose producer loses the brokers for good before its first such call, as no other client does."""
    chosen = names(kafka, KAFKA_GUARANTEE=guarantee)
    behind_proxies = replace(chosen, kafka_bootstrap_servers=kafka.proxied_bootstrap)
    async with watched(chosen) as watcher, proxied(kafka) as proxies:

        def cut() -> None:
            for proxy in proxies:
                proxy.swallows = True

        async with opened(behind_proxies, watcher.source.group_metadata, watcher.source.commit) as topics:
            await watcher.until(lambda: watcher.assigned)
            monkeypatch.setattr(settling_producer, "CALL_S", 0.3)
            producer = topics._producer
            assert producer is not None
            producer._producer = Interfering(producer._producer, call, cut, lambda: None)  # type: ignore[assignment]
            topics._connection = producer._connection = Connection.of(chosen)
            yield chosen, topics


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_producer_that_has_lost_the_brokers_is_left_behind(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, guarantee: str
) -> None:
    """It may never find them again (librdkafka #5301). The next one ends its transaction, and nobody waits."""
    async with cut_off_at(kafka, "flush", monkeypatch, guarantee) as (chosen, topics):
        tp, former = first_of(chosen), topics._producer
        attempt = settlement({tp: 1}, audit=[(b"k", b"v")], changelog=[(tp, b"x", b"1")])
        with monkeypatch.context() as briefly:
            briefly.setattr(settling_producer, "SETTLE_WITHIN_S", 0.5)
            with pytest.raises(SourceUnavailable):
                await topics.settle(attempt)
        await topics.settle(attempt)
        assert topics._producer is not former
        assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]
        assert committed(kafka.bootstrap, chosen, tp) == [1]


async def test_a_producer_that_aborted_is_kept(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that leaves nothing open costs no producer."""
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (_, topics):
        former = topics._producer
        with monkeypatch.context() as briefly:
            briefly.setattr(settling_producer, "SETTLE_WITHIN_S", 0)
            briefly.setattr(settling_producer.SettlingProducer, "_flush", unavailable)
            with pytest.raises(SourceUnavailable):
                await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
        await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
        assert topics._producer is former
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


def unavailable(*_: object) -> None:
    """As if the brokers took nothing."""
    raise SourceUnavailable("as it happens")


async def test_a_commit_that_stays_unknown_to_this_client_alone_is_left_to_a_new_start(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing may be settled before it is known what became of it, and who alone has lost the brokers never learns."""
    async with cut_off_at(kafka, "commit_transaction", monkeypatch) as (chosen, topics):
        monkeypatch.setattr(settling_producer, "SETTLE_WITHIN_S", 2)
        monkeypatch.setattr(settling_producer, "TRANSACTION_TIMEOUT_MS", 0)
        monkeypatch.setattr(settling_producer, "RECONNECTS_WITHIN_S", 0.5)
        with pytest.raises(FatalError, match="not known whether it committed"):
            await topics.settle(settlement({first_of(chosen): 1}, audit=[(b"k", b"v")]))


WANTS_ABORT = KafkaError(KafkaError.UNKNOWN, "as the library marks what it does not expect", txn_requires_abort=True)


@pytest.mark.parametrize("error", [KafkaError(KafkaError.INVALID_TXN_STATE), WANTS_ABORT])
async def test_a_commit_that_fails_without_saying_whether_it_happened_is_not_settled_again(
    kafka: KafkaCluster, error: KafkaError
) -> None:
    """It may have happened: another producer would settle it twice, and a new start reads what is there.

    Nor is it by a settlement that waited for its turn meanwhile.
    """
    chosen = names(kafka)
    tp = first_of(chosen)

    def commits_and_fails() -> None:
        real.commit_transaction(WITHIN_S)
        raise KafkaException(error)

    async with at_work(chosen) as (_, topics):
        assert topics._producer is not None
        real = topics._producer._producer
        failing = Interfering(real, "commit_transaction", commits_and_fails, lambda: None)
        topics._producer._producer = failing  # type: ignore[assignment]
        attempt = settlement({tp: 1}, audit=[(b"k", b"v")])
        outcomes = await asyncio.gather(*(topics.settle(attempt) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [FatalError] * 3
        assert "not known whether it committed" in str(outcomes[0])
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


async def test_a_commit_that_fails_and_can_be_aborted_is_settled_again(kafka: KafkaCluster) -> None:
    """That the abort succeeds says that nothing was committed."""
    chosen = names(kafka)
    tp = first_of(chosen)

    def fails() -> None:
        raise KafkaException(WANTS_ABORT)

    async with at_work(chosen) as (_, topics):
        assert topics._producer is not None
        failing = Interfering(topics._producer._producer, "commit_transaction", fails, lambda: None)
        topics._producer._producer = failing  # type: ignore[assignment]
        with pytest.raises(SourceUnavailable):
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
        await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


async def test_who_was_fenced_does_not_fence_back(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who took over goes on; the former one ends, also where it learns of that only when it aborts."""
    chosen = names(kafka)

    def fenced() -> None:
        raise KafkaException(KafkaError(KafkaError._FENCED, "as an abort is told", True))

    monkeypatch.setattr(settling_producer.SettlingProducer, "_flush", unavailable)
    async with at_work(chosen) as (watcher, topics):
        former = topics._producer
        assert former is not None
        former._producer = Interfering(former._producer, "abort_transaction", fenced, lambda: None)  # type: ignore[assignment]
        async with opened(chosen, watcher.source.group_metadata) as successor:
            with pytest.raises(FatalError, match="another instance took over"):
                await topics.settle(settlement({first_of(chosen): 1}, audit=[(b"k", b"former")]))
            assert topics._producer is former
            monkeypatch.undo()
            await successor.settle(settlement({first_of(chosen): 1}, audit=[(b"k", b"v")]))
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


class Full(Interfering):
    """A producer whose queue has no room left."""

    def produce(self, *_: Any, **__: Any) -> None:
        del self  # the library's has no frame in which it could be kept
        raise BufferError


async def test_a_producer_that_is_left_behind_is_gone_at_once(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it may be sent any more, nor may it end wherever the garbage collector happens to find it."""
    gone: list[str] = []
    monkeypatch.setattr(settling_producer, "RECONNECTS_WITHIN_S", 0.5)
    gc.disable()
    try:
        async with cut_off_at(kafka, "poll", monkeypatch, "at_least_once") as (chosen, topics):
            monkeypatch.setattr(settling_producer, "SETTLE_WITHIN_S", 0.5)
            assert topics._producer is not None
            full = Full(topics._producer._producer, "", lambda: None, lambda: None)
            _ = weakref.ref(full, lambda _: gone.append(threading.current_thread().name))
            topics._producer._producer = full  # type: ignore[assignment]
            del full
            with pytest.raises(SourceUnavailable, match="no more records") as told:
                await topics.settle(settlement({first_of(chosen): 1}, audit=[(b"k", b"v")]))
            await eventually(lambda: bool(gone), WITHIN_S)
            assert told.value.__traceback__ is not None
    finally:
        gc.enable()
    assert gone == ["kafka-offsets"]


async def test_a_commit_of_which_one_broker_does_not_tell_is_asked_for_again(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator alone may be away, for however long: this client reaches brokers, as others do."""
    chosen = names(kafka)
    tp = first_of(chosen)

    def silent() -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, retriable=True))

    async with at_work(chosen) as (_, topics):
        monkeypatch.setattr(settling_producer, "TRANSACTION_TIMEOUT_MS", 0)
        assert topics._producer is not None
        silently = Interfering(topics._producer._producer, "commit_transaction", silent, lambda: None)
        topics._producer._producer = silently  # type: ignore[assignment]
        with monkeypatch.context() as briefly:
            briefly.setattr(settling_producer.SettlingProducer, "_insist", lambda _, call, __: call())
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
        assert silently.calls.count("commit_transaction") == 2
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


async def test_a_commit_that_is_unknown_to_everybody_is_asked_for_again(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage, however long, is no reason to stop: the brokers will tell."""
    monkeypatch.setattr(settling_producer, "CALL_S", 0.3)
    monkeypatch.setattr(connection, "ASKED_AGAIN_FOR_S", 0.5)
    monkeypatch.setattr(settling_producer, "RECONNECTS_WITHIN_S", 0.5)
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (_, topics):
        monkeypatch.setattr(settling_producer, "SETTLE_WITHIN_S", 0.2)
        monkeypatch.setattr(settling_producer, "TRANSACTION_TIMEOUT_MS", 0)
        with stop_and_go(kafka, topics, "commit_transaction") as producer:
            await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
            assert producer.calls.count("commit_transaction") >= 2
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


async def test_an_outage_before_the_commit_leaves_nothing_behind(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settlement that the brokers do not take in time may be tried again, and is then there once."""
    monkeypatch.setattr(settling_producer, "CALL_S", 0.3)
    monkeypatch.setattr(settling_producer, "SETTLE_WITHIN_S", 0.5)
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (_, topics):
        with stop_and_go(kafka, topics, "flush") as standing:
            standing._after = lambda: None
            with pytest.raises(SourceUnavailable):
                await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
        monkeypatch.setattr(settling_producer, "SETTLE_WITHIN_S", WITHIN_S)
        await topics.settle(settlement({tp: 1}, audit=[(b"k", b"v")]))
    assert values(read(kafka.bootstrap, chosen.kafka_audit_topic)) == [b"v"]


async def test_a_full_queue_is_waited_for(kafka: KafkaCluster, tmp_path: Any) -> None:
    """More records than the producer holds at a time are settled all the same."""
    small = properties(tmp_path, queue_buffering_max_messages=100)
    chosen = names(kafka, KAFKA_PROPERTIES_FILE=small)
    tp = first_of(chosen)
    events = [(b"%d" % number, b"v") for number in range(1000)]
    async with at_work(chosen) as (_, topics):
        await topics.settle(settlement({tp: 1}, audit=events))
    assert [m.key() for m in read(kafka.bootstrap, chosen.kafka_audit_topic)] == [key for key, _ in events]


# -- without transactions


async def test_at_least_once_commits_after_everything_is_delivered(kafka: KafkaCluster) -> None:
    """By the time the offsets are committed, readers see audit, dead letters and changelog."""
    chosen = names(kafka, KAFKA_GUARANTEE="at_least_once")
    tp = first_of(chosen)
    seen: list[Any] = []

    async def commit(offsets: Sequence[NativePartition]) -> None:
        found = await asyncio.to_thread(read, kafka.bootstrap, chosen.kafka_audit_topic)
        seen.append((values(found), {of_native(each): each.offset for each in offsets}))
        await watcher.source.commit(offsets)

    letter = DeadLetter(Record(*tp, 0, 1000, b"k", b"v"), "not_decodable", "", NOW_MS)
    async with watched(chosen) as watcher, opened(chosen, watcher.source.group_metadata, commit) as topics:
        await watcher.until(lambda: watcher.assigned)
        positions = await topics.settle(
            settlement({tp: 1}, audit=[(b"k", b"v")], changelog=[(tp, b"x", b"1")], dead_letters=[letter])
        )
        assert positions == {tp: 1}
        assert await topics.settle(settlement({tp: 2}, changelog=[(tp, b"x", b"2")])) == {tp: 2}
    assert seen == [([b"v"], {tp: 1}), ([b"v"], {tp: 2})]
    assert committed(kafka.bootstrap, chosen, tp) == [2]
    assert values(read(kafka.bootstrap, chosen.kafka_dead_letter_topic)) == [b"v"]


async def test_at_least_once_does_not_commit_what_was_not_delivered(kafka: KafkaCluster) -> None:
    """A record that the brokers refuse keeps the offsets where they were."""
    chosen = names(kafka, KAFKA_GUARANTEE="at_least_once")
    tp = first_of(chosen)
    async with opened(chosen, lambda _: None) as topics:
        with pytest.raises(FatalError, match=r"max\.message\.bytes"):
            await topics.settle(settlement({tp: 1}, audit=[(b"large", os.urandom(1_500_000)), (b"small", b"")]))


# -- the changelog


async def test_the_changelog_gives_back_what_was_settled(kafka: KafkaCluster) -> None:
    """Entries come in order, removals as None, of their source topic alone, and none of an aborted transaction."""
    chosen = names(kafka)
    tp = first_of(chosen)
    foreign = TopicPartition(tp.topic + "-other", 0)
    async with at_work(chosen) as (_, topics):
        await topics.settle(settlement({tp: 1}, changelog=[(tp, b"x", b"1"), (foreign, b"x", b"9"), (tp, b"y", b"2")]))
        with pytest.raises(FatalError):
            await topics.settle(
                settlement({tp: 2}, audit=[(b"k", os.urandom(1_500_000))], changelog=[(tp, b"x", b"aborted")])
            )
        await topics.settle(settlement({tp: 2}, changelog=[(tp, b"x", None)]))
        assert await entries(topics, tp) == [(b"x", b"1"), (b"y", b"2"), (b"x", None)]
        assert await entries(topics, foreign) == [(b"x", b"9")]


async def test_the_changelog_goes_on_from_a_position(kafka: KafkaCluster) -> None:
    """From where settling said it stands only later entries come; from the very end, none and at once."""
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (_, topics):
        first = await topics.settle(settlement({tp: 1}, changelog=[(tp, b"x", b"1")]))
        await topics.settle(settlement({tp: 2}, changelog=[(tp, b"y", b"2")]))
        chunks = [chunk async for chunk in topics.changelog(tp, first[tp])]
        assert [entry for chunk in chunks for entry in chunk.entries] == [(b"y", b"2")]
        assert chunks[-1].position == 4, "past the last control record"
        assert [chunk async for chunk in topics.changelog(tp, 4)] == []


async def test_a_long_changelog_comes_in_chunks(kafka: KafkaCluster) -> None:
    """Chunks are of bounded size, and each names the position that a store has with it."""
    chosen = names(kafka)
    tp = first_of(chosen)
    key = tp.topic.encode() + b"\0k"
    produce(kafka.bootstrap, chosen.kafka_changelog_topic, (b"%d" % number for number in range(25_000)), key=key)
    async with opened(chosen, lambda _: None) as topics:
        position, expected = 0, 0
        async for chunk in topics.changelog(tp, 0):
            assert len(chunk.entries) <= 10_000
            position += len(chunk.entries)
            assert chunk.position == position
            for _, value in chunk.entries:
                assert value == b"%d" % expected
                expected += 1
        assert expected == 25_000


async def test_the_next_chunk_is_read_while_this_one_is_written(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers and disk work at the same time; only one chunk is ahead."""
    chosen = names(kafka)
    tp = first_of(chosen)
    key = tp.topic.encode() + b"\0k"
    produce(kafka.bootstrap, chosen.kafka_changelog_topic, (b"%d" % number for number in range(25_000)), key=key)
    read_so_far = threading.Semaphore(0)
    reading = changelog._Reader.next

    def counted(reader: changelog._Reader) -> ChangelogChunk:
        chunk = reading(reader)
        if chunk.entries:
            read_so_far.release()
        return chunk

    monkeypatch.setattr(changelog._Reader, "next", counted)
    async with opened(chosen, lambda _: None) as topics:
        chunks = topics.changelog(tp, 0)
        await next_entries(chunks)
        for _ in range(2):
            assert await asyncio.to_thread(read_so_far.acquire, timeout=WITHIN_S)
        assert not read_so_far.acquire(blocking=False)
        await chunks.aclose()


@pytest.mark.parametrize(
    ("end", "found", "position"),
    [("commit", [b"before", b"open"], 2), ("abort", [b"before"], 3)],  # 3 is past the control record
)
async def test_the_changelog_waits_for_an_open_transaction(
    kafka: KafkaCluster, end: str, found: list[bytes], position: int
) -> None:
    """What is undecided when the reading begins is read once it is committed, and left out once it is aborted.

    Until then empty stretches tell that nothing comes.
    """
    chosen = names(kafka)
    tp = first_of(chosen)
    log, key = chosen.kafka_changelog_topic, tp.topic.encode() + b"\0k"
    produce(kafka.bootstrap, log, [b"before"], key=key)
    other = transactional(kafka.bootstrap, log)
    other.begin_transaction()
    other.produce(log, b"open", key)
    assert other.flush(WITHIN_S) == 0
    async with opened(chosen, lambda _: None) as topics:
        chunks = topics.changelog(tp, 0)
        first = await next_entries(chunks)
        assert first == ChangelogChunk([(b"k", b"before")], position=1, end=2)
        assert [await anext(chunks) for _ in range(3)] == [ChangelogChunk([], position=1, end=2)] * 3
        getattr(other, f"{end}_transaction")(WITHIN_S)
        gathered = [first, *[chunk async for chunk in chunks]]
    assert [value for chunk in gathered for _, value in chunk.entries] == found
    assert gathered[-1].position == position


async def test_a_reader_that_does_not_find_the_brokers_gives_up(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library may forget all brokers (librdkafka #5301): the client of the next attempt finds them."""
    chosen = names(kafka)
    tp = first_of(chosen)
    produce(kafka.bootstrap, chosen.kafka_changelog_topic, [b"v"], key=tp.topic.encode() + b"\0k")
    async with proxied(kafka) as proxies, opened(chosen, lambda _: None) as topics:
        for proxy in proxies:
            proxy.swallows = True
        with monkeypatch.context() as cut_off:
            cut_off.setattr(changelog, "GIVES_UP_AFTER_S", 0.5)
            cut_off.setattr(topics, "_connection", Connection(kafka.proxied_bootstrap))
            with pytest.raises(SourceUnavailable, match="nothing of the changelog came"):
                await entries(topics, tp)
        assert await entries(topics, tp) == [(b"k", b"v")]


async def test_a_position_that_the_changelog_does_not_have_is_told(kafka: KafkaCluster) -> None:
    """Beyond the end, and before the beginning, the store must be rebuilt; from zero, what there is comes."""
    chosen = names(kafka)
    tp = first_of(chosen)
    log = TopicPartition(chosen.kafka_changelog_topic, 0)
    produce(kafka.bootstrap, log.topic, [b"0", b"1", b"2", b"3"], key=tp.topic.encode() + b"\0k")
    delete_records(kafka.bootstrap, log, 2)
    async with opened(chosen, lambda _: None) as topics:
        for start in (1, 5):
            with pytest.raises(ChangelogOvertaken):
                await entries(topics, tp, start)
        assert await entries(topics, tp) == [(b"k", b"2"), (b"k", b"3")]


async def test_reading_the_changelog_leaves_the_group_alone(kafka: KafkaCluster) -> None:
    """A member's partitions stay where they are while changelogs are read."""
    chosen = names(kafka)
    tp = first_of(chosen)
    async with at_work(chosen) as (watcher, topics):
        await topics.settle(settlement({tp: 1}, changelog=[(tp, b"x", b"1")]))
        await asyncio.gather(*(entries(topics, tp) for _ in range(3)))
        await watcher.stay(lambda: not watcher.revoked and not watcher.lost, polls_for=0.3)
        assert await topics.settle(settlement({tp: 2}, changelog=[(tp, b"x", b"2")])) == {tp: 3}


async def test_the_changelog_follows_a_source_that_got_more_partitions(kafka: KafkaCluster) -> None:
    """Its missing partition is an outage, not an empty changelog, and is there when it is asked for again."""
    chosen = settings(kafka.bootstrap, kafka.create_topic())
    await ensure(Connection.of(chosen), chosen)
    grow(kafka.bootstrap, chosen.kafka_source_topics[0], 3)
    async with opened(chosen, lambda _: None) as topics:
        new = TopicPartition(chosen.kafka_source_topics[0], 2)
        with pytest.raises(SourceUnavailable, match="changelog"):
            await entries(topics, new)
        assert await entries(topics, new) == []


async def test_a_producer_at_work_settles_for_a_partition_that_was_added(kafka: KafkaCluster) -> None:
    """It knows the changelog as it was, and would look again minutes later."""
    chosen = settings(kafka.bootstrap, kafka.create_topic())
    await ensure(Connection.of(chosen), chosen)
    async with at_work(chosen) as (_, topics):
        first = first_of(chosen)
        new = TopicPartition(first.topic, 2)
        await topics.settle(settlement({first: 0}, changelog=[(first, b"x", b"1")]))
        grow(kafka.bootstrap, first.topic, 3)
        with pytest.raises(SourceUnavailable, match="had no partition"):
            await entries(topics, new)
        assert await entries_at_last(topics, new) == []
        await topics.settle(settlement({first: 0}, changelog=[(new, b"x", b"1")]))
        assert await entries(topics, new) == [(b"x", b"1")]
