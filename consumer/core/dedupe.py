"""Judges a change against what was delivered for its contact before: new, changed, duplicate or stale.

Answers for the verdict, and for the state that each change leaves. Touches nothing else. A duplicate is the same
contact with the same content; identity alone is never enough, it would swallow a withdrawn consent.
"""

from msgspec.structs import asdict, replace

from consumer.core.changes import grants_beside, grants_nothing, is_precaution, narrowed
from consumer.core.fingerprints import BOTH, Flags, no_content, undecoded, unknown_content
from consumer.core.order import Order, epoch_of, goes_back, is_committed_since, order_of
from consumer.model import FROM_A_FILE, MAX_VERSION, UNCHANGED, Change, Contact, Operation, Place, State, Verdict

BEFORE_ALL = -1
"""A time before that of every change, of which the first is 0."""

# Bound once, since each record needs them: to find a member in its class takes Python 3.11 longer than a comparison.
_NEW, _CHANGED, _DUPLICATE, _STALE = Verdict
_DELETE = Operation.DELETE
_OLDER, _NEWER, _UNKNOWN = Order.OLDER, Order.NEWER, Order.UNKNOWN

_NOTHING_ACCEPTED = State(b"", None, versioned=False, occurred_at=BEFORE_ALL, offset=FROM_A_FILE, deleted=False)


def repeats(offset: int, imprint: bytes, state: State) -> bool:
    """Whether a record is what its contact was accepted with, byte for byte, and no older: a duplicate for sure.

    Read in the same way it is the same change, with the same version and content, and nothing came between. One that
    stands before the accepted one may be stale; of a file nobody knows where its rows stand. Behind it, a repeat moves
    the place of what has no version, and of a withdrawal.
    """
    if imprint == b"" or imprint != state.imprint or state.offset == FROM_A_FILE:
        return False
    grants = state.callable is True and not state.deleted
    return offset == state.offset or (offset > state.offset and state.versioned and grants)


def is_told_again(change: Change, state: State) -> bool:
    """Whether a change has the very version that its contact was made or changed with.

    With the version of a delete it is another row's: a statement that changes many has one position for all of them.
    """
    same = (change.epoch, change.version) == (state.epoch, state.version)
    return change.version is not None and same and not state.deleted


def judge(change: Change, state: State | None) -> Verdict:
    """Compare a change with the state of its contact; None: nothing was delivered yet."""
    if state is None:
        return _NEW
    order = order_of(change, state)
    if order is _OLDER and not (goes_back(change, state) or is_committed_since(change, state)):
        return _STALE
    if change.fingerprint == state.fingerprint:
        return _DUPLICATE
    if order is not _UNKNOWN or change.withdrawal:
        return _CHANGED
    if change.replayed and change.offset < state.offset:
        return _STALE
    return _CHANGED if change.occurred_at > _known_at(change, state) or _is_made_anew(change, state) else _STALE


def _known_at(change: Change, state: State) -> int:
    """The time after which a grant counts that has no order against what is known.

    Of a tombstone that is Kafka's for a row of a file. A row of the stream may come behind it with an earlier one.
    """
    if change.offset == FROM_A_FILE and state.deleted and state.consent_at is not None:
        return max(state.occurred_at, state.consent_at.occurred_at)
    return state.occurred_at


def _is_later(change: Change, state: State) -> bool:
    """Whether a change that applies is newer than what is known: by its order or, where there is none, by its time."""
    return order_of(change, state) is not _UNKNOWN or change.occurred_at > state.occurred_at


def judged(change: Change, state: State | None, contact_list_id: str) -> tuple[Change, Verdict]:
    """As `judge`, and what is to be done: of a stale withdrawal, the flags of which nothing newer was told.

    So too of one that applies without being known as newer: it withdraws, and grants nothing beside.
    """
    verdict = judge(change, state)
    if state is None or not change.withdrawal:
        return change, verdict
    if verdict is _CHANGED and not _is_later(change, state) and grants_beside(change, state):
        return narrowed(change, BOTH, contact_list_id) or change, verdict
    if verdict is not _STALE:
        return change, verdict
    counts = Flags(_counts(change, state, state.consent_at), _counts(change, state, state.do_not_call_at))
    late = narrowed(change, counts, contact_list_id)
    if late is None or late.fingerprint == state.fingerprint:
        return change, verdict
    return late, _CHANGED


def _counts(change: Change, state: State, place: Place | None) -> bool:
    """Whether a withdrawal, stale against the last accepted change, counts against the one that told this flag last.

    `place` None: that is the same change, so it does not.
    """
    return place is not None and judge(change, replace(state, **asdict(place))) is not _STALE


def _is_made_anew(change: Change, state: State) -> bool:
    """Whether a contact that was deleted without a version comes again behind that, at the same moment.

    One transaction deletes a row and makes it anew, or one second of a database that counts no finer. Not so of who had
    withdrawn: that grant needs the later time.
    """
    if change.version is None or not state.deleted or state.callable is False:
        return False
    if state.version is not None and change.epoch != state.epoch:
        return False
    return change.occurred_at == state.occurred_at and change.offset > state.offset != FROM_A_FILE


def releases(change: Change, state: State | None) -> bool:
    """Whether a change lets its contact's number off the do-not-call list: a grant that is provably the newer one.

    By its version; where neither has one, by the order of the partition, of which a later time alone proves nothing.
    """
    if state is None or not state.blocked or change.withdrawal:  # whatever is no upsert is one
        return False
    ordered = change.version is not None or change.offset > state.offset
    return ordered and order_of(change, state) is _NEWER


def accepted(change: Change, state: State | None, *, blocks: bool = False) -> State:
    """The state of the contact once Genesys accepted the change.

    Args:
        change: What was accepted.
        state: What was known before.
        blocks: Whether there is a do-not-call list.
    """
    if state is None:
        return _with_places(_made(change, None, blocks=blocks), change, _NOTHING_ACCEPTED)
    if change.undecoded:
        return _still_undecoded(change, state)
    if change.late:
        return _accepted_late(change, state, blocks=blocks)
    made = _made(change, state, blocks=blocks)
    if _has_kafkas_time(change, state):
        made = replace(made, occurred_at=state.occurred_at)
    return _with_places(_held_by_a_file(_in_its_order(made, change, state), change, state), change, state)


def _has_kafkas_time(change: Change, state: State) -> bool:
    """Whether a tombstone's time is of another clock than what is known: a row made at once may be before it."""
    return change.tombstone and change.version is None and state.version is not None


def _made(change: Change, state: State | None, *, blocks: bool) -> State:
    """The state that a change leaves, as far as its place in the order and its content go."""
    epoch, version = _version(change, state)
    callable_ = _callable(change, state)
    deletes = change.operation is _DELETE
    return State(
        change.fingerprint,
        version,
        change.version is not None and (state is None or epoch_of(change, state) == epoch),
        change.occurred_at,
        change.offset,
        deletes,
        blocks and change.withdrawal and not deletes,
        epoch,
        callable_,
        change.imprint,
        change.concurrent,
        change.granted if callable_ is False and not deletes else None,
    )


def _accepted_late(change: Change, state: State, *, blocks: bool) -> State:
    """The state after a late withdrawal. All places stay: what is newer has its own, what is as late does no harm."""
    deletes = change.operation is _DELETE
    return replace(
        state,
        fingerprint=change.fingerprint,
        deleted=deletes,
        blocked=blocks and not deletes,
        callable=False,
        imprint=change.imprint,
        granted=None if deletes else change.granted,
    )


def _with_places(made: State, change: Change, before: State) -> State:
    """The state after a change, with the places of what told the flags last that it does not tell.

    A delete leaves none: who comes again has to come whole. But a tombstone leaves its own, which has Kafka's time.
    """
    told = change.told or change.contact
    if _has_kafkas_time(change, before):
        place = Place(made.version, made.versioned, change.occurred_at, made.offset, made.epoch)
        return replace(made, consent_at=place, do_not_call_at=place)
    if isinstance(told, Contact) or change.operation is _DELETE:
        flagged = made.consent_at or made.do_not_call_at
        return replace(made, consent_at=None, do_not_call_at=None) if flagged else made
    place = Place(before.version, before.versioned, before.occurred_at, before.offset, before.epoch, before.concurrent)
    return replace(
        made,
        consent_at=before.consent_at or place if told.consent is UNCHANGED else None,
        do_not_call_at=before.do_not_call_at or place if told.do_not_call is UNCHANGED else None,
    )


def _still_undecoded(change: Change, state: State) -> State:
    """The state after a change that nobody could decode.

    Version and time stay those of what was read last, and a late one does not move the offset back. As it may be a
    withdrawal, nothing is provably newer than what is known of that.
    """
    return replace(
        state,
        fingerprint=change.fingerprint,
        offset=FROM_A_FILE if state.offset == FROM_A_FILE else max(change.offset, state.offset),
        deleted=change.operation is _DELETE,
        blocked=False,
        callable=False,
        imprint=b"",
        granted=None,
    )


def _callable(change: Change, state: State | None) -> bool | None:
    """Whether the contact is callable after a change; a delete says nothing of that, nor do most amendments."""
    before = None if state is None else state.callable
    if change.withdrew or (change.withdrawal and change.operation is not _DELETE):
        return False
    if change.operation is _DELETE or (state is not None and change.fingerprint == state.fingerprint):
        return before
    if isinstance(change.contact, Contact):
        return change.contact.callable
    return True if change.contact.consent is True and change.contact.do_not_call is False else before


def _version(change: Change, state: State | None) -> tuple[int, int | None]:
    """The highest version accepted so far, and its epoch.

    One that went back leaves a version above the highest: what was granted under that one is older, told again or not.
    """
    if state is None or state.version is None:
        return change.epoch, change.version
    epoch = epoch_of(change, state)
    if change.version is None or epoch < state.epoch:
        return state.epoch, state.version
    if goes_back(change, state):
        return state.epoch, min(state.version + 1, MAX_VERSION)
    return epoch, change.version


def noted(change: Change, state: State | None) -> State:
    """The state after a withdrawal from a contact that is not in Genesys: no older grant may come after it."""
    return replace(accepted(change, state), deleted=True)


def is_deleted_by_us(state: State | None, contact_list_id: str) -> bool:
    """Whether a delete is what was accepted last.

    Who was only noted may be in Genesys by now: by another partition or group, or by somebody's import.
    """
    return state is not None and state.deleted and state.fingerprint == no_content(contact_list_id)


def forgotten(state: State, contact_list_id: str) -> State:
    """The state of a contact whose content in Genesys nobody knows: whatever the CRM says next is sent."""
    fingerprint = unknown_content(contact_list_id)
    return replace(state, fingerprint=fingerprint, blocked=False, imprint=b"", granted=None)


def given_up(change: Change, state: State | None, contact_list_id: str) -> State:
    """The state after a change that was given up: it may have been applied all the same, but the order stays.

    One that lets nobody call has not done so either: a precaution holds on, and so does a withdrawal.
    """
    state = state or _NOTHING_ACCEPTED
    if is_precaution(change, state, contact_list_id):
        return replace(state, imprint=b"", granted=None)
    callable_ = False if grants_nothing(change, state) else None
    fingerprint = unknown_content(contact_list_id)
    return replace(state, fingerprint=fingerprint, deleted=False, callable=callable_, imprint=b"", granted=None)


def as_held(state: State | None, contact_list_id: str) -> State:
    """The state of a contact that Genesys shows as not callable although its flags let somebody call.

    Where it is not known whether it was left callable, it is not as a precaution: another partition may know why.
    """
    if state is not None and state.callable is not None:
        return state
    return replace(state or _NOTHING_ACCEPTED, fingerprint=undecoded(contact_list_id), callable=False)


def from_a_file(state: State) -> State:
    """The state as the stream is to find it: no offset of a partition stands above or below it."""
    consent_at, do_not_call_at = (
        place and replace(place, offset=FROM_A_FILE) for place in (state.consent_at, state.do_not_call_at)
    )
    return replace(state, offset=FROM_A_FILE, consent_at=consent_at, do_not_call_at=do_not_call_at)


def advanced(change: Change, state: State) -> State | None:
    """The state after a duplicate: a newer version is remembered, or a later place of what has none; else None.

    So is that a flag was told again, where it was told before what is known.
    """
    made = _moved_on(change, state)
    if made is None and (state.consent_at or state.do_not_call_at) and order_of(change, state) is _NEWER:
        made = state
    return made if made is None or change.undecoded else _with_places(made, change, state)


def _moved_on(change: Change, state: State) -> State | None:
    """The state after a duplicate, with its order alone; None where that stays."""
    if change.version is None:
        return _said_again(change, state)
    epoch = epoch_of(change, state)
    if (epoch, change.version) == (state.epoch, state.version):
        return _withdrawn_again(change, state)
    if state.version is not None and (epoch, change.version) < (state.epoch, state.version):
        return None
    if change.concurrent and change.occurred_at <= state.occurred_at:
        return None  # of a snapshot that may not have seen what is known: all that was committed since would apply anew
    made = replace(
        state,
        concurrent=change.concurrent,
        version=change.version,
        versioned=True,
        occurred_at=change.occurred_at,
        offset=change.offset,
        epoch=epoch,
        imprint=change.imprint,
    )
    return _held_by_a_file(_in_its_order(made, change, state), change, state)


def _said_again(change: Change, state: State) -> State | None:
    """The state after a duplicate without a version, None where it stays: what stood before comes after it no more.

    Of a grant beside a version nobody knows where it stands. What cannot be decoded tells no time.
    """
    if change.offset == FROM_A_FILE:
        later = change.occurred_at > state.occurred_at
        return from_a_file(replace(state, versioned=False, occurred_at=change.occurred_at)) if later else None
    if not change.offset > state.offset != FROM_A_FILE or (state.versioned and not change.withdrawal):
        return None
    if change.undecoded:
        return replace(state, offset=change.offset)
    time = state.occurred_at if _has_kafkas_time(change, state) else max(change.occurred_at, state.occurred_at)
    sent_again = state.versioned and change.occurred_at < state.occurred_at  # then so is what followed it
    return replace(state, versioned=sent_again, occurred_at=time, offset=change.offset, imprint=change.imprint)


def _withdrawn_again(change: Change, state: State) -> State | None:
    """The state after a duplicate of the same version: of a withdrawal it stands where that was told last.

    Of a grant it does not: a topic that is written once more would have each of them remembered anew.
    """
    if change.withdrawal and state.versioned and change.offset > state.offset != FROM_A_FILE:
        return replace(state, offset=change.offset, imprint=change.imprint)
    return None


def _in_its_order(made: State, change: Change, before: State) -> State:
    """The state after a withdrawal or a repeat that cannot be ordered against what is known, and is earlier.

    By its time it may be sent again: then so is what followed it, which has to find what is known with its order and
    time. Replayed from before what is known, what stood between is replayed too.
    """
    if before.offset == FROM_A_FILE or order_of(change, before) is not _UNKNOWN:
        return made
    if change.replayed and change.offset < before.offset:
        return replace(made, versioned=before.versioned, occurred_at=before.occurred_at, offset=before.offset)
    if change.occurred_at >= before.occurred_at:
        return made
    return replace(made, versioned=before.versioned, occurred_at=before.occurred_at)


def _held_by_a_file(made: State, change: Change, before: State) -> State:
    """The state that a change made while the stream is behind the file in time.

    A withdrawal applies also then, and a duplicate does no harm. But neither begins the order of the partition: the
    grant that follows there may be as old, and must not come after a file that withdraws. After one that grants, a
    withdrawal does begin it: what followed there led to what the file says.
    """
    held = before.offset == FROM_A_FILE and change.occurred_at <= before.occurred_at
    if not held or order_of(change, before) is not _UNKNOWN:
        return made
    if change.withdrawal and before.callable:
        return replace(made, occurred_at=before.occurred_at)
    return replace(made, versioned=False, occurred_at=before.occurred_at, offset=FROM_A_FILE)
