"""What a reader of a source topic does while nothing comes."""

import itertools
from typing import Any

import pytest
from confluent_kafka import Message

from consumer.adapters.kafka import history
from consumer.adapters.kafka.changelog import GIVES_UP_AFTER_S
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition
from tests.scripted_client import Client, Clock

PARTITION = TopicPartition("contacts", 0)


def read(monkeypatch: pytest.MonkeyPatch, script: Any, polls: int) -> list[int]:
    """The offsets that come in so many polls, each of which waits for nothing."""
    clock = Clock()
    monkeypatch.setattr(history, "time", clock)
    reader = history._Reader(Client(clock, script), "group", PARTITION, 0, 3)  # type: ignore[arg-type]  # stands in for both
    return [record.offset for _ in range(polls) for record in reader.next()]


def record(offset: int) -> Message:
    """A record of the partition."""
    return Message(partition=0, offset=offset, value=b"v")


def silence(seconds: float) -> list[Message | None]:
    """As many polls as take so long."""
    return [None] * round(seconds / history.POLL_S)


def test_one_that_hears_nothing_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may have lost the brokers for good; whoever asked is told, and may ask again."""
    with pytest.raises(SourceUnavailable, match="nothing of contacts/0 came for 90 s"):
        read(monkeypatch, itertools.repeat(None), len(silence(GIVES_UP_AFTER_S)) + 2)


def test_one_that_hears_something_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The silence counts from the last record on."""
    pause = silence(GIVES_UP_AFTER_S * 0.9)
    script = [*pause, record(0), *pause, record(1), *pause]
    assert read(monkeypatch, script, len(script)) == [0, 1]
