"""Which offset may be committed: never past a record that is not settled, whatever the order of the answers."""

import tracemalloc

import pytest
from hypothesis import given, strategies as st

from consumer.core.offsets import HEADER_BYTES, PART_BYTES, Tracker
from consumer.model import Assignment, Outcome, Record, TopicPartition, Work

PARTITION = TopicPartition("crm.contacts.changes", 3)
ASSIGNMENT = Assignment(PARTITION)


def record(offset: int, value: bytes | None = b"value") -> Record:
    """A record of the partition."""
    return Record(*PARTITION, offset, 0, b"key", value)


def records(*offsets: int) -> list[Record]:
    """Records of the partition."""
    return [record(offset) for offset in offsets]


def tracking(*offsets: int) -> tuple[Tracker, list[Work]]:
    """A tracker that begins with the first of these offsets, and their works."""
    tracker = Tracker(ASSIGNMENT, offsets[0])
    return tracker, tracker.add(records(*offsets))


def decide(*works: Work) -> None:
    """Give works their outcome."""
    for work in works:
        work.outcome = Outcome.DELIVERED


# -- what is tracked


def test_works_carry_their_record_and_assignment() -> None:
    """Each record becomes one work, in its order, under the ownership of the tracker."""
    _, works = tracking(5, 6, 7)
    assert [work.record for work in works] == records(5, 6, 7)
    assert all(work.assignment is ASSIGNMENT and work.outcome is None for work in works)


def test_a_fresh_tracker_commits_where_it_begins() -> None:
    """Without any record, the offset that may be committed and the one expected are the position."""
    tracker = Tracker(ASSIGNMENT, 42)
    assert (tracker.expected, tracker.committable, tracker.bytes, len(tracker)) == (42, 42, 0, 0)
    assert tracker.decided(10) == []


@pytest.mark.parametrize("decided", [[1], [2], [1, 2], []], ids=str)
def test_nothing_is_committable_past_a_work_under_way(decided: list[int]) -> None:
    """While the first work is under way, the others' outcomes move nothing."""
    tracker, works = tracking(10, 11, 12)
    decide(*(works[n] for n in decided))
    assert tracker.decided(10) == []
    tracker.settle([])
    assert tracker.committable == 10


def test_committable_follows_the_prefix_of_decided_works() -> None:
    """What is decided from the first on may be settled, and the next offset is behind it."""
    tracker, works = tracking(10, 11, 12, 13)
    decide(works[0], works[1], works[3])
    assert tracker.decided(10) == works[:2]
    assert tracker.committable == 10, "decided is not settled yet"
    tracker.settle(works[:2])
    assert (tracker.committable, len(tracker)) == (12, 2)
    decide(works[2])
    assert tracker.decided(10) == works[2:]


def test_asking_what_is_decided_takes_nothing_away() -> None:
    """A settlement that fails asks again, and gets the same works and those decided since."""
    tracker, works = tracking(10, 11)
    decide(works[0])
    assert tracker.decided(10) == tracker.decided(10) == works[:1]
    decide(works[1])
    assert tracker.decided(10) == works


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_no_more_than_the_limit_is_decided(limit: int, count: int) -> None:
    """A settlement has a size."""
    tracker, works = tracking(10, 11, 12)
    decide(*works)
    assert tracker.decided(limit) == works[:count]


def test_committable_passes_over_holes() -> None:
    """Offsets that the partition does not have do not hold the commit."""
    tracker, works = tracking(10, 20, 30)
    decide(*works)
    tracker.settle(works[:2])
    assert tracker.committable == 21
    tracker.settle(works[2:])
    assert tracker.committable == tracker.expected == 31


@pytest.mark.parametrize("chosen", [[1], [1, 0], [0, 2], [2]], ids=str)
def test_settling_out_of_order_is_refused(chosen: list[int]) -> None:
    """Whoever settles a work before an earlier one has a bug that must not pass."""
    tracker, works = tracking(10, 11, 12)
    decide(*works)
    with pytest.raises(AssertionError, match="out of order"):
        tracker.settle([works[n] for n in chosen])


def test_settling_another_trackers_works_is_refused() -> None:
    """The same offsets of an earlier ownership are not these."""
    tracker, _ = tracking(10, 11)
    _, before = tracking(10, 11)
    decide(*before)
    with pytest.raises(AssertionError, match="out of order"):
        tracker.settle(before)


# -- bytes held


def test_bytes_are_those_of_what_is_held() -> None:
    """They grow with what is added and shrink with what is settled: values, keys and headers, where there are any.

    Many small headers take up more than what they say.
    """
    tracker = Tracker(ASSIGNMENT, 0)
    headers = [("four", b"four"), ("six666", None)]
    full, bare = Record(*PARTITION, 2, 0, b"key", b"sixsix", headers), Record(*PARTITION, 3, 0, None, b"")
    works = tracker.add([record(0, b"four"), record(1, None), full, bare])
    assert tracker.bytes == (3 + 4) + 3 + (3 + 6 + 4 + 4 + 6 + 2 * HEADER_BYTES)
    decide(*works)
    tracker.settle(works[:2])
    assert tracker.bytes == 23 + 2 * HEADER_BYTES
    tracker.settle(works[2:])
    assert tracker.bytes == 0


def test_headers_count_for_no_less_than_they_take() -> None:
    """Measured: a record of very many of them is held until it is settled."""
    tracemalloc.start()
    headers = [(f"name {number}", b"value %d" % number) for number in range(10_000)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracker = Tracker(ASSIGNMENT, 0)
    tracker.add([Record(*PARTITION, 0, 0, None, None, headers)])
    assert taken <= tracker.bytes <= 1.3 * taken


# -- gaps


@pytest.mark.parametrize(
    ("offsets", "gaps"),
    [
        ([], []),
        ([10, 11, 12], []),
        ([11], [(10, 11)]),
        ([10, 12], [(11, 12)]),
        ([10, 15, 16, 20], [(11, 15), (17, 20)]),
        ([9], [(10, 9)]),
        ([10, 10], [(11, 10)]),
        ([10, 11, 5, 6], [(12, 5)]),
    ],
    ids=str,
)
def test_every_gap_is_told_once_with_both_ends(offsets: list[int], gaps: list[tuple[int, int]]) -> None:
    """Forward or back, each place where offsets do not follow on is found, and only these."""
    assert Tracker(ASSIGNMENT, 10).gaps(records(*offsets)) == gaps


def test_gaps_are_found_between_polls() -> None:
    """What comes next is measured by what was added before; looking for gaps adds nothing."""
    tracker, _ = tracking(10, 11)
    assert tracker.gaps(records(13)) == [(12, 13)]
    assert tracker.gaps(records(12)) == []
    assert (tracker.expected, len(tracker)) == (12, 2)


def test_adding_nothing_changes_nothing() -> None:
    """An empty poll moves neither the expected offset nor anything else."""
    tracker, _ = tracking(10, 11)
    assert tracker.add([]) == []
    assert (tracker.expected, len(tracker), tracker.bytes) == (12, 2, 16)


# -- repeats


@pytest.mark.parametrize(
    ("offsets", "fresh"),
    [
        ([], []),
        ([12, 13], [12, 13]),
        ([10, 11, 12], [12]),
        ([11], []),
        ([12, 12, 13, 12, 13, 14], [12, 13, 14]),
        ([20, 15, 21], [20, 21]),
    ],
    ids=str,
)
def test_what_came_before_is_not_fresh(offsets: list[int], fresh: list[int]) -> None:
    """Each offset ends once: repeats of what was added, or of what stands before them, are left out."""
    tracker, _ = tracking(10, 11)
    assert tracker.fresh(records(*offsets)) == records(*fresh)
    assert (tracker.expected, len(tracker)) == (12, 2), "looking adds nothing"


# -- any order


@given(st.data())
def test_in_any_order_of_answers_the_commit_is_the_first_open_record(data: st.DataObject) -> None:
    """Polls, answers and settlements in any order: the commit stands at the first record without outcome."""
    tracker, works = Tracker(ASSIGNMENT, 0), list[Work]()
    settled = 0
    for _ in range(data.draw(st.integers(1, 12))):
        works += tracker.add(records(*range(len(works), len(works) + data.draw(st.integers(0, 5)))))
        if works:
            decide(*data.draw(st.lists(st.sampled_from(works), unique_by=id)))
        decided = tracker.decided(data.draw(st.integers(1, 6)))
        tracker.settle(decided)
        settled += len(decided)
        assert decided == works[settled - len(decided) : settled]
        assert all(work.outcome is not None for work in works[:settled])
        assert (tracker.committable, tracker.expected, len(tracker)) == (settled, len(works), len(works) - settled)
    while decided := tracker.decided(3):
        tracker.settle(decided)
    first_open = next((work.record.offset for work in works if work.outcome is None), len(works))
    assert tracker.committable == first_open


def test_each_contact_of_a_record_takes_room() -> None:
    """A few bytes may name thousands, who all have to be held; settled, none is."""
    tracker = Tracker(ASSIGNMENT, 0)
    (work,) = tracker.add([record(0)])
    alone = tracker.bytes
    parts = tracker.divide(work, 5_000)
    assert work.parts == parts
    assert [(part.record, part.part) for part in parts[:2]] == [(work.record, 0), (work.record, 1)]
    assert tracker.bytes == alone + 5_000 * PART_BYTES
    for part in parts:
        part.outcome = Outcome.DUPLICATE
    tracker.settle(tracker.decided(1))
    assert tracker.bytes == 0


def test_what_decides_how_a_record_ends_tells_its_reason_first() -> None:
    """It is the reason of the dead letter, with its detail; a part that was carried out in another way has one too."""
    tracker = Tracker(ASSIGNMENT, 0)
    (work,) = tracker.add([record(0)])
    delivered, rejected = tracker.divide(work, 2)
    delivered.outcome, delivered.reasons = Outcome.DELIVERED, ("genesys:invalid.value",)
    rejected.outcome, rejected.reasons, rejected.detail = Outcome.REJECTED, ("phone_not_e164",), "phone: missing"
    assert tracker.decided(1) == [work]
    assert work.detail == "phone: missing"
    assert (work.outcome, work.reasons) == (Outcome.REJECTED, ("phone_not_e164", "genesys:invalid.value"))
