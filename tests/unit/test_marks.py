"""Up to where a partition was read: how that is committed, comes back, and tells what is gone."""

import math
from unittest.mock import Mock

import pytest

from consumer.adapters.kafka.connection import Connection, native
from consumer.adapters.kafka.group_offsets import GroupMember, Mark, _mark_of, marked
from consumer.adapters.kafka.starts import Start, Starts, _Answers, _first, _perhaps_cut
from consumer.model import TopicPartition
from tests.kafka_clients import settings

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.mark.parametrize(
    "mark",
    [Mark(5), Mark(5, "a"), Mark(5, "a", 3), Mark(5, "", 0), Mark(5, "a", 3, 7), Mark(5, "", -1, 7)],
)
def test_what_is_committed_comes_back(mark: Mark) -> None:
    """Epoch and offset as the brokers know them, the rest beside them."""
    told = marked(P0, mark)
    assert (told.offset, told.leader_epoch) == (5, None if mark.epoch < 0 else mark.epoch)
    assert _mark_of(told) == mark


def test_what_was_reached_is_told_only_where_it_is_further() -> None:
    """Records have come since."""
    assert marked(P0, Mark(7, "a", 3, 7)).metadata == "topic-id:a"


def test_who_reads_the_id_alone_finds_none_where_more_stands_beside_it() -> None:
    """An earlier checkout takes all behind its name for the id, and so a longer text for another topic."""
    assert marked(P0, Mark(5, "a", 3, 7)).metadata == "reached:7 topic-id:a"


@pytest.mark.parametrize("beside", ["", "somebody's", "reached:soon", "reached:", "reached:-7"])
def test_what_others_put_beside_an_offset_tells_nothing(beside: str) -> None:
    """An operator's offset is believed as it is."""
    assert _mark_of(native(P0, 5, beside)) == Mark(5)


@pytest.mark.parametrize(
    ("settled", "committed"),
    [(5, Mark(5, "a", 3, 7)), (4, Mark(4, "a", 3)), (6, Mark(6, "a"))],
    ids=["all that was read", "less", "more than is known of"],
)
def test_an_offset_is_committed_with_what_is_known_of_it(settled: int, committed: Mark) -> None:
    """An epoch that is too late tells of fewer logs that were cut off; one that is too early, of some that were not."""
    membership = GroupMember(None, frozenset({P0}), {P0: Mark(5, "a", 3, 7)})
    assert [_mark_of(each) for each in membership.marked({P0: settled, P1: 2})] == [committed, Mark(2)]


@pytest.mark.parametrize(
    ("offset", "expected", "misses"),
    [
        (5, Mark(5, "a", 3, 7), False),
        (7, Mark(5, "a", 3, 7), False),
        (8, Mark(5, "a", 3, 7), True),
        (6, Mark(5, "a", 3), True),
        (4, Mark(5, "a", 3, 7), True),
        (5, Mark(5, "b", 3, 7), True),
        (5, None, False),
    ],
    ids=["there", "what ended transactions went", "records went", "a record went", "cut off", "another topic", "new"],
)
def test_who_begins_elsewhere_misses_records(*, offset: int, expected: Mark | None, misses: bool) -> None:
    """Unless all that is gone has only ended transactions."""
    assert Start(offset, 30, expected, "a").misses is misses


def test_who_wrote_before_a_start_is_known_where_it_is_as_expected() -> None:
    """There alone brokers can tell whether it is still the same log."""
    expected = Mark(5, "", 3, 7)
    assert Start(5, 30, expected, "a").mark == Mark(5, "a", 3, 7)
    assert Start(7, 30, expected, "a").mark == Mark(7, "a")
    assert Start(5, 30, Mark(5, "b", 3), "a").mark == Mark(5, "a")
    assert Start(5, 30, None, "a").mark == Mark(5, "a")


@pytest.mark.parametrize(
    ("goes_on", "first"),
    [(3, 3), (2, 2), (5, 5), (8, 5), (None, 5), (1, 5)],
    ids=["cut off", "cut off to its beginning", "there", "the next one", "not asked", "not there any more"],
)
def test_a_log_that_was_cut_off_is_read_from_there(goes_on: int | None, first: int) -> None:
    """Where it goes on before what should come first, it has been."""
    assert _first(Mark(5, "a", 3), "a", 2, 30, goes_on) == first


@pytest.mark.parametrize(
    ("expected", "first"),
    [(None, 2), (Mark(5, "b"), 2), (Mark(5, "a"), 5), (Mark(9, "a"), 9), (Mark(1, "a"), 2), (Mark(10, "a"), 2)],
    ids=["new", "of another topic", "there", "the end", "not there any more", "not there yet"],
)
def test_a_partition_is_read_from_what_should_come_first_or_as_a_whole(expected: Mark | None, first: int) -> None:
    """What comes again is a duplicate; what was skipped would be lost."""
    assert _first(expected, "a", 2, 9, None) == first


def test_what_was_asked_before_a_partition_left_is_not_for_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another member may have settled more of it in between."""
    chosen = settings("127.0.0.1:1", "t")
    starts, consumer = Starts(Connection.of(chosen), chosen), Mock()
    committed = iter([Mark(5, "a"), Mark(9, "a")])

    def ask(_: object) -> _Answers:
        return _Answers({"t": "a"}, [P0], (), {P0: next(committed)}, {P0: 0}, {P0: 20}, {})

    def told() -> dict[TopicPartition, Start]:
        assert starts._answers is not None
        starts._answers.result(10)
        return starts.poll(consumer, math.inf)

    monkeypatch.setattr(starts, "_ask", ask)
    starts.add([P0])
    starts.poll(consumer, 0.0)
    starts.discard([P0])
    assert len(starts) == 0
    starts.add([P0])
    assert told() == {}
    starts.poll(consumer, math.inf)
    assert told() == {P0: Start(9, 20, Mark(9, "a"), "a")}
    starts.close()


def test_a_log_that_is_still_shorter_is_read_from_where_it_was_cut_off_too() -> None:
    """Where nobody can tell, all of it comes again."""
    assert _first(Mark(5, "a", 3), "a", 0, 4, 3) == 3
    assert _first(Mark(5, "a"), "a", 0, 4, None) == 0


@pytest.mark.parametrize(
    ("mark", "asked"),
    [(Mark(5, "a", 0), True), (Mark(5, "a"), False), (Mark(5, "b", 0), False), (Mark(1, "a", 0), False), (None, False)],
    ids=["with an epoch", "without", "of another topic", "not there any more", "committed"],
)
def test_brokers_are_asked_only_where_they_can_tell(*, mark: Mark | None, asked: bool) -> None:
    """For the others it is as it ever was. What is committed they tell of when it is fetched."""
    told, committed = {P0: mark, P1: Mark(5, "a", 0)}, {P0: Mark(8, "a", 0)}
    assert _perhaps_cut(told, committed, {"t": "a"}, {P0: 2}, {P0: 8}) == ({P0: mark} if asked else {})


def test_brokers_are_asked_where_the_log_does_not_reach_what_is_committed() -> None:
    """It cannot be fetched from there."""
    committed = {P0: Mark(8, "a", 0), P1: None}
    assert _perhaps_cut({P0: None, P1: None}, committed, {"t": "a"}, {P0: 2, P1: 2}, {P0: 7, P1: 7}) == {
        P0: Mark(8, "a", 0)
    }
