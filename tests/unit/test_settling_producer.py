"""What the producer that settles, and whoever replaces it, make of failures that no real broker shows at will."""

import threading
from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.adapters.kafka.group_offsets import Membership
from consumer.adapters.kafka.settling_producer import SettlingProducer
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition
from tests.kafka_clients import settings, settlement

PARTITION = TopicPartition("crm", 0)
MEMBERSHIP = Membership(None, frozenset({PARTITION}), {})
ATTEMPT = settlement({PARTITION: 1}, audit=[(b"k", b"v")], changelog=[(PARTITION, b"k", b"1")])


class Library:
    """A producer of the library: calls succeed, save those of which it is told how they fail.

    Attributes:
        calls: Their names, in order.
    """

    def __init__(self, failing: Mapping[str, KafkaError]) -> None:
        self._failing = failing
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*_: object, **__: object) -> int:
            self.calls.append(name)
            if name in self._failing:
                raise KafkaException(self._failing[name])
            return 0

        return call


class Made:
    """A connection that gives these producers, one after the other."""

    def __init__(self, *producers: Library) -> None:
        self._producers = iter(producers)

    def producer(self, *_: object) -> Library:
        """The next one."""
        return next(self._producers)


CHOSEN = settings("127.0.0.1:1", PARTITION.topic)


def test_a_garbled_answer_is_not_laid_to_names() -> None:
    """The library has the same code where it refuses a name, which ends the process."""
    garbled = Library({"list_topics": KafkaError(KafkaError._BAD_MSG)})
    producer = SettlingProducer(Made(garbled), CHOSEN, "t", threading.Event())  # type: ignore[arg-type]
    with pytest.raises(SourceUnavailable, match="_BAD_MSG"):
        producer.transact(ATTEMPT, MEMBERSHIP)
    assert garbled.calls[-1] == "abort_transaction"
    assert not producer.in_transaction
