"""Answers for what was asked and what became of it, for those who check a client afterwards. Touches nothing."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from consumer.simulator.faults import FaultKind
from consumer.simulator.operations import Operation

_WRITES = {
    Operation.ADD_CONTACTS, Operation.UPDATE_CONTACT, Operation.DELETE_CONTACT, Operation.DELETE_CONTACTS,
    Operation.BULK_REMOVE, Operation.BULK_UPDATE,
}  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One request.

    Attributes:
        number: Order of arrival, from 1.
        operation: What was asked.
        started: When its head had arrived, by the simulator's clock.
        ended: Just before its answer was written or its connection cut; None while it is open.
        list_id: The contact list or do-not-call list it named.
        contact_ids: The contacts it named, made, or selected for a bulk operation; those in a file are not told.
        flags: `priority`, `clearSystemData` and `doNotQueue`, as far as they were given.
        dnc_entries: What it wrote to a do-not-call list, or removed from it.
        fault: What was made to go wrong.
        status: The status answered; None when no answer was sent.
        applied: Whether it was carried out, whatever the client was told.
    """

    number: int
    operation: Operation
    started: float
    ended: float | None = None
    list_id: str | None = None
    contact_ids: tuple[str, ...] = ()
    flags: Mapping[str, bool] = field(default_factory=dict)
    dnc_entries: tuple[str, ...] = ()
    fault: FaultKind | None = None
    status: int | None = None
    applied: bool = False


class Journal:
    """The last requests, as many as the limit says; a limit of 0 keeps none."""

    def __init__(self, limit: int = 0) -> None:
        self._numbers = count(1)
        self._entries: deque[Entry] = deque(maxlen=limit)

    @property
    def kept(self) -> bool:
        """Whether entries are kept, so that details are worth gathering."""
        return self._entries.maxlen != 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, operation: Operation, now: float) -> Entry:
        """Open the entry of a request that has just arrived."""
        entry = Entry(next(self._numbers), operation, now)
        self._entries.append(entry)
        return entry

    def overlapping_contacts(self) -> set[str]:
        """Contacts that were in two requests that write them at the same time.

        An interval here lies within the client's own, so what overlaps here did overlap there. The one exception is
        a request that the client gave up: it ends here when its connection is seen to be closed.
        """
        overlapping: set[str] = set()
        busy_until: dict[tuple[str | None, str], float] = {}
        for entry in self._entries:
            if entry.operation not in _WRITES:
                continue
            ended = math.inf if entry.ended is None else entry.ended
            for contact_id in set(entry.contact_ids):
                key = (entry.list_id, contact_id)
                if entry.started < busy_until.get(key, -math.inf):
                    overlapping.add(contact_id)
                busy_until[key] = ended
        return overlapping
