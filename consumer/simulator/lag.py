"""Answers for what reads of contacts show while they lag behind writes. Touches nothing.

By id alone: searches and exports show what is there.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping

from consumer.simulator.contacts import Contact


class Lag:
    """Contacts as they were before writes that reads do not know of yet.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._before: dict[tuple[str, str], list[tuple[float, Contact | None]]] = defaultdict(list)

    def note(self, list_id: str, before: Mapping[str, Contact | None], seconds: float) -> None:
        """Contacts of a list were written: for so long reads show them as before, by id; None: not at all."""
        until = self._clock() + seconds
        for contact_id, contact in before.items():
            self._before[list_id, contact_id].append((until, contact))

    def shown(self, list_id: str, contact_id: str, contact: Contact | None) -> Contact | None:
        """What a read shows of a contact: as it was before the first write that reads do not know of, or as it is."""
        if (list_id, contact_id) not in self._before:
            return contact
        now = self._clock()
        unknown = [each for each in self._before.pop((list_id, contact_id)) if each[0] > now]
        if not unknown:
            return contact
        self._before[list_id, contact_id] = unknown
        return unknown[0][1]
