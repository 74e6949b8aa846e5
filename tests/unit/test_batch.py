"""Contacts on their way: what is taken when, in what order, and that no contact is ever taken twice."""

import gc
import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.core.batch import Lanes
from consumer.core.lane import MAX_PER_REQUEST, Batch, Effect, Lane, Tally, effect_of
from consumer.model import (
    UNCHANGED,
    Amendment,
    Assignment,
    Change,
    Contact,
    Operation,
    Record,
    State,
    TopicPartition,
    Work,
)

UPSERT, DELETE, AMEND = Effect
OURS = Assignment(TopicPartition("crm.contacts.changes", 0))
THEIRS = Assignment(TopicPartition("crm.contacts.changes", 1))
LINGER_S = 0.5
PLENTY = 1000
STATE = State(b"f" * 32, None, False, 0, 0, deleted=False)
"""What is expected of a contact: nothing here looks at it."""

KINDS = [(UPSERT, False), (UPSERT, False), (UPSERT, True), (DELETE, True), (AMEND, True), (AMEND, False)]
"""What changes do, and whether they withdraw."""


def work(
    name: str,
    effect: Effect = UPSERT,
    *,
    withdrawal: bool | None = None,
    assignment: Assignment = OURS,
    size: int = 0,
    offset: int = 0,
) -> Work:
    """A work that asks for a change of a contact; a delete is a withdrawal, and so is an amendment unless told."""
    withdraws = effect is not UPSERT if withdrawal is None else withdrawal
    operation = Operation.DELETE if effect is DELETE else Operation.UPSERT
    contact: Contact | Amendment = Contact(name, "", "", not withdraws, False, {"padding": "x" * size})
    if effect is AMEND:
        contact = Amendment(name, UNCHANGED, UNCHANGED, False if withdraws else UNCHANGED, UNCHANGED, {})
    identity = hashlib.sha256(name.encode()).digest()
    change = Change(operation, contact, identity, b"f" * 32, None, 0, offset, withdraws)
    return Work(Record(*assignment.partition, offset, 0, None, b""), assignment, name, change)


def change_of(work: Work) -> Change:
    """The change of a work, which it has."""
    assert work.change is not None
    return work.change


def encode(contact: Contact, *, callable_: bool) -> bytes:
    """Stands for the sink's encoding: the name, whether it may be called, and as many bytes as the test asks for."""
    return f"{contact.external_id}:{'yes' if callable_ else 'no'}".encode() + b"x" * len(contact.attributes["padding"])


def lanes(max_records: int = 100, max_bytes: int = 1_000_000) -> Lanes:
    """No contact on its way."""
    return Lanes(max_records, max_bytes, LINGER_S, encode)


def begin(on: Lanes, *works: Work, now: float = 0.0) -> list[Lane]:
    """Open a lane for each of these."""
    for each in works:
        on.open(each, change_of(each), None, now)
    return [lane_of(on, each) for each in works]


def supersede(on: Lanes, lane: Lane, newer: Work) -> None:
    """Let a newer work take a lane's place."""
    on.replace(lane, newer, change_of(newer))


def lane_of(on: Lanes, work: Work) -> Lane:
    """The lane of the work's contact."""
    lane = on.get(change_of(work).identity)
    assert lane is not None
    return lane


def take(on: Lanes, now: float = 0.0, limit: int = PLENTY) -> Batch:
    """The batch that is due now."""
    batch = on.take(now, limit)
    assert batch is not None
    return batch


def names(of: Batch | Sequence[Lane]) -> list[str]:
    """The contacts of a batch, in its order."""
    taken = of.lanes if isinstance(of, Batch) else of
    return [lane.change.contact.external_id for lane in taken]


def drained(on: Lanes, now: float = 0.0, limit: int = PLENTY) -> list[list[str]]:
    """Whatever waits, batch by batch."""
    on.draining = True
    taken = []
    while batch := on.take(now, limit):
        taken.append(names(batch))
    return taken


def several(prefix: str, count: int, effect: Effect = UPSERT, **more: Any) -> list[Work]:
    """Works of so many contacts."""
    return [work(f"{prefix}{n}", effect, **more) for n in range(count)]


# -- when a batch is due


def test_nothing_waits_at_first() -> None:
    """Without a contact on its way nothing is ever due."""
    idle = lanes()
    assert (len(idle), idle.due(0.0, PLENTY), idle.take(1e9, PLENTY)) == (0, None, None)


def test_a_change_lingers() -> None:
    """A batch that does not fill is due when its oldest change has waited for the set time, and not before."""
    on = lanes()
    begin(on, work("a"), now=10.0)
    begin(on, work("b"), now=10.4)
    assert on.due(10.0, PLENTY) == on.due(10.45, PLENTY) == 10.5
    assert on.take(10.499, PLENTY) is None
    assert names(take(on, 10.5)) == ["a", "b"]
    assert on.due(10.5, PLENTY) is None


def test_the_next_batch_lingers_for_its_own_oldest_change() -> None:
    """What was not taken counts from when it came."""
    on = lanes(max_records=2)
    begin(on, *several("a", 2), now=10.0)
    begin(on, work("late"), now=10.3)
    take(on, 10.3)
    assert on.due(10.3, PLENTY) == 10.8


def test_what_is_overdue_is_due_now() -> None:
    """A moment that has passed is told as now: whoever sleeps until then does not sleep backwards."""
    on = lanes()
    begin(on, work("a"), now=10.0)
    assert on.due(99.0, PLENTY) == 99.0


@pytest.mark.parametrize(
    ("waiting", "limit", "at_once"), [(9, PLENTY, False), (10, PLENTY, True), (4, 5, False), (5, 5, True)]
)
def test_a_full_batch_does_not_linger(waiting: int, limit: int, *, at_once: bool) -> None:
    """As many as a request may hold, by the setting or by what the gate allows now, are due at once."""
    on = lanes(max_records=10)
    begin(on, *several("c", waiting), now=10.0)
    assert on.due(10.0, limit) == (10.0 if at_once else 10.5)


@pytest.mark.parametrize(("size", "at_once"), [(400, False), (500, True)])
def test_a_batch_that_is_full_by_bytes_does_not_linger(size: int, *, at_once: bool) -> None:
    """As many bytes as a request may hold are due at once, too."""
    on = lanes(max_bytes=1000)
    begin(on, *several("c", 2, size=size), now=10.0)
    assert on.due(10.0, PLENTY) == (10.0 if at_once else 10.5)


def test_what_a_backlog_does_not_take_is_not_encoded() -> None:
    """While it waits a newer change may take its place, and memory is for many of them."""
    on = lanes(max_records=1)
    taken, left = begin(on, work("a", size=10), work("b", size=10))
    assert on.due(0.0, PLENTY) == 0.0
    assert names(take(on)) == ["a"]
    assert (taken.payload[:5], left.payload) == (b"a:yes", b"")


@pytest.mark.parametrize("effect", list(Effect))
def test_a_withdrawal_does_not_linger(effect: Effect) -> None:
    """One is enough, whatever it takes."""
    on = lanes()
    begin(on, work("a", effect, withdrawal=True), now=10.0)
    assert on.due(10.0, PLENTY) == 10.0
    assert take(on, 10.0).effect is effect


def test_withdrawals_take_others_with_them_into_the_room_that_they_leave() -> None:
    """Also the next ones, however often."""
    some = lanes()
    for n in range(3):
        begin(some, work(f"calm-{n}"), work(f"urgent-{n}", withdrawal=True))
        assert names(take(some, LINGER_S * n)) == [f"urgent-{n}", f"calm-{n}"]


def test_apart_withdrawals_go_alone_and_by_turns_with_what_is_due() -> None:
    """What lingers still does so; without withdrawals, or without others, nobody waits for a turn."""
    some = lanes()
    begin(some, *several("calm", 3), *several("urgent", 2, withdrawal=True))

    def apart(now: float) -> list[str]:
        taken = some.take(now, PLENTY, apart=True)
        assert taken is not None
        return names(taken)

    assert apart(0.0) == ["urgent0", "urgent1"]
    begin(some, *several("later", 1, withdrawal=True))
    assert apart(0.1) == ["later0"]
    begin(some, *several("last", 1, withdrawal=True))
    assert apart(LINGER_S) == ["calm0", "calm1", "calm2"]
    begin(some, *several("due", 2))
    assert apart(LINGER_S) == ["last0"]
    assert apart(LINGER_S) == ["due0", "due1"]
    begin(some, *several("more", 2))
    assert apart(LINGER_S) == ["more0", "more1"]


def test_apart_groups_have_their_turn_too() -> None:
    """One after a withdrawal, and what is due after the next one."""
    some = lanes()
    grouped = begin(some, *several("first", 2), *several("second", 2))
    begin(some, *several("calm", 2))
    taken = some.take(LINGER_S, PLENTY)
    assert taken is not None
    some.put_back_as_group(UPSERT, grouped[:2])
    some.put_back_as_group(UPSERT, grouped[2:])
    some.put_back(taken.lanes[4:])
    order = []
    for n in range(6):
        begin(some, work(f"urgent{n}", withdrawal=True))
        batch = some.take(LINGER_S, PLENTY, apart=True)
        assert batch is not None
        order.append(names(batch)[0])
    assert order == ["urgent0", "first0", "urgent1", "calm0", "urgent3", "second0"]


def test_draining_does_not_linger() -> None:
    """At the end everything goes out at once, in batches as ever."""
    on = lanes(max_records=3)
    begin(on, *several("c", 7), now=10.0)
    assert [len(batch) for batch in drained(on, 10.0)] == [3, 3, 1]


# -- how much a batch holds


@pytest.mark.parametrize(("limit", "sizes"), [(PLENTY, [10, 10, 5]), (4, [4] * 6 + [1]), (1, [1] * 25)])
def test_a_batch_holds_no_more_than_allowed(limit: int, sizes: list[int]) -> None:
    """Neither more than the setting nor more than the gate allows now, in the order in which they came."""
    on = lanes(max_records=10)
    begin(on, *several("c", 25))
    taken = drained(on, limit=limit)
    assert [len(batch) for batch in taken] == sizes
    assert list(chain(*taken)) == [f"c{n}" for n in range(25)]


@pytest.mark.parametrize(("effect", "most"), [(DELETE, 50), (AMEND, 50)])
@pytest.mark.parametrize("limit", [PLENTY, 30])
def test_deletes_and_suppressions_have_limits_of_their_own(effect: Effect, most: int, limit: int) -> None:
    """However large an upsert may be, who is deleted or suppressed is read back, fifty at a time."""
    on = lanes(max_records=1000)
    begin(on, *several("c", 130, effect))
    assert MAX_PER_REQUEST[effect] == most
    assert max(len(batch) for batch in drained(on, limit=limit)) == min(most, limit)


def test_a_batch_is_cut_by_bytes() -> None:
    """What would make the request too large waits for the next one."""
    on = lanes(max_bytes=1000)
    begin(on, *several("c", 5, size=400))
    assert [len(batch) for batch in drained(on)] == [2, 2, 1]


@pytest.mark.parametrize(("spare", "batches"), [(0, 1), (-1, 2)])
def test_brackets_and_commas_count_too(spare: int, batches: int) -> None:
    """Genesys counts the body, not the contacts in it."""
    contacts = [change_of(work(name)).whole for name in "abc"]
    body = b"[%b]" % b",".join(encode(each, callable_=each.callable) for each in contacts)
    on = lanes(max_bytes=len(body) + spare)
    begin(on, *map(work, "abc"))
    assert len(drained(on)) == batches


def test_a_contact_that_is_too_large_goes_alone() -> None:
    """It must not hold up the others for ever: Genesys is asked, and blames it."""
    on = lanes(max_bytes=1000)
    begin(on, work("a"), work("huge", size=5000), work("b"))
    assert drained(on) == [["a"], ["huge"], ["b"]]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 600)), min_size=1, max_size=30),
    st.integers(1, 12),
    st.integers(300, 2000),
)
def test_no_batch_is_larger_than_allowed(contacts: list[tuple[bool, int]], max_records: int, max_bytes: int) -> None:
    """Withdrawals with others behind them or not: never more contacts or bytes, save a single contact too large."""
    on = lanes(max_records, max_bytes)
    begin(on, *(work(f"c{n}", withdrawal=urgent, size=size) for n, (urgent, size) in enumerate(contacts)))
    on.draining = True
    left = len(contacts)
    while batch := on.take(0.0, PLENTY):
        left -= len(batch.lanes)
        assert len(batch.lanes) <= max_records
        assert len(batch.lanes) == 1 or len(b"[%b]" % b",".join(lane.payload for lane in batch.lanes)) <= max_bytes
    assert left == 0


# -- whole contacts and parts


def test_parts_linger_apart_from_whole_contacts() -> None:
    """They go out in another request, each kind when it is due."""
    on = lanes(max_records=3)
    begin(on, work("part", AMEND, withdrawal=False), now=10.0)
    begin(on, *several("whole", 3), now=10.1)
    assert [take(on, 10.1).effect, on.take(10.1, PLENTY), take(on, 10.5).effect] == [UPSERT, None, AMEND]


def test_what_has_waited_longer_goes_first_of_what_is_due() -> None:
    """A stream of whole contacts that fill every batch does not hold up a part, nor the other way round."""
    on = lanes(max_records=3)
    begin(on, *several("early", 3), now=10.0)
    begin(on, work("part", AMEND, withdrawal=False), now=10.1)
    begin(on, *several("late", 9), now=10.2)
    assert drained(on, 10.5)[:2] == [["early0", "early1", "early2"], ["part"]]


def test_fifty_parts_are_a_full_batch() -> None:
    """Genesys lets no more be read back: nothing is gained by waiting."""
    on = lanes()
    begin(on, *several("c", 50, AMEND, withdrawal=False), now=10.0)
    assert on.due(10.0, PLENTY) == 10.0


def test_an_urgent_part_is_filled_up_with_others() -> None:
    """As an upsert is, and whole contacts stay where they are."""
    on = lanes()
    begin(on, work("calm", AMEND, withdrawal=False), work("whole"), work("revoked", AMEND), now=10.0)
    assert names(take(on, 10.0)) == ["revoked", "calm"]


# -- withdrawals first


def test_withdrawals_go_first() -> None:
    """They overtake everything that waits, also a full batch that came before."""
    on = lanes(max_records=3)
    begin(on, *several("early", 6), now=0.0)
    begin(on, work("gone", DELETE), now=0.9)
    begin(on, work("revoked", withdrawal=True), now=1.0)
    assert drained(on, 1.0)[:2] == [["gone"], ["revoked", "early0", "early1"]]


def test_among_withdrawals_the_longest_wait_goes_first() -> None:
    """A stream of one kind does not hold up the others, whatever they are called."""
    on = lanes()
    order = [DELETE, UPSERT, AMEND]
    for n, effect in enumerate(order):
        begin(on, work(f"c{n}", effect, withdrawal=True), now=float(n))
    assert [take(on, 5.0).effect for _ in order] == order


def test_an_urgent_upsert_is_filled_up_with_others() -> None:
    """A request that goes out anyway takes along what would linger, in its order, up to the limit."""
    on = lanes(max_records=4)
    begin(on, *several("early", 5), now=0.0)
    begin(on, work("revoked", withdrawal=True), now=0.1)
    assert names(take(on, 0.1)) == ["revoked", "early0", "early1", "early2"]
    assert on.take(0.1, PLENTY) is None, "the rest lingers"


@pytest.mark.parametrize("effect", [DELETE, AMEND])
def test_other_requests_are_not_filled_up(effect: Effect) -> None:
    """Only an upsert can take upserts along."""
    on = lanes()
    begin(on, *several("early", 5), work("gone", effect))
    assert names(take(on)) == ["gone"]


def test_an_urgent_batch_that_is_full_takes_nobody_along() -> None:
    """Withdrawals fill their batch before anybody else does."""
    on = lanes(max_records=3)
    begin(on, *several("early", 3), *several("revoked", 4, withdrawal=True))
    assert drained(on) == [
        ["revoked0", "revoked1", "revoked2"],
        ["revoked3", "early0", "early1"],
        ["early2"],
    ]


# -- a newer change takes the place of one that waits


def test_a_replaced_work_ends_with_its_lane() -> None:
    """The newer one is sent, newly encoded, once; the older one is kept until that has its answer, and comes back."""
    on = lanes()
    older, newer = work("a", size=10), work("a", size=20)
    (lane,) = begin(on, older)
    supersede(on, lane, newer)
    assert drained(on) == [["a"]]
    assert (lane.work, lane.payload) == (newer, encode(change_of(newer).whole, callable_=True))
    assert on.close(lane) == [older]


def test_a_replaced_work_keeps_its_place_and_its_wait() -> None:
    """A contact that changes all the time is not sent last for it, nor made to linger again."""
    on = lanes()
    first, _ = begin(on, work("a"), work("b"), now=10.0)
    supersede(on, first, work("a"))
    begin(on, work("c"), now=10.2)
    assert on.due(10.3, PLENTY) == 10.5
    assert names(take(on, 10.5, limit=1)) == ["a"]
    assert drained(on, 10.5) == [["b", "c"]]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_replacing_does_not_fill_a_batch(times: int) -> None:
    """Contacts and bytes are counted as they are, not once for each change."""
    on = lanes(max_records=2, max_bytes=1000)
    (lane,) = begin(on, work("a", size=100), now=10.0)
    for _ in range(times):
        supersede(on, lane, work("a", size=600))
    assert on.due(10.0, PLENTY) == 10.5
    supersede(on, lane, work("a", size=1000))
    assert on.due(10.0, PLENTY) == 10.0
    supersede(on, lane, work("a", size=10))
    assert on.due(10.0, PLENTY) == 10.5


def test_what_was_replaced_comes_back_before_what_waits() -> None:
    """A lane that ends without an answer hands back all of its contact's other works in the order of the source."""
    on = lanes()
    works = [work("a", offset=n) for n in range(5)]
    (lane,) = begin(on, works[0])
    for newer in works[1:3]:
        supersede(on, lane, newer)
    for behind in works[3:]:
        on.wait(lane, behind, STATE, withdraws=False)
    assert lane.superseded == works[:2]
    assert on.close(lane) == [*works[:2], *works[3:]]


def test_a_contact_that_changes_all_the_time_stands_in_line_once() -> None:
    """An outage of any length must not fill the queue with one contact."""
    on = lanes()
    (lane,) = begin(on, work("a"))
    for _ in range(1000):
        supersede(on, lane, work("a"))
    assert len(on._calm[UPSERT]) == 1


def test_a_lane_knows_what_its_contact_will_be() -> None:
    """Where a work waits, it is what that one leaves; otherwise what the lane's own work does, which nobody told."""
    on = lanes()
    (lane,) = begin(on, work("a"))
    told = [lane.expected]
    on.wait(lane, work("a"), STATE, withdraws=False)
    told.append(lane.expected)
    supersede(on, lane, work("a"))
    assert [*told, lane.expected] == [None, STATE, None]


def test_a_withdrawal_in_the_place_of_a_grant_goes_first() -> None:
    """The contact moves ahead of all others, and is not sent as callable."""
    on = lanes()
    _, lane = begin(on, *several("c", 2), now=10.0)
    supersede(on, lane, work("c1", withdrawal=True))
    assert on.due(10.0, PLENTY) == 10.0
    batch = take(on, 10.0)
    assert names(batch) == ["c1", "c0"]
    assert batch.lanes[0].payload.startswith(b"c1:no")


def test_a_grant_in_the_place_of_a_withdrawal_lingers_again() -> None:
    """Nobody is in a hurry to be called; the withdrawal that was replaced leaves nothing behind."""
    on = lanes()
    (lane,) = begin(on, work("a", DELETE), now=10.0)
    supersede(on, lane, work("a"))
    assert on.due(10.0, PLENTY) == 10.5
    batch = take(on, 10.5)
    assert (batch.effect, names(batch), batch.lanes[0].payload) == (UPSERT, ["a"], b"a:yes")
    assert drained(on, 10.5) == []


def test_a_delete_has_no_payload() -> None:
    """What a grant before it was encoded to is not sent."""
    on = lanes()
    (lane,) = begin(on, work("a", size=10))
    supersede(on, lane, work("a", DELETE))
    assert (take(on).effect, lane.payload) == (DELETE, b"")


def test_a_contact_that_moves_to_and_fro_is_sent_once() -> None:
    """Between withdrawal and grant any number of times: one contact in one batch."""
    on = lanes()
    first, *_ = begin(on, work("a"), work("b"))
    for n in range(5):
        supersede(on, first, work("a", (DELETE, UPSERT, UPSERT)[n % 3], withdrawal=n % 2 == 0))
    assert sorted(chain(*drained(on))) == ["a", "b"]


# -- a change waits behind the one before


def test_what_waits_comes_back_in_its_order() -> None:
    """When the lane ends, the works behind it are handed back to be judged, and the contact has no lane any more."""
    on = lanes()
    first, second, third = (work("a", offset=n) for n in range(3))
    (lane,) = begin(on, first)
    take(on, LINGER_S)
    on.wait(lane, second, STATE, withdraws=change_of(second).withdrawal)
    on.wait(lane, third, STATE, withdraws=change_of(third).withdrawal)
    assert on.close(lane) == [second, third]
    assert (len(on), on.get(change_of(first).identity)) == (0, None)


def test_a_lane_that_is_not_sent_may_end() -> None:
    """It is not sent any more, and does not count towards a full batch."""
    on = lanes(max_records=2)
    first, _ = begin(on, work("a"), work("b"), now=10.0)
    on.close(first)
    assert on.due(10.0, PLENTY) == 10.5
    assert drained(on, 10.0) == [["b"]]


def test_before_a_withdrawal_nothing_goes_out_as_callable() -> None:
    """A grant with a withdrawal behind it is sent at once and as not callable."""
    on = lanes()
    begin(on, work("early"), now=0.0)
    (lane,) = begin(on, work("a"), now=10.0)
    withdrawal = work("a", AMEND)
    on.wait(lane, withdrawal, STATE, withdraws=change_of(withdrawal).withdrawal)
    batch = take(on, 10.0)
    assert (batch.effect, names(batch)) == (UPSERT, ["a", "early"])
    assert (lane.payload, lane.muted) == (b"a:no", True)
    assert on.close(lane) == [withdrawal]


def test_a_grant_that_waits_changes_nothing() -> None:
    """It neither hurries nor withholds the one before."""
    on = lanes()
    (lane,) = begin(on, work("a"), now=10.0)
    again = work("a")
    on.wait(lane, again, STATE, withdraws=change_of(again).withdrawal)
    assert on.due(10.0, PLENTY) == 10.5
    assert (take(on, 10.5).lanes[0].payload, lane.muted, lane.urgent) == (b"a:yes", False, False)


def test_a_withdrawal_behind_a_request_under_way_leaves_it_alone() -> None:
    """What is sent is sent: the lane is not queued a second time."""
    on = lanes()
    (lane,) = begin(on, work("a"))
    take(on, LINGER_S)
    withdrawal = work("a", DELETE)
    on.wait(lane, withdrawal, STATE, withdraws=change_of(withdrawal).withdrawal)
    assert lane.sent
    assert drained(on) == []


def test_a_withdrawal_behind_a_withdrawal_leaves_its_place() -> None:
    """The first one is ahead already."""
    on = lanes()
    lane, _ = begin(on, work("a", AMEND), work("b", AMEND))
    again = work("a", AMEND)
    on.wait(lane, again, STATE, withdraws=change_of(again).withdrawal)
    assert drained(on) == [["a", "b"]]


def test_a_change_in_the_place_of_a_muted_one_is_sent_as_it_is() -> None:
    """Withholding belongs to the work that it was for."""
    on = lanes()
    (lane,) = begin(on, work("a"))
    withdrawal = work("a", AMEND)
    on.wait(lane, withdrawal, STATE, withdraws=change_of(withdrawal).withdrawal)
    supersede(on, lane, work("a"))
    assert (take(on, LINGER_S).lanes[0].payload, lane.muted, lane.urgent) == (b"a:yes", False, False)


# -- requests that are made again


def test_what_is_put_back_is_in_front_in_its_order() -> None:
    """A failed batch goes before what came meanwhile, as it was."""
    on = lanes(max_records=3)
    begin(on, *several("a", 3))
    batch = take(on)
    begin(on, *several("b", 3))
    on.put_back(batch.lanes)
    assert drained(on) == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


def test_what_is_put_back_does_not_linger_again() -> None:
    """It has waited since it came."""
    on = lanes()
    begin(on, work("a"), now=10.0)
    on.put_back(take(on, 10.5).lanes)
    assert on.due(11.0, PLENTY) == 11.0


def test_of_a_batch_that_is_put_back_withdrawals_stay_ahead() -> None:
    """Those that filled it up go back among the others: fewer may fit the next time."""
    on = lanes()
    begin(on, work("early"), work("revoked", withdrawal=True), now=10.0)
    batch = take(on, 10.0)
    assert names(batch) == ["revoked", "early"]
    on.put_back(batch.lanes)
    assert names(take(on, 10.0, limit=1)) == ["revoked"]
    assert on.due(10.0, PLENTY) == 10.5


def test_what_is_put_back_is_encoded_as_its_work_is_now() -> None:
    """A withdrawal that Genesys refused goes back as the delete that it became."""
    on = lanes()
    (lane,) = begin(on, work("a", withdrawal=True))
    batch = take(on)
    lane.become(change_of(work("a", DELETE)))
    on.put_back(batch.lanes)
    assert (take(on).effect, lane.payload) == (DELETE, b"")


def test_what_is_put_back_may_be_replaced() -> None:
    """Nobody knows whether it was applied: the newer change is sent instead, once."""
    on = lanes()
    begin(on, work("a"), work("b"))
    batch = take(on, LINGER_S)
    on.put_back(batch.lanes)
    newer = work("a", size=3)
    supersede(on, batch.lanes[0], newer)
    assert drained(on) == [["a", "b"]]
    assert batch.lanes[0].payload == encode(change_of(newer).whole, callable_=True)


# -- requests that must not be made again at once


def parked(on: Lanes, name: str = "a", assignment: Assignment = OURS) -> Lane:
    """A contact whose delete was refused for now."""
    begin(on, work(name, DELETE, assignment=assignment))
    (lane,) = take(on).lanes
    on.park(lane)
    return lane


def test_a_parked_contact_is_not_taken() -> None:
    """Neither in its turn nor at the end: nothing is due for it, and its partition may move away."""
    on = lanes()
    lane = parked(on)
    assert (lane.sent, on.busy(OURS), len(on)) == (False, False, 1)
    assert on.due(1e6, PLENTY) is None
    assert drained(on, 1e6) == []


def test_a_parked_contact_goes_out_once_it_is_released() -> None:
    """As what it was, and once."""
    on = lanes()
    lane = parked(on)
    on.release(lane)
    batch = take(on)
    assert (batch.effect, batch.lanes) == (DELETE, [lane])
    assert drained(on) == []


def test_a_parked_contact_may_be_released_to_go_alone() -> None:
    """After withdrawals that wait already: those may still be called."""
    on = lanes()
    lane = parked(on)
    begin(on, work("b", DELETE), now=1.0)
    on.release_alone(lane, 2.0)
    begin(on, work("c", DELETE), now=3.0)
    assert drained(on, 3.0) == [["b", "c"], ["a"]]


def test_who_goes_alone_goes_behind_withdrawals_and_by_turns_with_the_rest() -> None:
    """Those may still be called; the rest is not kept waiting by however many go alone."""
    on = lanes()
    for name in ("a", "b"):
        on.release_alone(parked(on, name), 2.0)
    begin(on, work("late", DELETE), now=3.0)
    begin(on, work("grant"), now=2.5)
    assert drained(on, 3.0 + LINGER_S) == [["late"], ["a"], ["grant"], ["b"]]


def test_a_change_behind_which_a_withdrawal_waits_is_under_no_suspicion() -> None:
    """It is judged as a withdrawal from then on, and tried at once."""
    on = lanes()
    begin(on, work("a"))
    (lane,) = take(on, LINGER_S).lanes
    on.park(lane)
    lane.failed, lane.alone, lane.blamed, lane.unproven = Tally(1, 2), 3, 2, 1
    before = lane.withdraws
    on.wait(lane, work("a", withdrawal=True), STATE, withdraws=True)
    assert [lane.failed, lane.alone, lane.blamed, lane.unproven] == [None, 0, 0, 0]
    assert [before, lane.withdraws] == [False, True]
    assert drained(on) == [["a"]]


@pytest.mark.parametrize("newer", [work("a"), work("a", DELETE), work("a", withdrawal=True)], ids=str)
def test_a_newer_change_takes_the_place_of_a_parked_one(newer: Work) -> None:
    """It goes out in its own turn without waiting for the release, which then does nothing."""
    on = lanes()
    lane = parked(on)
    supersede(on, lane, newer)
    batch = take(on, LINGER_S)
    assert (batch.effect, batch.lanes, lane.work) == (effect_of(change_of(newer)), [lane], newer)
    on.release(lane)
    on.release_alone(lane, LINGER_S)
    assert lane.sent
    assert drained(on, LINGER_S) == []


@pytest.mark.parametrize("leaves", ["closed", "dropped"])
def test_a_parked_contact_that_ended_is_not_released(leaves: str) -> None:
    """The release may come late: the contact may have another lane by then."""
    on = lanes()
    lane = parked(on, assignment=THEIRS)
    if leaves == "closed":
        on.close(lane)
    else:
        assert on.drop(THEIRS) == ([lane], [])
    again, *_ = begin(on, work("a"))
    on.release(lane)
    on.release_alone(lane, 0.0)
    assert drained(on) == [["a"]]
    assert again.sent
    assert not lane.urgent or lane.queue is None


def test_one_that_may_be_called_still_goes_alone_as_a_withdrawal_does() -> None:
    """After those that wait longer, and before what is not urgent."""
    on = lanes()
    lane = parked(on)
    begin(on, work("b", DELETE), now=1.0)
    begin(on, work("grant"), now=1.0)
    on.release_alone(lane, 2.0, urgent=True)
    assert drained(on, 3.0) == [["b"], ["a"], ["grant"]]


# -- requests that came to nothing


def failed(on: Lanes, now: float, *works: Work) -> list[Lane]:
    """Contacts that were sent together, and no answer came."""
    begun = begin(on, *works, now=now)
    batch = take(on, now + LINGER_S)
    assert batch.lanes == begun
    for lane in begun:
        lane.failed = Tally(0, 1)
    on.put_behind(batch, now + LINGER_S)
    return begun


def test_what_came_to_nothing_waits_behind_all_others() -> None:
    """Also behind those that came later than it; it lingers anew."""
    on = lanes()
    first = begin(on, work("a"))
    batch = take(on, LINGER_S)
    begin(on, work("b"), work("c"), now=LINGER_S)
    on.put_behind(batch, 2.0)
    assert first[0].since == 2.0
    assert drained(on, 2.0, limit=1) == [["b"], ["c"], ["a"]]


def test_a_search_that_comes_to_nothing_goes_on_behind_all_others() -> None:
    """The half that was tried stays by itself, and the other waits for what comes of it."""
    on = lanes()
    begin(on, *several("w", 4, withdrawal=True))
    whole = take(on)
    on.put_back_as_group(UPSERT, whole.lanes[:2], whole.lanes[2:])
    half = take(on)
    begin(on, work("late", withdrawal=True), now=1.0)
    on.put_behind(half, 2.0)
    assert names(take(on, 2.0)) == ["late"]
    again = take(on, 2.0)
    assert (names(again), names(again.still_doubted())) == (["w0", "w1"], ["w2", "w3"])


def test_withdrawals_do_not_go_with_what_came_to_nothing() -> None:
    """Neither with others that wait, nor with withdrawals that failed before: one of those may be why."""
    on = lanes()
    failed(on, 0.0, work("x", withdrawal=True))
    begin(on, work("y", withdrawal=True), work("new"), now=2.0)
    assert [names(take(on, 2.0)) for _ in range(2)] == [["x"], ["y", "new"]]
    failed(on, 3.0, work("a"))
    begin(on, work("z", withdrawal=True), now=4.0)
    assert [names(take(on, 4.0)) for _ in range(2)] == [["z"], ["a"]]


def test_on_trial_what_did_not_come_to_nothing_goes_first_and_apart() -> None:
    """Withdrawals before the rest; then those that failed, whatever they are, the longest ago first."""
    on = lanes()
    failed(on, 1.0, work("a"))
    failed(on, 2.0, work("w", withdrawal=True))
    (grouped,) = begin(on, work("grouped", DELETE))
    on.put_back_as_group(DELETE, take(on).lanes)
    grouped.since, grouped.failed = 2.0, Tally(0, 1)
    begin(on, work("new"), now=3.0)
    begin(on, work("v", withdrawal=True), now=4.0)
    trials = []
    while taken := on.take(5.0, PLENTY, trial=True):
        trials.append(names(taken))
    assert trials == [["v"], ["new"], ["a"], ["grouped"], ["w"]]


def test_on_trial_no_more_is_taken_than_allowed() -> None:
    """What is left waits in its order."""
    on = lanes()
    begin(on, *several("c", 5))
    batch = on.take(LINGER_S, 2, trial=True)
    assert batch is not None
    assert names(batch) == ["c0", "c1"]
    assert drained(on, LINGER_S) == [["c2", "c3", "c4"]]


def test_a_newer_change_is_under_no_suspicion() -> None:
    """What it took the place of may have failed for its data."""
    on = lanes()
    (lane,) = failed(on, 0.0, work("a"))
    lane.alone, lane.blamed = 2, 1
    supersede(on, lane, work("a", size=1))
    assert (lane.failed, lane.alone, lane.blamed) == (None, 0, 0)


# -- groups: the parts of a batch whose data is blamed


def test_a_group_is_sent_together_and_with_nobody_else() -> None:
    """Neither others nor another group join it, although there is room, and it does not linger."""
    on = lanes()
    begin(on, *several("a", 4), now=10.0)
    batch = take(on, 10.5)
    begin(on, *several("late", 3), now=10.5)
    on.put_back_as_group(UPSERT, batch.lanes[:2])
    on.put_back_as_group(UPSERT, batch.lanes[2:])
    assert on.due(10.5, PLENTY) == 10.5
    assert [names(take(on, 10.5)) for _ in range(2)] == [["a0", "a1"], ["a2", "a3"]]
    assert on.due(10.5, PLENTY) == 11.0


@pytest.mark.parametrize("effect", list(Effect))
def test_a_group_is_sent_as_what_it_was(effect: Effect) -> None:
    """A part of a delete is a delete, a part of an amendment an amendment."""
    on = lanes()
    begin(on, *several("a", 2, effect, withdrawal=True))
    on.put_back_as_group(effect, take(on).lanes)
    batch = take(on)
    assert (batch.effect, names(batch)) == (effect, ["a0", "a1"])


def test_withdrawals_go_before_groups_and_groups_before_the_rest() -> None:
    """A poison contact holds up no withdrawal, and full batches do not hold up the search for it."""
    on = lanes(max_records=2)
    begin(on, *several("a", 2))
    group = take(on).lanes
    begin(on, *several("early", 4), now=0.0)
    on.put_back_as_group(UPSERT, group)
    begin(on, work("gone", DELETE), now=5.0)
    assert drained(on, 5.0) == [["gone"], ["a0", "a1"], ["early0", "early1"], ["early2", "early3"]]


def test_a_group_of_withdrawals_is_one() -> None:
    """It goes before a group of others that waits longer, and takes turns with withdrawals by their wait."""
    on = lanes(max_records=2)
    begin(on, *several("plain", 2), now=0.0)
    plain = take(on, 0.0)
    begin(on, *several("revoked", 2, withdrawal=True), now=1.0)
    revoked = take(on, 1.0)
    on.put_back_as_group(UPSERT, plain.lanes)
    on.put_back_as_group(UPSERT, revoked.lanes)
    begin(on, work("gone", DELETE), now=2.0)
    assert drained(on, 2.0) == [["revoked0", "revoked1"], ["gone"], ["plain0", "plain1"]]


@pytest.mark.parametrize("leaves", ["closed", "replaced", "muted", "dropped"])
def test_a_contact_may_leave_its_group(leaves: str) -> None:
    """What ends, is replaced, is muted or loses its partition is not sent with the group any more."""
    on = lanes()
    begin(on, work("a"), work("b", assignment=THEIRS), now=10.0)
    first, second = take(on, 10.5).lanes
    on.put_back_as_group(UPSERT, [first, second])
    withdrawal = work("b", AMEND)
    match leaves:
        case "closed":
            on.close(second)
        case "replaced":
            supersede(on, second, work("b", DELETE))
        case "muted":
            on.wait(second, withdrawal, STATE, withdraws=change_of(withdrawal).withdrawal)
        case _:
            on.drop(THEIRS)
    taken = drained(on, 10.5)
    expected = {"closed": [["a"]], "dropped": [["a"]]}.get(leaves, [["b"], ["a"]])
    assert taken == expected


def test_an_empty_group_is_forgotten() -> None:
    """Nothing is due for contacts that all left it."""
    on = lanes()
    begin(on, *several("a", 2))
    batch = take(on, LINGER_S)
    on.put_back_as_group(UPSERT, batch.lanes)
    for lane in batch.lanes:
        on.close(lane)
    assert (on.due(10.0, PLENTY), on.take(10.0, PLENTY)) == (None, None)


def test_groups_and_others_take_turns() -> None:
    """However much there is to search, every second request is for others, as long as some are due."""
    on = lanes(max_records=2)
    begin(on, *several("bad", 3))
    for lane in [*take(on, LINGER_S).lanes, *take(on, LINGER_S).lanes]:
        on.put_back_as_group(UPSERT, [lane])
    begin(on, *several("good", 4), now=10.0)
    assert drained(on, 10.0) == [["bad0"], ["good0", "good1"], ["bad1"], ["good2", "good3"], ["bad2"]]


def split(on: Lanes, *, count: int = 4) -> list[Lane]:
    """A batch of so many, of which the first half is tried and the second waits."""
    begin(on, *several("a", count), now=10.0)
    batch = take(on, 10.5)
    on.put_back_as_group(UPSERT, batch.lanes[: count // 2], batch.lanes[count // 2 :])
    return batch.lanes


def test_the_doubted_wait_for_the_answer_of_their_group() -> None:
    """They are not sent while it is not answered; its batch tells who they are."""
    on = lanes()
    _, _, *doubted = split(on)
    batch = take(on, 10.5)
    assert names(batch) == ["a0", "a1"]
    assert (batch.still_doubted(), on.due(99.0, PLENTY)) == (doubted, None)


def test_relieved_contacts_go_on_among_all_others() -> None:
    """They join whoever waits, at the end: where there is one poison contact there may be more."""
    on = lanes()
    split(on)
    batch = take(on, 10.5)
    begin(on, work("late"), now=10.5)
    on.relieve(batch.still_doubted())
    assert drained(on, 20.0) == [["late", "a2", "a3"]]
    assert batch.still_doubted() == []


def test_a_doubted_contact_may_be_replaced() -> None:
    """A newer change of it goes its own way, and is not blamed for what the group says."""
    on = lanes()
    *_, third, fourth = split(on)
    supersede(on, third, work("a2", DELETE))
    assert drained(on, 10.5) == [["a2"], ["a0", "a1"]]
    assert fourth.queue is not None


def test_who_waits_for_a_group_that_everybody_left_goes_on() -> None:
    """Without an answer to wait for, they are contacts like others."""
    on = lanes()
    first, second, *_ = split(on)
    on.close(first)
    on.close(second)
    assert drained(on, 20.0) == [["a2", "a3"]]


def test_a_group_that_outgrew_a_request_tells_nothing() -> None:
    """What is left of it goes on among all others, as do those who waited for its answer."""
    on = lanes()
    split(on)
    on.shrink(1)
    assert drained(on, 20.0) == [["a0"], ["a1"], ["a2"], ["a3"]]


# -- a partition moves away


def test_a_dropped_assignment_takes_its_waiting_contacts_along() -> None:
    """Nothing of it is sent any more, what is of others is, and counts are as if it had never been there."""
    on = lanes(max_records=3)
    _, *dropped = begin(on, work("a"), work("b", assignment=THEIRS), work("gone", DELETE, assignment=THEIRS), now=10.0)
    assert on.drop(THEIRS) == (dropped, [])
    assert len(on) == 1
    assert on.due(10.0, PLENTY) == 10.5
    assert drained(on, 10.0) == [["a"]]


def test_what_is_dropped_during_an_outage_is_not_held() -> None:
    """Behind contacts that are put back again and again, nobody would meet it."""
    on = lanes()
    begin(on, work("ours"))
    for _ in range(3):
        gone = Assignment(THEIRS.partition)
        begin(on, *several("theirs", 3, assignment=gone))
        on.put_back(take(on, LINGER_S, limit=1).lanes)
        on.drop(gone)
        assert [each for each in gc.get_objects() if isinstance(each, Lane) and each.work.assignment is gone] == []
    assert drained(on) == [["ours"]]


def test_what_is_sent_stays_until_its_answer() -> None:
    """The contact must not be in a second request while the first is under way."""
    on = lanes()
    (lane,) = begin(on, work("a", assignment=THEIRS))
    take(on, LINGER_S)
    assert on.drop(THEIRS) == ([], [])
    assert on.get(lane.change.identity) is lane
    assert on.busy(THEIRS)
    assert on.under_way([OURS.partition, THEIRS.partition]) == {THEIRS}
    assert on.under_way([OURS.partition]) == set()


def test_works_of_others_that_waited_come_back() -> None:
    """Behind a dropped lane there may be works of a partition that stays; those of the dropped one are forgotten."""
    on = lanes()
    (lane,) = begin(on, work("a", assignment=THEIRS))
    behind = [work("a", assignment=OURS), work("a", assignment=THEIRS), work("a", assignment=OURS)]
    for each in behind:
        on.wait(lane, each, STATE, withdraws=change_of(each).withdrawal)
    assert on.drop(THEIRS) == ([lane], [behind[0], behind[2]])
    assert len(on) == 0


def test_what_a_dropped_work_took_the_place_of_goes_with_it() -> None:
    """Only works of one assignment take each other's place, so nothing of it is anybody else's."""
    on = lanes()
    works = [work("a", assignment=THEIRS) for _ in range(3)]
    (lane,) = begin(on, works[0])
    for newer in works[1:]:
        supersede(on, lane, newer)
    assert on.drop(THEIRS) == ([lane], [])


def test_what_a_sent_work_took_the_place_of_ends_with_its_answer() -> None:
    """Without an outcome of these, nothing behind them could be settled before the partition moves."""
    on = lanes()
    works = [work("a", assignment=THEIRS) for _ in range(2)]
    (lane,) = begin(on, works[0])
    supersede(on, lane, works[1])
    take(on, LINGER_S)
    assert on.drop(THEIRS) == ([], [])
    assert lane.superseded == [works[0]]


@pytest.mark.parametrize("sent", [False, True])
def test_works_that_wait_behind_others_are_forgotten(*, sent: bool) -> None:
    """A lane that stays loses what waited behind it of the dropped assignment; what waited with that is judged anew."""
    on = lanes()
    (lane,) = begin(on, work("a"))
    behind = [work("a", assignment=THEIRS), work("a", assignment=OURS)]
    for each in behind:
        on.wait(lane, each, STATE, withdraws=change_of(each).withdrawal)
    if sent:
        take(on, LINGER_S)
    assert on.drop(THEIRS) == ([], [behind[1]])
    assert lane.expected is None
    assert on.close(lane) == []


def test_another_epoch_of_the_same_partition_is_another_assignment() -> None:
    """The partition came back: what was opened under the new ownership is not dropped with the old one."""
    on = lanes()
    before, after = Assignment(OURS.partition), Assignment(OURS.partition)
    begin(on, work("a", assignment=before), work("b", assignment=after))
    on.drop(before)
    assert drained(on) == [["b"]]


def test_busy_is_who_has_a_request_under_way() -> None:
    """Waiting is not busy, put back is not, nor are others."""
    on = lanes()
    begin(on, work("a"))
    assert not on.busy(OURS)
    batch = take(on, LINGER_S)
    assert on.busy(OURS)
    assert not on.busy(THEIRS)
    on.put_back(batch.lanes)
    assert not on.busy(OURS)
    on.close(take(on, LINGER_S).lanes[0])
    assert not on.busy(OURS)


def test_a_lane_knows_what_it_was_judged_against() -> None:
    """The state comes back with it, also when a newer work took the place of the judged one."""
    on = lanes()
    known = State(b"f" * 32, 3, True, 0, 0, deleted=False)
    first = work("a")
    on.open(first, change_of(first), known, 0.0)
    lane = lane_of(on, first)
    supersede(on, lane, work("a"))
    assert lane.base is known


# -- all of it together


class Traffic(RuleBasedStateMachine):
    """Contacts come as the pipeline lets them in, and requests get every kind of answer, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.on = lanes(max_records=4, max_bytes=120)
        self.now = 0.0
        self.assignments = [Assignment(TopicPartition("t", n)) for n in range(2)]
        self.under_way: list[Batch] = []
        self.submitted: list[Work] = []
        self.ended: Counter[int] = Counter()
        self.sent: dict[str, list[int]] = {}
        self.parked: list[Lane] = []

    # what the pipeline does around lanes

    def admit(self, works: Sequence[Work]) -> None:
        """Let works in as `Admission` does: a lane of their own, the place of another, or behind it."""
        for each in works:
            change = change_of(each)
            lane = self.on.get(change.identity)
            if lane is None:
                self.on.open(each, change, None, self.now)
            elif lane.sent or lane.waiting or isinstance(change.contact, Amendment) or self.is_foreign(lane, each):
                self.on.wait(lane, each, STATE, withdraws=change.withdrawal)
            else:
                supersede(self.on, lane, each)

    @staticmethod
    def is_foreign(lane: Lane, work: Work) -> bool:
        """Whether a work is of another assignment than what is under way of its contact: it takes nobody's place."""
        return lane.mixed or lane.work.assignment is not work.assignment

    def end(self, work: Work) -> None:
        """A work has its outcome."""
        self.ended[work.record.offset] += 1

    def finish(self, lane: Lane) -> None:
        """A contact has its answer."""
        self.sent.setdefault(lane.change.contact.external_id, []).append(lane.work.record.offset)
        for each in [*lane.superseded, lane.work]:
            self.end(each)
        lane.superseded = []
        self.admit(self.on.close(lane))

    def leave(self, lane: Lane) -> None:
        """A contact's partition was lost while its request was under way."""
        for each in [*lane.superseded, lane.work]:
            self.end(each)
        lane.superseded = []
        self.admit(self.on.close(lane))

    def answered(self, data: st.DataObject) -> Batch:
        """Some request gets its answer; what is of a lost partition ends here."""
        batch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        for lane in batch.lanes:
            if not lane.work.assignment.alive:
                self.leave(lane)
        alive = [lane for lane in batch.lanes if lane.work.assignment.alive]
        return Batch(batch.effect, alive, batch.doubted)

    # what happens

    @rule(
        name=st.sampled_from("abcdef"),
        kind=st.sampled_from(
            [(UPSERT, False), (UPSERT, False), (UPSERT, True), (DELETE, True), (AMEND, True), (AMEND, False)]
        ),
        size=st.integers(0, 60),
        partition=st.integers(0, 1),
    )
    def submit(self, name: str, kind: tuple[Effect, bool], size: int, partition: int) -> None:
        effect, withdrawal = kind
        assignment = self.assignments[partition]
        made = work(name, effect, withdrawal=withdrawal, assignment=assignment, size=size, offset=len(self.submitted))
        self.submitted.append(made)
        self.admit([made])

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 5))
    def send(self, limit: int) -> None:
        due = self.on.due(self.now, limit)
        batch = self.on.take(self.now, limit)
        assert (batch is not None) == (due is not None and due <= self.now)
        if batch is not None:
            assert batch.lanes
            self.under_way.append(batch)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        batch = self.answered(data)
        for lane in batch.lanes:
            self.finish(lane)
        if blamed := batch.still_doubted():
            self.on.put_back_as_group(batch.effect, blamed[:1], blamed[1:])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        batch = self.answered(data)
        together = data.draw(st.booleans())
        if together and batch.lanes and batch.still_doubted():
            self.on.put_back_as_group(batch.effect, batch.lanes, batch.still_doubted())
        else:
            self.on.relieve(batch.still_doubted())
            self.on.put_back(batch.lanes)
        for lane in batch.lanes:
            waiting, lane.waiting = lane.waiting, []
            self.admit(waiting)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        batch = self.answered(data)
        self.on.relieve(batch.still_doubted())
        if not batch.lanes:
            return
        middle = data.draw(st.integers(1, len(batch.lanes)))
        tried, rest = batch.lanes[:middle], batch.lanes[middle:]
        if data.draw(st.booleans()):
            self.on.put_back_as_group(batch.effect, tried, rest)
            return
        for part in filter(None, (tried, rest)):
            self.on.put_back_as_group(batch.effect, part)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def park(self, data: st.DataObject) -> None:
        batch = self.answered(data)
        self.on.relieve(batch.still_doubted())
        for lane in batch.lanes:
            self.on.park(lane)
            self.parked.append(lane)

    @precondition(lambda self: self.parked)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lane = self.parked.pop(data.draw(st.integers(0, len(self.parked) - 1)))
        if data.draw(st.booleans()):
            self.on.release_alone(lane, self.now)
        else:
            self.on.release(lane)

    @rule(partition=st.integers(0, 1))
    def lose(self, partition: int) -> None:
        lost = self.assignments[partition]
        lost.alive = False
        self.assignments[partition] = Assignment(lost.partition)
        self.admit(self.on.drop(lost)[1])
        sent = [lane for batch in self.under_way for lane in batch.lanes]
        under_way = {each.record.offset for lane in sent for each in [*lane.superseded, lane.work]}
        for each in self.submitted:
            offset = each.record.offset
            if each.assignment is lost and offset not in self.ended and offset not in under_way:
                self.end(each)

    # what must hold

    @invariant()
    def no_contact_is_in_two_requests(self) -> None:
        taken = [lane.change.identity for batch in self.under_way for lane in batch.lanes]
        assert len(set(taken)) == len(taken)

    @invariant()
    def sent_is_who_is_under_way(self) -> None:
        taken = {id(lane) for batch in self.under_way for lane in batch.lanes}
        assert {id(lane) for lane in self.on._lanes.values() if lane.sent} == taken

    @invariant()
    def counts_are_those_of_the_queue(self) -> None:
        for queue in self.on._calm.values():
            living = [lane for lane in self.on._lanes.values() if lane.queue is queue]
            assert queue.records == len(living)

    @invariant()
    def what_is_encoded_is_what_waits(self) -> None:
        """Nothing of a work that was replaced, or muted since, is sent."""
        for lane in self.on._lanes.values():
            if lane.payload and not lane.sent:
                contact = change_of(lane.work).whole
                assert lane.payload == encode(contact, callable_=contact.callable and not lane.muted)

    @invariant()
    def whoever_waits_stands_in_its_queue(self) -> None:
        for lane in self.on._lanes.values():
            assert lane.queue in (None, self.on._parked) or any(lane is other for other in lane.queue)

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert max(self.ended.values(), default=0) <= 1

    @invariant()
    def changes_of_a_contact_go_out_in_their_order(self) -> None:
        assert all(offsets == sorted(offsets) for offsets in self.sent.values())

    def teardown(self) -> None:
        """Every answer comes in, everything that waits is sent: then each work has ended, once."""
        self.on.draining = True
        for lane in self.parked:
            self.on.release(lane)
        while self.under_way or self.on.due(self.now, PLENTY) is not None:
            while batch := self.on.take(self.now, PLENTY):
                self.under_way.append(batch)
            self.no_contact_is_in_two_requests()
            answered, self.under_way = self.under_way, []
            for batch in answered:
                self.on.relieve(batch.still_doubted())
                for lane in batch.lanes:
                    self.finish(lane)
        assert len(self.on) == 0
        assert self.ended == Counter(each.record.offset for each in self.submitted)
        assert {queue.records for queue in self.on._calm.values()} == {0}


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=150, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow])
