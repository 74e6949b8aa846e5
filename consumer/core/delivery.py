"""When the next request to Genesys may start, and how many contacts it may hold.

Answers for patience: the client-side limit of requests, `Retry-After`, backoff with full jitter, concurrency that grows
by one and halves, and the breaker. Touches nothing else; the clock and the dice are arguments. All requests share one
gate: what one learns holds for all.
"""

from enum import IntEnum

BREAKER_FAILURES = 3
"""Failures in a row that open the breaker; requests that were under way together count as one."""

BREAKER_OPEN_S = 30.0
"""How long the open breaker lets nothing through."""

BACKOFF_BASE_S = 0.5
THROTTLED_DEFAULT_S = 5.0
"""The wait when a 429 does not say how long."""

_SHRINK = 10
_BURST_S = 2.0


class Breaker(IntEnum):
    """State of the breaker, as the metric tells it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Throttle:
    """The client-side limit of requests, shared by all that ask Genesys: no minute sees more requests than it.

    Args:
        requests_per_minute: Our own limit.
    """

    def __init__(self, requests_per_minute: int) -> None:
        self._own = requests_per_minute
        self._refilled_at = 0.0
        self._not_before = 0.0
        self.go_by(requests_per_minute)
        self._tokens = self._capacity

    def go_by(self, told: int) -> None:
        """Go by the limit that Genesys tells from now on, or by our own where that is lower."""
        requests_per_minute = min(self._own, told)
        self._capacity = max(1.0, requests_per_minute / 60 * _BURST_S)
        self._rate = max(requests_per_minute - self._capacity, requests_per_minute / 2) / 60

    def tokens(self, now: float) -> float:
        """Requests that may start at once."""
        return min(self._capacity, self._tokens + max(0.0, now - self._refilled_at) * self._rate)

    def wait(self, now: float) -> float:
        """Seconds until a request may start."""
        missing = max(0.0, 1 - self.tokens(now)) / self._rate
        return max(missing, self.pause(now))

    def pause(self, now: float) -> float:
        """Seconds for which Genesys asked everybody to wait; 0 or less when it asks no more."""
        return self._not_before - now

    def started(self, now: float) -> None:
        """A request starts."""
        self._tokens = self.tokens(now) - 1
        self._refilled_at = now

    def told_to_wait(self, now: float, seconds: float) -> None:
        """Genesys counts otherwise: nobody asks before that time is over."""
        self._tokens = min(self._tokens, 0.0)
        self._not_before = max(self._not_before, now + seconds)


class Gate:
    """Decides when a request may start, from what happened to the ones before.

    Args:
        throttle: The client-side limit.
        max_in_flight: Requests sent and unanswered at a time.
        max_records: Largest batch.
    """

    def __init__(self, throttle: Throttle, max_in_flight: int, max_records: int) -> None:
        self._throttle = throttle
        self._not_before = 0.0
        self._told_not_before = 0.0
        self._max_in_flight = max_in_flight
        self._concurrency = max_in_flight
        self._successes = 0
        self._of_before = 0
        self._max_records = max_records
        self._failures = 0
        self._opened_until: float | None = None
        self.limit = max_records
        self.in_flight = 0

    def breaker(self, now: float) -> Breaker:
        """State of the breaker."""
        if self._opened_until is None:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self._opened_until else Breaker.HALF_OPEN

    def tokens(self, now: float) -> float:
        """Requests that the client-side limit allows at once."""
        return self._throttle.tokens(now)

    def asked_to_wait(self, now: float) -> float:
        """Seconds for which Genesys wants to be left alone, 0 when it does not."""
        return max(0.0, self._throttle.pause(now), self._told_not_before - now)

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight: one more after each round of successes, half of them after a failure."""
        return 1 if self._opened_until is not None else self._concurrency

    @property
    def in_doubt(self) -> bool:
        """Whether nobody knows if Genesys works: the last answer was none."""
        return self._failures > 0

    def saturated(self) -> bool:
        """Whether all requests that may be are under way, but for one that has just been answered."""
        return self.in_flight + 1 >= self.concurrency

    def wait(self, now: float) -> float | None:
        """Seconds until a request may start; None while that hangs on an answer under way."""
        if self.in_flight >= self.concurrency:
            return None
        paused = max(self._not_before, self._told_not_before, self._opened_until or 0.0)
        return max(0.0, self._throttle.wait(now), paused - now)

    def started(self, now: float) -> None:
        """A call starts; requests of it after the first are for the throttle to let through."""
        self._throttle.started(now)
        self.in_flight += 1

    def succeeded(self, *, part: bool = False) -> None:
        """Genesys answered as a working service does; a part of a batch, by itself, tells nothing of larger ones."""
        self._answered()
        self._failures = 0
        self._opened_until = None
        self._speed_up()
        if not part:
            self.limit = min(self._max_records, self.limit * 2)

    def throttled(self, now: float, retry_after: float | None, dice: float) -> None:
        """Too many requests: everybody waits as long as was asked, plus jitter. `dice` is in [0, 1)."""
        self._answered()
        asked = THROTTLED_DEFAULT_S if retry_after is None else retry_after
        self._throttle.told_to_wait(now, asked + dice)

    def failed(self, now: float, dice: float, retry_after: float | None = None) -> None:
        """No answer, or not one of a working service, which may still say how long to wait. `dice` is in [0, 1)."""
        self._failures += self._of_before == 0  # those under way together tell of one moment
        self._slow_down()
        self._answered()
        self._told_not_before = max(self._told_not_before, now + (retry_after or 0.0))
        if self._failures >= BREAKER_FAILURES or self._opened_until is not None:
            self._opened_until = now + BREAKER_OPEN_S
            self.limit = max(1, self._max_records // _SHRINK)
        else:
            self._not_before = max(self._not_before, now + dice * BACKOFF_BASE_S * 2**self._failures)

    def abandoned(self) -> None:
        """A call ended without telling anything about Genesys."""
        self._answered()

    def _answered(self) -> None:
        self.in_flight -= 1
        self._of_before = max(0, self._of_before - 1)

    def _speed_up(self) -> None:
        self._successes += 1
        if self._successes >= self._concurrency:
            self._successes = 0
            self._concurrency = min(self._max_in_flight, self._concurrency + 1)

    def _slow_down(self) -> None:
        """Halve once for all that are in flight now: they fail together, and say the same."""
        if self._of_before == 0:
            self._concurrency = max(1, self._concurrency // 2)
            self._successes = 0
            self._of_before = self.in_flight
