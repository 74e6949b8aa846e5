"""Who joins no group reads without a right on it: the library looks for the group's coordinator all the same."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import KafkaError, Message

from consumer.adapters.kafka.bounded import BoundedReader, Span
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.failures import is_beside_reading
from consumer.adapters.kafka.one_record import read_one
from consumer.adapters.kafka.sampling import newest_records
from consumer.errors import Unauthorized
from consumer.model import TopicPartition
from tests.kafka_clients import mock_cluster_with_errors, produce

FETCH, FIND_COORDINATOR = 1, 10
ANSWERS = 100
"""More than a test asks for."""

PARTITION = TopicPartition("read", 0)


@pytest.fixture(params=[KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INVALID_GROUP_ID])
def bootstrap(request: pytest.FixtureRequest) -> Iterator[str]:
    """Brokers that do not tell of the group; there are two records."""
    with mock_cluster_with_errors(FIND_COORDINATOR, [request.param] * ANSWERS) as addresses:
        produce(addresses, PARTITION.topic, [b"0", b"1"])
        yield addresses


def test_a_stretch_is_read(bootstrap: str) -> None:
    """Also what comes after the refusal."""
    with closing(BoundedReader(Connection(bootstrap), "group", {PARTITION: Span(0, 3)})) as reader:
        messages = iter(reader)
        values = [next(messages).value()]
        produce(bootstrap, PARTITION.topic, [b"2"])
        values += [message.value() for message in messages]
    assert values == [b"0", b"1", b"2"]


def test_a_single_record_is_read(bootstrap: str) -> None:
    """The refusal comes before it: it is waited for."""
    later = threading.Timer(0.5, produce, [bootstrap, PARTITION.topic, [b"2"]])
    later.start()
    assert read_one(Connection(bootstrap), "group", PARTITION, 2).value == b"2"
    later.join()


async def test_the_newest_records_are_read(bootstrap: str) -> None:
    """Whatever the broker says of the group."""
    records = newest_records(Connection(bootstrap), "group", PARTITION.topic)
    assert [record.value async for some in records for record in some] == [b"0", b"1"]


async def test_whoever_may_not_read_a_topic_is_told_at_once() -> None:
    """That no group is joined makes up for no right on the topic itself."""
    with mock_cluster_with_errors(FETCH, [KafkaError.TOPIC_AUTHORIZATION_FAILED] * ANSWERS) as addresses:
        produce(addresses, PARTITION.topic, [b"0"])
        with pytest.raises(Unauthorized):
            await anext(newest_records(Connection(addresses), "group", PARTITION.topic))


@pytest.mark.parametrize(
    ("code", "beside"),
    [(KafkaError.GROUP_AUTHORIZATION_FAILED, True), (KafkaError._TRANSPORT, True), (KafkaError._FATAL, False)],
)
def test_the_end_of_the_client_is_no_error_of_the_group(code: int, beside: bool) -> None:
    """It has no topic either, and nobody can read on; an error of a partition is none of the group."""
    assert is_beside_reading(Message(error=KafkaError(code))) is beside
    assert not is_beside_reading(Message("read", error=KafkaError(code)))
