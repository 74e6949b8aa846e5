"""Withdrawals that wait for the do-not-call list: their contacts are not callable, their numbers on no list yet.

They wait beside the rest, which goes on. While the list takes no numbers, some of them are offered now and then, ever
less often: a try may take as long as a request may, and there may be thousands. Once it took one, all are. Touches
nothing but the lanes.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from consumer.core.batch import Lanes
from consumer.core.lane import Effect, Lane
from consumer.errors import Withheld

FIRST_OFFER_S = 1.0
OFFERED_EVERY_S = 60.0
"""The first offer comes so soon, each next one after twice the time, at most after this."""

OFFERED = 100
"""So many at a time: a request's worth."""


class DncWait:
    """Whoever withdrew while the do-not-call list took no numbers.

    Args:
        lanes: Contacts on their way.
        wake: Called when some are offered again.
    """

    def __init__(self, lanes: Lanes, wake: Callable[[], None]) -> None:
        self._lanes = lanes
        self._wake = wake
        self._waiting: dict[int, Lane] = {}
        self._why = ""
        self._next_s = FIRST_OFFER_S
        self._timer: asyncio.TimerHandle | None = None
        self._for_good = False

    @property
    def reason(self) -> str | None:
        """Why withdrawals wait; None when none does."""
        waits = any(map(self._is_open, self._waiting.values()))
        return f"withdrawals wait for the do-not-call list: {self._why}" if waits else None

    def in_vain(self) -> list[Lane]:
        """Lanes that wait for a list which takes no numbers until somebody does something."""
        if not self._for_good:
            return []
        return list(filter(self._lanes.is_parked, filter(self._is_open, self._waiting.values())))

    def _is_open(self, lane: Lane) -> bool:
        return self._lanes.get(lane.change.identity) is lane

    def add(self, lanes: Sequence[Lane], why: Withheld) -> None:
        """Have lanes wait that were sent; they may be replaced or dropped meanwhile."""
        self._why, self._for_good = str(why), why.for_good
        for lane in lanes:
            self._lanes.park(lane)
            self._waiting[id(lane)] = lane
        self._plan(why.retry_after or 0.0)

    def _plan(self, at_least_s: float) -> None:
        """Offer some when it is time for it; what is planned already is put off where it comes too soon."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            at_least_s = max(self._next_s, at_least_s)
            self._next_s = min(2 * self._next_s, OFFERED_EVERY_S)
        elif self._timer.when() >= loop.time() + at_least_s:
            return
        else:
            self._timer.cancel()
        self._timer = loop.call_later(at_least_s, self._offer)

    def taken(self, effect: Effect, lanes: Iterable[Lane]) -> None:
        """Genesys took contacts: if numbers of them had to wait, the list took them, and nobody has to any more."""
        if not (self._waiting and any(self._had_to_wait(effect, lane) for lane in lanes)):
            return
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._timer, self._next_s = self._waiting, {}, None, FIRST_OFFER_S
        for lane in waiting.values():
            self._lanes.release(lane)
        self._wake()

    def _had_to_wait(self, effect: Effect, lane: Lane) -> bool:
        """Whether a lane waited, and does not grant or delete by now: that needs no list."""
        return id(lane) in self._waiting and (
            effect is Effect.AMEND or (effect is Effect.UPSERT and lane.change.withdrawal)
        )

    def _offer(self) -> None:
        """Offer some; others come next, whatever is heard of these."""
        self._timer = None
        self._waiting = {key: lane for key, lane in self._waiting.items() if self._is_open(lane)}
        for lane in list(islice(filter(self._lanes.is_parked, self._waiting.values()), OFFERED)):
            self._waiting[id(lane)] = self._waiting.pop(id(lane))
            self._lanes.release(lane)
        if self._waiting:
            self._plan(0.0)
            self._wake()
        else:
            self._next_s = FIRST_OFFER_S
