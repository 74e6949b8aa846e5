"""Says when most records of a topic are rejected: then it is not the records that are wrong, but how they are read.

A framing, an envelope or a mapping that does not fit makes every record a dead letter, withdrawals among them, and
nothing else stops or slows down. Touches the log.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from consumer.core.last_minute import LastMinute
from consumer.model import Outcome, Work

log = structlog.get_logger(__name__)

_REJECTED = Outcome.REJECTED  # bound once: to find a member in its class takes Python 3.11 longer than a comparison

TOLD_EVERY_S = 30.0
MOST = 0.5

A_HANDFUL = 5
"""Fewer in a minute may be bad ones by chance."""


class Rejections:
    """Looks at what is settled of each topic.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._topics: dict[str, _OfTopic] = {}

    def note(self, topic: str, works: Sequence[Work]) -> None:
        """Records of a topic are settled; at most every 30 s it is said that most of them are rejected."""
        if topic not in self._topics:
            self._topics[topic] = _OfTopic(topic, self._clock)
        self._topics[topic].note(works)


class _OfTopic:
    """What was rejected of one topic, and for what since that was said last."""

    def __init__(self, topic: str, clock: Callable[[], float]) -> None:
        self._topic = topic
        self._clock = clock
        self._minute = LastMinute(clock)
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, tuple[str, str]] = {}
        self._tell_at = 0.0

    def note(self, works: Sequence[Work]) -> None:
        rejected = [work for work in works if work.outcome is _REJECTED]
        self._minute.add(len(works), len(rejected))
        if self._minute.share() <= MOST:
            self._forget()
            return
        for work in rejected:
            self._keep(", ".join(work.reasons), work)
        if self._counts and self._minute.refused >= A_HANDFUL and self._clock() >= self._tell_at:
            self._tell()

    def _keep(self, reason: str, work: Work) -> None:
        self._counts[reason] += 1
        self._examples[reason] = str(work.record.position), work.detail

    def _tell(self) -> None:
        ((reason, _),) = self._counts.most_common(1)
        position, detail = self._examples[reason]
        log.warning(
            "records_are_rejected",
            topic=self._topic,
            records=self._minute.refused,
            share=round(self._minute.share(), 2),
            reason=reason,
            detail=detail,
            record=position,
            remedy=f"see check --explain {position}: do SOURCE_FRAMING, SOURCE_ENVELOPE and SOURCE_MAPPING fit? "
            f"Then dead-letters replay --topic {self._topic}, without --reason: one cause has letters of several",
        )
        self._tell_at = self._clock() + TOLD_EVERY_S
        self._forget()

    def _forget(self) -> None:
        self._counts.clear()
        self._examples.clear()
