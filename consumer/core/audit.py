"""Audit events: one for each record, one for each batch, as JSON; record events form a chain for each partition.

Answers for what the audit topic says, and for the pseudonyms in it: an HMAC under a key, since the bare hash of an
external id or a phone number can be reversed by trying them all. Touches nothing else.
"""

import hashlib
from collections.abc import Sequence

import orjson
from msgspec import Struct
from msgspec.json import Encoder

from consumer.core import trace_context
from consumer.core.moments import iso
from consumer.model import BatchReport, ChainHead, Headers, Operation, Outcome, Record, Work

COMPLIANCE_CHECKS = ("external_id", "phone_e164", "email_rfc5322", "consent", "do_not_call", "consent_conflict")
"""The rules that contacts pass which are sent whole."""

CHECKS_OF_PARTS = COMPLIANCE_CHECKS[:1]
"""The one that whoever is deleted or amended has passed for sure: a rejected record may have broken all others."""

MAX_PARTS = 2_000
"""Parts that an event tells of: more than four times as many pass the megabyte that brokers take by default."""

AuditEvent = tuple[bytes, bytes]
"""Key and value for the audit topic."""

_BLOCK_BYTES = 64
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

_HASH_HEX = slice(-66, -2)
"""Where the hash stands in an event: last, and before `"}`."""


class _Source(Struct, gc=False):
    topic: str
    partition: int
    offset: int


class _Part(Struct, rename="camel", gc=False):
    contact_ref: str | None
    operation: Operation | None
    outcome: Outcome | None
    reasons: Sequence[str]


class _RecordEvent(Struct, rename="camel", tag_field="type", tag="record", omit_defaults=True, gc=False):
    """A record's event without its hash: the fields in the order in which they are written."""

    event_id: str
    timestamp: str
    source: _Source
    contact_ref: str | None
    operation: Operation | None
    outcome: Outcome | None
    reasons: Sequence[str]
    contact_list_id: str
    batch_id: str | None
    trace_id: str | None
    latency_ms: int
    seq: int
    prev: str
    parts: Sequence[_Part] = ()
    parts_left_out: int = 0


_encode = Encoder().encode


class Auditor:
    """Writes audit events for one contact list, under one key."""

    def __init__(self, contact_list_id: str, key: bytes) -> None:
        self._contact_list_id = contact_list_id
        self._inner, self._outer = _keyed(key)

    def pseudonym(self, external_id: str) -> str:
        """The name that a contact has in audit events: hex HMAC-SHA-256 of its external id.

        What `hmac` gives (RFC 2104), in a third of its time.
        """
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(external_id.encode())
        outer.update(inner.digest())
        return outer.hexdigest()

    def records(self, works: Sequence[Work], head: ChainHead, now: float) -> tuple[list[AuditEvent], ChainHead]:
        """Events of decided works of one partition, in order, and the new end of its chain.

        Args:
            works: With outcomes, in offset order.
            head: Where the chain of the partition ends so far.
            now: Seconds since the epoch.
        """
        now_ms = int(now * 1000)
        timestamp = iso(now_ms)
        seq, prev = head.seq, head.hash
        events = []
        for work in works:
            event = self._record(work, timestamp, now_ms, seq, prev)
            value, prev = _seal(_encode(event))
            seq += 1
            events.append(((event.contact_ref or event.event_id).encode(), value))
        return events, ChainHead(seq, prev)

    def _record(self, work: Work, timestamp: str, now_ms: int, seq: int, prev: str) -> _RecordEvent:
        record = work.record
        return _RecordEvent(
            event_id(record),
            timestamp,
            _Source(record.topic, record.partition, record.offset),
            self._contact_ref(work),
            work.operation,
            work.outcome,
            work.reasons,
            self._contact_list_id,
            work.batch_id,
            work.trace_id or trace_id(record.headers),
            max(0, now_ms - record.timestamp_ms) if record.timestamp_ms >= 0 else 0,  # negative: it has none
            seq,
            prev,
            self._parts(work.parts[:MAX_PARTS]) if work.parts else (),
            max(0, len(work.parts) - MAX_PARTS),
        )

    def _parts(self, parts: Sequence[Work]) -> list[_Part]:
        return [_Part(self._contact_ref(part), part.operation, part.outcome, part.reasons) for part in parts]

    def _contact_ref(self, work: Work) -> str | None:
        return None if work.external_id is None else self.pseudonym(work.external_id)

    def batch(self, report: BatchReport, now: float, operation: str = "contact_list_sync") -> AuditEvent:
        """The event of a batch whose every contact has an answer."""
        complete = report.records_out == report.records_in
        return report.batch_id.encode(), orjson.dumps(
            {
                "type": "batch",
                "eventId": report.batch_id,
                "timestamp": iso(int(now * 1000)),
                "operation": operation,
                "contactListId": self._contact_list_id,
                "batchId": report.batch_id,
                "recordsIn": report.records_in,
                "recordsOut": report.records_out,
                "status": "success" if complete else "partial" if report.records_out else "failure",
                "complianceChecks": report.checks,
                "latencyMs": max(0, int((now - report.started_at) * 1000)),
                "attempts": report.attempts,
            }
        )


def _keyed(key: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """The inner and the outer hash of an HMAC-SHA-256, which have taken in the key."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(block.translate(_INNER_PAD)), hashlib.sha256(block.translate(_OUTER_PAD))


def event_id(record: Record) -> str:
    """The id of a record's audit event: its position, so that a repeat can be told."""
    return f"{record.topic}/{record.partition}/{record.offset}"


def trace_id(headers: Headers) -> str | None:
    """The trace id of a record's `traceparent` header; None without a valid one."""
    for name, value in headers:
        if name == trace_context.HEADER and value and (parent := trace_context.parse(value)):
            return parent.trace_id
    return None


def head_behind(head: ChainHead, events: Sequence[AuditEvent]) -> ChainHead:
    """The chain's end behind record events that follow on from a head."""
    return ChainHead(head.seq + len(events), events[-1][1][_HASH_HEX].decode()) if events else head


def encode_head(head: ChainHead) -> bytes:
    """The chain's end as it stands in the store and in the changelog."""
    return orjson.dumps([head.seq, head.hash])


def decode_head(raw: bytes | None) -> ChainHead:
    """Read what `encode_head` wrote; None is a chain without events."""
    return ChainHead() if raw is None else ChainHead(*orjson.loads(raw))


def _seal(body: bytes) -> tuple[bytes, str]:
    """The event with the hash of its body as last field, and that hash."""
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}' % (body[:-1], digest.encode()), digest
