"""Contacts that wait together for what Genesys lacks: withdrawals for the do-not-call list, new contacts for room.

They wait beside the rest, which goes on. Meanwhile some of them are offered now and then, ever less often: a try may
take as long as a request may, and there may be thousands. Once one was taken, all are sent. Touches nothing but the
lanes.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from consumer.core.batch import Lanes
from consumer.core.lane import Effect, Lane
from consumer.errors import SinkUnavailable

FIRST_OFFER_S = 1.0
OFFERED_EVERY_S = 60.0
"""The first offer comes so soon, each next one after twice the time, at most after this."""

OFFERED = 100
"""Withdrawals at a time: a request's worth."""


class _Waiting(NamedTuple):
    """A lane, and how often it had been kept back by then: kept back once more, it waits for something else."""

    lane: Lane
    parkings: int


class Wait:
    """Whoever waits for one thing.

    Args:
        lanes: Contacts on their way.
        wake: Called when some are offered again.
        what: Who waits for what, for the status.
        shows: Whether one that waited, and that was taken by a request of this effect, shows that it is over.
        offered: How many are offered at a time.
    """

    def __init__(
        self,
        lanes: Lanes,
        wake: Callable[[], None],
        *,
        what: str,
        shows: Callable[[Effect, Lane], bool],
        offered: int,
    ) -> None:
        self._lanes = lanes
        self._wake = wake
        self._what = what
        self._shows = shows
        self._offered = offered
        self._waiting: dict[int, _Waiting] = {}
        self._why = ""
        self._next_s = FIRST_OFFER_S
        self._timer: asyncio.TimerHandle | None = None
        self._postponed = False
        self._for_good = False

    @property
    def reason(self) -> str | None:
        """Who waits and why; None when nobody does."""
        return f"{self._what}: {self._why}" if any(map(self._is_open, self._waiting.values())) else None

    def in_vain(self) -> list[Lane]:
        """Lanes that wait until somebody does something."""
        return self._kept_back() if self._for_good else []

    def _is_open(self, waiting: _Waiting) -> bool:
        lane, parkings = waiting
        return self._lanes.get(lane.change.identity) is lane and lane.parkings == parkings

    def _kept_back(self) -> list[Lane]:
        waiting = filter(self._is_open, self._waiting.values())
        return [lane for lane, _ in waiting if self._lanes.is_parked(lane)]

    def add(self, lanes: Sequence[Lane], why: SinkUnavailable, *, for_good: bool) -> None:
        """Have lanes wait that were sent; they may be replaced or dropped meanwhile.

        Args:
            lanes: Who waits.
            why: What Genesys says.
            for_good: Whether it takes none until somebody does something.
        """
        self._why, self._for_good = str(why), for_good
        self._keep_back(lanes, why.retry_after or 0.0)

    def join(self, lanes: Sequence[Lane]) -> None:
        """As `add`, with lanes whose request did not ask for it, since others wait already."""
        self._keep_back(lanes, 0.0)

    def asks(self, lanes: Iterable[Lane]) -> bool:
        """Whether a request with these may ask for it: one of them waits and is offered, or nobody waits."""
        if not self._waiting:
            return True
        offered = (waiting for lane in lanes if (waiting := self._waiting.get(id(lane))))
        return any(map(self._is_open, offered)) or not any(map(self._is_open, self._waiting.values()))

    def _keep_back(self, lanes: Sequence[Lane], at_least_s: float) -> None:
        for lane in lanes:
            self._lanes.park(lane)
            self._waiting[id(lane)] = _Waiting(lane, lane.parkings)
        self._plan(at_least_s)

    def _plan(self, at_least_s: float) -> None:
        """Offer some when it is time for it.

        What is planned already is postponed where it comes too soon, but once only: whoever comes meanwhile may be told
        to wait again and again, and then nobody would ever be offered.
        """
        loop = asyncio.get_running_loop()
        if self._timer is None:
            at_least_s = max(self._next_s, at_least_s)
            self._next_s = min(2 * self._next_s, OFFERED_EVERY_S)
            self._postponed = False
        elif self._postponed or self._timer.when() >= loop.time() + at_least_s:
            return
        else:
            self._timer.cancel()
            self._postponed = True
        self._timer = loop.call_later(at_least_s, self._offer)

    def taken(self, effect: Effect, lanes: Iterable[Lane]) -> None:
        """Genesys took contacts: if one of them shows it, nobody has to wait any more."""
        if not (self._waiting and any(id(lane) in self._waiting and self._shows(effect, lane) for lane in lanes)):
            return
        if self._timer is not None:
            self._timer.cancel()
        for lane in self._kept_back():
            self._lanes.release(lane)
        self._waiting, self._timer, self._next_s, self._for_good = {}, None, FIRST_OFFER_S, False
        self._wake()

    def _offer(self) -> None:
        """Offer some; others come next, whatever is heard of these."""
        self._timer = None
        self._waiting = {key: each for key, each in self._waiting.items() if self._is_open(each)}
        for lane in islice(self._kept_back(), self._offered):
            self._waiting[id(lane)] = self._waiting.pop(id(lane))
            self._lanes.release(lane)
        if self._waiting:
            self._plan(0.0)
            self._wake()
        else:
            self._next_s = FIRST_OFFER_S


def for_the_list(lanes: Lanes, wake: Callable[[], None]) -> Wait:
    """Whoever withdrew while the do-not-call list took no numbers: not callable, but on no list yet."""
    what = "withdrawals wait for the do-not-call list"
    return Wait(lanes, wake, what=what, shows=_has_a_number_on_the_list, offered=OFFERED)


def for_room(lanes: Lanes, wake: Callable[[], None]) -> Wait:
    """Whoever is new while there is no room: offered one by one, since one that stays out keeps others out with it."""
    what = "new contacts wait for room in Genesys"
    return Wait(lanes, wake, what=what, shows=_is_added, offered=1)


def _has_a_number_on_the_list(effect: Effect, lane: Lane) -> bool:
    """Whether the list was needed: not by a grant or a delete, which may have taken the place of the withdrawal."""
    return effect is Effect.AMEND or (effect is Effect.UPSERT and lane.change.withdrawal)


def _is_added(effect: Effect, _: Lane) -> bool:
    return effect is Effect.UPSERT
