"""What the pipeline asks of the outside, as Protocols. Adapters implement them; tests hold in-memory ones.

Unless a method says otherwise it raises nothing but `TransientError` (nothing happened or it may be repeated: try
again) and `FatalError` (stop).
"""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from consumer.errors import DecodeError
from consumer.formats import SchemaReference
from consumer.model import (
    Amendment,
    Contact,
    Outcome,
    Record,
    Settlement,
    TopicPartition,
)


def nothing() -> None:
    """Nobody waits."""


@dataclass(frozen=True, slots=True)
class TimeAndChance:
    """The clocks and the dice that are asked; a test brings its own.

    Attributes:
        clock: Monotonic seconds, as those of the event loop.
        now: Seconds since the epoch.
        dice: Random number in [0, 1), for jitter.
    """

    clock: Callable[[], float]
    now: Callable[[], float]
    dice: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions now belong to this consumer; they are paused until `Source.resume`.

    Attributes:
        positions: First offset that will be delivered, by partition.
        ends: End offset of each partition when it was assigned (high watermark).
        topic_ids: What tells its topic from others of the name, by partition, where that is known.
    """

    positions: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    topic_ids: Mapping[TopicPartition, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revoked:
    """Partitions are about to move away. The group waits until `release` is called, or a deadline passes.

    Attributes:
        partitions: What moves.
        release: Call it once, when everything of them that can be settled is settled.
    """

    partitions: Sequence[TopicPartition]
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Lost:
    """Partitions belong to somebody else already, or may do so: whatever is unsettled of them must be forgotten.

    Attributes:
        partitions: What is lost.
        forgotten: Call it once, when no settlement of them is under way any more: then they may begin anew.
    """

    partitions: Sequence[TopicPartition]
    forgotten: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True)
class Polled:
    """Records of assigned partitions, in offset order within each partition.

    Attributes:
        records: Possibly of several partitions.
        ends: Partitions whose end was reached, with the next offset there (also past control records).
    """

    records: list[Record]
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grown:
    """How far partitions reach.

    Attributes:
        ends: The end of each, as the brokers told it with what was fetched last.
    """

    ends: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Starting:
    """What is this consumer's and cannot be read: it is not known where it begins, or whether it is still ours.

    Or it is assigned, and the broker that leads it is not reached.

    Attributes:
        partitions: All of them; those that a former event named and this one does not can be read, or are gone.
    """

    partitions: Collection[TopicPartition]


SourceEvent = Assigned | Revoked | Lost | Polled | Grown | Starting


class Source(Protocol):
    """The group consumer: one ordered stream of records and of changes in ownership."""

    @property
    def connected(self) -> bool:
        """Whether any broker answers."""
        ...

    @property
    def missing(self) -> Collection[str]:
        """Source topics that are gone, so that nothing of them is read."""
        ...

    async def next(self) -> SourceEvent:
        """Wait for the next event. Events come in the order in which they happened."""
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching; polling and group membership go on. Unknown partitions are ignored."""
        ...

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch again, from where it stopped. Unknown partitions are ignored."""
        ...

    def owns(self, partition: TopicPartition) -> bool:
        """Whether the partition is this consumer's, and surely so until a request is over that begins now.

        Runs ahead of the events.
        """
        ...

    def recall(self, partition: TopicPartition, next_offset: int, topic_id: str) -> None:
        """Tell up to where the partition was settled before, and of which topic; returns at once.

        Where the group has no offset of it any more nobody else knows, and an alarm is due if its log begins behind.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChangelogChunk:
    """A stretch of the changelog of one source partition; an empty one tells that nothing came for a moment.

    Attributes:
        entries: Store key and value (None removes), oldest first.
        position: Changelog offset that a store reflects once it has these.
        end: Changelog offset at which the reading ends.
    """

    entries: Sequence[tuple[bytes, bytes | None]]
    position: int
    end: int


class EventTopics(Protocol):
    """The output topics: audit, dead letters, changelog; and the source offsets that move with them."""

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        """Make the settlement visible as one.

        Returns:
            For each source partition with changelog entries, the changelog offset after the last of them.
        """
        ...

    def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        """Read the changelog of a source partition from `start` to its end at the time of the call.

        The end includes whatever a transaction that is still open at the call leaves behind. While that is waited for,
        or for the brokers, empty stretches come, so that whoever reads can go; in the end a `SourceUnavailable`.
        A `start` that the topic no longer or not yet has raises `ChangelogOvertaken`.
        """
        ...


StoreWrite = tuple[TopicPartition, Sequence[tuple[bytes, bytes | None]], int]
"""A partition, its entries with None for what is deleted, and the changelog offset that they reflect."""


class ChangelogOvertaken(Exception):
    """The store reflects a position that the changelog does not have: it must be rebuilt from zero."""


class Store(Protocol):
    """The local index of what was delivered: one keyed store for each source partition."""

    async def open(self, partition: TopicPartition) -> int:
        """Open or create the store of a partition.

        Returns:
            The changelog offset it reflects; 0 when it is empty, or was set aside because it could not be trusted.
        """
        ...

    async def reset(self, partition: TopicPartition) -> None:
        """Set the open store aside and go on with an empty one."""
        ...

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of an open store in the order of the keys, None where there is none."""
        ...

    async def scan(self, partition: TopicPartition, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Entries whose keys follow `after`, in the order of the keys, at most `limit`; none of a closed store."""
        ...

    async def write(self, *writes: StoreWrite) -> None:
        """Make writes in their order, each atomically and durably; where one fails, those before it are made."""
        ...

    async def close(self, *partitions: TopicPartition) -> None:
        """Close the stores of partitions, those that do so in time; closed or unknown ones are left alone."""
        ...


class Schemas(Protocol):
    """Where writer schemas come from."""

    async def fetch(self, reference: SchemaReference) -> str | None:
        """The schema as JSON text; None when nobody knows it.

        Raises:
            DecodeError: What it names is not an Avro schema.
            TransientError: The registry cannot tell now.
        """
        ...


class TopicSchemas(Schemas, Protocol):
    """Writer schemas, also by the topic for whose values they are registered."""

    def of_topic(self, topic: str) -> AsyncGenerator[str | DecodeError, None]:
        """The schemas that are registered for a topic's values, the latest first; an error for each that is not Avro.

        There are none where schemas are registered by something else than the topic, or not at all.

        Raises:
            TransientError: The registry cannot tell now.
        """
        ...


class Breadcrumb(Struct, frozen=True, gc=False):
    """Records that were about to be decoded.

    Attributes:
        topic: Source topic.
        partition: Partition of the topic.
        first: Offset of the first record.
        last: Offset of the last one.
        timestamp_ms: Of the first record: in a topic that was made anew the offset is another record's.
        alone: A single record that was under suspicion.
    """

    topic: str
    partition: int
    first: int
    last: int
    timestamp_ms: int
    alone: bool

    def overlaps(self, other: "Breadcrumb") -> bool:
        """Whether they may have a record in common."""
        same = self.topic == other.topic and self.partition == other.partition
        return same and self.first <= other.last and other.first <= self.last


class Breadcrumbs(Protocol):
    """What is being decoded, for whoever comes after this process. Never raises."""

    @property
    def found(self) -> Collection[Breadcrumb]:
        """What processes were decoding when they died."""
        ...

    def lay(self, crumb: Breadcrumb) -> None:
        """Note it; it outlives the process, though not the machine. It takes the place of the last one."""
        ...

    def lift(self) -> None:
        """Take the note back."""
        ...


Sure = Callable[[], bool]
"""Whether something may still be done."""


def always() -> bool:
    """It may be done in any case."""
    return True


Current = Callable[[Contact], bool]
"""Whether a contact is as Genesys accepted it last; what is read back may lag behind that."""


def whatever_is_there(_: Contact) -> bool:
    """Any contact is taken as it is shown."""
    return True


class Amended(Struct, frozen=True, gc=False):
    """What became of a contact that was to be amended.

    Attributes:
        contact: As it is in Genesys now.
        sent: Whether anything had to be sent for that.
        held: Whether Genesys showed it as not callable although the flags there let somebody call.
    """

    contact: Contact
    sent: bool
    held: bool = False


NumberRefused = Callable[[str, str], None]
"""Told the external id of whose number the do-not-call list refuses, and Genesys' error code."""


def told_nobody(_external_id: str, _code: str) -> None:
    """For whoever does not ask whose number is refused."""


class Sink(Protocol):
    """The contact list in Genesys Cloud.

    The three effects ask `sure` in the moment in which they write to the wire; when it says no, nothing is written, and
    a `TransientError` is raised.

    The three effects raise, besides the transient and fatal ones, `RefusedByGenesys` when the data is blamed: then
    nothing of the request may be counted as applied.
    """

    @property
    def contact_list_id(self) -> str:
        """Genesys' id of the list."""
        ...

    def encode(self, contact: Contact, *, callable_: bool) -> bytes:
        """The contact as the JSON object that `upsert` sends."""
        ...

    async def upsert(
        self,
        contacts: Sequence[bytes],
        sure: Sure = always,
        withdrawn: Sequence[Contact] = (),
        granted: Sequence[Contact] = (),
        *,
        asks: bool = True,
        number_refused: NumberRefused = told_nobody,
    ) -> Collection[str]:
        """Add or replace encoded contacts, at most 1000. Each stands in the list once.

        Where there is a do-not-call list, the numbers of those withdrawn among them are on it before. Where it may be
        shortened, those of the granted, which withdrew before, are taken off it afterwards. With `asks` False it is not
        called, and counts as one that takes no numbers: to ask it may use half of the time limit. Whose number it
        refuses alone is told `number_refused`: all else is done for that contact.

        Returns:
            Genesys' ids of those that its answer leaves out, or shows as callable where they were not sent so.
            Nothing of them may be counted as applied, and all of the others.

        Raises:
            Withheld: That list takes no numbers. Nothing was sent but those withdrawn, as not callable.
            NoneCameBack: The answer leaves all of them out.
        """
        ...

    async def delete(
        self,
        external_ids: Sequence[str],
        sure: Sure = always,
        *,
        tried: bool = False,
        held: Collection[str] = (),
    ) -> Collection[str]:
        """Delete contacts, at most 50; unknown ones are fine.

        Those of whom some were tried in vain are made not callable first: deletes alone may take long, or be throttled.
        Those held were not callable any more after an earlier delete: only who shows as callable is made so again,
        since what is read may lag behind a delete, and to write a contact is to add it.

        Returns:
            Those that are still there, since a campaign uses them, or show yet: they are not callable any more.

        Raises:
            RefusedByGenesys: Also where none of several was deleted, since a campaign uses one: what Genesys shows of
                them is not callable any more, and each of them is to be asked for in fewer.
            SinkUnavailable: Also where the delete alone got no answer: what Genesys shows of them is not callable.
        """
        ...

    async def absent(self, external_ids: Sequence[str]) -> Collection[str]:
        """Whom of these contacts Genesys does not show, by external id.

        Raises:
            RefusedByGenesys: It does not tell of so many at once.
        """
        ...

    async def is_importing(self) -> bool:
        """Whether a file is being imported into the list: its rows may come after what is sent now."""
        ...

    async def amend(
        self,
        amendments: Sequence[Amendment],
        sure: Sure = always,
        withheld: Collection[str] = (),
        current: Current = whatever_is_there,
        numbers: Sequence[str] = (),
        *,
        if_held: Collection[str] = (),
        asks: bool = True,
        number_refused: NumberRefused = told_nobody,
    ) -> Mapping[str, Amended]:
        """Read contacts back, at most 50, amend what Genesys has, and send it again where that makes a difference.

        The contact is callable with consent and without do-not-call, unless its external id is withheld, or is among
        `if_held` and Genesys shows it as not callable although the flags there let somebody call. What withdraws
        or is withheld is sent in any case, since what is read back may lag behind what was written. Where there is a
        do-not-call list, the number of each contact that lacks consent or has do-not-call set is on it before, and
        these numbers; "" is none. `asks` and `number_refused` are those of `upsert`.

        Returns:
            What became of each, by external id. Those that Genesys does not know, or not yet, or shows as they are not
            current any more, are missing, and left alone.

        Raises:
            Withheld: That list takes no numbers. Nothing was sent but those who wait for it, as not callable.
        """
        ...


class SettledRecord(Struct, frozen=True, gc=False):
    """What telemetry learns of a settled record.

    Attributes:
        outcome: How it ended.
        reasons: Reason codes when rejected or undeliverable, and what Genesys refuses of a withdrawal.
        appended_ms: Kafka's timestamp of the record; negative where it has none.
        applied_at: Seconds since the epoch when Genesys answered; None when nothing was sent.
        withdrawal: Whether it was one.
    """

    outcome: Outcome
    reasons: Sequence[str]
    appended_ms: int
    applied_at: float | None
    withdrawal: bool


class Telemetry(Protocol):
    """Spans and metrics. Never raises, never blocks."""

    def poll_span(self, records: int) -> AbstractContextManager[None]:
        """Span of one poll going through the stages."""
        ...

    def batch_span(
        self, operation: str, batch_id: str, size: int, headers: Sequence[bytes]
    ) -> AbstractContextManager[str | None]:
        """Span of one request's batch; links to the given `traceparent` values; yields its trace id in hex."""
        ...

    def settle_span(self, records: int) -> AbstractContextManager[None]:
        """Span of one settlement."""
        ...

    def batch_sent(self, size: int, status: str, seconds: float) -> None:
        """A batch got an answer: `success` or `failure`."""
        ...

    def on_retry(self, reason: str) -> None:
        """A request will be made again: `throttled` or `unavailable`."""
        ...

    def searched(self, *, found: bool) -> None:
        """A request showed that Genesys refuses a contact of it, or was part of the search; found: it stood alone."""
        ...

    def withdrawal_refused(self, what: str) -> None:
        """Genesys does not take a withdrawal, whose `contact` is deleted instead, or its `number` to be blocked."""
        ...

    def settled(self, records: Sequence[SettledRecord], now: float, seconds: float) -> None:
        """Records settled at `now` (seconds since the epoch); settling took `seconds`."""
        ...

    def restored(self, seconds: float) -> None:
        """A store was restored."""
        ...

    def offset_gap(self, partition: TopicPartition) -> None:
        """Offsets of a partition did not follow on."""
        ...

    def source_epoch_began(self, partition: TopicPartition) -> None:
        """The log of a partition's source began anew."""
        ...
