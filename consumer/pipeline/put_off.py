"""Contacts that Genesys asks to wait with (429) again and again: one endpoint may be busy by itself, as that of reads.

Others go on meanwhile, and the gate tells nothing of it. Touches nothing but the lanes; it is told, and asked for the
status.
"""

from collections.abc import Sequence

from consumer.core.batch import Lanes
from consumer.core.lane import Lane
from consumer.errors import Throttled

LONG_S = 60.0
"""Whoever is put off for less, from the first time to the last, is nothing to tell."""


class PutOff:
    """Whoever is put off, and why.

    Args:
        lanes: Contacts on their way.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._why = ""

    @property
    def reason(self) -> str | None:
        """Who has been put off for long, by the position of the record, and what Genesys said last; None: nobody."""
        long = self._lanes.put_off(LONG_S)
        if not long:
            return None
        others = f" (and {len(long) - 1} more)" if long[1:] else ""
        record = long[0].work.record.position
        return f"Genesys asks again and again to wait with the contact of {record}{others}: {self._why}"

    def add(self, lanes: Sequence[Lane], why: Throttled, now: float) -> None:
        """A request with these has just been put off, monotonic seconds: whatever else waits by now goes first."""
        self._why = str(why)
        for lane in lanes:
            lane.since = now
            lane.put_off = now if lane.put_off is None else lane.put_off
