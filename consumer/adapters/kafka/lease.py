"""For how long the group is sure to count this consumer among its members.

Answers for: never saying yes when the group may have given the partitions to somebody else. The library tells of that
only once it hears so from the group's coordinator; while that cannot be reached it tells nothing (for as long as it
takes with the `consumer` protocol), and waits for an answer that got lost up to `socket.timeout.ms`. So the
coordinator's answers are watched, in the library's statistics. Touches nothing.
"""

import math
from collections.abc import Mapping
from typing import Any

COORDINATOR = "GroupCoordinator"
"""What the library's statistics call its connection for membership, whichever broker it leads to."""


RECENT_SHARE = 1 / 3
"""Within this share of its time the coordinator must have answered for a revocation to begin it anew.

The time is two thirds of a session, so the group counts on for a ninth of one when it ends.
"""


class Lease:
    """Time that is counted from the coordinator's last good answer.

    Args:
        lasts_s: For how long an answer counts, seconds.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._answered_at = self._counts_from = -math.inf
        self._perhaps_at = self._awake_since = -math.inf
        self._clocks_differ_s = math.inf

    def renew(self, now: float) -> None:
        """The group has just assigned partitions."""
        self._answered_at = self._counts_from = now

    def renew_if_recent(self, now: float) -> None:
        """Partitions are being taken in an orderly way, for which the member has the whole time.

        Mostly the coordinator has just said so, and meanwhile no statistics come. But the library decides
        it too, as where a topic is gone, and so does a member that joins anew. So by itself it proves only that the
        library has not heard of a loss: what its last statistics showed counts, and that must be recent.
        """
        self._take(self._perhaps_at)
        if now - self._answered_at <= RECENT_SHARE * self._lasts_s:
            self._counts_from = max(self._counts_from, now)

    def slept(self, seconds: float, now: float) -> None:
        """The machine was suspended for so long until now, and neither this clock nor the library's has counted that.

        All that was told is so much older, and of an answer that seems to have come by now nobody knows how old it is.
        """
        self._answered_at -= seconds
        self._counts_from -= seconds
        self._perhaps_at, self._awake_since = -math.inf, now

    def observe(self, statistics: Mapping[str, Any], now: float, *, joining: bool = False) -> None:
        """Take in the library's statistics, parsed.

        An answer counts only with the statistics after those that show it: if it was that others own the partitions
        now, the library has said so in between. While it joins, no answer counts: one may be that the group knows no
        such member, upon which it joins anew, and says nothing before the group has assigned something.

        Args:
            statistics: As the library gives them.
            now: Monotonic seconds.
            joining: Whether the library is on its way to become a member, again or for the first time.
        """
        if not joining:
            self._take(self._perhaps_at)
        self._perhaps_at = -math.inf
        taken_at = statistics["ts"] / 1e6
        self._clocks_differ_s = min(self._clocks_differ_s, now - taken_at)  # what is above is time spent waiting
        silent_us = statistics["brokers"].get(COORDINATOR, {}).get("rxidle", -1)
        answered_at = taken_at + self._clocks_differ_s - silent_us / 1e6
        if silent_us >= 0 and not joining and answered_at > self._awake_since:
            self._perhaps_at = answered_at

    def holds(self, now: float) -> bool:
        """Whether partitions that were assigned are still ours."""
        return self.silent_s(now) < self._lasts_s

    def silent_s(self, now: float) -> float:
        """Seconds since the last answer that counts, or since a revocation began that followed one soon."""
        return now - self._counts_from

    def _take(self, answered_at: float) -> None:
        self._answered_at = max(self._answered_at, answered_at)
        self._counts_from = max(self._counts_from, answered_at)
