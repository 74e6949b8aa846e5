"""Requests that nobody answered, and that may be applied yet: something before Genesys may hold one that we gave up.

Such a request must not undo a withdrawal that overtook it. So a withdrawal that is accepted meanwhile is sent once more
when the time is over. Touches nothing; the clock is an argument.
"""

from collections.abc import Sequence

from consumer.core.lane import Lane

LATE_S = 90.0
"""So long a request may still be applied after we gave it up: proxies hold one for a minute, unless told otherwise."""

REMEMBERED = 50_000
"""Contacts at most, the last ones: more than can be sent in that time at the usual limit of requests."""


class Late:
    """Remembers contacts with a change that was not answered and withdraws nothing.

    One that was sent as not callable counts too: the number that it brings may be on no do-not-call list.
    """

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def unanswered(self, lanes: Sequence[Lane], now: float) -> None:
        """A request came to nothing."""
        for lane in lanes:
            if not lane.change.withdrawal:
                self._until.pop(lane.change.identity, None)  # so that the oldest are the first
                self._until[lane.change.identity] = now + LATE_S
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._until:
            identity, until = next(iter(self._until.items()))
            if until > now and len(self._until) <= REMEMBERED:
                return
            del self._until[identity]

    def left(self, lane: Lane, now: float) -> float:
        """Seconds for which a withdrawal of the contact may still be undone; 0 for any other change."""
        until = self._until.get(lane.change.identity, 0.0) if lane.change.withdrawal else 0.0
        return max(0.0, until - now)
