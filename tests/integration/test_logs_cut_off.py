"""A log that was cut off by an unclean election, and has grown past what was read of it before anybody looked again."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.model import TopicPartition
from consumer.settings import Settings
from tests.integration.test_event_topics import opened
from tests.integration.test_kafka_source import numbered
from tests.kafka_clients import QUIET, WITHIN_S, Watcher, produce, settings, settlement, watched
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

LEADER, FOLLOWER = 1, 2
SHARED, READ, NOW = 10, 20, 35
"""Records that both replicas have, that the leader had when they were read, and that there are in the end."""

ELECTED_WITHIN_S = 60


@pytest.fixture(scope="module")
def brokers() -> Iterator[KafkaCluster]:
    """Three, two of which make a quorum."""
    with KafkaCluster(brokers=3) as cluster:
        yield cluster


@pytest.fixture
def chosen(brokers: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings of a group whose source topic has two replicas and is never without a leader; all brokers run again."""
    topic = brokers.create_topic("audit").replace("audit", "source")
    config = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap, **QUIET})
    made = admin.create_topics([NewTopic(topic, 1, replica_assignment=[[LEADER, FOLLOWER]], config=config)])
    made[topic].result(WITHIN_S)
    others = {name: brokers.create_topic(name) for name in ("audit", "letters", "log")}
    yield settings(
        brokers.bootstrap,
        topic,
        KAFKA_AUDIT_TOPIC=others["audit"],
        KAFKA_DEAD_LETTER_TOPIC=others["letters"],
        KAFKA_CHANGELOG_TOPIC=others["log"],
        KAFKA_GUARANTEE=getattr(request, "param", "exactly_once"),
    )
    brokers.restart(LEADER)


def lead_alone(brokers: KafkaCluster, topic: str) -> None:
    """The leader gets records that the follower will never have."""
    produce(brokers.bootstrap, topic, numbered(SHARED))
    brokers.kill(FOLLOWER)
    produce(brokers.bootstrap, topic, numbered(READ - SHARED, SHARED))


def cut_off(brokers: KafkaCluster, topic: str, end: int = NOW) -> None:
    """The follower leads, and its log grows, past what the leader had unless told otherwise."""
    brokers.kill(LEADER)
    brokers.restart(FOLLOWER)
    produce(brokers.bootstrap, topic, [b"new"] * (end - SHARED))


async def settled(watcher: Watcher, topics: KafkaEventTopics, tp: TopicPartition) -> None:
    """All that the leader has is read and settled."""
    await watcher.until(lambda: len(watcher.records) == READ, ELECTED_WITHIN_S)
    await topics.settle(settlement({tp: READ}))


async def read_anew(watcher: Watcher, end: int = NOW) -> None:
    """All is read that came in the place of what was lost, and nothing else."""
    await watcher.until(lambda: watcher.ends and max(watcher.ends.values()) == end, ELECTED_WITHIN_S)
    await watcher.stay(lambda: True, polls_for=0.5)
    new = [record.offset for record in watcher.records if record.value == b"new"]
    assert new == list(range(SHARED, end))


@pytest.mark.parametrize(
    ("chosen", "end"), [("exactly_once", NOW), ("at_least_once", NOW), ("exactly_once", READ - 5)], indirect=["chosen"]
)
async def test_what_grew_while_nobody_was_there_is_read(brokers: KafkaCluster, chosen: Settings, end: int) -> None:
    """The offset that was committed is there again, with another record, or will be."""
    tp = TopicPartition(chosen.kafka_source_topics[0], 0)
    await asyncio.to_thread(lead_alone, brokers, tp.topic)
    async with (
        watched(chosen) as watcher,
        opened(chosen, watcher.source.group_metadata, watcher.source.commit) as topics,
    ):
        await settled(watcher, topics, tp)
    await asyncio.to_thread(cut_off, brokers, tp.topic, end)
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with watched(chosen, overtaken=told) as watcher:
            await read_anew(watcher, end)
            assert watcher.positions == {tp: SHARED}
    (line,) = [entry for entry in logs if entry["event"] == "source_log_cut_off"]
    assert (line["log_level"], line["partition"], line["expected"], line["resumed"]) == ("error", tp, READ, SHARED)
    assert "pause the campaigns" in line["remedy"]
    assert told == [tp]


@pytest.mark.parametrize("paused", [True, False])
async def test_what_grew_at_work_is_read(brokers: KafkaCluster, chosen: Settings, *, paused: bool) -> None:
    """Of a partition that was paused meanwhile, or just had no more records."""
    tp = TopicPartition(chosen.kafka_source_topics[0], 0)
    await asyncio.to_thread(lead_alone, brokers, tp.topic)
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(watched(chosen, overtaken=told))
            topics = await stack.enter_async_context(opened(chosen, watcher.source.group_metadata))
            await settled(watcher, topics, tp)
            if paused:
                watcher.source.pause([tp])
            await asyncio.to_thread(cut_off, brokers, tp.topic)
            watcher.source.resume([tp])
            await read_anew(watcher)
            assert told == [tp]
            await watcher.until(lambda: watcher.positions == {tp: SHARED})
            await topics.settle(settlement({tp: NOW}))
        async with watched(chosen, overtaken=told) as watcher:
            await watcher.until(lambda: watcher.assigned)
            await watcher.stay(lambda: not watcher.records, polls_for=1)
            assert watcher.positions == {tp: NOW}
    assert [entry["resumed"] for entry in logs if entry["event"] == "source_log_cut_off"] == [SHARED]
    assert told == [tp]


async def test_another_leader_with_the_same_log_alarms_nobody(brokers: KafkaCluster, chosen: Settings) -> None:
    """Leaders change with every restart of a broker: what was read under a former one counts."""
    tp = TopicPartition(chosen.kafka_source_topics[0], 0)
    produce(brokers.bootstrap, tp.topic, numbered(READ))
    told: list[TopicPartition] = []
    async with watched(chosen, overtaken=told) as watcher, opened(chosen, watcher.source.group_metadata) as topics:
        await settled(watcher, topics, tp)
        watcher.source.pause([tp])
        await asyncio.to_thread(brokers.kill, LEADER)
        await asyncio.to_thread(produce, brokers.bootstrap, tp.topic, numbered(5, READ))
        watcher.source.resume([tp])
        await watcher.until(lambda: len(watcher.records) == READ + 5, ELECTED_WITHIN_S)
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: len(watcher.records) == 5, ELECTED_WITHIN_S)
        assert watcher.values() == numbered(5, READ)
    assert told == []
