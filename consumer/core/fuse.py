"""A fuse between a source topic and what it asks for: it trips where very many contacts would go at once.

Answers for what trips it, at which record, and what a release lets through. A record that says that many changed, and
not who, trips it by itself. Deletes do when they are too many of the last change events, counted over all partitions of
the topic that the process has, since a mass of them is spread over all. A chunk of records is looked at before any of
it is let in. Times are those that Kafka gave the records; those without one have a release of their own, which is for
all of them. Touches nothing else.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from msgspec import Struct

from consumer.core.moments import MAX_MS, iso
from consumer.core.results import Result, events_of, is_tombstone
from consumer.errors import ManyChanged
from consumer.model import ChangeEvent, ChangeType, FuseCause, Record

WINDOW = 1000
"""Change events among which deletes are counted."""

_DELETE_EVENT: Final = ChangeType.DELETE
_LAST_MS = MAX_MS // 1000 * 1000
"""The last whole second that has a date: a producer may say anything, and a release must be able to name it."""

TIMELESS_MS = 0
"""The time whose release is for records that have none."""


class Trip(Struct, frozen=True, gc=False):
    """What tripped a fuse.

    Attributes:
        cause: Why.
        partition: Of the topic.
        offset: Of the first record that is not let in.
        timestamp_ms: Of that record.
    """

    cause: FuseCause
    partition: int
    offset: int
    timestamp_ms: int


class Fuse:
    """The fuse of one topic in one process. Once it has tripped it stays so: a release is for the next process.

    Args:
        max_deletes: Among the last `WINDOW` change events more deletes than this are a mass; 0: none are.
        released_ms: What is let through, as `is_released` takes it.
        is_replayed: Whether a record was given up before: one that says that many changed was released then.

    Attributes:
        trip: What tripped it; None while it holds.
    """

    def __init__(
        self,
        max_deletes: int = 0,
        released_ms: Collection[int] = (),
        is_replayed: Callable[[Record], bool] = lambda _: False,
    ) -> None:
        self._max_deletes = max_deletes
        self._released_ms = released_ms
        self._is_replayed = is_replayed
        self._chunks: deque[tuple[int, int, int]] = deque()
        self._events = self._deletes = 0
        self._deleted: dict[int, bytes] = {}
        self.trip: Trip | None = None

    def passing(self, records: Sequence[Record], results: Sequence[Result]) -> int:
        """How many of these may be let in; if not all, the fuse trips at the next one.

        Args:
            records: Of one partition, that follow on.
            results: What they tell, from the first record on.
        """
        noted = [
            index
            for index, result in enumerate(results)
            if type(result) is not ChangeEvent or result.change_type is _DELETE_EVENT
        ]
        for index in noted:
            record, result = records[index], results[index]
            if isinstance(result, ManyChanged) and not (self._lets_through(record) or self._is_replayed(record)):
                before = self.passing(records, results[:index])
                return before if self.trip else self._blow(result.cause, records, index)
        if results:
            return self._passing(records, results, noted)
        return 0

    def forget(self, partition: int) -> None:
        """Count nothing of a partition any more: it is somebody else's, or its records come again."""
        kept = [chunk for chunk in self._chunks if chunk[0] != partition]
        self._chunks.clear()
        self._events = self._deletes = 0
        self._deleted.pop(partition, None)
        for chunk in kept:
            self._count(*chunk)

    def _passing(self, records: Sequence[Record], results: Sequence[Result], noted: Sequence[int]) -> int:
        """`passing`, once no result says that many changed."""
        events, deleting = len(results) - len(noted), dict[int, int]()
        for index, told, deletes in self._counted(records, results, noted):
            events += told
            if deletes:
                deleting[index] = deletes
        self._count(records[0].partition, events, sum(deleting.values()))
        if deleting and self._is_mass:
            return self._blow(FuseCause.DELETES, records, min(deleting))
        return len(results)

    def _counted(
        self, records: Sequence[Record], results: Sequence[Result], noted: Sequence[int]
    ) -> Iterator[tuple[int, int, int]]:
        """Index, change events and deletes of those that count: neither what is let through nor an echo.

        An echo is the tombstone that follows a delete of the same key, as Debezium sends it.
        """
        last, key = -1, self._deleted.pop(records[0].partition, None)
        for index in noted:
            record, told = records[index], events_of(results[index])
            deletes = sum(event.change_type is _DELETE_EVENT for event in told)
            echo = key is not None and (index, record.key) == (last + 1, key) and is_tombstone(results[index])
            if deletes:
                last, key = index, record.key
            if not (echo or self._lets_through(record)):
                yield index, len(told), deletes
        if key is not None and last == len(results) - 1:
            self._deleted[records[0].partition] = key

    def _lets_through(self, record: Record) -> bool:
        return is_released(record.timestamp_ms, self._released_ms)

    def _count(self, partition: int, events: int, deletes: int) -> None:
        if events:
            self._chunks.append((partition, events, deletes))
        self._events += events
        self._deletes += deletes
        while self._events > WINDOW and len(self._chunks) > 1:
            _, events, deletes = self._chunks.popleft()
            self._events -= events
            self._deletes -= deletes

    @property
    def _is_mass(self) -> bool:
        """One chunk may have more change events than the window: then it is their share that counts."""
        return 0 < self._max_deletes * max(self._events, WINDOW) < self._deletes * WINDOW

    def _blow(self, cause: FuseCause, records: Sequence[Record], index: int) -> int:
        record = records[index]
        self.trip = Trip(cause, record.partition, record.offset, record.timestamp_ms)
        return index


def is_released(timestamp_ms: int, released_ms: Collection[int]) -> bool:
    """Whether a release lets a record through.

    Args:
        timestamp_ms: Of the record; negative where it has no time. That is before every time, and would be released
            for ever by any: so only the release of `TIMELESS_MS` is for such records.
        released_ms: Records up to any of these times are released, milliseconds since the epoch.
    """
    if timestamp_ms < 0:
        return TIMELESS_MS in released_ms
    return any(min(timestamp_ms, _LAST_MS) <= each for each in released_ms)


def release(topic: str, timestamp_ms: int) -> str:
    """What `FUSE_RELEASES` must say so that records of a topic are let through up to this time, or without a time."""
    next_second = -(-max(TIMELESS_MS, min(timestamp_ms, _LAST_MS)) // 1000)
    return f"{topic}@{iso(1000 * next_second, 'seconds')}"
