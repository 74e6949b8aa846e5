"""Contacts that Genesys asks to wait with (429) again and again: one endpoint may be busy by itself, as that of reads.

Others go on meanwhile, and the gate tells nothing of it. Touches nothing; it is told, and asked for the status.
"""

from collections.abc import Sequence

from consumer.core.audit import event_id
from consumer.core.batch import Lanes
from consumer.core.lane import Lane
from consumer.errors import Throttled

LONG_S = 60.0
"""Whoever is put off for less, from the first time to the last, is nothing to tell."""


class PutOff:
    """Whoever is put off, and since when.

    Args:
        lanes: Contacts on their way.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._since: dict[int, tuple[Lane, float]] = {}
        self._why = ""

    @property
    def reason(self) -> str | None:
        """Who has been put off for long, by the position of the record, and what Genesys said last; None: nobody."""
        put_off = [(lane, lane.since - first) for lane, first in self._since.values() if self._is_put_off(lane)]
        long = [lane for lane, seconds in put_off if seconds >= LONG_S]
        if not long:
            return None
        others = f" (and {len(long) - 1} more)" if long[1:] else ""
        record = event_id(long[0].work.record)
        return f"Genesys asks again and again to wait with the contact of {record}{others}: {self._why}"

    def add(self, lanes: Sequence[Lane], why: Throttled) -> None:
        """A request with these has just been put off: they wait since then."""
        self._why = str(why)
        self._since = {key: each for key, each in self._since.items() if self._is_put_off(each[0])}
        for lane in lanes:
            self._since.setdefault(id(lane), (lane, lane.since))

    def _is_put_off(self, lane: Lane) -> bool:
        return lane.put_off and self._lanes.get(lane.change.identity) is lane
