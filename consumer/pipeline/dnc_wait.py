"""Withdrawals that wait for the do-not-call list: their contacts are not callable, their numbers on no list yet.

They wait beside the rest, which goes on, and are offered again together: each may have had a request of its own when it
came. Touches nothing but the lanes.
"""

import asyncio
from collections.abc import Callable, Sequence

from consumer.core.batch import Lanes
from consumer.core.lane import Lane

OFFERED_EVERY_S = 60.0


class DncWait:
    """Whoever withdrew while the do-not-call list took no numbers.

    Args:
        lanes: Contacts on their way.
        clock: Monotonic seconds.
        wake: Called when some are offered again.
    """

    def __init__(self, lanes: Lanes, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._wake = wake
        self._waiting: list[Lane] = []
        self._why, self._until = "", 0.0

    @property
    def reason(self) -> str | None:
        """Why withdrawals wait; None when it is some time that one had to."""
        return f"withdrawals wait for the do-not-call list: {self._why}" if self._clock() < self._until else None

    def add(self, lanes: Sequence[Lane], why: str) -> None:
        """Have lanes wait, which may be replaced or dropped meanwhile."""
        self._why, self._until = why, self._clock() + 2 * OFFERED_EVERY_S
        if not self._waiting:
            asyncio.get_running_loop().call_later(OFFERED_EVERY_S, self._offer)
        for lane in lanes:
            self._lanes.park(lane)
        self._waiting += lanes

    def _offer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for lane in waiting:
            self._lanes.release(lane)
        self._wake()
