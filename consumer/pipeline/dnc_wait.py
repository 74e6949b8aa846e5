"""Withdrawals that wait for the do-not-call list: their contacts are not callable, their numbers on no list yet.

They wait beside the rest, which goes on. While the list takes no numbers, some of them are offered now and then, ever
less often: a try may take as long as a request may, and there may be thousands. Once it took one, all are. Touches
nothing but the lanes.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from consumer.core.batch import Lanes
from consumer.core.lane import Batch, Effect, Lane

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

    Attributes:
        patient: Whether a list is waited for that refuses for good, until somebody mends it.
    """

    def __init__(self, lanes: Lanes, wake: Callable[[], None]) -> None:
        self._lanes = lanes
        self._wake = wake
        self._waiting: dict[int, Lane] = {}
        self._why = ""
        self._next_s = FIRST_OFFER_S
        self._timer: asyncio.TimerHandle | None = None
        self.patient = True

    @property
    def reason(self) -> str | None:
        """Why withdrawals wait; None when none does."""
        waits = any(map(self._is_open, self._waiting.values()))
        return f"withdrawals wait for the do-not-call list: {self._why}" if waits else None

    def _is_open(self, lane: Lane) -> bool:
        return self._lanes.get(lane.change.identity) is lane

    def add(self, lanes: Sequence[Lane], why: str, retry_after: float | None) -> None:
        """Have lanes wait, which may be replaced or dropped meanwhile.

        Args:
            lanes: That were sent.
            why: The list does not take their numbers.
            retry_after: Seconds to wait at least, as the list asked for.
        """
        self._why = why
        for lane in lanes:
            self._lanes.park(lane)
            self._waiting[id(lane)] = lane
        self._plan(retry_after or 0.0)

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

    def taken(self, batch: Batch) -> None:
        """Genesys took a batch: if numbers of it had to wait, the list took them, and nobody has to any more."""
        if not (self._waiting and any(self._had_to_wait(batch, lane) for lane in batch.lanes)):
            return
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._timer, self._next_s = self._waiting, {}, None, FIRST_OFFER_S
        for lane in waiting.values():
            self._lanes.release(lane)
        self._wake()

    def _had_to_wait(self, batch: Batch, lane: Lane) -> bool:
        """Whether a lane waited, and does not grant or delete by now: that needs no list."""
        return id(lane) in self._waiting and (
            batch.effect is Effect.AMEND or (batch.effect is Effect.UPSERT and lane.change.withdrawal)
        )

    def _offer(self) -> None:
        """Offer some; if nothing is heard of them, as when they were replaced, others come next."""
        self._timer = None
        self._waiting = {key: lane for key, lane in self._waiting.items() if self._is_open(lane)}
        for lane in islice(filter(self._lanes.is_parked, self._waiting.values()), OFFERED):
            self._lanes.release(lane)
        if self._waiting:
            self._plan(0.0)
            self._wake()
        else:
            self._next_s = FIRST_OFFER_S
