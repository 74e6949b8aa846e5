"""Source topics that are deleted and made anew: the former's offsets say nothing of the records of the new one."""

import asyncio
import itertools
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition as NativePartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from consumer.adapters.kafka import starts
from consumer.adapters.kafka.changelog import prefix_of
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.topics import TopicIds, topic_id
from consumer.errors import FatalError, TransientError
from consumer.model import TopicPartition
from tests.integration.test_event_topics import first_of, held_settlements, names, opened
from tests.integration.test_kafka_source import numbered
from tests.kafka_clients import (
    QUIET,
    Watcher,
    commit,
    committed,
    delete,
    delete_records,
    make,
    produce,
    properties,
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
    assert "pause the campaigns" in line["remedy"]  # whether a withdrawal was lost nobody can tell, `reconcile` neither
    assert "reconcile" not in line["remedy"]
    assert told == [tp]


async def test_a_late_commit_of_the_former_skips_nothing_without_transactions(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition moved away and back meanwhile, which waits for no settlement, and is the new topic's by then."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    chosen = names(kafka, KAFKA_GUARANTEE="at_least_once")
    tp = first_of(chosen)
    goes_on = held_settlements(monkeypatch)
    produce(kafka.bootstrap, tp.topic, [b"former"] * 20)
    async with (
        watched(chosen) as watcher,
        opened(chosen, watcher.source.group_metadata, watcher.source.commit) as topics,
    ):
        await watcher.until(lambda: len(watcher.records) == 20)
        watcher.forgets = False
        former = asyncio.create_task(topics.settle(settlement({tp: 20})))
        await asyncio.to_thread(remake, kafka.bootstrap, tp.topic)
        produce(kafka.bootstrap, tp.topic, numbered(5))
        await watcher.until(lambda: watcher.lost)
        for moves in (watcher.source._poller.ownership.let_go, watcher.source._poller.ownership.take):
            watcher.source._handoff.command(partial(moves, [tp]))
        await watcher.until(lambda: len(watcher.assigned) == 2)
        goes_on.set()
        await former
    produce(kafka.bootstrap, tp.topic, numbered(25, 5))
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.records) == 30)
        assert watcher.values() == numbered(30)


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

            with monkeypatch.context() as patch:
                patch.setattr(TopicIds, "of", lambda *_: {})
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


async def test_a_topic_of_which_the_library_tells_that_it_is_gone_ends_nobody(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It does so of the partition, for the whole consumer, or of the topic, whichever it notices first."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 1000.0)
    gone, stays = kafka.create_topic(), kafka.create_topic()
    path = properties(tmp_path, topic_metadata_propagation_max_ms=500, topic_metadata_refresh_interval_ms=500)
    chosen = settings(kafka.bootstrap, gone, KAFKA_SOURCE_TOPICS=f"{gone},{stays}", KAFKA_PROPERTIES_FILE=path)
    with capture_logs() as logs:
        async with watched(chosen) as watcher:
            await watcher.until(lambda: len(watcher.positions) == 2)
            await asyncio.to_thread(delete, kafka.bootstrap, gone)
            await watcher.until(lambda: any(gone in e["error"] for e in logs if e["event"] == "kafka_error"))
            produce(kafka.bootstrap, stays, numbered(3))
            await watcher.until(lambda: watcher.values() == numbered(3))


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_topic_that_is_there_again_is_read_from_its_first_record(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, revoked: bool
) -> None:
    """Whether the group has noticed meanwhile or not; what is waited for keeps nobody from reading the others."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    gone, stays = kafka.create_topic(), kafka.create_topic()
    path = properties(tmp_path, topic_metadata_propagation_max_ms=500, topic_metadata_refresh_interval_ms=500)
    more = {"KAFKA_PROPERTIES_FILE": path} if revoked else {}
    chosen = settings(kafka.bootstrap, gone, KAFKA_SOURCE_TOPICS=f"{gone},{stays}", **more)
    produce(kafka.bootstrap, gone, [b"former"] * 3)
    async with watched(chosen) as watcher:
        await watcher.until(lambda: len(watcher.records) == 3)
        await asyncio.to_thread(delete, kafka.bootstrap, gone)
        await watcher.until(lambda: TopicPartition(gone, 0) not in watcher.positions)
        await watcher.until(lambda: watcher.starting == (set() if revoked else {TopicPartition(gone, 0)}))
        await watcher.until(lambda: set(watcher.source.missing) == {gone})
        produce(kafka.bootstrap, stays, numbered(3))
        await watcher.until(lambda: watcher.values()[3:] == numbered(3))
        await asyncio.to_thread(make, kafka.bootstrap, gone)
        produce(kafka.bootstrap, gone, numbered(5))
        await watcher.until(lambda: watcher.values()[6:] == numbered(5))
        assert watcher.assigned[-1].positions == {TopicPartition(gone, 0): 0}
        await watcher.until(lambda: not watcher.source.missing)


async def test_a_topic_that_was_not_gone_after_all_goes_on_where_it_is_committed(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker may not know it for a moment. What was under way is given up, so it has to come again."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    chosen = names(kafka)
    tp = first_of(chosen)
    produce(kafka.bootstrap, tp.topic, numbered(5))
    async with watched(chosen) as watcher, opened(chosen, watcher.source.group_metadata) as topics:
        await watcher.until(lambda: len(watcher.records) == 5)
        await topics.settle(settlement({tp: 2}))
        with monkeypatch.context() as patch:
            patch.setattr(TopicIds, "of", lambda *_: {tp.topic: None})
            await watcher.until(lambda: watcher.lost)
        await watcher.until(lambda: len(watcher.assigned) == 2)
        assert watcher.positions == {tp: 2}
        await watcher.until(lambda: watcher.values()[5:] == numbered(3, 2))


async def test_latest_skips_nothing_of_a_topic_that_is_there_again(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's offsets went with the former, and nothing was settled of it."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    tp = TopicPartition(kafka.create_topic(), 0)
    chosen = settings(kafka.bootstrap, tp.topic, KAFKA_START="latest", KAFKA_CHANGELOG_TOPIC=kafka.create_topic())
    async with watched(chosen) as watcher:
        await watcher.until(lambda: watcher.positions)
        await asyncio.to_thread(delete, kafka.bootstrap, tp.topic)
        await watcher.until(lambda: watcher.lost)
        await asyncio.to_thread(make, kafka.bootstrap, tp.topic)
        produce(kafka.bootstrap, tp.topic, numbered(5))
        await watcher.until(lambda: watcher.values() == numbered(5))


async def test_a_topic_that_is_there_again_with_fewer_partitions_ends_the_process(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its contacts are in other partitions than they were."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    topic = kafka.create_topic(partitions=2)
    async with watched(settings(kafka.bootstrap, topic)) as watcher:
        await watcher.until(lambda: len(watcher.positions) == 2)
        await asyncio.to_thread(delete, kafka.bootstrap, topic)
        await watcher.until(lambda: len(watcher.lost) == 2)
        await asyncio.to_thread(make, kafka.bootstrap, topic)
        with pytest.raises(FatalError, match="made anew with fewer partitions"):
            await watcher.until(lambda: False)


async def test_a_changelog_that_is_made_anew_ends_the_process(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Producers write on in it, and whoever restores from it would know nothing of what was delivered before.

    One that a broker just does not know ends nobody.
    """
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 0.3)
    chosen = names(kafka)
    looks: list[str | None] = []
    ids_of = TopicIds.of

    def noted(self: TopicIds, admin: AdminClient, topics: Collection[str]) -> dict[str, str | None]:
        ids = ids_of(self, admin, topics)
        if chosen.kafka_changelog_topic in topics:
            looks.append(ids.get(chosen.kafka_changelog_topic, "not told"))
        return ids

    monkeypatch.setattr(TopicIds, "of", noted)
    async with watched(chosen, changelog_id=topic_id(Connection.of(chosen), chosen.kafka_changelog_topic)) as watcher:
        await watcher.until(lambda: len(looks) > 1 and len(watcher.positions) == 1)
        await asyncio.to_thread(delete, kafka.bootstrap, chosen.kafka_changelog_topic)
        await watcher.until(lambda: looks.count(None) > 1)
        await asyncio.to_thread(make, kafka.bootstrap, chosen.kafka_changelog_topic)
        with pytest.raises(FatalError, match=f"{chosen.kafka_changelog_topic} was deleted and made anew"):
            await watcher.until(lambda: False)
    assert len({*looks} - {None, "not told"}) == 2, looks


async def settled(
    topics: KafkaEventTopics, watcher: Watcher, offsets: Mapping[TopicPartition, int]
) -> tuple[set[TopicPartition], int]:
    """Settle what is ours of this as the pipeline does, again and again until it works.

    Returns of which partitions it did, and how often it did not.
    """
    for failed in itertools.count():
        ours = {partition: offset for partition, offset in offsets.items() if partition in watcher.positions}
        with suppress(TransientError):
            await topics.settle(settlement(ours))
            return {*ours}, failed
        await watcher.step()
    raise AssertionError


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_topic_that_goes_with_works_under_way_holds_up_no_other(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, guarantee: str
) -> None:
    """Nobody can settle them, nor others together with them: they are given up, and the new one is read whole."""
    monkeypatch.setattr(starts, "LOOK_EVERY_S", 5.0)  # late enough that settling them is tried first
    gone, stays = kafka.create_topic(), kafka.create_topic()
    chosen = names(kafka, KAFKA_SOURCE_TOPICS=f"{gone},{stays}", KAFKA_GUARANTEE=guarantee)
    going, staying = TopicPartition(gone, 0), TopicPartition(stays, 0)
    told: list[TopicPartition] = []
    for topic in (gone, stays):
        produce(kafka.bootstrap, topic, [b"former"] * 3)
    async with (
        watched(chosen, overtaken=told) as watcher,
        opened(chosen, watcher.source.group_metadata, watcher.source.commit) as topics,
    ):
        await watcher.until(lambda: len(watcher.records) == 6)
        await asyncio.to_thread(delete, kafka.bootstrap, gone)
        of, failed = await settled(topics, watcher, {going: 3, staying: 3})
        assert of == {staying}
        assert failed > 0
        assert committed(kafka.bootstrap, chosen, staying) == [3]
        assert [each.partitions for each in watcher.lost] == [[going]]
        await asyncio.to_thread(make, kafka.bootstrap, gone)
        produce(kafka.bootstrap, gone, numbered(5))
        await watcher.until(lambda: watcher.values()[6:] == numbered(5))
        assert told == [going]
        await topics.settle(settlement({going: 5, staying: 3}))
        assert committed(kafka.bootstrap, chosen, going, staying) == [5, 3]


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
