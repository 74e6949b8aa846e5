"""The search for who is to blame: a request that came to nothing is split until one contact stands alone.

Blamed for its data, at once where the answer gives it away, else by halves, of which one is tried and the other waits.
If the first is accepted, the fault is in the other, which is halved at once; if it is refused, the other goes back to
the queue. Where there was no answer, both halves are tried. Touches nothing but the lanes.
"""

from collections.abc import Sequence

from consumer.columns import VALUE_CHARACTERS
from consumer.core.batch import Lanes
from consumer.core.contact_id import contact_id
from consumer.core.lane import Batch, Effect, Lane
from consumer.errors import RefusedByGenesys, TooLarge
from consumer.model import Amendment, Contact

_VALUE_TOO_LONG = "contact.datum.length.limit.exceeded"


class Search:
    """Takes requests apart.

    Args:
        lanes: Contacts on their way.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def split(self, batch: Batch, error: RefusedByGenesys) -> None:
        """Find who is to blame: suspects stand alone at once, otherwise one half is tried."""
        suspects = [lane for lane in batch.lanes if _is_suspect(lane.change.contact, error)]
        size = sum(len(lane.payload) for lane in batch.lanes)
        if isinstance(error, TooLarge) and size:
            self._lanes.shrink(_smaller(size, error.limit))
            self._lanes.put_back(batch.lanes)
        elif isinstance(error, TooLarge):
            self._part(batch.effect, _in_the_middle(batch.lanes))
        elif suspects:
            for lane in suspects:
                self._lanes.put_back_as_group(batch.effect, [lane])
            self._lanes.put_back([lane for lane in batch.lanes if lane not in suspects])
        else:
            self.halve(batch.effect, batch.lanes)

    def halve(self, effect: Effect, lanes: Sequence[Lane]) -> None:
        """Try one half, withdrawals apart from the rest where both are there; the other waits for what comes of it."""
        self._lanes.put_back_as_group(effect, *_by_urgency(lanes))

    def part_behind(self, batch: Batch, now: float) -> None:
        """Send both halves, each by itself and after whatever else waits now."""
        for lane in batch.lanes:
            lane.since = now
        self._part(batch.effect, _by_urgency(batch.lanes))

    def _part(self, effect: Effect, halves: Sequence[list[Lane]]) -> None:
        """Send halves: how large a request of amended contacts is shows only when they have been read."""
        for lanes in halves:
            self._lanes.put_back_as_group(effect, lanes)


def _is_suspect(contact: Contact | Amendment, refusal: RefusedByGenesys) -> bool:
    """Whether a refusal of several contacts gives this one away, by its id or by what the code says of it."""
    if contact_id(contact.external_id) in refusal.contact_ids:
        return True
    values = (contact.external_id, *contact.attributes.values())
    return refusal.code == _VALUE_TOO_LONG and any(len(value) > VALUE_CHARACTERS for value in values)


def _by_urgency(lanes: Sequence[Lane]) -> tuple[list[Lane], list[Lane]]:
    """Those that are urgent and the rest, or, where one of these is nobody, two halves."""
    urgent = [lane for lane in lanes if lane.urgent]
    rest = [lane for lane in lanes if not lane.urgent]
    return (urgent, rest) if urgent and rest else _in_the_middle(lanes)


def _in_the_middle(lanes: Sequence[Lane]) -> tuple[list[Lane], list[Lane]]:
    middle = (len(lanes) + 1) // 2
    return list(lanes[:middle]), list(lanes[middle:])


def _smaller(size: int, limit: int | None) -> int:
    """How many bytes of contacts to send where so many were too many; some room is left for what surrounds them."""
    allowed = (limit or 0) * 9 // 10
    return allowed if 0 < allowed < size else size // 2
