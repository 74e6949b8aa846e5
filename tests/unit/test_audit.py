"""What audit events say, that they say it of nobody, and that an outsider can check their chain."""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from consumer.core.audit import (
    COMPLIANCE_CHECKS,
    MAX_PARTS,
    AuditEvent,
    Auditor,
    decode_head,
    encode_head,
    event_id,
    trace_id,
)
from consumer.model import Assignment, BatchReport, ChainHead, Operation, Outcome, Reason, Record, TopicPartition, Work

_SCHEMAS = fastavro.parse_schema(
    json.loads((Path(__file__).parents[2] / "schemas" / "audit_event.avsc").read_text(encoding="utf-8"))
)
SCHEMAS: dict[str, Any] = dict(zip(("record", "batch"), _SCHEMAS, strict=True))
LIST_ID = "11111111-2222-4333-8444-555555555555"
BATCH_ID = "6e4b3d6b-7c6e-5d0c-9d7e-0d1f2a3b4c5d"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
APPENDED_MS = 1_767_225_600_000
NOW = APPENDED_MS / 1000 + 1.5
"""A second and a half after the records were appended."""

PARTITION = TopicPartition("crm.contacts.changes", 3)
AUDITOR = Auditor(LIST_ID, b"a key")


def record(offset: int, **fields: Any) -> Record:
    """A record of the partition."""
    return replace(Record(*PARTITION, offset, APPENDED_MS, b"crm-1", b"value"), **fields)


def work(offset: int = 0, outcome: Outcome = Outcome.DELIVERED, **decided: Any) -> Work:
    """A decided work; what a test does not say is that of a duplicate: nothing was sent."""
    return replace(Work(record(offset), Assignment(PARTITION), "crm-1", outcome=outcome), **decided)


def delivered(offset: int = 0) -> Work:
    """A work that a batch took to Genesys."""
    return work(offset, operation=Operation.UPSERT, batch_id=BATCH_ID, trace_id=TRACE_ID, applied_at=NOW - 0.1)


def report(records_in: int = 3, records_out: int = 3, attempts: int = 1, started_at: float = NOW - 0.25) -> BatchReport:
    """A batch whose every contact has an answer."""
    return BatchReport(BATCH_ID, records_in, started_at, 0, records_out, attempts, COMPLIANCE_CHECKS)


def told(works: Sequence[Work], head: ChainHead = ChainHead()) -> list[dict[str, Any]]:  # noqa: B008 -- immutable
    """Events of works, as a reader sees them."""
    events, _ = AUDITOR.records(works, head, NOW)
    return [json.loads(value) for _, value in events]


def batch(told_of: BatchReport) -> dict[str, Any]:
    """The event of a batch, as a reader sees it."""
    read: dict[str, Any] = json.loads(AUDITOR.batch(told_of, NOW)[1])
    return read


def seal(value: bytes) -> tuple[str, str]:
    """What an outsider makes of an event: the hash that it carries, and the one of its other bytes as they stand."""
    body, mark, tail = value.rpartition(b',"hash":"')
    assert mark
    return tail.removesuffix(b'"}').decode(), hashlib.sha256(body + b"}").hexdigest()


def is_whole(events: Sequence[AuditEvent], head: ChainHead) -> bool:
    """Whether the events follow on from the head and each carries the hash of its own bytes."""
    expected = head
    for _, value in events:
        event = json.loads(value)
        stated, computed = seal(value)
        if (event["seq"], event["prev"], stated) != (expected.seq, expected.hash, computed):
            return False
        expected = ChainHead(expected.seq + 1, stated)
    return True


# -- what an event says


def test_the_event_of_a_delivered_record_says_all_of_it() -> None:
    """Every field of the interface is there with its value, in its order, and none beside them."""
    (event,) = told([delivered(7)], ChainHead(41, "ab" * 32))
    assert list(event.items()) == [
        ("type", "record"),
        ("eventId", "crm.contacts.changes/3/7"),
        ("timestamp", "2026-01-01T00:00:01.500Z"),
        ("source", {"topic": "crm.contacts.changes", "partition": 3, "offset": 7}),
        ("contactRef", AUDITOR.pseudonym("crm-1")),
        ("operation", "upsert"),
        ("outcome", "delivered"),
        ("reasons", []),
        ("contactListId", LIST_ID),
        ("batchId", BATCH_ID),
        ("traceId", TRACE_ID),
        ("latencyMs", 1500),
        ("seq", 41),
        ("prev", "ab" * 32),
        ("hash", event["hash"]),
    ]


def test_the_event_of_a_batch_says_all_of_it() -> None:
    """Every field of the interface is there with its value, in its order, and none beside them."""
    assert list(batch(report(records_in=100, records_out=99, attempts=15)).items()) == [
        ("type", "batch"),
        ("eventId", BATCH_ID),
        ("timestamp", "2026-01-01T00:00:01.500Z"),
        ("operation", "contact_list_sync"),
        ("contactListId", LIST_ID),
        ("batchId", BATCH_ID),
        ("recordsIn", 100),
        ("recordsOut", 99),
        ("status", "partial"),
        ("complianceChecks", list(COMPLIANCE_CHECKS)),
        ("latencyMs", 250),
        ("attempts", 15),
    ]


@pytest.mark.parametrize("operation", [None, *Operation], ids=str)
@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_and_operation_fits_the_schema(outcome: Outcome, operation: Operation | None) -> None:
    """The published schema describes every event, with nothing left over."""
    (event,) = told([work(outcome=outcome, operation=operation)])
    assert fastavro.validate(event, SCHEMAS["record"], strict=True)
    assert (event["outcome"], event["operation"]) == (outcome.value, operation and operation.value)


@pytest.mark.parametrize(
    "decided",
    [
        {"external_id": None, "reasons": (Reason.NOT_DECODABLE,)},
        {"reasons": tuple(Reason)},
        {"reasons": ("genesys:contact.datum.length.limit.exceeded",), "operation": Operation.UPSERT},
        {"batch_id": BATCH_ID, "trace_id": TRACE_ID},
    ],
    ids=["of nobody", "our reasons", "Genesys' reason", "of a batch"],
)
def test_what_may_be_missing_or_many_fits_the_schema(decided: dict[str, Any]) -> None:
    """With and without contact, batch, trace and reasons, the schema holds."""
    (event,) = told([work(outcome=Outcome.REJECTED, **decided)])
    assert fastavro.validate(event, SCHEMAS["record"], strict=True)
    assert event["reasons"] == list(decided.get("reasons", ()))


@pytest.mark.parametrize("made", [report(), report(3, 0), report(3, 1)])
def test_every_batch_event_fits_the_schema(made: BatchReport) -> None:
    """The published schema describes every batch event, with nothing left over."""
    assert fastavro.validate(batch(made), SCHEMAS["batch"], strict=True)


@pytest.mark.parametrize(
    ("records_out", "status"), [(0, "failure"), (1, "partial"), (2, "partial"), (3, "success")], ids=str
)
def test_a_batch_is_a_success_only_as_a_whole(records_out: int, status: str) -> None:
    """All accepted is a success, none a failure, anything between is partial."""
    assert batch(report(3, records_out))["status"] == status


def test_a_clock_that_runs_behind_makes_no_negative_latency() -> None:
    """A record from the future, or a batch that begins there, has taken no time."""
    late = work()
    late.record = record(0, timestamp_ms=APPENDED_MS + 60_000)
    assert told([late])[0]["latencyMs"] == 0
    assert batch(report(started_at=NOW + 60))["latencyMs"] == 0


def test_a_record_without_a_time_has_no_latency() -> None:
    """Where Kafka tells none, nobody knows since when it waits."""
    timeless = work()
    timeless.record = record(0, timestamp_ms=-1)
    assert told([timeless])[0]["latencyMs"] == 0


def test_the_keys_are_those_of_the_interface() -> None:
    """A record's event has its contact's pseudonym, one of nobody its own id, a batch's event the batch id."""
    events, _ = AUDITOR.records([work(0), work(1, external_id=None)], ChainHead(), NOW)
    assert [key.decode() for key, _ in events] == [AUDITOR.pseudonym("crm-1"), "crm.contacts.changes/3/1"]
    assert AUDITOR.batch(report(), NOW)[0].decode() == BATCH_ID


def test_an_event_id_is_a_position() -> None:
    """A repeat of a record has the id of the first time, another record another one."""
    positions = [record(7), record(8), record(7, partition=4), record(7, topic="other")]
    assert event_id(record(7)) == event_id(record(7, value=b"again", timestamp_ms=5)) == "crm.contacts.changes/3/7"
    assert len({event_id(each) for each in positions}) == 4


# -- of whom


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_a_pseudonym_is_an_hmac_under_the_key(length: int) -> None:
    """It is the keyed hash of the external id, and not the bare one that anybody can try out."""
    key = bytes(range(length))
    pseudonym = Auditor("list-1", key).pseudonym("crm-1")
    assert pseudonym == hmac.new(key, b"crm-1", hashlib.sha256).hexdigest()
    assert pseudonym != hashlib.sha256(b"crm-1").hexdigest()
    assert re.fullmatch(r"[0-9a-f]{64}", pseudonym)


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64), st.text(st.characters(codec="utf-8")))
def test_a_pseudonym_differs_by_key(one: bytes, other: bytes, external_id: str) -> None:
    """Two installations do not name a person alike; one names them alike for ever, whatever the list."""
    pseudonym = Auditor(LIST_ID, one).pseudonym(external_id)
    assert pseudonym == Auditor("another list", one).pseudonym(external_id)
    # HMAC pads short keys with zeros: those that differ in nothing else are the same key.
    assert (pseudonym == Auditor(LIST_ID, other).pseudonym(external_id)) == (one.rstrip(b"\0") == other.rstrip(b"\0"))


def test_a_pseudonym_differs_by_contact() -> None:
    """No two contacts share a name."""
    assert len({AUDITOR.pseudonym(f"crm-{n}") for n in range(1000)}) == 1000


@pytest.mark.parametrize("outcome", list(Outcome))
def test_no_personal_data_is_in_an_event(outcome: Outcome) -> None:
    """Neither external id nor anything of the record's bytes or the detail stands in an event or its key."""
    secrets = {"crm-SECRET-1", "+15550100", "ada@example.org", "SECRET-header", "SECRET-detail"}
    bare = work(outcome=outcome, external_id="crm-SECRET-1", detail="SECRET-detail", reasons=("phone_not_e164",))
    bare.record = record(
        0, key=b"crm-SECRET-1", value=b"+15550100 ada@example.org", headers=[("SECRET-header", b"ada@example.org")]
    )
    ((key, value),), _ = AUDITOR.records([bare], ChainHead(), NOW)
    assert not [secret for secret in secrets if secret.encode() in key + value]


# -- whose trace


@pytest.mark.parametrize("suffix", ["-00", "-01", "-ff"])
def test_the_trace_of_a_record_is_that_of_its_header(suffix: str) -> None:
    """A W3C traceparent gives its trace id, sampled or not, wherever it stands among the headers."""
    header = ("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7{suffix}".encode())
    assert trace_id([("other", b"x"), header]) == TRACE_ID
    traced = work()
    traced.record = record(0, headers=[header])
    assert told([traced])[0]["traceId"] == TRACE_ID


def test_a_later_version_of_traceparent_is_read() -> None:
    """W3C asks to read the fields that are known, and to let stand what follows them."""
    assert trace_id([("traceparent", f"cc-{TRACE_ID}-00f067aa0ba902b7-01-what-the-future-brings".encode())]) == TRACE_ID


def test_blanks_around_a_traceparent_are_as_in_an_http_header() -> None:
    """OpenTelemetry's own propagator lets them stand, and so do the spans."""
    assert trace_id([("traceparent", f" \t00-{TRACE_ID}-00f067aa0ba902b7-01 ".encode())]) == TRACE_ID


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00",
        TRACE_ID.encode(),
        f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE_ID[:-1]}-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE_ID}0-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE_ID[:-1]}g-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE_ID}-00f067aa0ba902b-01".encode(),
        f"00-{TRACE_ID}-00f067aa0ba902b7".encode(),
        f"00-{TRACE_ID}-00f067aa0ba902b7-1".encode(),
        f"00-{TRACE_ID}-00f067aa0ba902b7-01\n".encode(),
        f"00-{'0' * 32}-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE_ID}-{'0' * 16}-01".encode(),
        f"ff-{TRACE_ID}-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE_ID}-00f067aa0ba902b7-01-more".encode(),
        f"00_{TRACE_ID}_00f067aa0ba902b7_01".encode(),
        b"\xff\xfe",
        b'00-"}{"hash":"x-00f067aa0ba902b7-01',
    ],
    ids=repr,
)
def test_what_is_no_traceparent_gives_no_trace(value: bytes | None) -> None:
    """Whatever a producer writes there, only 32 lower-case hex digits in their place get into an event."""
    assert trace_id([("traceparent", value)]) is None


def test_other_headers_give_no_trace() -> None:
    """Neither another name, nor none at all."""
    assert trace_id([("tracestate", f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode())]) is None
    assert trace_id(()) is None


def test_the_trace_of_the_batch_goes_before_that_of_the_header() -> None:
    """A record that went to Genesys names the trace of its request."""
    sent = delivered()
    sent.record = record(0, headers=[("traceparent", b"00-" + b"1" * 32 + b"-00f067aa0ba902b7-01")])
    assert told([sent])[0]["traceId"] == TRACE_ID


# -- the chain


def test_a_record_about_very_many_has_an_event_that_brokers_take() -> None:
    """A megabyte by default: one that is refused would end every process that reads the record."""
    many = work()
    many.parts = [replace(work(), part=number, reasons=("email_invalid",)) for number in range(15_000)]
    ((_, value),), _ = AUDITOR.records([many], ChainHead(), NOW)
    event = json.loads(value)
    assert len(value) < 1_000_000
    assert (len(event["parts"]), event["partsLeftOut"]) == (MAX_PARTS, 15_000 - MAX_PARTS)
    assert fastavro.validate(event, SCHEMAS["record"])


def test_a_chain_begins_at_zero() -> None:
    """The first event of a partition has number 0 and follows on 64 zeros."""
    (first,) = told([work()])
    assert (first["seq"], first["prev"]) == (0, "0" * 64)


def test_an_outsider_can_check_the_chain() -> None:
    """From nothing but the bytes: each event's hash is that of its bytes before, and the next event repeats it."""
    events, head = AUDITOR.records([delivered(0), work(1), work(2, external_id=None)], ChainHead(), NOW)
    read = [json.loads(value) for _, value in events]
    assert [seal(value)[0] for _, value in events] == [seal(value)[1] for _, value in events]
    assert [event["seq"] for event in read] == [0, 1, 2]
    assert all(after["prev"] == before["hash"] for before, after in pairwise(read))
    assert head == ChainHead(3, read[-1]["hash"])
    assert is_whole(events, ChainHead())


@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_chain_goes_on_over_settlements(cuts: list[int]) -> None:
    """However works are cut into settlements, with the head written and read between them, the chain is the same."""
    works = [work(offset) for offset in range(sum(cuts))]
    head, events, begin = ChainHead(), list[AuditEvent](), 0
    for count in cuts:
        some, head = AUDITOR.records(works[begin : begin + count], decode_head(encode_head(head)), NOW)
        events += some
        begin += count
    assert (events, head) == AUDITOR.records(works, ChainHead(), NOW)
    assert is_whole(events, ChainHead())


def test_no_works_leave_the_chain_as_it_is() -> None:
    """Nothing decided, nothing told."""
    assert AUDITOR.records([], ChainHead(9, "cd" * 32), NOW) == ([], ChainHead(9, "cd" * 32))


@pytest.mark.parametrize("tampered", range(4))
def test_a_changed_event_breaks_the_chain(tampered: int) -> None:
    """One byte of any event, and the outsider sees it."""
    events, _ = AUDITOR.records([work(offset) for offset in range(4)], ChainHead(), NOW)
    assert is_whole(events, ChainHead())
    key, value = events[tampered]
    events[tampered] = (key, value.replace(b'"delivered"', b'"duplicate"'))
    assert not is_whole(events, ChainHead())


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_event_breaks_the_chain(missing: int) -> None:
    """Any event but the last that is taken out is missed."""
    events, _ = AUDITOR.records([work(offset) for offset in range(4)], ChainHead(), NOW)
    assert is_whole(events, ChainHead())
    assert not is_whole([*events[:missing], *events[missing + 1 :]], ChainHead())


def test_a_head_that_was_never_written_is_that_of_an_empty_chain() -> None:
    """A new partition begins its chain."""
    assert decode_head(None) == ChainHead(0, "0" * 64)


@given(st.integers(0, 2**53), st.binary(min_size=32, max_size=32))
def test_a_head_is_read_as_it_was_written(seq: int, digest: bytes) -> None:
    """What the store keeps of the chain is all of it."""
    head = ChainHead(seq, digest.hex())
    assert decode_head(encode_head(head)) == head
