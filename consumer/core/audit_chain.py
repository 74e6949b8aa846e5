"""Checks what the audit topic says of source partitions: chains that are whole, and one event for each offset.

Answers for finding what was changed, lost, added or repeated, and for the offsets of which somebody has to look whether
a record stands there: transaction markers and compaction leave gaps in a source partition that mean nothing. Touches
nothing.

The events of a source partition are spread over the partitions of the audit topic, so they come in nearly, not quite,
their order. One that comes early waits for those before it. A limit of waiting events keeps memory constant: beyond it
what is waited for counts as missing.
"""

import hashlib
from enum import StrEnum

from msgspec import Struct
from msgspec.json import Decoder

from consumer.model import ChainHead, TopicPartition

MAX_WAITING = 20_000
"""Events of a source partition that may wait for one before them: twice what a settlement holds."""

MAX_EXAMPLES = 10
"""Problems of a kind that are told in words; all are counted."""

_HASH_FIELD = b',"hash":"'


class Finding(StrEnum):
    """What can be wrong."""

    ALTERED = "altered"
    BROKEN = "broken"
    MISSING = "missing"
    REPEATED = "repeated"
    RESTARTED = "restarted"
    OFFSET_REPEATED = "offset_repeated"
    WITHOUT_EVENT = "without_event"
    UNREADABLE = "unreadable"


class Problems:
    """What is wrong, in constant memory.

    Attributes:
        counts: By kind.
        examples: Sentences that say where, the first ones of each kind.
    """

    def __init__(self) -> None:
        self.counts: dict[Finding, int] = {}
        self.examples: list[str] = []

    def add(self, finding: Finding, detail: str) -> None:
        """Count a problem, and keep the first sentences."""
        count = self.counts[finding] = self.counts.get(finding, 0) + 1
        if count <= MAX_EXAMPLES:
            self.examples.append(detail)


class Gap(Struct, frozen=True, gc=False):
    """Offsets of a source partition between two events that follow on.

    Attributes:
        partition: The source partition.
        first: The first offset without an event.
        end: The offset after the last one.
    """

    partition: TopicPartition
    first: int
    end: int


class _Source(Struct, gc=False):
    topic: str
    partition: int
    offset: int


class _Fields(Struct, gc=False):
    """The fields of an audit event that matter here."""

    type: str
    source: _Source | None = None
    seq: int = -1
    prev: str = ""
    hash: str = ""


class _Event(Struct, frozen=True, gc=False):
    offset: int
    seq: int
    prev: str
    hash: str
    whole: bool


_decode = Decoder(_Fields).decode


class Chain:
    """The events of one source partition.

    Args:
        partition: The source partition.
        from_start: Whether its first event must be the first of all; otherwise it begins wherever it does.
        from_zero: Whether the group began at offset 0, so that what stands before the first event is a gap too.

    Attributes:
        events: Taken in their order.
        first_offset: Of the source, with an event; None before the first.
        next_offset: After the highest with an event.
        problems: What is wrong.
        gaps: Offsets without events that nobody has looked at.
        unchecked: Offsets without events that the source no longer has: nobody can tell any more.
    """

    def __init__(self, partition: TopicPartition, *, from_start: bool, from_zero: bool) -> None:
        self.partition = partition
        self.events = 0
        self.first_offset: int | None = None
        self.next_offset = 0
        self.problems = Problems()
        self.gaps: list[Gap] = []
        self.unchecked = 0
        self._from_zero = from_zero
        self._expected = 0 if from_start else None
        self._before = ChainHead().hash if from_start else ""
        self._opening = ""
        self._early: dict[int, _Event] = {}
        self._last: int | None = None

    @property
    def waiting(self) -> int:
        """Events that came early."""
        return len(self._early)

    def take(self, event: _Event) -> None:
        """Take an event, possibly before those that it follows."""
        if self._last is not None and event.seq > self._last:
            return
        if self._expected is not None and event.seq < self._expected:
            self._come_again(event)
        elif event.seq in self._early:
            self.problems.add(Finding.REPEATED, f"seq {event.seq} stands there twice, for offset {event.offset}")
        else:
            self._early[event.seq] = event
            self._follow()
            if len(self._early) > MAX_WAITING:
                self.give_up_waiting()

    def give_up_waiting(self) -> None:
        """What those that wait are waiting for is missing, up to the first of them."""
        first = min(self._early)
        if self._expected is not None:
            self.problems.add(Finding.MISSING, f"seq {self._expected} to {first - 1} are missing")
            self._before = ""
        self._expected = first
        self._follow()

    def freeze(self) -> None:
        """Take only what fills holes from now on."""
        self._last = max(self._early, default=(self._expected or 0) - 1)

    def reach(self, end: int) -> None:
        """The source is settled up to this offset: what is missing before it is a gap too."""
        if (self._from_zero or self.first_offset is not None) and self.next_offset < end:
            self.gaps.append(Gap(self.partition, self.next_offset, end))

    def without_event(self, offset: int) -> None:
        """A record stands in a gap."""
        self.problems.add(Finding.WITHOUT_EVENT, f"the record at offset {offset} has no event")

    def _follow(self) -> None:
        while self._expected is not None and (event := self._early.pop(self._expected, None)) is not None:
            self._append(event)

    def _append(self, event: _Event) -> None:
        if not event.whole:
            self.problems.add(
                Finding.ALTERED, f"seq {event.seq}, for offset {event.offset}, was changed: its hash differs"
            )
        if self._before and event.prev != self._before:
            self.problems.add(
                Finding.BROKEN, f"seq {event.seq}, for offset {event.offset}, does not follow the one before"
            )
        self._note_offset(event.offset)
        self._opening = self._opening or event.hash
        self._before = event.hash
        self._expected = event.seq + 1
        self.events += 1

    def _note_offset(self, offset: int) -> None:
        if self.first_offset is None:
            self.first_offset = offset
            self.next_offset = 0 if self._from_zero else offset
        if offset < self.next_offset:
            self.problems.add(Finding.OFFSET_REPEATED, f"offset {offset} has another event")
        elif offset > self.next_offset:
            self.gaps.append(Gap(self.partition, self.next_offset, offset))
        self.next_offset = max(self.next_offset, offset + 1)

    def _come_again(self, event: _Event) -> None:
        start = ChainHead()
        if (event.seq, event.prev) == (start.seq, start.hash) and event.hash != self._opening:
            self.problems.add(Finding.RESTARTED, f"the chain begins anew with offset {event.offset}")
            self._early.clear()
            self._opening, self._before = "", start.hash
            self._append(event)
        else:
            self.problems.add(Finding.REPEATED, f"seq {event.seq} stands there twice, for offset {event.offset}")


class AuditCheck:
    """The events of all source partitions.

    Args:
        from_start: Whether the topic is read from its first event on, and has lost none to retention.
        from_zero: Whether the group began at offset 0 of each source partition.

    Attributes:
        chains: By source partition.
        unreadable: Problems of records that are no audit events.
    """

    def __init__(self, *, from_start: bool, from_zero: bool = False) -> None:
        self.chains: dict[TopicPartition, Chain] = {}
        self.unreadable = Problems()
        self._from_start = from_start
        self._from_zero = from_zero
        self._frozen = False

    def take(self, value: bytes | None, where: str) -> None:
        """Take a record of the audit topic; batch events count for nothing."""
        try:
            read = _read(value or b"")
        except ValueError:
            self.unreadable.add(Finding.UNREADABLE, f"{where} is not an audit event")
            return
        if read is not None:
            partition, event = read
            if (chain := self.chains.get(partition)) is None and not self._frozen:
                chain = self.begin(partition)
            if chain is not None:
                chain.take(event)

    def begin(self, partition: TopicPartition) -> Chain:
        """The chain of a source partition; a new one where there is none."""
        chain = Chain(partition, from_start=self._from_start, from_zero=self._from_zero)
        return self.chains.setdefault(partition, chain)

    def has_holes(self) -> bool:
        """Whether events wait for others."""
        return any(chain.waiting for chain in self.chains.values())

    def freeze(self) -> None:
        """Take only what fills holes from now on."""
        self._frozen = True
        for chain in self.chains.values():
            chain.freeze()

    def finish(self) -> None:
        """No event comes any more: what others wait for is missing."""
        for chain in self.chains.values():
            while chain.waiting:
                chain.give_up_waiting()

    def take_gaps(self) -> list[Gap]:
        """The gaps found since the last call."""
        gaps = [gap for chain in self.chains.values() for gap in chain.gaps]
        for chain in self.chains.values():
            chain.gaps = []
        return gaps

    @property
    def gaps(self) -> int:
        """How many nobody has looked at."""
        return sum(len(chain.gaps) for chain in self.chains.values())

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        every = [self.unreadable, *(chain.problems for chain in self.chains.values())]
        return not any(problems.counts for problems in every)


def _read(value: bytes) -> tuple[TopicPartition, _Event] | None:
    """Source partition and event of a record event; None of a batch event.

    Raises:
        ValueError: It is neither; msgspec's errors are among these.
    """
    fields = _decode(value)
    if fields.type == "batch":
        return None
    if fields.type != "record" or fields.source is None or fields.seq < 0:
        raise ValueError("not an audit event")
    source = fields.source
    event = _Event(source.offset, fields.seq, fields.prev, fields.hash, _is_whole(value))
    return TopicPartition(source.topic, source.partition), event


def _is_whole(value: bytes) -> bool:
    """Whether the hash is that of all before it, and the last field: of two of a name whoever reads takes the last."""
    body, _, _ = value.rpartition(_HASH_FIELD)
    digest = hashlib.sha256(body + b"}").hexdigest()
    return value == b'%b%b%b"}' % (body, _HASH_FIELD, digest.encode())
