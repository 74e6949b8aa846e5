"""What the checker is given of dead letters on a real topic must be what is there."""

from typing import cast

import pytest
from confluent_kafka import Message
from msgspec.structs import replace

from consumer.core.dead_letters import headers
from consumer.model import DeadLetter, Record, TopicPartition
from tests.harvest import letter
from tests.stories import Event, Story

RECORD = Story().tell(0, Event("a", 1)).records()[0]
LOG = {TopicPartition(RECORD.topic, 0): [RECORD]}


class _Message:
    """A dead letter as a reader has it."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return headers(DeadLetter(self._record, "email_invalid", "", 0))


def harvested(record: Record) -> tuple[Record, str]:
    """What becomes of a record that was given up."""
    return letter(cast("Message", _Message(record)), LOG)


def test_a_dead_letter_is_the_record_and_its_reason() -> None:
    """Headers that the program added are none of the record's."""
    assert harvested(RECORD) == (RECORD, "email_invalid")


@pytest.mark.parametrize("changed", [{"key": b"b"}, {"value": None}, {"headers": ()}, {"headers": RECORD.headers[:2]}])
def test_what_changed_on_the_way_shows(changed: dict[str, object]) -> None:
    """Its key, its value and each of its headers."""
    assert harvested(replace(RECORD, **changed))[0] != RECORD
