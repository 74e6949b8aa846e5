"""Which offset of a partition may be committed: only up to the first record that is not settled.

Answers for the order of the works of one assigned partition, and for how a record ends that has several parts. Touches
nothing else.
"""

from collections import deque
from collections.abc import Sequence

import orjson

from consumer.model import Assignment, Outcome, Record, Work

_BY_WEIGHT = (
    Outcome.UNDELIVERABLE,
    Outcome.REJECTED,
    Outcome.DELIVERED,
    Outcome.SUPERSEDED,
    Outcome.DUPLICATE,
    Outcome.STALE,
    Outcome.IGNORED,
)
"""Which part decides how its record ends: the one of the first of these outcomes."""


PART_BYTES = 1024
"""What a contact on its way takes where its record tells of several; the record itself counts once."""


HEADER_BYTES = 168
"""What a header takes in CPython beside its name and value: a pair, a place in the list, and two objects."""


class Tracker:
    """The works of one assignment, in offset order, from polled to settled.

    Attributes:
        expected: Offset that should come next.
        committable: Next offset to commit: everything before it is settled.
        bytes: Size of what is held of records: values, keys, headers, parts.
    """

    def __init__(self, assignment: Assignment, position: int) -> None:
        self._assignment = assignment
        self._works: deque[Work] = deque()
        self.expected = position
        self.committable = position
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._works)

    def add(self, records: Sequence[Record]) -> list[Work]:
        """Begin to track records that follow on."""
        works = [Work(record, self._assignment) for record in records]
        self._works.extend(works)
        self.bytes += sum(map(size_of, records))
        if works:
            self.expected = works[-1].record.offset + 1
        return works

    def divide(self, work: Work, contacts: int) -> list[Work]:
        """Give a work a part for each contact that its record tells of."""
        work.parts = [Work(work.record, work.assignment, part=part) for part in range(contacts)]
        self.bytes += PART_BYTES * contacts
        return work.parts

    def fresh(self, records: Sequence[Record]) -> list[Record]:
        """The records without repeats of what was added before, or stands among them: each offset ends once."""
        if self._follow_on(records):
            return list(records)
        expected = self.expected
        fresh = []
        for record in records:
            if record.offset >= expected:
                fresh.append(record)
                expected = record.offset + 1
        return fresh

    def gaps(self, records: Sequence[Record]) -> list[tuple[int, int]]:
        """Pairs (expected, seen) where offsets do not follow on; legal only with compaction and transactions."""
        found: list[tuple[int, int]] = []
        if self._follow_on(records):
            return found
        expected = self.expected
        for record in records:
            if record.offset != expected:
                found.append((expected, record.offset))
            expected = record.offset + 1
        return found

    def _follow_on(self, records: Sequence[Record]) -> bool:
        """The common case, at a tenth of the cost of a search for what is amiss."""
        return [record.offset for record in records] == list(range(self.expected, self.expected + len(records)))

    def decided(self, limit: int) -> list[Work]:
        """Works from the first on that have an outcome, at most `limit`, without a hole."""
        prefix: list[Work] = []
        for work in self._works:
            if len(prefix) == limit or (work.outcome is None and not _concluded(work)):
                break
            prefix.append(work)
        return prefix

    def settle(self, works: Sequence[Work]) -> None:
        """Forget works that `decided` gave: they are settled."""
        for work in works:
            if self._works.popleft() is not work:
                raise AssertionError("settled out of order")
            self.committable = work.record.offset + 1
            self.bytes -= size_of(work.record) + PART_BYTES * len(work.parts)


def size_of(record: Record) -> int:
    """What a record holds: value, key, headers; bytes."""
    size = len(record.value or b"") + len(record.key or b"")
    if not record.headers:
        return size
    return size + sum(HEADER_BYTES + len(name) + len(value or b"") for name, value in record.headers)


def encode_settled(next_offset: int, topic_id: str) -> bytes:
    """Up to where a partition is settled as it stands in the store and in the changelog: brokers may forget it."""
    return orjson.dumps([next_offset, topic_id])


def decode_settled(raw: bytes) -> tuple[int, str]:
    """Read what `encode_settled` wrote: the offset that comes next, and the id of its topic, "" where none is known."""
    next_offset, topic_id = orjson.loads(raw)
    return next_offset, topic_id


def _concluded(work: Work) -> bool:
    """Whether a work ends because all its parts have: as the weightiest of them, with its reasons before others'."""
    if not work.parts or any(part.outcome is None for part in work.parts):
        return False
    decisive = next(part for outcome in _BY_WEIGHT for part in work.parts if part.outcome is outcome)
    work.outcome, work.operation = decisive.outcome, decisive.operation
    work.batch_id, work.trace_id = decisive.batch_id, decisive.trace_id
    work.applied_at = max((part.applied_at for part in work.parts if part.applied_at is not None), default=None)
    work.reasons = tuple(dict.fromkeys(reason for part in (decisive, *work.parts) for reason in part.reasons))
    work.detail = decisive.detail
    return True
