"""Source topics that are deleted and made anew: the former's offsets say nothing of the records of the new one."""

import asyncio

import pytest
from confluent_kafka import Consumer, TopicPartition as NativePartition
from structlog.testing import capture_logs

from consumer.adapters.kafka import starts
from consumer.adapters.kafka.changelog import prefix_of
from consumer.model import TopicPartition
from tests.integration.test_event_topics import first_of, held_settlements, names, opened
from tests.integration.test_kafka_source import numbered
from tests.kafka_clients import (
    QUIET,
    commit,
    committed,
    delete,
    delete_records,
    produce,
    remake,
    settings,
    settlement,
    watched,
)
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


async def test_a_crash_after_a_settlement_of_the_former_skips_nothing(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has committed behind what the new one has by then, and nobody has taken that back."""
    chosen = names(kafka)
    tp = first_of(chosen)
    goes_on = held_settlements(monkeypatch)
    produce(kafka.bootstrap, tp.topic, [b"former"] * 20)
    async with watched(chosen) as watcher, opened(chosen, watcher.source.group_metadata) as topics:
        await watcher.until(lambda: len(watcher.records) == 20)
        watcher.forgets = False
        former = asyncio.create_task(topics.settle(settlement({tp: 20}, changelog=[(tp, b"k", b"former")])))
        await asyncio.to_thread(remake, kafka.bootstrap, tp.topic)
        produce(kafka.bootstrap, tp.topic, numbered(5))
        await watcher.until(lambda: watcher.lost)
        goes_on.set()
        await former
        assert committed(kafka.bootstrap, chosen, tp) == [20]
    produce(kafka.bootstrap, tp.topic, numbered(25, 5))
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with watched(chosen, overtaken=told) as watcher:
            await watcher.until(lambda: len(watcher.records) == 30)
            assert watcher.assigned[0].positions == {tp: 0}
            assert watcher.values() == numbered(30)
    (line,) = [entry for entry in logs if entry["event"] == "source_topic_made_anew"]
    assert (line["log_level"], line["partition"], line["expected"], line["resumed"]) == ("error", tp, 20, 0)
    assert told == [tp]


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_what_was_skipped_unseen_is_read_after_a_restart(kafka: KafkaCluster, guarantee: str) -> None:
    """Whatever was settled before it was noticed: once it is settled as the new topic's, it is not read again."""
    chosen = names(kafka, KAFKA_GUARANTEE=guarantee)
    tp = first_of(chosen)
    produce(kafka.bootstrap, tp.topic, [b"former"] * 20)

    async def read_all(begins_at: int, records: int, *, anew: bool = False) -> None:
        async with (
            watched(chosen) as watcher,
            opened(chosen, watcher.source.group_metadata, watcher.source.commit) as topics,
        ):
            await watcher.until(lambda: len(watcher.records) == records)
            assert watcher.assigned[0].positions == {tp: begins_at}
            if anew:
                await asyncio.to_thread(remake, kafka.bootstrap, tp.topic)
                produce(kafka.bootstrap, tp.topic, numbered(30))
                await watcher.until(lambda: len(watcher.records) == 30)
            await topics.settle(settlement({tp: 30}))

    await read_all(0, 20, anew=True)
    await read_all(0, 30)
    produce(kafka.bootstrap, tp.topic, numbered(1))
    await read_all(30, 1)


@pytest.mark.parametrize("first", [0, 25])
async def test_a_topic_that_has_grown_past_the_former_is_noticed_at_work(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Only its id tells that it is another one: the offset that comes next is there, or was there."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    tp = TopicPartition(kafka.create_topic(), 0)
    produce(kafka.bootstrap, tp.topic, numbered(20))
    told: list[TopicPartition] = []
    with capture_logs() as logs:
        async with watched(settings(kafka.bootstrap, tp.topic), overtaken=told) as watcher:
            await watcher.until(lambda: len(watcher.records) == 20)

            def make_anew() -> None:
                remake(kafka.bootstrap, tp.topic)
                produce(kafka.bootstrap, tp.topic, numbered(30))
                delete_records(kafka.bootstrap, tp, first)

            await asyncio.to_thread(make_anew)
            await watcher.until(lambda: len(watcher.assigned) == 2)
            await watcher.until(lambda: watcher.values()[first - 30 :] == numbered(30 - first, first))
            assert watcher.assigned[1].positions == {tp: first}
            await watcher.stay(lambda: len(watcher.lost) == 1, polls_for=1)
    assert [entry["partition"] for entry in logs if entry["event"] == "source_topic_made_anew"] == [tp]
    assert told == [tp]


async def test_a_topic_that_is_gone_is_told(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    gone, stays = kafka.create_topic(), kafka.create_topic()
    chosen = settings(kafka.bootstrap, gone, KAFKA_SOURCE_TOPICS=f"{gone},{stays}")
    with capture_logs() as logs:
        async with watched(chosen) as watcher:
            await watcher.until(lambda: len(watcher.positions) == 2)
            await asyncio.to_thread(delete, kafka.bootstrap, gone)
            await watcher.until(lambda: any(entry["event"] == "source_topics_not_told" for entry in logs))
            produce(kafka.bootstrap, stays, numbered(3))
            await watcher.until(lambda: watcher.values() == numbered(3))
    assert {tuple(entry["topics"]) for entry in logs if entry["event"] == "source_topics_not_told"} == {(gone,)}


async def test_an_offset_that_somebody_else_has_committed_is_believed(kafka: KafkaCluster) -> None:
    """It has no id of a topic, whatever it has beside it."""
    tp = TopicPartition(kafka.create_topic(), 0)
    produce(kafka.bootstrap, tp.topic, numbered(20))
    chosen = settings(kafka.bootstrap, tp.topic)
    other = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": chosen.kafka_group_id, **QUIET})
    for offset, beside in ((15, ""), (3, "copied by a tool")):
        other.commit(offsets=[NativePartition(*tp, offset, beside)], asynchronous=False)
        async with watched(chosen) as watcher:
            await watcher.until(lambda: watcher.assigned)
            assert watcher.positions == {tp: offset}


# -- a group that begins at the latest offsets


async def test_latest_skips_nothing_of_a_topic_that_was_made_anew_beside_others(kafka: KafkaCluster) -> None:
    """Its offsets went with it; but there are states of it, also of a partition that it does not have any more."""
    anew, stays, log = kafka.create_topic(), kafka.create_topic(), kafka.create_topic(partitions=2)
    produce(kafka.bootstrap, anew, [b"withdrawn"] * 3)
    produce(kafka.bootstrap, stays, numbered(5))
    produce(kafka.bootstrap, log, [b"state"], key=prefix_of(TopicPartition(stays, 0)) + b"chain")
    topics = {"KAFKA_SOURCE_TOPICS": f"{anew},{stays}", "KAFKA_CHANGELOG_TOPIC": log}
    chosen = settings(kafka.bootstrap, anew, KAFKA_START="latest", **topics)
    commit(kafka.bootstrap, chosen, TopicPartition(stays, 0), 2)
    produce(kafka.bootstrap, log, [b"state"], partition=1, key=prefix_of(TopicPartition(anew, 1)) + b"chain")
    with capture_logs() as logs:
        async with watched(chosen) as watcher:
            await watcher.until(lambda: len(watcher.positions) == 2)
            assert watcher.positions == {TopicPartition(anew, 0): 0, TopicPartition(stays, 0): 2}
    assert {tuple(entry["topics"]) for entry in logs if entry["event"] == "offsets_forgotten"} == {(anew,)}


async def test_latest_skips_nothing_when_it_crashes_before_the_first_settlement_of_a_new_topic(
    kafka: KafkaCluster,
) -> None:
    """There are no offsets any more, and no states yet: only what was begun tells that the group is not new."""
    tp = TopicPartition(kafka.create_topic(), 0)
    produce(kafka.bootstrap, tp.topic, numbered(5))
    chosen = settings(kafka.bootstrap, tp.topic, KAFKA_START="latest", KAFKA_CHANGELOG_TOPIC=kafka.create_topic())
    async with watched(chosen) as watcher:
        await watcher.until(lambda: tp in watcher.ends)
        await asyncio.to_thread(remake, kafka.bootstrap, tp.topic)
        produce(kafka.bootstrap, tp.topic, numbered(3))
        await watcher.until(lambda: len(watcher.records) == 3)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.assigned)
        assert watcher.positions == {tp: 0}
