"""How a change stands to what was accepted last for its contact, in the order of the source.

Answers for versions, epochs and places in a partition saying which came first, and for when they do not. Touches
nothing else.
"""

from enum import IntEnum

from consumer.model import FROM_A_FILE, Change, State


class Order(IntEnum):
    """How a change stands to the accepted one."""

    OLDER = -1
    SAME = 0
    NEWER = 1
    UNKNOWN = 2


# Bound once, since each record needs them: to find a member in its class takes Python 3.11 longer than a comparison.
_OLDER, _NEWER, _UNKNOWN = Order.OLDER, Order.NEWER, Order.UNKNOWN


def order_of(change: Change, state: State) -> Order:
    """How the change stands to the accepted one: by version, else by the order of the partition."""
    if change.version is None:
        by_offset = change.undecoded or change.replayed or not state.versioned
        return _partition_order(change, state) if by_offset else _UNKNOWN
    if state.version is None:
        return _UNKNOWN
    if change.epoch != state.epoch and change.offset != FROM_A_FILE:
        return _order_of_epochs(change, state)
    if change.version < state.version or _was_read_before(change, state):
        return _OLDER
    if not state.versioned or (change.version == state.version and is_apart(change, state)):
        return _UNKNOWN
    return _NEWER if change.version > state.version else _sign(change.offset - state.offset)


def _was_read_before(change: Change, state: State) -> bool:
    """Whether a snapshot read a grant before the known change was committed, which may stand before it all the same.

    In the same millisecond it may have.
    """
    return change.concurrent and not change.withdrawal and change.occurred_at <= state.occurred_at


def _order_of_epochs(change: Change, state: State) -> Order:
    """Versions of two epochs say nothing of each other: a withdrawal applies, and a grant needs the later time.

    What is of the older epoch and stands before is an old one told again; behind, a clock may have been set back, or
    the contact be of another shard now. What a snapshot read is no grant: a restored database has forgotten who
    withdrew.
    """
    if change.epoch < state.epoch and change.offset < state.offset:
        return _OLDER
    return _OLDER if change.read and not change.withdrawal else _UNKNOWN


def _partition_order(change: Change, state: State) -> Order:
    """Offsets decide, except that a later time wins over a lower offset: then the topic was made anew.

    What is replayed has the lower offset in any case, and its time says nothing. Nor does a higher offset where
    versions were told too: what is sent again comes without those that are older than one of them.
    """
    if is_apart(change, state) or (change.offset > state.offset and _is_earlier_beside_versions(change, state)):
        return _UNKNOWN
    if change.offset < state.offset and change.occurred_at > state.occurred_at and not change.replayed:
        return _NEWER
    return _sign(change.offset - state.offset)


def _is_earlier_beside_versions(change: Change, state: State) -> bool:
    """Whether a change without a version is earlier than the last one, and some before that had versions."""
    return state.version is not None and change.occurred_at < state.occurred_at


def goes_back(change: Change, state: State) -> bool:
    """Whether a withdrawal came later by time and earlier by a position in a log: that may have begun anew unseen."""
    if not change.positional or change.version is None or state.version is None or change.epoch != state.epoch:
        return False
    earlier = change.version < state.version and change.occurred_at > state.occurred_at
    return earlier and not is_committed_since(change, state)


def is_committed_since(change: Change, state: State) -> bool:
    """Whether a change stands before what a snapshot read, and was committed after that: the snapshot did not see it.

    Then its record came behind that of the snapshot; in the same millisecond it counts as committed since. What came
    before was committed before, whatever its time: clocks differ.
    """
    if not state.concurrent or change.version is None or change.read:
        return False
    return change.offset > state.offset and change.occurred_at >= state.occurred_at


def is_apart(change: Change, state: State) -> bool:
    """Whether one of them came from a file: then they have no common order but versions."""
    return FROM_A_FILE in (change.offset, state.offset)


def epoch_of(change: Change, state: State) -> int:
    """In which epoch a change's version counts: a row of a file stands in no log, and so in the one that is known."""
    return state.epoch if change.offset == FROM_A_FILE else change.epoch


def _sign(difference: int) -> Order:
    return Order((difference > 0) - (difference < 0))
