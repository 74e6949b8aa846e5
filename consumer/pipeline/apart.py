"""Contacts that are tried by themselves: Genesys gives no usable answer for them, while it carries out others.

Each keeps its partition from settling what stands behind it. To give one up takes proof that Genesys works for others,
so where its partition is held back, and no others come, that one is read on for a bit. Touches nothing but that.
"""

from consumer.core.batch import Lanes
from consumer.core.lane import Lane
from consumer.pipeline.blame import TRIES, shown_by
from consumer.pipeline.partitions import Partitions

ASKS = 3
"""How often in a row others are asked for without proof: where those that came fail too, more of them tell no more."""


class Apart:
    """Whoever is kept apart.

    Args:
        partitions: The assigned ones.
        lanes: Contacts on their way.
    """

    def __init__(self, partitions: Partitions, lanes: Lanes) -> None:
        self._partitions = partitions
        self._lanes = lanes
        self._noted: dict[int, Lane] = {}
        self._why = ""
        self._asked = 0

    @property
    def reason(self) -> str | None:
        """Which contact is kept apart and why, by the position of its record; None when none is."""
        apart = list(filter(self._is_apart, self._noted.values()))
        if not apart:
            return None
        others = f" (and {len(apart) - 1} more)" if apart[1:] else ""
        return f"no usable answer for the contact of {apart[0].work.record.position}{others}: {self._why}"

    def add(self, lane: Lane, why: str) -> None:
        """A lane that came to nothing is kept apart."""
        self._why = why
        self._noted[id(lane)] = lane
        if len(self._noted) > 2 * len(self._lanes):
            self._noted = {key: each for key, each in self._noted.items() if self._is_apart(each)}

    def ask_for_others(self, lane: Lane) -> None:
        """A lane is to be tried again: have its partition read on if nobody is under way who could prove anything."""
        if not (lane.unproven and self._lanes.failing):
            self._asked = 0  # those that came were fine, or had nothing to be sent
        partition = self._partitions.of(lane.work.assignment)
        if partition is not None and self._asked < ASKS and not self._lanes.untried(shown_by(lane)):
            self._asked += 1
            partition.lacks_others = True

    def in_vain(self) -> list[Lane]:
        """Lanes that wait, and for which nothing can be proven as long as no others come."""
        waiting = filter(self._lanes.is_parked, filter(self._is_apart, self._noted.values()))
        return [lane for lane in waiting if lane.unproven >= TRIES]

    def _is_apart(self, lane: Lane) -> bool:
        return lane.alone > 0 and self._lanes.get(lane.change.identity) is lane
