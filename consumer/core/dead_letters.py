"""Which works become dead letters, and their form: headers, written and read, and what these become in a replay.

Answers for which place in the order a replayed record has. It stands at the end of its partition and tells of an
earlier moment: where events have no version, the offset is their order, and an old grant would undo a withdrawal that
came after it. So a replayed record says where it stood first and when Kafka got it, and counts as if it still stood
there.

Touches nothing else. What is read was perhaps written by somebody else, so only codes in their known form, positions,
numbers and printable text leave here.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC

from msgspec import Struct
from msgspec.structs import replace

from consumer.core.moments import MAX_MS, iso, kafka_time, milliseconds
from consumer.model import GIVEN_UP, DeadLetter, Headers, Position, Record, Work

_PREFIX = "dead-letter."
_REASON, _DETAIL, _SOURCE, _TIME = (_PREFIX + name for name in ("reason", "detail", "source", "time"))
_ATTEMPT = _PREFIX + "attempt"
_ORIGIN = _PREFIX + "origin"
_TIMESTAMP = _PREFIX + "timestamp"

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,99}")
_NUMBER = re.compile(r"[0-9]{1,9}")


class Letter(Struct, frozen=True, gc=False):
    """What the headers of a dead letter say.

    Attributes:
        reason: The first reason code.
        detail: What to look at, without contact data.
        source: Where the record stood when it was given up.
        origin: Where it stood before it was ever replayed.
        time_ms: When it was given up, milliseconds since the epoch, UTC.
        got_ms: When Kafka got the record first; the same where an earlier release wrote the letter.
        attempt: How often it had been replayed before.
    """

    reason: str
    detail: str
    source: Position
    origin: Position
    time_ms: int
    got_ms: int
    attempt: int


def letters_of(works: Iterable[Work], now_ms: int) -> list[DeadLetter]:
    """The dead letters of those works that were given up."""
    return [DeadLetter(work.record, work.reasons[0], work.detail, now_ms) for work in works if work.outcome in GIVEN_UP]


def headers(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: those of the record as they came, and ours after them.

    When Kafka got it first is said once, also of a record that was replayed and says it already.
    """
    record = letter.record
    said = {_TIMESTAMP} if is_replayed(record) else set()
    return [
        *(header for header in record.headers if header[0] not in said),
        (_REASON, letter.reason.encode()),
        (_DETAIL, letter.detail.encode()),
        (_SOURCE, str(record.position).encode()),
        (_TIME, iso(letter.time_ms).encode()),
        (_TIMESTAMP, iso(kafka_time(as_told_first(record))).encode()),
    ]


def read(found: Headers) -> Letter | None:
    """What headers of the dead letter topic say; None when they are not those of a dead letter."""
    last = {name: value for name, value in found if name.startswith(_PREFIX) and value is not None}
    try:
        source, time = _position(last[_SOURCE]), last[_TIME]
        return Letter(
            _matching(_CODE, last[_REASON])[0],
            _printable(last.get(_DETAIL, b"")),
            source,
            _position(last[_ORIGIN]) if _ORIGIN in last else source,
            _moment(time),
            _moment(last.get(_TIMESTAMP, time)),
            _attempt(last),
        )
    except (KeyError, ValueError, OverflowError):
        return None


def replayed(found: Headers, letter: Letter) -> list[tuple[str, bytes | None]]:
    """The headers with which the record of a letter goes back to its source."""
    kept = [(name, value) for name, value in found if not name.startswith(_PREFIX)]
    return [
        *kept,
        (_ATTEMPT, str(letter.attempt + 1).encode()),
        (_ORIGIN, str(letter.origin).encode()),
        (_TIMESTAMP, iso(letter.got_ms).encode()),
    ]


def is_replayed(record: Record) -> bool:
    """Whether a record was given up before, and put back."""
    return any(name == _ORIGIN for name, _ in record.headers)


def as_told_first(record: Record) -> Record:
    """A replayed record with the time at which Kafka got it first: by that of the replay it would be news."""
    if not (record.headers and is_replayed(record)):
        return record
    told = dict(record.headers).get(_TIMESTAMP) or b""
    with suppress(ValueError, OverflowError):
        return replace(record, timestamp_ms=min(_moment(told), record.timestamp_ms))
    return record


def place_in_order(record: Record) -> int:
    """The offset at which a record counts in its partition: a replayed one counts where it stood first."""
    for name, value in record.headers:
        if name == _ORIGIN and value is not None:
            return _origin_offset(record, value)
    return record.offset


def _origin_offset(record: Record, value: bytes) -> int:
    """Never later than where the record stands: a header may not make what follows count as old."""
    try:
        origin = _position(value)
    except ValueError:
        return record.offset
    moved = (origin.topic, origin.partition) != (record.topic, record.partition)
    return record.offset if moved else min(origin.offset, record.offset)


def _attempt(last: Mapping[str, bytes]) -> int:
    return int(_matching(_NUMBER, last[_ATTEMPT])[0]) if _ATTEMPT in last else 0


def _moment(value: bytes) -> int:
    return min(max(milliseconds(value.decode(), zone=UTC), 0), MAX_MS)


def _position(value: bytes) -> Position:
    position = Position.of(value.decode())
    if position is None:
        raise ValueError("a header of another form")
    return position


def _matching(form: re.Pattern[str], value: bytes) -> re.Match[str]:
    match = form.fullmatch(value.decode())
    if match is None:
        raise ValueError("a header of another form")
    return match


def _printable(value: bytes) -> str:
    """Text as it is, but for what could play tricks on a terminal."""
    return "".join(letter for letter in value.decode(errors="replace") if letter.isprintable())
