"""First and last offsets: what the library tells without having been told is no offset."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition as NativePartition
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka.failures import error_of, is_hopeless
from consumer.adapters.kafka.watermarks import low_and_high, stable_ends, told_low_and_high
from consumer.model import TopicPartition

PARTITIONS = [TopicPartition("source", 0), TopicPartition("source", 1)]
NO_LEADER = -4321
"""Stands for the offset of a partition of which nobody tells."""


class _Admin:
    """Tells offsets by partition, as the library does."""

    def __init__(self, offsets: dict[int, int]) -> None:
        self._offsets = offsets

    def list_topics(self, _: str, timeout: float) -> None:
        """Everybody is known."""

    def list_offsets(self, asked: dict[NativePartition, Any], **_: Any) -> dict[NativePartition, "Future[Any]"]:
        return {partition: self._told(self._offsets[partition.partition]) for partition in asked}

    @staticmethod
    def _told(offset: int) -> "Future[Any]":
        future: Future[Any] = Future()
        if offset == NO_LEADER:
            future.set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)))
        else:
            future.set_result(SimpleNamespace(offset=offset))
        return future


def _client(offsets: dict[int, int]) -> AdminClient:
    return cast("AdminClient", _Admin(offsets))


def test_offsets_by_partition() -> None:
    """Zero is an offset like others."""
    expected = {PARTITIONS[0]: 0, PARTITIONS[1]: 7}
    assert low_and_high(_client({0: 0, 1: 7}), PARTITIONS) == (expected, expected)
    assert stable_ends(_client({0: 0, 1: 7}), PARTITIONS) == expected


@pytest.mark.parametrize("ask", [low_and_high, stable_ends])
def test_an_answer_without_an_offset_is_none(ask: Any) -> None:
    """The library may lose a broker's answer and tell of success all the same: then it is asked again."""
    with pytest.raises(KafkaException, match=r"no offset came for .*source/1") as failure:
        ask(_client({0: 3, 1: OFFSET_INVALID}), PARTITIONS)
    error = error_of(failure.value)
    assert error.code() == KafkaError._PARTIAL
    assert not is_hopeless(error)


@pytest.mark.parametrize("untold", [OFFSET_INVALID, NO_LEADER])
def test_a_partition_of_which_nobody_tells_keeps_no_other_from_being_told(untold: int) -> None:
    """Where that is allowed for; where nothing is told at all, it is a failure."""
    expected = {PARTITIONS[0]: 3}
    assert told_low_and_high(_client({0: 3, 1: untold}), PARTITIONS) == (expected, expected)
    with pytest.raises(KafkaException):
        told_low_and_high(_client({0: untold, 1: untold}), PARTITIONS)
    with pytest.raises(KafkaException):
        low_and_high(_client({0: 3, 1: untold}), PARTITIONS)
