"""`sample-events` as its user runs it, on a real Kafka."""

from collections import Counter

import orjson
import pytest

from consumer.demo.samples import Kind
from tests import commands
from tests.kafka_clients import read
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

PARTITIONS = 2
RECORDS = 300

Records = Counter[tuple[int | None, bytes | None, bytes | None]]


async def sampled(kafka: KafkaCluster, *arguments: str) -> Records:
    """What the command puts into a topic of its own, the first of two source topics."""
    topic = kafka.create_topic("samples", partitions=PARTITIONS)
    settings = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "KAFKA_SOURCE_TOPICS": f"{topic},there-is-none"}
    options = ("--records", str(RECORDS), "--output", "json", *arguments)
    code, out, error = await commands.ended(settings, "sample-events", *options)
    assert code == 0, error
    told = orjson.loads(out)
    assert (told["topic"], told["records"], sum(told["kinds"].values())) == (topic, RECORDS, RECORDS)
    assert told["kinds"].keys() <= {*Kind}
    found = read(kafka.bootstrap, topic, partitions=PARTITIONS)
    return Counter((message.partition(), message.key(), message.value()) for message in found)


async def test_samples_are_on_the_source_topic_and_the_same_for_the_same_seed(kafka: KafkaCluster) -> None:
    """So that a trial can be repeated; another seed has other contacts, and none is the seed 0."""
    first, again, other = [await sampled(kafka, *seed) for seed in ((), ("--seed", "0"), ("--seed", "1"))]
    assert first.total() == RECORDS
    assert again == first
    assert not {key for _, key, _ in other} & {key for _, key, _ in first}
