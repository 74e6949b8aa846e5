"""What values of rows stand for: external ids, texts, versions and times, whichever types sources write them in.

Touches nothing else.
"""

from contextlib import suppress
from datetime import UTC

from consumer.core import keys
from consumer.core.mapping_tables import CHANGE_TYPES, as_key
from consumer.core.moments import MAX_MS, kafka_time, milliseconds
from consumer.errors import DecodeError, undecodable
from consumer.model import MAX_VERSION, UNCHANGED, ChangeType, Record

_MAX_DIGITS = 20
_UNITS = ((10**9, 10**10, 1000, 1), (10**12, 10**13, 1, 1), (10**15, 10**16, 1, 1000), (10**18, 10**19, 1, 10**6))
"""Lowest and highest count of seconds, milli-, micro- and nanoseconds for 2001 to 2286, with factor and divisor."""


def names_somebody(external_id: object) -> bool:
    """Whether this is an external id, and not what databases put where they do not tell one."""
    return isinstance(external_id, str) and external_id.strip() not in {"", "0"}


def as_identifier(value: object) -> object:
    """The text of an external id; what is neither text nor a whole number is left to validation."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return str(value) if type(value) is int else value


def as_named_by_key(value: object) -> object:
    """As `as_identifier`; a key that is no external id names nobody, as it does in a tombstone."""
    return keys.as_text(value.encode(errors="surrogatepass")) if isinstance(value, str) else as_identifier(value)


def as_text(value: object) -> object:
    """The text of an attribute; an absent one is empty.

    Raises:
        DecodeError: It is neither text, number nor boolean.
    """
    if value is UNCHANGED or isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        return as_key(value)
    raise undecodable(f"an attribute is of type {type(value).__name__}, and not text, a number or a boolean")


def as_change_type(value: object) -> ChangeType:
    """What happened, by its name.

    Raises:
        DecodeError: Nothing has that name.
    """
    change_type = CHANGE_TYPES.get(str(value))
    if change_type is None:
        raise undecodable("what happened is not one of the values that SOURCE_MAPPING knows for change_type")
    return change_type


def as_version(value: object) -> int | None:
    """A whole number of 64 bits, as such or as text; None where it is not told.

    Raises:
        DecodeError: It is none.
    """
    if value is None or value is UNCHANGED:
        return None
    number = int(value) if isinstance(value, str) and is_digits(value) else value
    if type(number) is not int or not 0 <= number <= MAX_VERSION:
        raise undecodable("version is not a whole number of 64 bits")
    return number


def is_digits(text: str) -> bool:
    """Whether a text is a whole number of at most 64 bits; longer ones Python would not even read."""
    return len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit()


def as_time(value: object) -> int | None:
    """Milliseconds of a count whose size tells its unit, or of an ISO 8601 text: UTC without a zone. None: not told.

    Raises:
        DecodeError: It is no time from 2001 on.
    """
    if value is None or value is UNCHANGED:
        return None
    if type(value) is int:
        for low, high, factor, divisor in _UNITS:
            if low <= value < high:
                return value * factor // divisor
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            return _as_milliseconds(milliseconds(value, zone=UTC))
    raise undecodable("occurred_at is not a time from 2001 on")


def in_milliseconds(value: object, record: Record) -> tuple[int, str]:
    """A time that an envelope gives, as `_as_milliseconds`, or Kafka's and what is wrong."""
    try:
        return _as_milliseconds(value), ""
    except DecodeError as error:
        return kafka_time(record), error.detail


def _as_milliseconds(value: object) -> int:
    """A time that an envelope gives in milliseconds since the epoch.

    Raises:
        DecodeError: It is none.
    """
    if type(value) is int and 0 <= value <= MAX_MS:
        return value
    raise undecodable("the time of the change is not one in milliseconds since the epoch")
