"""The values that travel through the pipeline, in the order of the flow.

Record -> ChangeEvent -> Contact -> Change -> Outcome. None knows where it came from or goes to. `Work`, `Assignment`
and `BatchReport` change; all else is immutable and in no cycle, so that the garbage collector skips it. This module
imports nothing of the project.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from msgspec import Struct


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        return f"{self.topic}/{self.partition}"


_POSITION: Final = re.compile(r"([A-Za-z0-9._-]{1,249})/([0-9]{1,9})/([0-9]{1,18})")


class Position(NamedTuple):
    """Where a record stands; as text `topic/partition/offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def of(cls, text: str) -> "Position | None":
        """What was written so; None where the text is of another form."""
        found = _POSITION.fullmatch(text)
        return found and cls(found[1], int(found[2]), int(found[3]))


Headers = Sequence[tuple[str, bytes | None]]


class Record(Struct, frozen=True, gc=False):
    """What Kafka hands over: bytes with a position.

    Attributes:
        topic: Source topic.
        partition: Partition of the topic.
        offset: Offset in the partition; the committed offset is this plus one.
        timestamp_ms: Append or create time as Kafka tells it, milliseconds since the epoch, UTC; negative if none.
        key: Key bytes, None when the record has none.
        value: Value bytes; None when the record has none.
        headers: Header pairs as they came.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.topic, self.partition, self.offset)


class ChangeType(StrEnum):
    """What a change event says happened in the CRM; a gap: the contact changed, and the event does not say how."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    UNDELETE = "UNDELETE"
    GAP = "GAP"


class Unchanged(Enum):
    """What a partial change event says of a field that it does not carry: whatever it was, it still is."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


LogPlace = tuple[int | None, int, str, bool]
"""Where a change stands in its source's log.

A position that never goes back while the log goes on, None for a row that a snapshot read; when, milliseconds since the
epoch by the source's clock; the source's name, "" if it tells none; whether versions are in the order of commits there.
"""


class ChangeEvent(Struct, frozen=True, gc=False):
    """A decoded record, not yet validated: fields hold whatever type the writer's schema gave them.

    Attributes:
        change_type: What happened.
        external_id: The CRM's id of the contact; a str once validated.
        occurred_at: When it happened, milliseconds since the epoch, UTC.
        version: Source order within the contact; None means the order of the partition.
        phone: E.164 once validated; None when the CRM has none.
        email: RFC 5322 address once validated; None when the CRM has none.
        consent: True, False, or anything else before validation.
        do_not_call: True, False, or anything else before validation.
        attributes: Further fields by source name.
        partial: Only what changed is told: other fields are `UNCHANGED`, other attributes are missing.
        log: Where it stands in the source's log, None where the source does not tell.
        former: Which external id the contact had before, None where the event does not say that it changed.
        flaw: Why the attributes are not told although they were to be, without contact data; "" when nothing is wrong.
        tombstone: Its record tells no more than a key: whose it is, and not when.
    """

    change_type: ChangeType
    external_id: object
    occurred_at: int
    version: int | None
    phone: object
    email: object
    consent: object
    do_not_call: object
    attributes: dict[str, str]
    partial: bool = False
    log: LogPlace | None = None
    former: object = None
    flaw: str = ""
    tombstone: bool = False

    @property
    def named(self) -> str | None:
        """The external id; None where it names nobody."""
        return self.external_id if isinstance(self.external_id, str) and self.external_id.strip() else None


Events = ChangeEvent | tuple[ChangeEvent, ...]
"""What a record tells: one change event, none (it is about no contact), or several, of several contacts mostly."""


class FileRow(Struct, frozen=True, gc=False):
    """A row of a file of contacts.

    Attributes:
        number: Counted from 1, header and empty lines left out.
        raw: As it stands in the file; of a binary file as JSON.
        fields: Values by name, as the file names them.
        problem: Why there are no fields, without contact data; "" when there are.
    """

    number: int
    raw: bytes
    fields: Mapping[str, object]
    problem: str = ""


class Reason(StrEnum):
    """Why a record is rejected: closed codes, as audit events and dead letters carry them."""

    EXTERNAL_ID_MISSING = "external_id_missing"
    PHONE_NOT_E164 = "phone_not_e164"
    EMAIL_INVALID = "email_invalid"
    CONSENT_NOT_BOOLEAN = "consent_not_boolean"
    DO_NOT_CALL_NOT_BOOLEAN = "do_not_call_not_boolean"
    CONSENT_CONFLICTS_WITH_DO_NOT_CALL = "consent_conflicts_with_do_not_call"
    NOT_DECODABLE = "not_decodable"
    SCHEMA_UNKNOWN = "schema_unknown"
    ENVELOPE_UNKNOWN = "envelope_unknown"
    RESYNC_NEEDED = "resync_needed"


class FuseCause(StrEnum):
    """What trips the fuse of a source topic."""

    TRUNCATE = "truncate"
    OVERFLOW = "overflow"
    DELETES = "deletes"


class Contact(Struct, frozen=True, gc=False):
    """A validated change event, as Genesys shall know it.

    Attributes:
        external_id: The CRM's id, never empty.
        phone: E.164, or "" when the CRM has none.
        email: RFC 5322 address, or "" when the CRM has none.
        consent: The person agreed to be called.
        do_not_call: The person asked not to be called.
        attributes: Values of the configured attribute columns, by column name; absent ones are "".
    """

    external_id: str
    phone: str
    email: str
    consent: bool
    do_not_call: bool
    attributes: dict[str, str]

    @property
    def callable(self) -> bool:
        """Whether a campaign may dial the contact: consent given and do-not-call not set."""
        return self.consent and not self.do_not_call


class ExportedContact(Struct, frozen=True, gc=False):
    """A contact as an export of the contact list shows it.

    Attributes:
        contact_id: Genesys' id of it.
        callable: Whether a campaign may dial it.
        values: Of the managed columns: the five that every list has, then the attribute columns as they are configured.
    """

    contact_id: str
    callable: bool
    values: tuple[str, ...]


class Amendment(Struct, frozen=True, gc=False):
    """What is to be changed of a contact that Genesys has; what is `UNCHANGED` or missing stays as it is there.

    Attributes:
        external_id: The CRM's id, never empty.
        phone: E.164, or "" when the CRM has none any more.
        email: RFC 5322 address, or "" when the CRM has none any more.
        consent: The person agreed to be called.
        do_not_call: The person asked not to be called.
        attributes: New values of attribute columns, by column name.
    """

    external_id: str
    phone: str | Unchanged
    email: str | Unchanged
    consent: bool | Unchanged
    do_not_call: bool | Unchanged
    attributes: dict[str, str]

    @property
    def empty(self) -> bool:
        """Whether nothing is to be changed."""
        flags = self.consent is UNCHANGED and self.do_not_call is UNCHANGED
        return flags and self.phone is UNCHANGED and self.email is UNCHANGED and not self.attributes

    @property
    def withdraws(self) -> bool:
        """Whether it says that the person must not be called; when it says nothing of that, it does not."""
        return self.consent is False or self.do_not_call is True

    def onto(self, contact: Contact) -> Contact:
        """The contact once it is amended."""
        return Contact(
            self.external_id,
            contact.phone if self.phone is UNCHANGED else self.phone,
            contact.email if self.email is UNCHANGED else self.email,
            contact.consent if self.consent is UNCHANGED else self.consent,
            contact.do_not_call if self.do_not_call is UNCHANGED else self.do_not_call,
            contact.attributes | self.attributes,
        )


class Operation(StrEnum):
    """What is done to the contact in Genesys."""

    UPSERT = "upsert"
    DELETE = "delete"
    SUPPRESS = "suppress"


MAX_VERSION = 2**63 - 1
"""The highest version of a change: Avro's long, and the store's."""

FROM_A_FILE = -1
"""Offset of a change that stands in no partition: its place says nothing against any other."""


class Flag(StrEnum):
    """What of a contact says whether it may be called."""

    CONSENT = "consent"
    DO_NOT_CALL = "do_not_call"


class Change(Struct, frozen=True, gc=False):
    """A contact with what is needed to judge it against what was delivered before.

    Attributes:
        operation: What to do in Genesys.
        contact: The contact, of which for a delete only `external_id` counts; or what is to be amended of it, which is
            all that a partial change and a suppression tell.
        identity: SHA-256 of the external id, 32 bytes.
        fingerprint: SHA-256 of the content, 32 bytes; of a partial change, of what it tells.
        version: Source order, None when the source gives none.
        occurred_at: Milliseconds since the epoch, UTC.
        offset: Offset of the record in its partition: the order where versions say nothing; -1 for a row of a file.
        withdrawal: The person must not be called after this: goes ahead of every other change.
        positional: Of a withdrawal, its version is a position in the source's log, which may begin anew.
        undecoded: Nobody knows what the record says: its version and time are unknown, only its offset is its order.
        number: Of a suppression, the valid number that the rejected record names, "" if none: for the do-not-call list.
        epoch: Of the source's log, within which versions are compared.
        read: It was read by a snapshot: its time is not that of a change.
        concurrent: `read`, from a log whose positions are not in the order of commits (PostgreSQL): what has a lower
            version may have been committed later.
        former: Identity that the contact had before; None if it never had another, or once that one was looked up.
        withdrew: The contact is not callable whatever the change says: a delete takes the place of a withdrawal, or an
            amendment tells neither flag of somebody who withdrew.
        imprint: Of the record that asks for it, 16 bytes; empty where a repeat of that could mean something else.
        replayed: Its offset is that of the dead letter that was replayed.
        tombstone: Its record has a key alone: what is told of time is Kafka's.
        told: Of a merged amendment, what it told before merging; None: `contact` is what was told.
        late: It withdraws flags of which nothing newer was told, and is older than what was accepted last: these alone
            are changed, and the order of the contact stays as it is.
        granted: Which flag alone the CRM is known to have granted, once it is known what becomes of the contact; None
            where it is none, or both.
    """

    operation: Operation
    contact: Contact | Amendment
    identity: bytes
    fingerprint: bytes
    version: int | None
    occurred_at: int
    offset: int
    withdrawal: bool
    positional: bool = False
    undecoded: bool = False
    number: str = ""
    epoch: int = 0
    read: bool = False
    concurrent: bool = False
    former: bytes | None = None
    withdrew: bool = False
    imprint: bytes = b""
    replayed: bool = False
    tombstone: bool = False
    told: Contact | Amendment | None = None
    late: bool = False
    granted: Flag | None = None

    @property
    def whole(self) -> Contact:
        """The contact of a change that tells all of it."""
        if isinstance(self.contact, Contact):
            return self.contact
        raise AssertionError("a partial change has no whole contact")


class Place(Struct, frozen=True, gc=False):
    """Where an accepted change stands in the order of its contact's changes; as those of `State`.

    Attributes:
        version: Highest version accepted until then.
        versioned: Whether the change itself carried one.
        occurred_at: Milliseconds since the epoch, UTC.
        offset: In its partition; -1 of a row of a file.
        epoch: Of the version.
        concurrent: Whether a snapshot read it that does not tell what was committed before it.
    """

    version: int | None
    versioned: bool
    occurred_at: int
    offset: int
    epoch: int = 0
    concurrent: bool = False


class State(Struct, frozen=True, gc=False):
    """What is remembered of the last change that Genesys accepted for a contact.

    Attributes:
        fingerprint: Of the accepted content; differs from every content after a suppression or a delete.
        version: Highest version accepted so far in the highest epoch; None when there never was one.
        versioned: Whether the last accepted change itself carried a version.
        occurred_at: Of the last accepted change, milliseconds since the epoch, UTC.
        offset: Of the last accepted change in its partition; -1 when it was a row of a file.
        deleted: The contact is not in Genesys: this is the marker that stops late updates.
        blocked: The last accepted change withdrew, and the contact's number went on the do-not-call list for it.
        epoch: Of the version.
        callable: Whether the last accepted change leaves the contact callable, of a delete whether the one before did;
            None where that is not known.
        imprint: Of the record that asked for all this, 16 bytes; empty where repeats cannot be told by it.
        concurrent: As that of the last accepted change.
        granted: Of a contact that is not callable, the flag that the CRM is known to have granted when it told it last;
            None where that is of none.
        consent_at: Place of the change that told consent last, of those that came in their order; None where that is
            the last accepted one, as always where contacts are told whole. Of who was deleted by a tombstone behind a
            version, the place of that: with Kafka's time, which `occurred_at` is not.
        do_not_call_at: Of the one that told do-not-call last.
    """

    fingerprint: bytes
    version: int | None
    versioned: bool
    occurred_at: int
    offset: int
    deleted: bool
    blocked: bool = False
    epoch: int = 0
    callable: bool | None = None
    imprint: bytes = b""
    concurrent: bool = False
    granted: Flag | None = None
    consent_at: Place | None = None
    do_not_call_at: Place | None = None


class Verdict(StrEnum):
    """How a change relates to what was delivered before."""

    NEW = "new"
    CHANGED = "changed"
    DUPLICATE = "duplicate"
    STALE = "stale"


class Outcome(StrEnum):
    """How a record ended. The only input to audit and commit."""

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    STALE = "stale"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    UNDELIVERABLE = "undeliverable"
    IGNORED = "ignored"


GIVEN_UP: Final = frozenset({Outcome.REJECTED, Outcome.UNDELIVERABLE})
"""Outcomes of records that become dead letters."""


class Assignment(Struct, eq=False):
    """One ownership of a partition by this consumer. The object itself is the epoch: a new one each time.

    Attributes:
        partition: What is owned.
        alive: False once the partition belongs to somebody else: nothing of it may be sent or settled any more.
    """

    partition: TopicPartition
    alive: bool = True


class Work(Struct, eq=False):
    """A record on its way to its outcome.

    Attributes:
        record: The record as polled.
        assignment: The ownership under which it was polled.
        external_id: Of the contact, None when the record does not tell.
        change: What is to be done, None when there is nothing to send.
        accepted_as: The outcome once Genesys has applied the change: a rejected record may still suppress.
        outcome: How it ended, None while it is under way.
        operation: What was done in Genesys, None when nothing was.
        reasons: Codes: of `Reason`, or `genesys:<error code>`.
        detail: What to look at, without contact data.
        state: What is to be remembered of the contact from now on, None when nothing new.
        expected: If another work took its place: the contact's state, had everything up to this work been accepted.
        batch_id: Of the batch that took it to Genesys.
        trace_id: Hex id of the trace of that batch.
        applied_at: Seconds since the epoch when Genesys answered.
        part: Which part of its record it is, from 0.
        parts: Where the record tells of several contacts: one work for each, under way by itself. They share record and
            assignment, and the record ends when all of them have.
    """

    record: Record
    assignment: Assignment
    external_id: str | None = None
    change: Change | None = None
    accepted_as: Outcome = Outcome.DELIVERED
    outcome: Outcome | None = None
    operation: Operation | None = None
    reasons: Sequence[str] = ()
    detail: str = ""
    state: State | None = None
    expected: State | None = None
    batch_id: str | None = None
    trace_id: str | None = None
    applied_at: float | None = None
    part: int = 0
    parts: "Sequence[Work]" = ()


class BatchReport(Struct, eq=False):
    """What becomes of a batch, however many requests it takes.

    Attributes:
        batch_id: Derived from the positions of its records.
        records_in: Contacts taken.
        started_at: Seconds since the epoch of the first request.
        undecided: Contacts without an answer.
        records_out: Contacts that Genesys accepted.
        attempts: Requests made.
        checks: Rules that every contact in it has passed.
    """

    batch_id: str
    records_in: int
    started_at: float
    undecided: int
    records_out: int = 0
    attempts: int = 0
    checks: Sequence[str] = ()


class ChainHead(Struct, frozen=True, gc=False):
    """The end of the chain of audit events of a source partition.

    Attributes:
        seq: Sequence number that the next event gets.
        hash: Hex SHA-256 of the last event; 64 zeros before the first.
    """

    seq: int = 0
    hash: str = "0" * 64


class DeadLetter(Struct, frozen=True, gc=False):
    """A record that can never succeed, as it came, and why.

    Attributes:
        record: The record with bytes and headers unchanged.
        reason: The first reason code.
        detail: What to look at, without personal data.
        time_ms: When it was given up, milliseconds since the epoch, UTC.
    """

    record: Record
    reason: str
    detail: str
    time_ms: int


class Settlement(Struct, frozen=True, gc=False):
    """All that one Kafka transaction makes visible.

    Attributes:
        audit: Keys and values for the audit topic.
        dead_letters: Records for the dead letter topic.
        changelog: Source partition, store key and store value (None removes) for the changelog topic.
        offsets: Next offset to consume, by source partition.
    """

    audit: Sequence[tuple[bytes, bytes]]
    dead_letters: Sequence[DeadLetter]
    changelog: Sequence[tuple[TopicPartition, bytes, bytes | None]]
    offsets: dict[TopicPartition, int]
