"""Finds where the log of a source began anew, so that positions are compared with those of the same log alone.

Answers for the epochs of one partition, of all sources that write into it: mostly one, several where shards share a
topic. After a failover or a restore positions go back: what is newer has a lower one than what was delivered. That
shows at a change that stands lower than the highest position seen of its source and is later than every time seen of
it. A record that is told again is neither, as it was seen before: it begins no epoch, and since epochs begin later than
all that was seen, it has the epoch that it had. So the epochs come out the same however often records come.

A snapshot's read begins none: what position it has is for the connector to say, and it tells of no change. Its time
counts, so that it too keeps its epoch.

Touches nothing else.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import orjson
from msgspec import Struct

from consumer.model import LogPlace

MAX_BEGINNINGS = 16
"""Of so many epochs of a source it is known when they began; what is older counts as of its first."""

MAX_SOURCES = 64
"""So many sources of a partition are followed; what others tell is of the first epoch for ever."""


class _Log(Struct):
    """How far the log of one source was seen.

    Attributes:
        first: Number of its first epoch.
        highest: Highest position seen in its last epoch, -1 before any.
        latest: Latest time seen, milliseconds since the epoch, -1 before any.
        begun: When its last epochs began, by the source's clock, milliseconds since the epoch.
        numbers: Theirs.
    """

    first: int
    highest: int = -1
    latest: int = -1
    begun: list[int] = []
    numbers: list[int] = []

    def of(self, time: int) -> int:
        """The epoch of a time."""
        earlier = bisect_right(self.begun, time)
        return self.numbers[earlier - 1] if earlier else self.first

    def goes_on(self, places: Sequence[LogPlace]) -> bool:
        """See places at once in the common case, which costs a fraction: one log goes on, and nothing comes again."""
        positions = [position for position, *_ in places if position is not None]
        times = [time for _, time, *_ in places]
        if positions and (positions[0] < self.highest or positions != sorted(positions)):
            return False
        if min(times) < self._since:
            return False
        self.highest = positions[-1] if positions else self.highest
        self.latest = max(self.latest, *times)
        return True

    def begins(self, position: int | None, time: int, number: int) -> bool:
        """See a place; whether the epoch of this number began there."""
        anew = position is not None and position < self.highest and time > self.latest
        if position is not None and (anew or (position > self.highest and time >= self._since)):
            self.highest = position
        self.latest = max(self.latest, time)
        if anew:
            self.begun = [*self.begun, time][-MAX_BEGINNINGS:]
            self.numbers = [*self.numbers, number][-MAX_BEGINNINGS:]
        return anew

    @property
    def _since(self) -> int:
        """When the last epoch began."""
        return self.begun[-1] if self.begun else 0


class Epochs:
    """The epochs of a partition, and how far the logs of its sources were seen.

    Args:
        last: Number of the last epoch of any source.
        logs: By the name of the source: first epoch, highest position, latest time, and the last epochs' beginnings and
            numbers.

    Attributes:
        last: As above.
    """

    def __init__(
        self,
        last: int = 0,
        logs: Mapping[str, tuple[int, int, int, list[int], list[int]]] = MappingProxyType({}),
    ) -> None:
        self.last = last
        self._logs = {name: _Log(*log) for name, log in logs.items()}

    @property
    def known(self) -> bool:
        """Whether anything was seen of a log."""
        return bool(self._logs)

    def of(self, time: int, source: str | None) -> int:
        """The epoch of a change.

        Args:
            time: Of the change by the source's clock, milliseconds since the epoch.
            source: Its name; None where the change does not tell its place: then there must be one alone.
        """
        log = self._logs.get(source) if source is not None else None
        if source is None and len(self._logs) == 1:
            (log,) = self._logs.values()
        return 0 if log is None else log.of(time)

    def follow(self, places: Sequence[LogPlace]) -> list[int]:
        """See changes in the order of the partition; which of them began an epoch, by their place in the sequence."""
        sources = {name for _, _, name, _ in places}
        if len(sources) == 1 and self._log(places[0]).goes_on(places):
            return []
        begun = []
        for number, place in enumerate(places):
            position, time, *_ = place
            if self._log(place).begins(position, time, self.last + 1):
                self.last += 1
                begun.append(number)
        return begun

    def _log(self, place: LogPlace) -> _Log:
        """The log of a source; that of a new one begins an epoch: its positions are compared with no other's."""
        source = place[2]
        log = self._logs.get(source)
        if log is None:
            self.last += bool(self._logs) and len(self._logs) < MAX_SOURCES
            log = _Log(self.last)
            if len(self._logs) < MAX_SOURCES:
                self._logs[source] = log
        return log

    def encode(self) -> bytes:
        """As they stand in the store and in the changelog."""
        logs = {name: [log.first, log.highest, log.latest, log.begun, log.numbers] for name, log in self._logs.items()}
        return orjson.dumps([self.last, logs])


def decode(raw: bytes | None) -> Epochs:
    """Read what `encode` wrote; None: nothing was seen yet."""
    return Epochs() if raw is None else Epochs(*orjson.loads(raw))
