"""The group consumer on a real Kafka: what it hands over, who owns what, and where a partition begins."""

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition as NativePartition
from structlog.testing import capture_logs

from consumer.adapters.kafka import group_offsets, orphans, poller, reach, starts, static_name
from consumer.adapters.kafka.changelog import prefix_of
from consumer.adapters.kafka.connection import Connection, native
from consumer.adapters.kafka.group_offsets import GroupOffsets, Mark, Told
from consumer.adapters.kafka.handoff import MAX_UNTAKEN
from consumer.adapters.kafka.poller import STEADY, Poller
from consumer.adapters.kafka.topics import topic_id
from consumer.adapters.kafka.watermarks import low_and_high
from consumer.errors import FatalError, Rebalancing, SettingsError, SourceUnavailable
from consumer.model import Record, TopicPartition
from consumer.ports import Assigned
from tests.kafka_clients import (
    WITHIN_S,
    Watcher,
    both,
    commit,
    committed,
    delete_records,
    forget,
    grow,
    mock_cluster_with_errors,
    produce,
    properties,
    proxied,
    settings,
    transactional,
    watched,
)
from tests.kafka_cluster import KafkaCluster
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

OFFSET_FETCH = 9
"""Its API key."""


@pytest.fixture
def attentive(tmp_path: Path) -> str:
    """Properties with which members notice within moments that others came or went."""
    return properties(tmp_path, heartbeat_interval_ms=200)


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Values by which records tell their order."""
    return [b"%d" % number for number in range(start, start + count)]


# -- what is handed over


async def test_records_come_in_order_as_they_are(kafka: KafkaCluster) -> None:
    """Key, value, headers and timestamp are those of the topic; the end is told once it is reached."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, [b"first"], timestamp=1234567890123, headers=[("a", b"1"), ("a", None)])
    produce(kafka.bootstrap, topic, [None, b"last"], key=None)
    tp = TopicPartition(topic, 0)
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: watcher.ends)
        first, second, third = watcher.records
        assert first == Record(topic, 0, 0, 1234567890123, b"key", b"first", [("a", b"1"), ("a", None)])
        assert (second.offset, second.key, second.value, second.headers) == (1, None, None, ())
        assert third.value == b"last"
        assert watcher.ends == {tp: 3}
        assert (watcher.assigned[0].positions, watcher.assigned[0].ends) == ({tp: 0}, {tp: 3})
        assert watcher.source.connected


async def test_every_partition_keeps_its_order(kafka: KafkaCluster) -> None:
    """Thousands of records of several partitions come without a hole, each partition in its order."""
    topic = kafka.create_topic(partitions=3)
    for partition in range(3):
        produce(kafka.bootstrap, topic, numbered(5000), partition=partition)
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: len(watcher.records) == 15000)
    for partition in range(3):
        assert [r.value for r in watcher.records if r.partition == partition] == numbered(5000)


async def test_an_assigned_partition_waits_to_be_resumed(kafka: KafkaCluster) -> None:
    """Before the first resume there are no records."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, [b"early"])
    async with watched(settings(kafka.bootstrap, topic), resume=False) as watcher:
        await watcher.until(lambda: watcher.assigned)
        await watcher.stay(lambda: not watcher.records, polls_for=0.7)
        watcher.source.resume(list(watcher.positions))
        await watcher.until(lambda: watcher.values() == [b"early"])


async def test_aborted_records_do_not_come(kafka: KafkaCluster) -> None:
    """Of a transaction that was aborted nothing comes, and the end is past its control record."""
    topic = kafka.create_topic()
    producer = transactional(kafka.bootstrap, topic)
    for value, end in [(b"aborted", producer.abort_transaction), (b"kept", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(WITHIN_S)
        end(WITHIN_S)
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: watcher.ends.get(TopicPartition(topic, 0)) == 4)
        assert watcher.values() == [b"kept"]


async def test_a_paused_partition_stays_ours_and_goes_on_where_it_stopped(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Paused for longer than the group waits for a silent member, nothing is revoked, and no record is lost."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(3000))
    impatient = properties(tmp_path, session_timeout_ms=4000, max_poll_interval_ms=4000, heartbeat_interval_ms=200)
    async with watched(settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=impatient)) as watcher:
        await watcher.until(lambda: watcher.records)
        watcher.source.pause(list(watcher.positions))
        await watcher.stay(lambda: not watcher.revoked and not watcher.lost, polls_for=5)
        before = len(watcher.records)
        produce(kafka.bootstrap, topic, numbered(1000, 3000))
        await watcher.stay(lambda: len(watcher.records) == before, polls_for=0.3)
        watcher.source.resume(list(watcher.positions))
        await watcher.until(lambda: len(watcher.records) == 4000)
        assert watcher.values() == numbered(4000)
        assert len(watcher.assigned) == 1


async def test_a_pause_is_heard_soon(kafka: KafkaCluster) -> None:
    """However much of a partition the library has at hand, few records of it come after the pause."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(30000))
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: len(watcher.records) >= 5000)
        before = len(watcher.records)
        await eventually(lambda: watcher.source._handoff._untaken == MAX_UNTAKEN, WITHIN_S)
        watcher.source.pause(list(watcher.positions))
        await watcher.stay(lambda: len(watcher.records) <= before + 3000, polls_for=0.7)


async def test_many_pauses_lose_nothing(kafka: KafkaCluster) -> None:
    """Pausing and resuming in the middle of the stream, again and again, leaves no hole and repeats nothing."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(30000))
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        for round_ in itertools.count(1):
            await watcher.until(lambda: len(watcher.records) >= min(30000, 900 * round_))  # noqa: B023 -- awaited at once
            if len(watcher.records) >= 30000:
                break
            watcher.source.pause(list(watcher.positions))
            watcher.source.resume(list(watcher.positions))
        assert watcher.values() == numbered(30000)


async def test_polls_that_nobody_takes_are_few(kafka: KafkaCluster) -> None:
    """When the pipeline does not take events, the poll thread goes on living but stops reading ahead."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(20000))
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: watcher.records)
        seen = watcher.source.last_poll
        while watcher.source.last_poll < seen + 0.5:  # noqa: ASYNC110 -- what is waited for happens in the poll thread
            await asyncio.sleep(0)
        assert watcher.source._handoff._events.qsize() == 2
        await watcher.until(lambda: len(watcher.records) == 20000)


# -- ownership


async def test_a_revoked_partition_moves_once_it_is_released(kafka: KafkaCluster, attentive: str) -> None:
    """The new owner begins where the old one committed while the revocation waited for its release."""
    topic = kafka.create_topic(partitions=2)
    for partition in range(2):
        produce(kafka.bootstrap, topic, numbered(10), partition=partition)
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive)
    async with watched(chosen) as old:
        await old.until(lambda: len(old.records) == 20)
        async with watched(chosen) as new:
            await both(old, new, lambda: old.revoked)
            (moving,) = old.revoked[0].partitions
            assert not new.positions
            await old.source.commit([native(moving, 7)])
            old.revoked[0].release()
            await both(old, new, lambda: new.positions)
            assert new.positions == {moving: 7}
            assert list(old.positions) == [TopicPartition(topic, 1 - moving.partition)]
            with pytest.raises(SourceUnavailable, match="moved away"):
                old.source.group_metadata([moving])
            assert old.source.group_metadata(list(old.positions))


async def test_a_member_without_partitions_is_told_that_it_has_none(kafka: KafkaCluster, attentive: str) -> None:
    """More members than partitions: the one that gets nothing hears so, and takes over when the other leaves."""
    topic = kafka.create_topic()
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive)
    async with AsyncExitStack() as leaving:
        busy = await leaving.enter_async_context(watched(chosen))
        await busy.until(lambda: busy.positions)
        async with watched(chosen) as idle:
            await both(busy, idle, lambda: idle.assigned)
            assert idle.assigned == [Assigned({}, {})]
            await leaving.aclose()
            await idle.until(lambda: idle.positions)


async def test_a_revocation_does_not_wait_for_ever(kafka: KafkaCluster, attentive: str) -> None:
    """Unreleased at its deadline, a partition moves all the same, and the old owner hears that it is lost."""
    topic = kafka.create_topic(partitions=2)
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive)
    async with watched(chosen, revoke_timeout_s=0.3) as old:
        await old.until(lambda: len(old.positions) == 2)
        async with watched(chosen) as new:
            await both(old, new, lambda: old.lost and new.positions)
            assert old.lost[0].partitions == old.revoked[0].partitions == list(new.positions)


async def test_a_revocation_has_its_time_whenever_the_coordinator_answered_last(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """Also the whole time for which anybody is sure: what passed since the last answer is not taken off it."""
    topic = kafka.create_topic(partitions=2)
    brief = properties(tmp_path, session_timeout_ms=9000, heartbeat_interval_ms=200)
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=brief)
    with capture_logs() as logs:
        async with watched(chosen, revoke_timeout_s=6.0) as old:
            await old.until(lambda: len(old.positions) == 2)
            async with watched(chosen) as new:
                await both(old, new, lambda: old.lost)
    (said,) = [each for each in logs if each["event"] == "revoked_without_release"]
    assert 5.4 <= said["seconds"] < 9, "of 6.0; without its whole time, 4 s and less"


async def test_a_member_that_was_silent_for_too_long_hears_that_it_lost_everything(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past max.poll.interval the partitions are lost, without a release, and come back as a new assignment."""
    topic = kafka.create_topic()
    impatient = properties(tmp_path, session_timeout_ms=4000, max_poll_interval_ms=4000, heartbeat_interval_ms=200)
    async with watched(settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=impatient)) as watcher:
        await watcher.until(lambda: watcher.assigned)
        with monkeypatch.context() as stuck:
            stuck.setattr("consumer.adapters.kafka.handoff.MAX_UNTAKEN", 0)
            begun = watcher.source.last_poll
            await watcher.until(lambda: watcher.source.last_poll > begun + 6)
        await watcher.until(lambda: len(watcher.assigned) >= 2)
        assert watcher.lost[0].partitions == [TopicPartition(topic, 0)]
        assert not watcher.revoked


async def test_a_process_that_stood_still_starts_over(kafka: KafkaCluster) -> None:
    """It is sure of nothing until it has forgotten what it had; what the group left it begins anew."""
    topic = kafka.create_topic()
    tp = TopicPartition(topic, 0)
    produce(kafka.bootstrap, topic, [b"first"])
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: watcher.records)
        assert watcher.source.owns(tp)
        watcher.forgets = False
        watcher.source._poller.last_poll -= 3600
        assert not watcher.source.owns(tp)
        with pytest.raises(Rebalancing, match="moved away"):
            watcher.source.group_metadata([tp])
        await watcher.until(lambda: watcher.lost)
        assert watcher.starting == {tp}  # told before: without it, what is left would be taken for all there is
        await watcher.stay(lambda: len(watcher.assigned) == 1, polls_for=0.7)  # a settlement may be under way
        watcher.lost[0].forgotten()
        await watcher.until(lambda: len(watcher.assigned) == 2)
        assert watcher.lost[0].partitions == [tp]
        assert watcher.source.owns(tp)
        assert watcher.source.group_metadata([tp])
        await watcher.until(lambda: watcher.values() == [b"first", b"first"])
        produce(kafka.bootstrap, topic, [b"second"])
        await watcher.until(lambda: watcher.values()[2:] == [b"second"])


JOINS_AND_STANDS_STILL = """
import os, signal, sys
from confluent_kafka import Consumer
bootstrap, topic, group = sys.argv[1:]
member = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "session.timeout.ms": 3000, "log_level": 0,
                   "heartbeat.interval.ms": 300, "partition.assignment.strategy": "cooperative-sticky"})
joined = []
member.subscribe([topic], on_assign=lambda *_: joined.append(1))
while not joined:
    member.poll(0.1)
print("joined", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


async def test_who_joins_again_is_not_sure_of_what_he_had(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have it by now, and he is not told: the group's answers to who joins are no sign that he is a member.

    A member that stands still delays the group, so that the joining takes as long as its session.
    """
    brief = properties(tmp_path, session_timeout_ms=3000, heartbeat_interval_ms=300)
    topic = kafka.create_topic()
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=brief)
    behind_proxies = settings(kafka.proxied_bootstrap, topic, KAFKA_PROPERTIES_FILE=brief)
    async with proxied(kafka) as proxies, watched(behind_proxies) as late:
        await late.until(lambda: late.positions)
        for proxy in proxies:
            proxy.swallows = True
        async with watched(chosen) as other:
            await both(late, other, lambda: late.lost and other.positions)
            member = await asyncio.create_subprocess_exec(
                sys.executable, "-c", JOINS_AND_STANDS_STILL, kafka.bootstrap, topic, chosen.kafka_group_id,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert member.stdout is not None
            joined = asyncio.create_task(member.stdout.readline())
            await both(late, other, joined.done)
            seen = states_and_sureness(late, monkeypatch)
            for proxy in proxies:
                proxy.heal()
            await both(late, other, lambda: len(late.assigned) > 1)
            member.kill()
            await member.wait()
    late_ones_left_out = itertools.dropwhile(lambda each: each[0] == STEADY, seen)  # of before, told after a probe
    while_joining = [sure for _, sure in itertools.takewhile(lambda each: each[0] != STEADY, late_ones_left_out)]
    assert len(while_joining) > 5
    assert not any(while_joining)


def states_and_sureness(of: Watcher, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What each statistics from now on say of the joining, and whether the lease holds with them."""
    lease, seen = of.source._poller._lease, list[tuple[str, bool]]()
    observe = lease.observe

    def noted(statistics: Mapping[str, Any], now: float, **more: bool) -> None:
        observe(statistics, now, **more)
        seen.append((statistics["cgrp"]["join_state"], lease.holds(now)))

    monkeypatch.setattr(lease, "observe", noted)
    return seen


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_member_that_is_cut_off_owns_nothing_once_another_one_does(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """No answer comes from the brokers, and nothing tells it so: it counts the time itself. Healed, they share."""
    monkeypatch.setattr(poller, "SESSION_TIMEOUT_MS", 6000)  # the brokers', with the other protocol
    classic = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 300} if protocol == "classic" else {}
    path = properties(tmp_path, group_protocol=protocol, socket_timeout_ms=2000, **classic)
    topic = kafka.create_topic(partitions=2)
    both_partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    async with (
        proxied(kafka) as proxies,
        watched(settings(kafka.proxied_bootstrap, topic, KAFKA_PROPERTIES_FILE=path)) as cut_off,
    ):
        await cut_off.until(lambda: len(cut_off.positions) == 2)
        assert all(map(cut_off.source.owns, both_partitions))
        for proxy in proxies:
            proxy.swallows = True
        async with watched(settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=path)) as other:
            await both(cut_off, other, lambda: other.positions)
            assert not any(map(cut_off.source.owns, both_partitions))
            assert cut_off.lost
            for proxy in proxies:
                proxy.heal()
            await both(cut_off, other, lambda: len(cut_off.positions) == len(other.positions) == 1)
            (ours,) = cut_off.positions
            assert cut_off.source.owns(ours)


async def test_a_consumer_that_alone_does_not_find_the_brokers_again_stops(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library may forget all brokers (librdkafka #5301): here its way to them is cut, and that of others is not."""
    monkeypatch.setattr(reach, "LOST_AFTER_S", 0)
    chosen = settings(kafka.proxied_bootstrap, kafka.create_topic())
    async with proxied(kafka) as proxies, watched(chosen) as watcher:
        await watcher.until(lambda: watcher.positions)
        monkeypatch.setattr(watcher.source._poller.reach, "_connection", Connection(kafka.bootstrap))
        for proxy in proxies:
            await proxy.stop()
        with pytest.raises(FatalError, match="answer others"):
            await watcher.until(lambda: False)


@pytest.mark.timeout(120)
async def test_a_partition_whose_leader_alone_is_away_counts_as_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator answers, the other partition goes on, and the library tells of no partition."""
    monkeypatch.setattr(reach, "UNREACHED_AFTER_S", 1)
    path = properties(tmp_path, socket_timeout_ms=2000, session_timeout_ms=6000)
    with KafkaCluster(brokers=2) as two:
        topic = two.create_topic(partitions=2)
        chosen = settings(two.proxied_bootstrap, topic, KAFKA_PROPERTIES_FILE=path)
        async with proxied(two) as proxies, watched(chosen) as watcher:
            await watcher.until(lambda: len(watcher.ends) == 2)
            admin = Connection(two.bootstrap).admin()
            described = admin.describe_consumer_groups([chosen.kafka_group_id])
            coordinator = described[chosen.kafka_group_id].result(WITHIN_S).coordinator.id
            partitions = admin.list_topics(topic, WITHIN_S).topics[topic].partitions.values()
            (cut_off,) = [each.id for each in partitions if each.leader != coordinator]
            proxies[2 - coordinator].swallows = True  # the other one's; brokers count from 1
            for partition in range(2):
                produce(two.bootstrap, topic, [b"%d" % partition], partition=partition)
            await watcher.until(lambda: watcher.starting == {TopicPartition(topic, cut_off)})
            assert watcher.values() == [b"%d" % (1 - cut_off)]
            assert watcher.source.connected
            proxies[2 - coordinator].heal()
            await watcher.until(lambda: len(watcher.records) == 2 and not watcher.starting)


async def test_who_was_told_of_no_brokers_comes_back_or_gives_up(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers that the controller has counted out say so, and the library may never look for them again.

    That happens in one of several runs (librdkafka #5301): then the process makes room for one that finds them.
    """
    monkeypatch.setattr(reach, "PROBE_EVERY_S", 0.5)
    monkeypatch.setattr(reach, "LOST_AFTER_S", 3)
    often = properties(
        tmp_path, session_timeout_ms=3000, heartbeat_interval_ms=300, topic_metadata_refresh_interval_ms=300
    )
    chosen = settings(kafka.proxied_bootstrap, kafka.create_topic(), KAFKA_PROPERTIES_FILE=often)
    async with proxied(kafka) as proxies, watched(chosen) as watcher:
        await watcher.until(lambda: watcher.positions and watcher.source.connected)
        for proxy in proxies:
            proxy.counted_out = True
        await watcher.until(lambda: not watcher.source.connected)
        await watcher.stay(lambda: not watcher.source.connected, polls_for=2)
        for proxy in proxies:
            proxy.heal()
        last_words = ""
        try:
            await watcher.until(lambda: watcher.source.connected)
        except FatalError as given_up:
            last_words = str(given_up)
        assert watcher.source.connected or "answer others" in last_words


async def test_who_hears_nothing_of_offsets_asks_with_a_new_client(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence looks like an open transaction's; but a client may have lost the brokers for good (librdkafka #5301)."""
    tp = TopicPartition(kafka.create_topic(), 0)
    chosen = settings(kafka.bootstrap, tp.topic)
    commit(kafka.bootstrap, chosen, tp, 7)
    group = GroupOffsets(Connection(kafka.proxied_bootstrap), chosen.kafka_group_id)
    async with proxied(kafka) as proxies:
        assert await told_in_the_end(group, tp) == {tp: Mark(7)}
        for proxy in proxies:
            proxy.swallows = True
        group._connection = Connection(kafka.bootstrap)
        former = group._consumers["read_committed"]
        assert await asyncio.to_thread(group.stable, [tp]) == {}
        assert group._consumers["read_committed"] is former  # a slow network needs more than one round
        monkeypatch.setattr(group_offsets, "SILENT_FOR_S", 0)
        assert await asyncio.to_thread(group.stable, [tp]) == {}
        monkeypatch.setattr(group_offsets, "SILENT_FOR_S", WITHIN_S)
        assert await told_in_the_end(group, tp) == {tp: Mark(7)}


async def told_in_the_end(group: GroupOffsets, partition: TopicPartition) -> Told:
    """What it says once it knows: the coordinator may not be known in time."""
    async with asyncio.timeout(WITHIN_S):
        while not (told := await asyncio.to_thread(group.stable, [partition])):
            pass
    return told


async def test_it_tells_where_partitions_end_before_they_are_read_so_far(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Who reads no further than the pipeline takes in would else not tell how much waits behind."""
    brief = properties(
        tmp_path, session_timeout_ms=3000, heartbeat_interval_ms=300, max_partition_fetch_bytes=100_000,
        queued_max_messages_kbytes=200,
    )  # fmt: skip
    chosen = settings(kafka.bootstrap, kafka.create_topic(), KAFKA_PROPERTIES_FILE=brief)
    tp = TopicPartition(chosen.kafka_source_topics[0], 0)
    produce(kafka.bootstrap, tp.topic, [b"v" * 1000] * 10_000)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.records)
        watcher.source.pause([tp])
        await watcher.until(lambda: watcher.told_ends.get(tp) == 10_000)
        assert len(watcher.records) < 10_000


async def test_silence_counts_as_disconnected_also_where_the_library_says_nothing(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its complaints are no promise: a member that gets no answers asks for one, and is ready again with it."""
    monkeypatch.setattr(Poller, "_on_error", lambda *_: None)
    brief = properties(tmp_path, session_timeout_ms=3000, heartbeat_interval_ms=300, socket_timeout_ms=2000)
    chosen = settings(kafka.proxied_bootstrap, kafka.create_topic(), KAFKA_PROPERTIES_FILE=brief)
    async with proxied(kafka) as proxies, watched(chosen) as watcher:
        await watcher.until(lambda: watcher.positions and watcher.source.connected)
        for proxy in proxies:
            proxy.swallows = True
        await watcher.until(lambda: not watcher.source.connected)
        for proxy in proxies:
            proxy.heal()
        await watcher.until(lambda: watcher.source.connected)


async def test_a_raising_callback_stops_the_pipeline_and_loses_nothing(
    kafka: KafkaCluster, attentive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a callback raises reaches the pipeline as a fatal error, and every record still comes."""
    topic = kafka.create_topic(partitions=2)
    for partition in range(2):
        produce(kafka.bootstrap, topic, numbered(3000), partition=partition)
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive)
    original: Callable[..., None] = Poller._on_revoke

    def raising(self: Poller, consumer: Any, partitions: Sequence[NativePartition]) -> None:
        original(self, consumer, partitions)
        raise ValueError("in a callback")

    monkeypatch.setattr(Poller, "_on_revoke", raising)
    async with watched(chosen, revoke_timeout_s=0.1) as old:
        await old.until(lambda: len(old.positions) == 2)
        async with watched(chosen) as new:
            with pytest.raises(FatalError, match="ValueError"):
                await both(old, new, lambda: False)
            await both(old, new, lambda: len(old.positions) == len(new.positions) == 1)
            (kept,) = old.positions
            produce(kafka.bootstrap, topic, numbered(3000, 3000), partition=kept.partition)
            await both(old, new, lambda: old.ends.get(kept) == 6000)
            assert [r.value for r in old.records if r.partition == kept.partition] == numbered(6000)


async def test_a_second_instance_of_one_name_fences_the_first(kafka: KafkaCluster, attentive: str) -> None:
    """Two instances with one KAFKA_GROUP_INSTANCE_ID do not both go on."""
    topic = kafka.create_topic()
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive, KAFKA_GROUP_INSTANCE_ID="only-one")
    async with watched(chosen) as first:
        await first.until(lambda: first.assigned)
        async with watched(chosen) as second:
            with pytest.raises(FatalError, match="same group"):
                await both(first, second, lambda: False)


async def test_a_restarted_instance_of_the_same_name_gets_its_partitions_back(
    kafka: KafkaCluster, attentive: str
) -> None:
    """With a static name a restart moves nothing to the others."""
    topic = kafka.create_topic(partitions=2)
    ours, theirs = (
        settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive, KAFKA_GROUP_INSTANCE_ID=name)
        for name in ("ours", "theirs")
    )
    async with watched(theirs, revoke_timeout_s=0.1) as other:
        await other.until(lambda: other.assigned)
        async with watched(ours) as first:
            await both(first, other, lambda: len(first.positions) == len(other.positions) == 1)
            before = dict(first.positions)
        moved = len(other.revoked) + len(other.assigned)
        async with watched(ours) as again:
            await both(again, other, lambda: again.assigned)
            assert again.positions == before
            assert len(other.revoked) + len(other.assigned) == moved


DIES_WHILE_IT_GIVES_UP = """
import os, sys
from confluent_kafka import Consumer
bootstrap, topic, group, name = sys.argv[1:]
member = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.instance.id": name,
                   "partition.assignment.strategy": "cooperative-sticky", "heartbeat.interval.ms": 200, "log_level": 0})
def assigned(member, partitions):
    member.incremental_assign(partitions)
    print(len(partitions), flush=True)
member.subscribe([topic], on_assign=assigned, on_revoke=lambda *_: os._exit(0))
while True:
    member.poll(0.1)
"""


async def test_partitions_that_a_member_died_giving_up_are_adopted(
    kafka: KafkaCluster, attentive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back under its static name to what it was to keep; the others were nobody's, and nobody rejoined."""
    monkeypatch.setattr(orphans, "PATIENCE_S", 0.5)
    topic = kafka.create_topic(partitions=4)
    theirs = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive)
    ours = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive, KAFKA_GROUP_INSTANCE_ID="ours")
    dying = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES_WHILE_IT_GIVES_UP, kafka.bootstrap, topic, ours.kafka_group_id, "ours",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert dying.stdout is not None
    assert await dying.stdout.readline() == b"4\n"
    async with watched(theirs) as other:
        await other.until(lambda: dying.returncode is not None)
        with capture_logs() as logs:
            async with watched(ours, revoke_timeout_s=0.1) as again:
                await both(again, other, lambda: len(again.positions) == len(other.positions) == 2)
        assert [len(line["partitions"]) for line in logs if line["event"] == "partitions_without_owner"] == [2]


async def test_the_consumer_protocol_serves_as_well(kafka: KafkaCluster, tmp_path: Path) -> None:
    """With group.protocol=consumer records come, and a partition moves once it is released."""
    topic = kafka.create_topic(partitions=2)
    for partition in range(2):
        produce(kafka.bootstrap, topic, numbered(10), partition=partition)
    path = properties(tmp_path, group_protocol="consumer")
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=path)
    async with watched(chosen) as old:
        await old.until(lambda: len(old.records) == 20)
        async with watched(chosen) as new:
            await both(old, new, lambda: old.revoked)
            (moving,) = old.revoked[0].partitions
            await old.source.commit([native(moving, 7)])
            old.revoked[0].release()
            await both(old, new, lambda: new.positions)
            assert new.positions == {moving: 7}


async def test_a_name_that_the_group_has_not_released_yet_is_waited_for(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With group.protocol=consumer nobody is let in whose namesake did not leave; who waits may be told to stop.

    A client that is refused says in its statistics that it has no partitions, as an idle member does.
    """
    monkeypatch.setattr(static_name, "RETRY_S", 4.0)
    tries: list[Poller] = []
    join_again = Poller._join_again

    def counted(poller: Poller) -> None:
        tries.append(poller)
        join_again(poller)

    monkeypatch.setattr(Poller, "_join_again", counted)
    topic = kafka.create_topic()
    path = properties(tmp_path, group_protocol="consumer")
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=path, KAFKA_GROUP_INSTANCE_ID="ours")
    with capture_logs() as logs:
        async with watched(chosen) as former:
            await former.until(lambda: former.assigned)
            async with watched(chosen) as stopped:
                await both(former, stopped, lambda: tries)
            async with watched(chosen) as ours:
                await both(former, ours, lambda: len(tries) == 3)
                assert not ours.assigned
                await former.source.close()
                await ours.until(lambda: ours.assigned)
                produce(kafka.bootstrap, topic, numbered(3))
                await ours.until(lambda: len(ours.records) == 3)
    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["static_name_not_released"] * 2


async def test_a_name_that_somebody_has_for_good_is_told(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes have it: the second one ends, with what to do."""
    monkeypatch.setattr(static_name, "RETRY_S", 0.1)
    monkeypatch.setattr(static_name, "RELEASED_WITHIN_S", 0.5)
    path = properties(tmp_path, group_protocol="consumer")
    topic = kafka.create_topic()
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=path, KAFKA_GROUP_INSTANCE_ID="ours")
    async with watched(chosen) as first:
        await first.until(lambda: first.assigned)
        async with watched(chosen) as second:
            with pytest.raises(FatalError, match=r"KAFKA_GROUP_INSTANCE_ID=ours: .* a name of its own"):
                await both(first, second, lambda: False)


# -- commits without a transaction


async def test_offsets_are_committed(kafka: KafkaCluster) -> None:
    """A commit is with the broker when it returns, and the same one again is fine."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    chosen = settings(kafka.bootstrap, topic)
    tp = TopicPartition(topic, 0)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.records) == 5)
        for offset in (3, 3, 5):
            await watcher.source.commit([native(tp, offset)])
            assert committed(kafka.bootstrap, chosen, tp) == [offset]


async def test_only_owned_partitions_are_committed(kafka: KafkaCluster) -> None:
    """The broker would take any commit: the source refuses one with a partition that it does not own."""
    topic = kafka.create_topic(partitions=2)
    chosen = settings(kafka.bootstrap, topic)
    ours, foreign = TopicPartition(topic, 0), TopicPartition(topic, 7)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.assigned)
        with pytest.raises(SourceUnavailable, match="moved away"):
            await watcher.source.commit([native(ours, 1), native(foreign, 1)])
        assert committed(kafka.bootstrap, chosen, ours) == [-1001]


# -- where a partition begins


async def test_a_group_goes_on_where_it_committed(kafka: KafkaCluster) -> None:
    """The committed offset decides, whatever KAFKA_START says."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    chosen = settings(kafka.bootstrap, topic, KAFKA_START="latest")
    commit(kafka.bootstrap, chosen, TopicPartition(topic, 0), 2)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.records) == 3)
        assert watcher.values() == numbered(3, 2)


async def test_offsets_of_an_open_transaction_are_waited_for(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a dead instance's transaction may still move the offset, its partition does not begin, and says so."""
    monkeypatch.setattr(starts, "TELL_EVERY_S", 0.3)
    topic = kafka.create_topic(partitions=2)
    for partition in range(2):
        produce(kafka.bootstrap, topic, numbered(10), partition=partition)
    chosen = settings(kafka.bootstrap, topic)
    held, free = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = transactional(kafka.bootstrap, topic)
    async with watched(chosen) as first:
        await first.until(lambda: len(first.positions) == 2)
        producer.begin_transaction()
        metadata = first.source.group_metadata([held]).metadata
        producer.send_offsets_to_transaction([NativePartition(*held, 4)], metadata, WITHIN_S)
    async with watched(chosen) as second:
        await second.until(lambda: second.starting)
        assert (second.starting, second.positions) == ({held, free}, {})  # before any of them is assigned
        await second.until(lambda: second.positions)
        with capture_logs() as logs:
            await second.stay(lambda: second.positions == {free: 0}, polls_for=0.7)
        assert next(entry["partitions"] for entry in logs if entry["event"] == "offsets_not_told") == [held]
        assert second.starting == {held}
        producer.commit_transaction(WITHIN_S)
        await second.until(lambda: held in second.positions and not second.starting)
        assert second.positions == {held: 4, free: 0}


async def told_by(subject: starts.Starts, bystander: Consumer) -> dict[TopicPartition, starts.Start]:
    """Where partitions begin, once that is known."""
    told: dict[TopicPartition, starts.Start] = {}
    while not told:
        await asyncio.sleep(0.01)
        told = subject.poll(bystander, time.monotonic())
    return told


@pytest.mark.parametrize("code", [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE])
async def test_a_coordinator_that_is_moving_is_waited_for(code: int) -> None:
    """A group's offsets are asked for again; the library's admin client would end the process."""
    with mock_cluster_with_errors(OFFSET_FETCH, [code]) as bootstrap:
        produce(bootstrap, "moving", numbered(3))
        chosen, partition = settings(bootstrap, "moving"), TopicPartition("moving", 0)
        connection = Connection.of(chosen)
        subject = starts.Starts(connection, chosen)
        bystander = connection.consumer({}, {"group.id": chosen.kafka_group_id})
        subject.add([partition])
        assert await told_by(subject, bystander) == {partition: starts.Start(0, 3, None, "")}


async def test_a_file_that_is_being_exchanged_ends_nobody(kafka: KafkaCluster) -> None:
    """A client that is made anew at work finds half of a certificate: it is asked again once the file is whole."""
    topic = kafka.create_topic()
    chosen, partition = settings(kafka.bootstrap, topic), TopicPartition(topic, 0)
    connection = Connection.of(chosen)
    subject = starts.Starts(connection, chosen)
    bystander = connection.consumer({}, {"group.id": chosen.kafka_group_id})
    subject.add([partition])
    with patch.object(Connection, "admin", side_effect=SettingsError(["KAFKA_PROPERTIES_FILE: half a certificate"])):
        assert subject.look(time.monotonic() + starts.LOOK_EVERY_S) == {}
        assert subject.poll(bystander, time.monotonic()) == {}
        asked = (subject._looking, subject._answers)
        await eventually(lambda: all(each is not None and each.done() for each in asked), WITHIN_S)
        assert subject.look(time.monotonic()) == {}
        assert subject.poll(bystander, time.monotonic()) == {}
    assert partition in await told_by(subject, bystander)


async def test_answers_from_before_a_partition_went_away_do_not_count(kafka: KafkaCluster) -> None:
    """It comes back while they are on the way: another member may have committed since."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(10))
    chosen, partition = settings(kafka.bootstrap, topic), TopicPartition(topic, 0)
    connection = Connection.of(chosen)
    subject = starts.Starts(connection, chosen)
    bystander = connection.consumer({}, {"group.id": chosen.kafka_group_id})
    commit(kafka.bootstrap, chosen, partition, 2)
    subject.add([partition])
    assert subject.poll(bystander, 0.0) == {}
    await eventually(lambda: subject._answers is not None and subject._answers.done(), WITHIN_S)
    subject.discard([partition])
    commit(kafka.bootstrap, chosen, partition, 7)
    subject.add([partition])
    assert await told_by(subject, bystander) == {partition: starts.Start(7, 10, Mark(7), topic_id(connection, topic))}


async def test_what_stands_behind_an_open_transaction_is_told(kafka: KafkaCluster, tmp_path: Path) -> None:
    """It cannot be read yet, and would be no lag: nobody would see that a producer holds it up."""
    topic, brief = kafka.create_topic(), properties(tmp_path, session_timeout_ms=3000, heartbeat_interval_ms=300)
    tp = TopicPartition(topic, 0)
    opened = transactional(kafka.bootstrap, f"{topic}-opened")
    opened.begin_transaction()
    opened.produce(topic, b"open", b"key")
    opened.flush(WITHIN_S)
    produce(kafka.bootstrap, topic, [b"behind"] * 3)
    async with watched(settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=brief)) as watcher:
        await watcher.until(lambda: watcher.told_ends.get(tp) == 4)
        assert watcher.records == []
    opened.abort_transaction(WITHIN_S)


async def test_latest_sees_what_is_committed_while_the_brokers_are_asked(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another member commits for all partitions between two questions: none of them is taken for a new one."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    chosen, partition = settings(kafka.bootstrap, topic, KAFKA_START="latest"), TopicPartition(topic, 0)
    told = GroupOffsets.now

    def told_after_a_commit(group: GroupOffsets, partitions: Collection[TopicPartition]) -> Told:
        commit(kafka.bootstrap, chosen, partition, 5)
        return told(group, partitions)

    monkeypatch.setattr(GroupOffsets, "now", told_after_a_commit)
    connection = Connection.of(chosen)
    subject = starts.Starts(connection, chosen)
    bystander = connection.consumer({}, {"group.id": chosen.kafka_group_id})
    subject.add([partition])
    assert await told_by(subject, bystander) == {partition: starts.Start(5, 5, Mark(5), topic_id(connection, topic))}


def test_offsets_are_known_after_a_broker_came_back(kafka: KafkaCluster) -> None:
    """It leads with a new epoch, of which an admin client that was made before has not heard."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(3))
    admin, tp = Connection.of(settings(kafka.bootstrap, topic)).admin(), TopicPartition(topic, 0)
    assert low_and_high(admin, [tp]) == ({tp: 0}, {tp: 3})
    kafka.restart(1)
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            assert low_and_high(admin, [tp]) == ({tp: 0}, {tp: 3})
        except KafkaException:  # it tells its epoch before it leads with it
            assert time.monotonic() < deadline
        else:
            return


async def test_latest_skips_what_was_there_and_nothing_that_comes_after(kafka: KafkaCluster) -> None:
    """A new group begins at the end, and a crash before its first settlement does not move that end."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    chosen = settings(kafka.bootstrap, topic, KAFKA_START="latest")
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.assigned)
        assert watcher.positions == {TopicPartition(topic, 0): 5}
    produce(kafka.bootstrap, topic, numbered(3, 5))
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.records) == 3)
        assert watcher.values() == numbered(3, 5)


async def test_latest_skips_nothing_when_the_brokers_forgot_the_group(kafka: KafkaCluster) -> None:
    """A group that has a changelog is not new, although it has no offsets any more; another one's is no sign of it."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    chosen = settings(kafka.bootstrap, topic, KAFKA_START="latest", KAFKA_CHANGELOG_TOPIC=kafka.create_topic())
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.assigned)
        assert watcher.positions == {TopicPartition(topic, 0): 5}
    produce(kafka.bootstrap, chosen.kafka_changelog_topic, [b"what was delivered"])
    forget(kafka.bootstrap, chosen)
    with capture_logs() as logs:
        async with watched(chosen) as watcher:
            await watcher.until(lambda: watcher.assigned)
            assert watcher.positions == {TopicPartition(topic, 0): 0}
    assert "offsets_forgotten" in [entry["event"] for entry in logs]


async def test_latest_holds_for_a_topic_that_joins_the_others(kafka: KafkaCluster) -> None:
    """Also when the group has delivered from those: it has offsets of them."""
    former, added = kafka.create_topic(), kafka.create_topic()
    changelog = kafka.create_topic()
    for topic in (former, added, changelog):
        produce(kafka.bootstrap, topic, numbered(5))
    topics = f"{former},{added}"
    chosen = settings(
        kafka.bootstrap, former, KAFKA_START="latest", KAFKA_CHANGELOG_TOPIC=changelog, KAFKA_SOURCE_TOPICS=topics
    )
    commit(kafka.bootstrap, chosen, TopicPartition(former, 0), 2)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.positions) == 2)
        assert watcher.positions == {TopicPartition(former, 0): 2, TopicPartition(added, 0): 5}


async def test_a_partition_that_is_added_is_noticed_as_often_as_the_client_looks(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default twice a minute, here more often; left to the library it would take five minutes."""
    monkeypatch.setitem(poller.DEFAULTS, "topic.metadata.refresh.interval.ms", 200)
    topic = kafka.create_topic()
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: watcher.assigned)
        grow(kafka.bootstrap, topic, 2)
        produce(kafka.bootstrap, topic, numbered(2), partition=1)
        await watcher.until(lambda: len(watcher.records) == 2)


async def test_latest_reads_a_partition_that_was_added_later_from_its_beginning(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """What came into a new partition before the group saw it is not skipped."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    path = properties(tmp_path, topic_metadata_refresh_interval_ms=200)
    chosen = settings(kafka.bootstrap, topic, KAFKA_START="latest", KAFKA_PROPERTIES_FILE=path)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.assigned)
    grow(kafka.bootstrap, topic, 2)
    produce(kafka.bootstrap, topic, numbered(2), partition=1)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.positions) == 2)
        assert watcher.positions == {TopicPartition(topic, 0): 5, TopicPartition(topic, 1): 0}


async def test_latest_holds_for_all_partitions_when_members_start_together(kafka: KafkaCluster, attentive: str) -> None:
    """No member takes what another one has committed already as a sign that its own partitions are new."""
    topic = kafka.create_topic(partitions=4)
    for partition in range(4):
        produce(kafka.bootstrap, topic, numbered(5), partition=partition)
    chosen = settings(kafka.bootstrap, topic, KAFKA_PROPERTIES_FILE=attentive, KAFKA_START="latest")
    async with watched(chosen, revoke_timeout_s=0.1) as one, watched(chosen, revoke_timeout_s=0.1) as other:
        await both(one, other, lambda: len(one.positions) == len(other.positions) == 2)
        starts = one.positions | other.positions
        assert starts == {TopicPartition(topic, partition): 5 for partition in range(4)}


async def test_latest_skips_nothing_that_another_member_has_begun(kafka: KafkaCluster) -> None:
    """It goes on at an offset of its own, and has settled nothing: the topic was made anew while both were at work."""
    topic = kafka.create_topic(partitions=2)
    for partition in range(2):
        produce(kafka.bootstrap, topic, numbered(5), partition=partition)
    chosen, theirs = settings(kafka.bootstrap, topic, KAFKA_START="latest"), TopicPartition(topic, 1)
    connection = Connection.of(chosen)
    subject = starts.Starts(connection, chosen)
    bystander = connection.consumer({}, {"group.id": chosen.kafka_group_id})
    new = topic_id(connection, topic)
    subject.add([theirs], Mark(0, new))
    assert await told_by(subject, bystander) == {theirs: starts.Start(0, 5, Mark(0, new), new)}
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.positions) == 2)
        assert watcher.positions == {TopicPartition(topic, 0): 0, theirs: 0}


async def test_retention_that_overtook_the_group_at_rest_is_told(kafka: KafkaCluster) -> None:
    """The group goes on at the first record there is, and says of which partition some are gone."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(10))
    chosen = settings(kafka.bootstrap, topic)
    tp = TopicPartition(topic, 0)
    commit(kafka.bootstrap, chosen, tp, 2)
    delete_records(kafka.bootstrap, tp, 6)
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with watched(chosen, overtaken=told) as watcher:
            await watcher.until(lambda: len(watcher.records) == 4)
            assert watcher.values() == numbered(4, 6)
            assert watcher.assigned[0].positions == {tp: 6}
            assert told == [tp]
    (remedy,) = [entry["remedy"] for entry in logs if entry["event"] == "retention_overtook_the_group"]
    assert "pause the campaigns" in remedy  # withdrawals may be among what is gone, and `reconcile` cannot tell
    assert "reconcile" not in remedy


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_retention_that_overtook_a_group_whose_offsets_brokers_forgot_is_told(
    kafka: KafkaCluster, start: str
) -> None:
    """What was settled once tells what should have come first; the group itself is as a new one."""
    topic, log = kafka.create_topic(), kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(10))
    produce(kafka.bootstrap, log, [b"state"], key=prefix_of(TopicPartition(topic, 0)) + b"chain")
    chosen = settings(kafka.bootstrap, topic, KAFKA_START=start, KAFKA_CHANGELOG_TOPIC=log)
    tp = TopicPartition(topic, 0)
    delete_records(kafka.bootstrap, tp, 6)
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with watched(chosen, overtaken=told) as watcher:
            await watcher.until(lambda: len(watcher.records) == 4)
            assert watcher.assigned[0].positions == {tp: 6}
            for _ in range(2):
                watcher.source.recall(tp, 3, watcher.assigned[0].topic_ids[tp])
            await watcher.stay(lambda: True, polls_for=0.5)
            assert told == [tp]
    (line,) = [entry for entry in logs if entry["event"] == "retention_overtook_the_group"]
    assert (line["log_level"], line["partition"], line["expected"], line["resumed"]) == ("error", tp, 3, 6)
    (forgotten,) = [entry for entry in logs if entry["event"] == "offsets_forgotten"]
    assert (forgotten["log_level"], list(forgotten["topics"])) == ("warning", [topic])


@pytest.mark.parametrize("told_of", ["more than is gone", "a former topic", "another partition"])
async def test_what_was_settled_once_alarms_nobody_where_nothing_is_gone(kafka: KafkaCluster, told_of: str) -> None:
    """What is still there comes again; offsets of a former topic say nothing of this one."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(10))
    chosen, tp = settings(kafka.bootstrap, topic), TopicPartition(topic, 0)
    delete_records(kafka.bootstrap, tp, 6)
    told: list[TopicPartition] = []
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: len(watcher.records) == 4)
        if told_of == "more than is gone":
            watcher.source.recall(tp, 8, watcher.assigned[0].topic_ids[tp])
        elif told_of == "a former topic":
            watcher.source.recall(tp, 3, "AAAAAAAAAAAAAAAAAAAAAA")
        else:
            watcher.source.recall(TopicPartition(topic, 1), 3, "")
        await watcher.stay(lambda: not told, polls_for=0.5)


async def test_what_was_settled_once_does_not_count_where_the_group_has_an_offset(kafka: KafkaCluster) -> None:
    """An operator may have set it: what is passed over then is meant to be."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(10))
    chosen, tp = settings(kafka.bootstrap, topic), TopicPartition(topic, 0)
    commit(kafka.bootstrap, chosen, tp, 8)
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with watched(chosen, overtaken=told) as watcher:
            await watcher.until(lambda: len(watcher.records) == 2)
            watcher.source.recall(tp, 3, watcher.assigned[0].topic_ids[tp])
            await watcher.stay(lambda: not told, polls_for=0.5)
    assert "offsets_forgotten" not in {entry["event"] for entry in logs}


async def test_retention_that_overtakes_the_group_at_work_is_told(kafka: KafkaCluster) -> None:
    """A paused partition whose next record is gone goes on at the first there is, still paused until resumed."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(3))
    chosen = settings(kafka.bootstrap, topic)
    tp = TopicPartition(topic, 0)
    told: list[TopicPartition] = []
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: watcher.ends)
        watcher.source.pause([tp])
        await watcher.stay(lambda: True, polls_for=0.2)
        produce(kafka.bootstrap, topic, numbered(7, 3))
        delete_records(kafka.bootstrap, tp, 8)
        watcher.source.resume([tp])
        await watcher.until(lambda: len(watcher.records) == 5)
        assert watcher.values() == [*numbered(3), *numbered(2, 8)]
        assert told == [tp]
        assert len(watcher.assigned) == 1


async def test_what_was_committed_of_a_former_topic_is_taken_back(kafka: KafkaCluster) -> None:
    """The topic has fewer records: who begins anew once it has more than those skips nothing."""
    topic = kafka.create_topic()
    produce(kafka.bootstrap, topic, numbered(5))
    chosen = settings(kafka.bootstrap, topic)
    tp = TopicPartition(topic, 0)
    commit(kafka.bootstrap, chosen, tp, 20)
    told: list[TopicPartition] = []
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: watcher.assigned)
        assert watcher.assigned[0].positions == {tp: 0}
        assert committed(kafka.bootstrap, chosen, tp) == [0]
        assert told == [tp]
    produce(kafka.bootstrap, topic, numbered(30))
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.assigned)
        assert watcher.assigned[0].positions == {tp: 0}


# -- what stops it


async def test_a_missing_topic_is_fatal(kafka: KafkaCluster) -> None:
    """A source topic that does not exist stops the program, with its name in the last line."""
    async with watched(settings(kafka.bootstrap, "no-such-topic")) as watcher:
        with pytest.raises(FatalError, match="no-such-topic"):
            await watcher.until(lambda: False)


async def test_an_unknown_property_is_a_wrong_setting(kafka: KafkaCluster, tmp_path: Path) -> None:
    """What librdkafka does not know is refused by name."""
    path = properties(tmp_path, no_such_property=1)
    async with watched(settings(kafka.bootstrap, "any", KAFKA_PROPERTIES_FILE=path)) as watcher:
        with pytest.raises(SettingsError, match=r"no\.such\.property"):
            await watcher.until(lambda: False)
