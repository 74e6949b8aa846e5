"""What decoding a record comes to: what it tells, or why nobody knows. Touches nothing."""

from collections.abc import Sequence

from consumer.errors import DecodeError
from consumer.model import ChangeEvent, Events

Result = Events | DecodeError
"""What a record tells, or why nobody knows."""


def events_of(result: Result) -> Sequence[ChangeEvent]:
    """The change events that a record tells; none where nobody knows."""
    if isinstance(result, DecodeError):
        return ()
    return (result,) if isinstance(result, ChangeEvent) else result


def is_tombstone(result: Result) -> bool:
    """Whether a record is a key alone, and tells of one delete."""
    return isinstance(result, ChangeEvent) and result.tombstone
