"""What is replayed from the dead letters, or cannot be compared, comes after no withdrawal that was told later."""

from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from consumer.core.moments import iso
from consumer.model import Record, TopicPartition
from tests.lives import live
from tests.memory_ports import World
from tests.stories import TOPIC, Event

P0 = TopicPartition(TOPIC, 0)
FIRST_MS = Event("a", None).occurred_at
GARBAGE = b"\x01junk"


class Replayed(NamedTuple):
    """What a dead letter says, mended, and where it stood first."""

    origin: int
    event: Event


def at(seconds: int, version: int | None = None, **said: Any) -> Event:
    """What is told of the contact at a time."""
    return Event("a", version, occurred_at=FIRST_MS + 1000 * seconds, **said)


def _record(offset: int, step: Event | Replayed, earlier: list[Record]) -> Record:
    if isinstance(step, Event):
        return Record(*P0, offset, step.occurred_at, b"a", step.value())
    letter = earlier[step.origin]
    headers = (
        ("dead-letter.origin", f"{TOPIC}/0/{step.origin}".encode()),
        ("dead-letter.timestamp", iso(letter.timestamp_ms).encode()),
    )
    return replace(letter, offset=offset, value=step.event.value(), timestamp_ms=FIRST_MS + 10**6, headers=headers)


def _told(*steps: Event | Replayed, **changed: Any) -> bool | None:
    """Whether the contact is callable after each had a life of its own; None where it is not in the list."""
    world, records = World(), list[Record]()
    for offset, step in enumerate(steps):
        records.append(_record(offset, step, records))
        world.append(records[-1:])
        live(world, **changed)
    return world.list["a"]["callable"] is True if "a" in world.list else None


LOST = at(2, garbage=GARBAGE)


@pytest.mark.parametrize(
    ("steps", "is_callable"),
    [
        ([at(0), at(1, consent=False), LOST, at(3, consent=False), Replayed(2, at(2))], False),
        ([at(0), at(1, consent=False), LOST, at(1, consent=False), Replayed(2, at(2))], False),
        ([at(0), at(1, delete=True), LOST, at(3, delete=True), Replayed(2, at(2))], None),
        ([at(0), at(1, delete=True), LOST, at(1, delete=True), Replayed(2, at(2))], None),
        ([at(0, 1), at(1, 5, delete=True), LOST, at(1, 5, delete=True), Replayed(2, at(2, 5))], None),
        ([at(0, 3), at(1, delete=True), LOST, at(3, delete=True), Replayed(2, at(2, 5))], None),
        ([at(0), LOST, at(4), Replayed(1, at(2, consent=False))], True),
        ([at(0), LOST, at(0), Replayed(1, at(2, consent=False))], True),
    ],
    ids=[
        "withdrawal",
        "its bytes",
        "delete",
        "its bytes too",
        "one version",
        "some versions",
        "grant",
        "grant's bytes",
    ],
)
def test_what_was_told_again_stands_where_it_was_told_last(
    steps: list[Event | Replayed], is_callable: bool | None
) -> None:
    """The second time it is a duplicate, and behind the letter all the same: what that says is no news."""
    assert _told(*steps) is is_callable


def test_what_nobody_can_read_stands_where_it_was_told_last() -> None:
    """The later one may be the withdrawal."""
    assert _told(at(0), LOST, LOST, LOST, Replayed(2, at(2)), suppress_undecodable=True) is False


@pytest.mark.parametrize(
    "replayed",
    [
        [Replayed(1, at(1, 2))],
        [Replayed(1, at(1, 2, delete=True)), Replayed(2, at(2, 3))],
        [Replayed(1, at(1, 2, consent=False)), Replayed(2, at(2, 3))],
        [Replayed(2, at(2, 3)), Replayed(1, at(1, 2))],
    ],
    ids=["grant", "behind a delete", "behind a withdrawal", "backwards"],
)
def test_nothing_that_stood_before_a_tombstone_brings_its_contact_back(replayed: list[Replayed]) -> None:
    """A tombstone has no version, and Kafka's time is none to compare with: its place counts."""
    lost = [at(seconds, garbage=GARBAGE) for seconds in (1, 2)]
    assert not _told(at(0, 1), *lost, at(3, tombstone=True), *replayed)


@pytest.mark.parametrize(
    "steps",
    [
        [at(9, delete=True), at(2, 2, consent=False), at(3, 3)],
        [at(9, consent=False), at(2, 2, consent=False), at(3, 3)],
        [at(1, 1), at(2, 2, consent=False), at(9, consent=False), at(3, 3)],
    ],
    ids=["delete", "withdrawal", "repeat"],
)
def test_a_withdrawal_that_cannot_be_compared_leaves_the_later_time(steps: list[Event]) -> None:
    """Whichever of the two has a version: a grant needs a time later than both."""
    assert not _told(*steps)
    assert _told(*steps, at(10, 4)) is True
