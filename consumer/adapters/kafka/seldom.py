"""What the client says again and again, a few times a minute at most. Touches nothing; the clock is an argument."""

import time
from collections.abc import Callable, Hashable

SAME_EVERY_S = 30.0
"""How often a client says the same kind of thing."""


class Seldom:
    """Remembers what was told.

    Args:
        monotonic: Seconds that only grow.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: dict[Hashable, float] = {}

    def told(self, what: Hashable) -> bool:
        """Whether it was told just now; if not, it counts as told."""
        now = self._monotonic()
        last = self._told.get(what)
        if last is not None and now - last < SAME_EVERY_S:
            return True
        self._told[what] = now
        return False
