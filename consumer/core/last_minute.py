"""How many of the records of the last 60 s were refused. Touches nothing else."""

from collections import deque
from collections.abc import Callable

WINDOW_S = 60


class LastMinute:
    """Counts of the last 60 s; a few numbers for each second.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int, int]] = deque()

    def add(self, records: int, refused: int) -> None:
        """Count records that ended now, and those of them that were refused."""
        second = self._forget()
        if self._seconds and self._seconds[-1][0] == second:
            _, records_before, refused_before = self._seconds.pop()
            records, refused = records + records_before, refused + refused_before
        self._seconds.append((second, records, refused))

    @property
    def refused(self) -> int:
        """How many were refused."""
        self._forget()
        return sum(refused for _, _, refused in self._seconds)

    def share(self) -> float:
        """Share of those that were refused, 0 to 1; 0 of no records."""
        self._forget()
        records = sum(entry[1] for entry in self._seconds)
        return sum(entry[2] for entry in self._seconds) / records if records else 0.0

    def _forget(self) -> int:
        second = int(self._clock())
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()
        return second
