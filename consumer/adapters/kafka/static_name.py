"""Patience with the name of a static member that the group has not released yet.

With the `consumer` protocol a process that was killed is a member until its session is over, and nobody of its name is
let in before; the classic protocol puts the former out. The library gives up for good then, so its client has to be
made anew.

Answers for: how often that is tried, for how long, and saying so once. Touches nothing; the clock is an argument.
"""

import math

import structlog

from consumer.errors import FatalError

RETRY_S = 5.0
RELEASED_WITHIN_S = 120.0
"""A session lasts 45 s, unless the brokers are set otherwise, and 60 s at most. Longer: its process is alive."""

LET_IN_AFTER_S = 30.0
"""Who was not refused for so long has been let in: a member without partitions is told nothing.

It is longer than it takes to try again and be refused.
"""

_log = structlog.get_logger(__name__)


class StaticName:
    """The name of this member.

    Args:
        name: `KAFKA_GROUP_INSTANCE_ID`; None: it has none, and nobody refuses it.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._refused_since = self._refused_at = -math.inf
        self._retry_at: float | None = None

    def refuse(self, now: float) -> None:
        """The group says that another member has it; monotonic seconds."""
        if not self.is_refused(now):
            self._refused_since = now
            remedy = "none needed after a kill: waits until the former process's session is over"
            _log.warning("static_name_not_released", name=self._name, remedy=remedy)
        self._refused_at, self._retry_at = now, now + RETRY_S

    def is_refused(self, now: float) -> bool:
        """Whether it was the last time, as far as is known; what the client says of the group then is of no member."""
        return now - self._refused_at < LET_IN_AFTER_S

    def accept(self) -> None:
        """The group has let us in."""
        self._refused_at, self._retry_at = -math.inf, None

    def is_due(self, now: float) -> bool:
        """Whether to try again now; once for each refusal.

        Raises:
            FatalError: It is refused for longer than any session lasts.
        """
        if self._retry_at is None or now < self._retry_at:
            return False
        if now - self._refused_since >= RELEASED_WITHIN_S:
            why = f"for {RELEASED_WITHIN_S:.0f} s the group has had another member of that name"
            raise FatalError(f"KAFKA_GROUP_INSTANCE_ID={self._name}: {why}: give each process a name of its own")
        self._retry_at = None
        return True
