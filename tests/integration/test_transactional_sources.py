"""Source topics that are filled in transactions: what ends one has an offset, and is no record."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from consumer.model import TopicPartition
from tests.integration.test_event_topics import first_of, names, opened
from tests.kafka_clients import WITHIN_S, commit, delete_records, settlement, transactional, watched
from tests.kafka_cluster import KafkaCluster

pytestmark = pytest.mark.kafka


def transact(kafka: KafkaCluster, topic: str, *transactions: tuple[Sequence[bytes], bool]) -> None:
    """Fill a topic by these transactions, each of which commits or aborts."""
    producer = transactional(kafka.bootstrap, topic)
    for values, commits in transactions:
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        producer.flush(WITHIN_S)
        (producer.commit_transaction if commits else producer.abort_transaction)(WITHIN_S)


FILLED = ([b"1", b"2"], True), ([b"aborted"], False), ([b"3"], True)
NEXT, END = 6, 7
"""Behind the last record of these, and behind what ends its transaction."""


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_retention_that_removes_what_was_settled_alarms_nobody(kafka: KafkaCluster, guarantee: str) -> None:
    """Of a quiet partition everything goes, what ended its last transaction too; also where nothing came since."""
    chosen = names(kafka, KAFKA_GUARANTEE=guarantee)
    tp = first_of(chosen)
    transact(kafka, tp.topic, *FILLED)
    told: list[TopicPartition] = []
    async with (
        watched(chosen) as watcher,
        opened(chosen, watcher.source.group_metadata, watcher.source.commit) as topics,
    ):
        await watcher.until(lambda: watcher.ends.get(tp) == END)
        assert watcher.values() == [b"1", b"2", b"3"]
        await topics.settle(settlement({tp: NEXT}))
    delete_records(kafka.bootstrap, tp, END)
    with capture_logs() as logs:
        for _ in range(2):
            async with watched(chosen, overtaken=told) as watcher:
                await watcher.until(lambda: watcher.ends.get(tp) == END)
                assert watcher.positions == {tp: END}
        transact(kafka, tp.topic, ([b"4"], True))
        async with watched(chosen, overtaken=told) as watcher:
            await watcher.until(lambda: watcher.values() == [b"4"])
    assert told == []
    assert "retention_overtook_the_group" not in {entry["event"] for entry in logs}


async def test_retention_that_removes_more_is_told(kafka: KafkaCluster) -> None:
    """What came behind was not read."""
    chosen = names(kafka)
    tp = first_of(chosen)
    transact(kafka, tp.topic, *FILLED)
    told: list[TopicPartition] = []
    async with watched(chosen) as watcher, opened(chosen, watcher.source.group_metadata) as topics:
        await watcher.until(lambda: watcher.ends.get(tp) == END)
        await topics.settle(settlement({tp: NEXT}))
    transact(kafka, tp.topic, ([b"lost"], True))
    delete_records(kafka.bootstrap, tp, END + 1)
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: watcher.assigned)
        await watcher.until(lambda: told == [tp])


async def test_retention_at_work_alarms_nobody_either(kafka: KafkaCluster) -> None:
    """A partition that was paused goes on behind its last record, which is gone, and so is what stood behind it."""
    chosen = names(kafka)
    tp = first_of(chosen)
    transact(kafka, tp.topic, *FILLED)
    told: list[TopicPartition] = []
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: watcher.ends.get(tp) == END)
        watcher.source.pause([tp])
        await watcher.stay(lambda: True, polls_for=0.2)
        delete_records(kafka.bootstrap, tp, END)
        transact(kafka, tp.topic, ([b"4"], True))
        watcher.source.resume([tp])
        await watcher.until(lambda: watcher.values()[3:] == [b"4"])
        assert told == []


async def test_an_offset_that_an_operator_has_set_is_believed(kafka: KafkaCluster) -> None:
    """It has no epoch by which a log could be told from what it was."""
    chosen = names(kafka)
    tp = first_of(chosen)
    transact(kafka, tp.topic, *FILLED)
    commit(kafka.bootstrap, chosen, tp, 1)
    told: list[TopicPartition] = []
    async with watched(chosen, overtaken=told) as watcher:
        await watcher.until(lambda: watcher.ends.get(tp) == END)
        assert watcher.values() == [b"2", b"3"]
    assert told == []
