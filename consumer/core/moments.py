"""Moments: milliseconds since the epoch, UTC, and the texts that stand for them.

Answers for which times a change may have. Touches nothing.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal

from consumer.model import Record

MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_EPOCH = datetime.fromtimestamp(0, UTC)


def kafka_time(record: Record) -> int:
    """When Kafka got a record, within the times that a change may have: a producer may give any, or none (-1)."""
    return min(max(record.timestamp_ms, 0), MAX_MS)


def milliseconds(text: str, *, zone: tzinfo | None = None) -> int:
    """The moment that an ISO 8601 text names.

    Args:
        text: Date and time.
        zone: That of a text which names none; None: it must.

    Raises:
        ValueError: It names no moment.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError("no time zone is given")
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def iso(time_ms: int, timespec: Literal["milliseconds", "seconds"] = "milliseconds") -> str:
    """A moment as ISO 8601."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec=timespec).replace("+00:00", "Z")
