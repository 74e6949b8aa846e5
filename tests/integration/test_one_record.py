"""A single record is read from real Kafka, or it is said why not."""

import json

import pytest

from consumer import cli
from consumer.adapters.kafka import one_record
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.one_record import read_one
from consumer.errors import ConsumerError, FatalError, SourceUnavailable
from consumer.model import TopicPartition
from tests.kafka_clients import delete_records, produce
from tests.kafka_cluster import KafkaCluster
from tests.stories import Event

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]


def test_a_record_is_read_where_it_is(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second of three, and it is explained."""
    topic = kafka.create_topic("looked-at")
    produce(kafka.bootstrap, topic, [Event(f"c-{number}", 1).value() for number in range(3)])
    record = read_one(Connection(kafka.bootstrap), "group", TopicPartition(topic, 0), 1)
    assert (record.topic, record.partition, record.offset) == (topic, 0, 1)
    assert record.timestamp_ms > 0
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    assert cli.main(["check", "--output", "json", "--explain", f"{topic}/0/1"]) == 0
    steps = {step["name"]: step["lines"] for step in json.loads(capsys.readouterr().out)}
    assert steps["change event"][0] == "UPDATE of 'c-1'"


def test_an_offset_beyond_the_end_is_told(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is the end or farther, the answer comes within the wait."""
    monkeypatch.setattr(one_record, "WAIT_S", 2.0)
    topic = kafka.create_topic("looked-at")
    produce(kafka.bootstrap, topic, [Event("c-0", 1).value()])
    for offset, error in ((1, SourceUnavailable), (5, ConsumerError)):
        with pytest.raises(error, match=rf"no record at {offset} yet: {topic}/0 ends before 1"):
            read_one(Connection(kafka.bootstrap), "group", TopicPartition(topic, 0), offset)


def test_a_topic_that_is_not_there_is_told(kafka: KafkaCluster) -> None:
    """It is not made by asking."""
    with pytest.raises((FatalError, SourceUnavailable), match="there is no topic no-such-topic"):
        read_one(Connection(kafka.bootstrap), "group", TopicPartition("no-such-topic", 0), 0)


def test_a_partition_that_is_not_there_is_told(kafka: KafkaCluster) -> None:
    """With how many there are."""
    topic = kafka.create_topic("looked-at", partitions=2)
    with pytest.raises(FatalError, match=f"no partition 2 of {topic}: it has 2"):
        read_one(Connection(kafka.bootstrap), "group", TopicPartition(topic, 2), 0)


def test_a_record_that_retention_removed_is_told(kafka: KafkaCluster) -> None:
    """With where the partition begins."""
    topic = kafka.create_topic("looked-at")
    produce(kafka.bootstrap, topic, [Event(f"c-{number}", 1).value() for number in range(3)])
    delete_records(kafka.bootstrap, TopicPartition(topic, 0), 2)
    with pytest.raises(FatalError, match=f"no record at 1 any more: {topic}/0 begins at 2"):
        read_one(Connection(kafka.bootstrap), "group", TopicPartition(topic, 0), 1)
