"""`audit verify` on a real Kafka: what is planted is found, and what Kafka does by itself is no problem."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Producer

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.group_offsets import committed
from consumer.core.audit import Auditor
from consumer.model import Assignment, ChainHead, Outcome, Record, TopicPartition, Work
from consumer.operate.audit import Verification
from consumer.settings import Settings
from tests.kafka_clients import (
    QUIET,
    WITHIN_S,
    commit,
    delete_records,
    mock_cluster_with_errors,
    produce,
    settings,
    transactional,
)
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(60)]

AUDIT_PARTITIONS = 3
NOW_MS = time.time_ns() // 1_000_000


NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE = 16, 15
OFFSET_FETCH = 9


class Trail:
    """A source topic, its audit topic, and what is on both."""

    def __init__(self, kafka: KafkaCluster, start: str = "earliest") -> None:
        topic = kafka.create_topic("verified", partitions=2)
        audit = kafka.create_topic(partitions=AUDIT_PARTITIONS)
        self.settings: Settings = settings(kafka.bootstrap, topic, KAFKA_AUDIT_TOPIC=audit, KAFKA_START=start)
        self._bootstrap = kafka.bootstrap
        self._auditor = Auditor("list", b"a key of the tests")
        self._heads: dict[int, ChainHead] = {}
        self._written = 0

    def source(self, partition: int) -> TopicPartition:
        return TopicPartition(self.settings.kafka_source_topics[0], partition)

    def records(self, count: int, partition: int = 0, producer: Producer | None = None) -> None:
        """Put records on the source topic."""
        own = producer or Producer({"bootstrap.servers": self._bootstrap, **QUIET})
        for _ in range(count):
            own.produce(self.source(partition).topic, b"value", b"key", partition)
        assert own.flush(WITHIN_S) == 0

    def events(self, offsets: Sequence[int], partition: int = 0) -> list[bytes]:
        """The next events of a source partition, not written yet."""
        source = self.source(partition)
        works = [
            Work(Record(*source, n, 0, None, None), Assignment(source), outcome=Outcome.DELIVERED) for n in offsets
        ]
        made, self._heads[partition] = self._auditor.records(
            works, self._heads.get(partition, ChainHead()), NOW_MS / 1000
        )
        return [value for _, value in made]

    def write(self, values: Sequence[bytes]) -> None:
        """Put events on the audit topic, in turn on its partitions, a millisecond apart."""
        producer = Producer({"bootstrap.servers": self._bootstrap, **QUIET})
        for value in values:
            when = NOW_MS + self._written
            producer.produce(self.settings.kafka_audit_topic, value, b"key", self._written * 7 % 3, timestamp=when)
            self._written += 1
        assert producer.flush(WITHIN_S) == 0

    def commit(self, offset: int, partition: int = 0) -> None:
        """The group has settled up to there."""
        commit(self._bootstrap, self.settings, self.source(partition), offset)

    def verify(self, capsys: pytest.CaptureFixture[str], since: int | None = None, until: int | None = None) -> Any:
        """What the command prints."""
        verification = Verification(self.settings, since, until)
        verification.begin()
        return told(verification, capsys)

    def delete_events(self, partition: int, before: int) -> None:
        """As retention does, in one partition of the audit topic."""
        delete_records(self._bootstrap, TopicPartition(self.settings.kafka_audit_topic, partition), before)


def told(verification: Verification, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a verification prints; its last line for people agrees with it."""
    whole = verification.run()
    capsys.readouterr()
    verification.print_result("json")
    result = json.loads(capsys.readouterr().out)
    verification.print_result("text")
    verdict = "✓ whole" if whole else "✗ not whole" if result["partitions"] else "✗ nothing to check"
    assert capsys.readouterr().out.splitlines()[-1].startswith(verdict)
    assert result["whole"] is whole
    return result


def _problems(result: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for partition in result["partitions"]:
        counts |= partition["problems"]
    return counts


@pytest.fixture
def trail(kafka: KafkaCluster) -> Trail:
    """A hundred records of each of two partitions, settled; their events are for the test to write."""
    made = Trail(kafka)
    for partition in range(2):
        made.records(100, partition)
        made.commit(100, partition)
    return made


def test_a_whole_trail_is_whole(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """Two chains, spread over three partitions."""
    one, other = trail.events(range(100)), trail.events(range(100), 1)
    trail.write([event for pair in zip(one, other, strict=True) for event in pair])
    result = trail.verify(capsys)
    assert result["whole"]
    assert [(each["events"], each["firstOffset"], each["lastOffset"]) for each in result["partitions"]] == [
        (100, 0, 99),
        (100, 0, 99),
    ]


def test_tampering_is_found(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """One outcome was changed."""
    events = trail.events(range(100))
    trail.write(
        [*events[:50], events[50].replace(b"delivered", b"duplicate"), *events[51:], *trail.events(range(100), 1)]
    )
    assert _problems(trail.verify(capsys)) == {"altered": 1}


def test_a_lost_event_is_found(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """Its number is missing, and the record of its offset stands in the source topic."""
    events = trail.events(range(100))
    trail.write([*events[:50], *events[51:], *trail.events(range(100), 1)])
    assert _problems(trail.verify(capsys)) == {"missing": 1, "without_event": 1}


def test_a_repeated_event_is_found(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """The same event a second time."""
    events = trail.events(range(100))
    trail.write([*events, events[50], *trail.events(range(100), 1)])
    assert _problems(trail.verify(capsys)) == {"repeated": 1}


def test_the_loss_of_the_last_events_is_found(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """The chain is whole as far as it goes; the group has settled more than it tells."""
    trail.write([*trail.events(range(95)), *trail.events(range(100), 1)])
    assert _problems(trail.verify(capsys)) == {"without_event": 5}


def test_a_group_that_has_settled_nothing_cannot_tell_where_the_trail_ends(
    trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name is misspelt: events that are missing at the end would not be, and all would be whole."""
    trail.write([*trail.events(range(95)), *trail.events(range(100), 1)])
    trail.settings = replace(trail.settings, kafka_group_id="misspelt")
    verification = Verification(trail.settings, None, None)
    verification.begin()
    result = told(verification, capsys)
    assert (result["whole"], result["withoutOffsets"], _problems(result)) == (False, 2, {})
    verification.print_result("text")
    assert "✗ group misspelt has no offsets in 2 of them" in capsys.readouterr().out
    assert trail.verify(capsys, until=NOW_MS + 1_000_000)["whole"]


def test_a_group_that_settles_for_the_first_time_meanwhile_is_no_other_one(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """It had no offsets when they were asked for, and events when these were read."""
    trail = Trail(kafka)
    trail.records(10)
    verification = Verification(trail.settings, None, None)
    trail.write(trail.events(range(10)))
    verification.begin()
    trail.commit(10)
    assert told(verification, capsys)["whole"]


def test_records_before_the_first_event_are_found(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """The chain begins with number 0, of a later record; of what retention has removed nobody can tell."""
    trail = Trail(kafka)
    trail.records(30)
    trail.commit(30)
    trail.write(trail.events(range(10, 30)))
    assert _problems(trail.verify(capsys)) == {"without_event": 10}
    assert _problems(trail.verify(capsys, until=NOW_MS + 10)) == {"without_event": 10}
    assert trail.verify(capsys, since=NOW_MS)["whole"]
    delete_records(kafka.bootstrap, trail.source(0), 7)
    assert _problems(result := trail.verify(capsys)) == {"without_event": 3}
    assert [each["unchecked"] for each in result["partitions"]] == [7]


def test_a_group_that_began_at_the_end_needs_no_events_before(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `KAFKA_START=latest` what stood there before was not for it."""
    trail = Trail(kafka, "latest")
    trail.records(30)
    trail.commit(30)
    trail.write(trail.events(range(10, 30)))
    assert trail.verify(capsys)["whole"]


def test_a_time_without_events_proves_nothing(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for the wrong year must not be told that all is well."""
    trail.write(trail.events(range(100)))
    assert not trail.verify(capsys, since=NOW_MS + 1_000_000)["whole"]


def test_the_loss_of_a_whole_chain_is_found(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing tells of a partition that was settled."""
    trail.write(trail.events(range(100)))
    assert _problems(trail.verify(capsys)) == {"without_event": 100}


def test_something_else_on_the_topic_is_found(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told by its place."""
    trail.write([b"not ours", *trail.events(range(100)), *trail.events(range(100), 1)])
    result = trail.verify(capsys)
    assert (result["whole"], result["unreadable"]) == (False, 1)


def test_marks_of_transactions_in_the_source_are_no_records(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """They take offsets of which no event can tell; so do records that a transaction took back."""
    trail = Trail(kafka)
    producer = transactional(kafka.bootstrap, trail.settings.kafka_group_id)
    for n in range(3):
        producer.begin_transaction()
        trail.records(10, producer=producer)
        (producer.abort_transaction if n == 1 else producer.commit_transaction)(WITHIN_S)
    trail.commit(33)
    trail.write(trail.events([*range(10), *range(22, 32)]))
    assert trail.verify(capsys)["whole"]


def test_what_the_source_no_longer_has_cannot_be_told(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and is no problem."""
    trail = Trail(kafka)
    trail.records(30)
    trail.commit(30)
    trail.write(trail.events([*range(10), *range(15, 30)]))
    delete_records(kafka.bootstrap, trail.source(0), 20)
    result = trail.verify(capsys)
    assert result["whole"]
    assert [each["unchecked"] for each in result["partitions"]] == [5]


def test_retention_of_the_audit_topic_is_no_loss(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """It works on each partition by itself: what is verified begins where all of them still have everything."""
    trail.write([*trail.events(range(100)), *trail.events(range(100), 1)])
    trail.delete_events(1, before=10)
    result = trail.verify(capsys)
    assert result["whole"]
    assert 60 <= result["partitions"][0]["events"] <= 70
    assert result["partitions"][1]["events"] == 100


def test_a_span_of_time_is_verified(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """From a moment on, up to another; what lies outside does not matter."""
    events = trail.events(range(100))
    trail.write([*events[:10], *events[11:], *trail.events(range(100), 1)])
    result = trail.verify(capsys, NOW_MS + 50, NOW_MS + 80)
    assert result["whole"]
    assert [each["events"] for each in result["partitions"]] == [30]
    assert not trail.verify(capsys, until=NOW_MS + 80)["whole"]


def test_a_settlement_across_the_end_is_read_to_its_end(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    """Ends of partitions are asked for one after the other: what one of them lacks is fetched."""
    events = trail.events(range(100))
    trail.write(trail.events(range(100), 1))
    trail.write([*events[:97], *events[98:]])
    verification = Verification(trail.settings, None, None)
    verification.begin()
    trail.write([events[97], *trail.events(range(100, 120))])
    assert _problems(told(verification, capsys)) == {}


@pytest.mark.parametrize("code", [NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE])
def test_a_coordinator_that_is_moving_is_waited_for(code: int) -> None:
    """An admin client of the library crashes the process with these answers: a consumer asks for the offsets."""
    with mock_cluster_with_errors(OFFSET_FETCH, [code]) as bootstrap:
        produce(bootstrap, "moving", [b"a record"])
        chosen = settings(bootstrap, "moving")
        assert committed(Connection.of(chosen), chosen.kafka_group_id, [TopicPartition("moving", 0)]) == {}
