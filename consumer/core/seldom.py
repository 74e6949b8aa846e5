"""What is said again and again, a few times a minute at most. Touches nothing; the clock is an argument."""

import re
from collections.abc import Callable, Hashable

SAME_EVERY_S = 30.0
"""How often the same kind of thing is said."""

_NUMBERS = re.compile(r"\d+")


class Seldom:
    """Remembers what was told.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[Hashable, float] = {}

    def told(self, what: Hashable) -> bool:
        """Whether it was told just now; if not, it counts as told."""
        now = self._clock()
        last = self._told.get(what)
        if last is not None and now - last < SAME_EVERY_S:
            return True
        self._told[what] = now
        return False


def kind_of(error: Exception) -> str:
    """The text of an error without numbers: times, files, brokers and offsets are others each time it comes."""
    return _NUMBERS.sub("", str(error))
