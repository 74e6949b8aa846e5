"""When the next request to Genesys may start, and how many contacts it may hold.

Answers for patience: the client-side limit of requests, `Retry-After`, backoff with full jitter, and the breaker.
Touches nothing else; the clock and the dice are arguments. All requests share one gate: what one learns holds for all.
"""

from enum import IntEnum

BREAKER_FAILURES = 3
"""Failures in a row that open the breaker."""

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


class Gate:
    """Decides when a request may start, from what happened to the ones before.

    Args:
        requests_per_minute: Client-side limit; no minute sees more requests than this.
        max_in_flight: Requests sent and unanswered at a time.
        max_records: Largest batch.
    """

    def __init__(self, requests_per_minute: int, max_in_flight: int, max_records: int) -> None:
        self._capacity = max(1.0, requests_per_minute / 60 * _BURST_S)
        self._rate = max(requests_per_minute - self._capacity, requests_per_minute / 2) / 60
        self._tokens = self._capacity
        self._refilled_at = 0.0
        self._not_before = 0.0
        self._max_in_flight = max_in_flight
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
        return min(self._capacity, self._tokens + max(0.0, now - self._refilled_at) * self._rate)

    def wait(self, now: float) -> float | None:
        """Seconds until a request may start; None while that hangs on an answer under way."""
        allowed = 1 if self._opened_until is not None else self._max_in_flight
        if self.in_flight >= allowed:
            return None
        missing = max(0.0, 1 - self.tokens(now)) / self._rate
        return max(0.0, missing, self._not_before - now, (self._opened_until or 0.0) - now)

    def started(self, now: float, requests: int) -> None:
        """A call of so many requests starts."""
        self._tokens = self.tokens(now) - requests
        self._refilled_at = now
        self.in_flight += 1

    def succeeded(self) -> None:
        """Genesys answered as a working service does."""
        self.in_flight -= 1
        self._failures = 0
        self._opened_until = None
        self.limit = min(self._max_records, self.limit * 2)

    def throttled(self, now: float, retry_after: float | None, dice: float) -> None:
        """Too many requests: everybody waits as long as was asked, plus jitter. `dice` is in [0, 1)."""
        self.in_flight -= 1
        self._tokens = min(self._tokens, 0.0)
        asked = THROTTLED_DEFAULT_S if retry_after is None else retry_after
        self._not_before = max(self._not_before, now + asked + dice)

    def failed(self, now: float, dice: float, retry_after: float | None = None) -> None:
        """No answer, or not one of a working service, which may still say how long to wait. `dice` is in [0, 1)."""
        self.in_flight -= 1
        self._not_before = max(self._not_before, now + (retry_after or 0.0))
        self._failures += 1
        if self._failures >= BREAKER_FAILURES or self._opened_until is not None:
            self._opened_until = now + BREAKER_OPEN_S
            self.limit = max(1, self._max_records // _SHRINK)
        else:
            self._not_before = max(self._not_before, now + dice * BACKOFF_BASE_S * 2**self._failures)

    def abandoned(self) -> None:
        """A call ended without telling anything about Genesys."""
        self.in_flight -= 1
