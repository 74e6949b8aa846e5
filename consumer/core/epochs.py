"""Finds where the log of a source began anew, so that positions are compared with those of the same log alone.

Answers for the epochs of one source partition. After a failover or a restore positions go back: what is newer has a
lower one than what was delivered. That shows at a change that stands lower than the highest position seen and is later
than every time seen. A record that is told again is neither, as it was seen before: it begins no epoch, and since
epochs begin later than all that was seen, it has the epoch that it had. So the epochs come out the same however often
records come.

A snapshot's read begins none: what position it has is for the connector to say, and it tells of no change. Its time
counts, so that it too keeps its epoch.

Touches nothing else.
"""

from bisect import bisect_right
from collections.abc import Sequence

import orjson

from consumer.model import LogPlace

MAX_BEGINNINGS = 16
"""Of so many epochs it is known when they began; what is older counts as of the first."""


class Epochs:
    """The epochs of a partition, and how far its source's log was seen.

    Args:
        begun: How many epochs followed the first one.
        highest: Highest position seen in the last epoch, -1 before the first.
        latest: Latest time seen, milliseconds since the epoch, -1 before the first.
        beginnings: When the last epochs began, by the source's clock, milliseconds since the epoch.
    """

    def __init__(self, begun: int = 0, highest: int = -1, latest: int = -1, beginnings: Sequence[int] = ()) -> None:
        self.begun = begun
        self._highest = highest
        self._latest = latest
        self._beginnings = list(beginnings)

    @property
    def known(self) -> bool:
        """Whether anything was seen of a log."""
        return self._latest >= 0

    def of(self, time: int) -> int:
        """The epoch of a change, by its time: milliseconds since the epoch, by the source's clock."""
        later = len(self._beginnings) - bisect_right(self._beginnings, time)
        return 0 if later == len(self._beginnings) else self.begun - later

    def follow(self, places: Sequence[LogPlace]) -> list[int]:
        """See changes in the order of the partition; which of them began an epoch, by their place in the sequence."""
        positions = [position for position, _ in places if position is not None]
        times = [time for _, time in places]
        if times and not self._goes_on(positions, times):
            return [number for number, place in enumerate(places) if self._begins(*place)]
        return []

    def _goes_on(self, positions: Sequence[int], times: Sequence[int]) -> bool:
        """The common case, at a fraction of the cost of looking at each: one log goes on, and nothing is told again."""
        if positions and positions[0] < self._highest:
            return False
        if min(times) < self._since or positions != sorted(positions):
            return False
        self._highest = positions[-1] if positions else self._highest
        self._latest = max(self._latest, *times)
        return True

    def _begins(self, position: int | None, time: int) -> bool:
        begins = position is not None and position < self._highest and time > self._latest
        if position is not None and (begins or (position > self._highest and time >= self._since)):
            self._highest = position
        self._latest = max(self._latest, time)
        if begins:
            self.begun += 1
            self._beginnings = [*self._beginnings, time][-MAX_BEGINNINGS:]
        return begins

    @property
    def _since(self) -> int:
        """When the last epoch began."""
        return self._beginnings[-1] if self._beginnings else 0

    def encode(self) -> bytes:
        """As they stand in the store and in the changelog."""
        return orjson.dumps([self.begun, self._highest, self._latest, self._beginnings])


def decode(raw: bytes | None) -> Epochs:
    """Read what `encode` wrote; None: nothing was seen yet."""
    return Epochs() if raw is None else Epochs(*orjson.loads(raw))
