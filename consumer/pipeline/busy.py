"""Contacts that Genesys neither changes nor deletes now: a campaign uses them, or it refuses their deletes.

Each is tried again every half a minute, for as long as it takes, and keeps its partition from settling what stands
behind it. Touches nothing but the lanes; it is told, and asked for the status.
"""

from typing import NamedTuple

from consumer.core.batch import Lanes
from consumer.core.lane import Lane
from consumer.model import Work

LONG_S = 60.0
"""A call takes minutes, and most contacts are free sooner: whoever is tried for less is nothing to tell."""

IN_VAIN_S = 600.0
"""Whoever has been tried for so long is not waited for by what comes to an end."""


class _Tried(NamedTuple):
    """A lane with the work that is tried, when it was for the first and for the last time, and what was said then.

    Monotonic seconds.
    """

    lane: Lane
    work: Work
    since: float
    last: float
    why: str


class Busy:
    """Whoever is tried again and again, and why.

    Args:
        lanes: Contacts on their way.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._tried: dict[int, _Tried] = {}

    @property
    def reason(self) -> str | None:
        """Who has been tried for long, by the position of the record, and what Genesys said last; None: nobody."""
        long = self._longer_than(LONG_S)
        if not long:
            return None
        others = f" (and {len(long) - 1} more)" if long[1:] else ""
        record = long[0].work.record.position
        return f"Genesys neither changes nor deletes the contact of {record}{others}: {long[0].why}"

    def add(self, lane: Lane, why: str, now: float) -> None:
        """A lane was tried for nothing, monotonic seconds."""
        known = self._tried.get(id(lane))
        since = known.since if known is not None and self._is_open(known) and known.work is lane.work else now
        self._tried[id(lane)] = _Tried(lane, lane.work, since, now, why)
        if len(self._tried) > 2 * len(self._lanes):
            self._tried = {key: each for key, each in self._tried.items() if self._is_open(each)}

    def in_vain(self) -> list[Lane]:
        """Lanes that have been tried for so long that it may not pass by itself, also those that are tried just now."""
        return [each.lane for each in self._longer_than(IN_VAIN_S)]

    def _longer_than(self, seconds: float) -> list[_Tried]:
        """Those whose first and last try are at least so far from each other."""
        return [each for each in self._tried.values() if each.last - each.since >= seconds and self._is_open(each)]

    def _is_open(self, tried: _Tried) -> bool:
        lane = tried.lane
        return lane.work is tried.work and self._lanes.get(lane.change.identity) is lane
