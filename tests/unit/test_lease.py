"""For how long a member is sure of its partitions."""

from collections.abc import Mapping
from typing import Any

import pytest

from consumer.adapters.kafka.lease import Lease

LASTS_S = 30.0


def statistics(taken_at: float, silent_s: float | None) -> Mapping[str, Any]:
    """What the library tells: when, by its clock, and for how long the coordinator has said nothing."""
    idle = -1 if silent_s is None else int(silent_s * 1e6)
    return {"ts": int(taken_at * 1e6), "brokers": {"GroupCoordinator": {"rxidle": idle}, "1": {"rxidle": 0}}}


def test_nothing_is_sure_before_the_group_has_assigned_anything() -> None:
    """A new member has no partitions that could be its own."""
    assert not Lease(LASTS_S).holds(0.0)


def test_an_assignment_counts_from_when_it_came() -> None:
    """It lasts for its time and no longer, when nothing more is heard."""
    lease = Lease(LASTS_S)
    lease.renew(100.0)
    assert lease.holds(100.0 + LASTS_S - 0.1)
    assert not lease.holds(100.0 + LASTS_S)


def test_an_answer_counts_from_when_it_came_not_from_when_it_was_told() -> None:
    """The silence that the statistics tell of is subtracted."""
    lease = Lease(LASTS_S)
    lease.observe(statistics(100.0, silent_s=4.0), 100.0)
    lease.observe(statistics(103.0, silent_s=7.0), 103.0)
    assert lease.silent_s(103.0) == pytest.approx(7.0)


def test_an_answer_counts_with_the_statistics_after_it() -> None:
    """It may have been the bad news itself: that is told before the next statistics come."""
    lease = Lease(LASTS_S)
    lease.observe(statistics(100.0, silent_s=0.0), 100.0)
    assert not lease.holds(100.0)
    lease.observe(statistics(103.0, silent_s=3.0), 103.0)
    assert lease.holds(103.0)


def test_statistics_that_waited_are_as_old_as_they_are() -> None:
    """The process stood still between their making and their taking: time passed for the group."""
    lease = Lease(LASTS_S)
    lease.observe(statistics(100.0, silent_s=0.0), 100.0)
    lease.observe(statistics(103.0, silent_s=0.0), 200.0)
    lease.observe(statistics(106.0, silent_s=3.0), 200.0)
    assert lease.silent_s(200.0) == pytest.approx(97.0)


def test_the_library_may_count_from_another_moment() -> None:
    """Its clock need not be Python's, only as quick."""
    lease = Lease(LASTS_S)
    lease.observe(statistics(5_000_000.0, silent_s=1.0), 100.0)
    lease.observe(statistics(5_000_003.0, silent_s=4.0), 103.0)
    assert lease.silent_s(103.0) == pytest.approx(4.0)


def test_a_coordinator_that_was_never_heard_renews_nothing() -> None:
    """Also when the statistics do not know of one."""
    lease = Lease(LASTS_S)
    lease.renew(100.0)
    for _ in range(3):
        lease.observe(statistics(150.0, silent_s=None), 150.0)
        lease.observe({"ts": 150_000_000, "brokers": {}}, 150.0)
    assert not lease.holds(150.0)


@pytest.mark.parametrize("joining", [[True, False], [False, True], [True, True]])
def test_while_the_library_joins_no_answer_counts(joining: list[bool]) -> None:
    """It may be that the group knows no such member any more, of which the library need not tell."""
    lease = Lease(LASTS_S)
    lease.observe(statistics(100.0, silent_s=0.0), 100.0, joining=joining[0])
    lease.observe(statistics(103.0, silent_s=3.0), 103.0, joining=joining[1])
    assert not lease.holds(103.0)
    for taken_at in (106.0, 109.0):
        lease.observe(statistics(taken_at, silent_s=0.0), taken_at)
    assert lease.silent_s(109.0) == pytest.approx(3.0)


def test_a_revocation_begins_the_time_anew() -> None:
    """The group waits for it, and no statistics come meanwhile; what the last ones showed counts, it was no loss."""
    lease = Lease(LASTS_S)
    lease.observe(statistics(100.0, silent_s=1.0), 100.0)
    lease.renew_if_recent(103.0)
    assert lease.silent_s(103.0) == 0.0


def test_a_revocation_proves_nothing_of_a_coordinator_that_is_silent() -> None:
    """The library takes partitions by itself where a topic is gone: the group may have put the member out meanwhile."""
    lease = Lease(LASTS_S)
    lease.renew(100.0)
    lease.renew_if_recent(111.0)
    assert lease.silent_s(111.0) == pytest.approx(11.0)
    lease.renew_if_recent(150.0)
    assert not lease.holds(150.0)


def test_one_revocation_behind_the_other_proves_no_more() -> None:
    """Each is measured from the coordinator's last answer: the library may have taken partitions both times."""
    lease = Lease(LASTS_S)
    lease.renew(100.0)
    for began_at in (109.0, 118.0, 127.0):
        lease.renew_if_recent(began_at)
    assert lease.silent_s(127.0) == pytest.approx(18.0)


def test_the_group_counts_on_when_the_time_of_a_revocation_ends() -> None:
    """However late it begins: the time is two thirds of a session."""
    session_s = 1.5 * LASTS_S
    for silent_s in range(int(LASTS_S)):
        lease = Lease(LASTS_S)
        lease.renew(0.0)
        lease.renew_if_recent(silent_s)
        assert not lease.holds(session_s - 1.0)


def test_what_was_told_before_the_machine_was_suspended_is_as_old_as_it_is() -> None:
    """No clock of the process counts that: the group may have given everything away meanwhile."""
    lease = Lease(LASTS_S)
    lease.renew(100.0)
    lease.slept(20.0, 101.0)
    assert lease.silent_s(101.0) == pytest.approx(21.0)
    lease.renew_if_recent(102.0)
    assert lease.silent_s(102.0) == pytest.approx(22.0)


@pytest.mark.parametrize("looked_at", [100.0, 102.0])
def test_an_answer_of_before_the_machine_was_suspended_is_none_when_it_is_seen_after_that(looked_at: float) -> None:
    """By the library's clock it came just now. One that comes once the machine is awake counts."""
    lease = Lease(LASTS_S)
    lease.renew(95.0)
    lease.observe(statistics(98.0, silent_s=3.0), 98.0)
    lease.observe(statistics(looked_at, silent_s=looked_at - 100.0), looked_at)
    lease.slept(40.0, 101.0)
    lease.observe(statistics(103.0, silent_s=3.0), 103.0)
    lease.observe(statistics(106.0, silent_s=1.0), 106.0)
    assert not lease.holds(106.0)
    lease.observe(statistics(109.0, silent_s=4.0), 109.0)
    assert lease.silent_s(109.0) == pytest.approx(4.0)
