"""When a partition is paused for what it holds, and when it is read on."""

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from consumer.core.offsets import Tracker
from consumer.model import Assignment, Outcome, Record, TopicPartition
from consumer.pipeline.back_pressure import BEYOND, READ_AHEAD_BYTES, BackPressure
from consumer.pipeline.partitions import Partition, Partitions
from tests.memory_ports import MemorySource, World
from tests.stories import TOPIC

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
MIB = bytes(1024 * 1024)


def records(count: int, value: bytes = b"value") -> list[Record]:
    """Records of a partition; all share their value."""
    return [Record(*P0, offset, 0, None, value) for offset in range(count)]


def partition(key: TopicPartition, tracked: Sequence[Record] = (), held: Sequence[Record] = ()) -> Partition:
    """One that is read, with records to be settled and others that wait."""
    tracker = Tracker(Assignment(key), 0)
    for work in tracker.add(tracked):
        work.outcome = Outcome.DELIVERED
    made = Partition(Assignment(key), tracker, 0, blocked=bool(held))
    made.hold(held)
    return made


def pressure(*assigned: Partition, read_ahead: int = 100) -> tuple[BackPressure, MemorySource]:
    """Back pressure on partitions that all are read."""
    source = MemorySource(World())
    return BackPressure(Partitions({each.key: each for each in assigned}), source, read_ahead), source


@given(st.integers(0, 120), st.integers(0, 120), st.integers(0, 120))
def test_beyond_its_share_of_the_records_a_partition_is_paused(tracked: int, held: int, other: int) -> None:
    """What waits counts like what was taken in; the other one has a share of its own."""
    back_pressure, source = pressure(
        partition(P0, records(tracked), records(held)), partition(P1, records(other)), read_ahead=200
    )
    back_pressure.hold_back()
    assert (P0 in source.paused, P1 in source.paused) == (tracked + held > 100, other > 100)


@pytest.mark.parametrize(("megabytes", "paused"), [(64, set()), (65, {P0})])
def test_beyond_its_share_of_the_bytes_a_partition_is_paused(megabytes: int, paused: set[TopicPartition]) -> None:
    """A few large records are as much as many small ones: two partitions share 128 MiB."""
    assert 128 * len(MIB) == READ_AHEAD_BYTES
    back_pressure, source = pressure(partition(P0, records(megabytes, MIB)), partition(P1), read_ahead=10**6)
    back_pressure.hold_back()
    assert source.paused == paused


@pytest.mark.parametrize(("megabytes", "paused"), [(64, set()), (65, {P0})])
def test_what_waits_counts_by_its_bytes_too(megabytes: int, paused: set[TopicPartition]) -> None:
    """As while a schema cannot be had: it is in memory like what was taken in; let in, it is counted there."""
    waiting = partition(P0, held=records(megabytes - 1, MIB))
    waiting.hold(records(1, MIB), first=True)
    back_pressure, source = pressure(waiting, partition(P1), read_ahead=10**6)
    back_pressure.hold_back()
    assert source.paused == paused
    assert len(waiting.let_in()) == megabytes
    assert waiting.bytes == 0


@pytest.mark.parametrize(("left", "paused"), [(80, {P0}), (79, set())])
def test_below_four_fifths_of_its_share_it_is_read_on(left: int, paused: set[TopicPartition]) -> None:
    """Not at once below it: it would be paused and resumed with every record."""
    full = partition(P0, records(101))
    back_pressure, source = pressure(full)
    back_pressure.hold_back()
    full.tracker.settle(full.tracker.decided(101 - left))
    back_pressure.let_go()
    assert source.paused == paused


def test_a_full_partition_that_lacks_others_is_read_on_once_each_time() -> None:
    """Its next poll has it held back again; so often at most, until it has room again."""
    full, other = partition(P0, records(101)), partition(P1, records(101))
    back_pressure, source = pressure(full, other, read_ahead=200)
    for n in range(BEYOND + 5):
        back_pressure.hold_back()
        back_pressure.let_go()
        assert source.paused == {P0, P1}
        full.lacks_others = other.lacks_others = True
        back_pressure.let_go()
        assert len(source.paused) == 2 - (n < BEYOND)
        back_pressure.let_go()
        assert len(source.paused) == 2 - (n < BEYOND)
    full.tracker.settle(full.tracker.decided(50))
    back_pressure.let_go()
    back_pressure.hold_back()
    assert source.paused == {P1}
    other.lacks_others = True
    back_pressure.let_go()
    assert source.paused == set()


def test_a_partition_with_room_is_not_read_beyond_its_share_later() -> None:
    """That others were missing then tells nothing of the time when it is full."""
    each = partition(P0, records(50))
    back_pressure, source = pressure(each)
    each.lacks_others = True
    back_pressure.let_go()
    each.tracker.add([Record(*P0, offset, 0, None, b"value") for offset in range(50, 110)])
    back_pressure.hold_back()
    back_pressure.let_go()
    assert source.paused == {P0}
