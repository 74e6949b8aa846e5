"""The check of the audit trail: whatever is changed, lost, added or repeated is found, and nothing else."""

import random
from collections.abc import Sequence

import orjson
import pytest

from consumer.core import audit_chain
from consumer.core.audit import Auditor, _seal
from consumer.core.audit_chain import MAX_EXAMPLES, AuditCheck, Finding, Gap
from consumer.model import Assignment, BatchReport, ChainHead, Outcome, Record, TopicPartition, Work

P0, P1 = TopicPartition("contacts", 0), TopicPartition("contacts", 1)
AUDITOR = Auditor("list", b"a key of the tests")


def _events(
    offsets: Sequence[int], partition: TopicPartition = P0, head: ChainHead | None = None
) -> tuple[list[bytes], ChainHead]:
    works = [
        Work(Record(*partition, offset, 0, None, None), Assignment(partition), outcome=Outcome.DELIVERED)
        for offset in offsets
    ]
    events, end = AUDITOR.records(works, head or ChainHead(), 1_700_000_000.0)
    return [value for _, value in events], end


def _check(values: Sequence[bytes], *, from_start: bool = True, from_zero: bool = False) -> AuditCheck:
    check = AuditCheck(from_start=from_start, from_zero=from_zero)
    for n, value in enumerate(values):
        check.take(value, f"audit/0/{n}")
    check.finish()
    return check


def _found(check: AuditCheck, partition: TopicPartition = P0) -> dict[Finding, int]:
    return check.chains[partition].problems.counts


WHOLE = _events(range(10))[0]


def test_whole_chains_are_whole_in_nearly_any_order() -> None:
    """Events of partitions come mixed and a little out of order; batch events do not count."""
    mixed = [*WHOLE, *_events(range(100, 150), P1)[0], AUDITOR.batch(BatchReport("id", 1, 0.0, 0), 1.0)[1]]
    random.Random(1).shuffle(mixed)
    check = _check(mixed)
    assert check.whole
    assert {key: (chain.events, chain.first_offset, chain.next_offset) for key, chain in check.chains.items()} == {
        P0: (10, 0, 10),
        P1: (50, 100, 150),
    }
    assert check.take_gaps() == []


def test_a_changed_event_is_found() -> None:
    """Its hash is not that of its bytes; the events around it are fine."""
    check = _check([*WHOLE[:3], WHOLE[3].replace(b"delivered", b"duplicate"), *WHOLE[4:]])
    assert not check.whole
    assert _found(check) == {Finding.ALTERED: 1}
    assert "offset 3" in check.chains[P0].problems.examples[0]


@pytest.mark.parametrize("behind", [b',"outcome":"ignored"}', b',"more":1}', b"} ", b"}\n"])
def test_what_stands_behind_the_hash_is_found(behind: bytes) -> None:
    """Of two fields of a name whoever reads JSON takes the last."""
    assert _found(_check([*WHOLE[:3], WHOLE[3][:-1] + behind, *WHOLE[4:]])) == {Finding.ALTERED: 1}


def test_a_changed_event_with_a_hash_to_match_is_found() -> None:
    """The next event names another hash."""
    other, _ = _events([3], head=ChainHead(3, orjson.loads(WHOLE[3])["prev"]))
    forged = other[0].replace(b'"latencyMs":', b'"latencyMs":1')
    body, _, _ = forged.rpartition(b',"hash":"')
    resealed, _ = _seal(body + b"}")
    assert _found(_check([*WHOLE[:3], resealed, *WHOLE[4:]])) == {Finding.BROKEN: 1}


def test_a_lost_event_is_found() -> None:
    """Its number is missing, and its offset is a gap."""
    check = _check([*WHOLE[:3], *WHOLE[4:]])
    assert _found(check) == {Finding.MISSING: 1}
    assert check.take_gaps() == [Gap(P0, 3, 4)]


def test_the_loss_of_the_first_events_is_found() -> None:
    """A chain that was read from its start begins with number 0."""
    assert _found(_check(WHOLE[2:])) == {Finding.MISSING: 1}


def test_what_is_read_from_a_moment_on_may_begin_anywhere() -> None:
    """The first event that is there needs no one before it."""
    assert _check(WHOLE[2:], from_start=False).whole


def test_a_repeated_event_is_found() -> None:
    """The very same event, early or late."""
    assert _found(_check([*WHOLE, WHOLE[0]])) == {Finding.REPEATED: 1}
    assert _found(_check([WHOLE[0], WHOLE[2], WHOLE[2], *WHOLE[1:2], *WHOLE[3:]])) == {Finding.REPEATED: 1}


def test_a_second_event_for_an_offset_is_found() -> None:
    """The chain is whole, and tells of a record twice."""
    check = _check(_events([0, 1, 2, 1, 2, 3])[0])
    assert _found(check) == {Finding.OFFSET_REPEATED: 2}


def test_a_chain_that_begins_anew_is_found() -> None:
    """A lost changelog begins a second chain, which is checked too."""
    second, _ = _events(range(10, 15))
    check = _check([*WHOLE, *second[:2], *second[3:]])
    assert _found(check) == {Finding.RESTARTED: 1, Finding.MISSING: 1}


def test_gaps_in_the_offsets_are_told_and_not_judged() -> None:
    """Only the source topic knows whether a record stands there."""
    check = _check(_events([0, 1, 5, 6])[0])
    chain = check.chains[P0]
    chain.reach(9)
    assert check.whole
    assert check.take_gaps() == [Gap(P0, 2, 5), Gap(P0, 7, 9)]
    chain.without_event(3)
    assert _found(check) == {Finding.WITHOUT_EVENT: 1}


def test_what_stands_before_the_first_event_is_a_gap_of_a_group_that_began_at_zero() -> None:
    """Its chain is whole all the same; a partition without any event is one gap."""
    check = _check(_events([5, 6])[0], from_zero=True)
    check.chains[P0].reach(7)
    check.begin(P1).reach(3)
    assert check.whole
    assert (check.chains[P0].first_offset, check.chains[P1].first_offset) == (5, None)
    assert check.take_gaps() == [Gap(P0, 0, 5), Gap(P1, 0, 3)]
    elsewhere = _check(_events([5, 6])[0])
    elsewhere.begin(P1).reach(3)
    assert elsewhere.take_gaps() == []


@pytest.mark.parametrize(
    "value", [b"", b"junk", b"{}", b'{"type":"record"}', b'{"type":"other"}', WHOLE[0].replace(b'"seq":0', b'"seq":-1')]
)
def test_what_is_no_audit_event_is_found(value: bytes) -> None:
    """It is told by its place."""
    check = _check([*WHOLE, value])
    assert not check.whole
    assert check.unreadable.examples == ["audit/0/10 is not an audit event"]


def test_holes_at_the_end_may_be_filled() -> None:
    """Where the reading ended between the events of a settlement, only those that fill the holes are taken."""
    check = AuditCheck(from_start=True)
    for value in (*WHOLE[:5], WHOLE[6]):
        check.take(value, "")
    assert check.has_holes()
    check.freeze()
    for value in (WHOLE[8], _events([0], P1)[0][0], WHOLE[5]):
        check.take(value, "")
    assert not check.has_holes()
    assert check.whole
    assert check.chains[P0].events == 7
    assert P1 not in check.chains


def test_waiting_events_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit what is waited for counts as missing, so that memory stays as it is."""
    monkeypatch.setattr(audit_chain, "MAX_WAITING", 100)
    check = AuditCheck(from_start=True)
    for value in _events(range(1000))[0][1:]:
        check.take(value, "")
        assert check.chains[P0].waiting <= 100
    assert _found(check) == {Finding.MISSING: 1}


def test_a_thousand_problems_are_counted_and_some_told() -> None:
    """The report does not grow with the damage."""
    check = _check([value.replace(b"delivered", b"duplicate") for value in _events(range(1000))[0]])
    assert _found(check) == {Finding.ALTERED: 1000}
    assert len(check.chains[P0].problems.examples) == MAX_EXAMPLES
