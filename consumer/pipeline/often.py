"""Log lines that may be as many as there are contacts: some of them, and how many more there were.

Where Genesys' reads lag, each contact of a first fill that is looked for or deleted has one, and nobody is to do
anything. Touches nothing; the clock is an argument.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

AT_ONCE = 10
"""So many are told one by one, which names the record of any that is by itself."""

EVERY_S = 30.0


@dataclass(slots=True)
class _Window:
    ends_at: float
    told: int = 0
    left_out: int = 0


class Often:
    """Says which lines of an event are told.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def left_out(self, event: str) -> Mapping[str, int] | None:
        """What the next line of an event is to say of those before it; None: it is left out itself."""
        now = self._clock()
        window = self._windows.setdefault(event, _Window(now + EVERY_S))
        if now >= window.ends_at:
            window.ends_at, window.told = now + EVERY_S, 0
        if window.told == AT_ONCE:
            window.left_out += 1
            return None
        left_out, window.left_out = window.left_out, 0
        window.told += 1
        return {"left_out": left_out} if left_out else {}
