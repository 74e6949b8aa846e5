"""What a change event asks for, and the fingerprints by which contents are told apart.

Answers for identity and fingerprint, and for every withdrawal becoming a change, also one of an event that breaks a
rule or that nobody can decode. Touches nothing else.
"""

import hashlib
from collections.abc import Mapping
from enum import IntFlag
from functools import cache, reduce
from itertools import product
from operator import or_

import orjson
from msgspec.structs import astuple, replace

from consumer.errors import ValidationError
from consumer.model import (
    UNCHANGED,
    Amendment,
    Change,
    ChangeEvent,
    ChangeType,
    Contact,
    Flag,
    Operation,
    Reason,
    State,
    Unchanged,
)

IDENTITY_BYTES = 32

# Bound once, since each record needs them: to find a member in its class takes Python 3.11 longer than a comparison.
_UPSERT, _DELETE = Operation.UPSERT, Operation.DELETE
_DELETES = ChangeType.DELETE


class Withdrawn(IntFlag):
    """What changes of a contact have withdrawn."""

    NOTHING = 0
    CONSENT = 1
    DO_NOT_CALL = 2
    """Not to be called: do-not-call was set."""

    CONTACT = 4
    """It was deleted."""

    PERHAPS_CONSENT = 8
    PERHAPS_NOT_TO_BE_CALLED = 16
    """Nobody could read the flag."""


def of(
    event: ChangeEvent, judged: Contact | Amendment | ValidationError, offset: int, contact_list_id: str
) -> Change | None:
    """The change that an event asks for, rejected or not: as `suppression` or `to_change`."""
    if isinstance(judged, ValidationError):
        return suppression(event, offset, contact_list_id, valid_number(event, judged))
    return to_change(event, judged, offset, contact_list_id)


def valid_number(event: ChangeEvent, error: ValidationError) -> str:
    """The phone number of a rejected event, if that is not among what is wrong with it."""
    return event.phone if isinstance(event.phone, str) and Reason.PHONE_NOT_E164 not in error.reasons else ""


def identity(external_id: str) -> bytes:
    """What a contact is known by in the store: SHA-256 of its external id."""
    return hashlib.sha256(external_id.encode()).digest()


def identity_of_key(key: bytes | None) -> bytes:
    """The identity that a record's key gives, where the key is the external id."""
    return hashlib.sha256(key or b"").digest()


def to_change(
    event: ChangeEvent, contact: Contact | Amendment, offset: int, contact_list_id: str, imprint: bytes = b""
) -> Change:
    """The change that a valid event asks for.

    The contact list id goes into the fingerprint: a state kept for one list never hides a contact from another.

    Args:
        event: What happened.
        contact: What validation made of it.
        offset: Its place in the order of its partition.
        contact_list_id: Part of the fingerprint.
        imprint: What a repeat of its record is told by.
    """
    if isinstance(contact, Amendment):
        return _amending(_UPSERT, event, contact, offset, contact_list_id)
    deletes = event.change_type is _DELETES
    withdraws = deletes or not contact.callable
    change = Change(
        _DELETE if deletes else _UPSERT,
        contact,
        identity(contact.external_id),
        without_content(_DELETE, contact_list_id) if deletes else fingerprint(contact, contact_list_id),
        event.version,
        event.occurred_at,
        offset,
        withdraws,
        imprint=imprint,
        tombstone=event.tombstone,
        granted=_one_of(_grants(contact)) if withdraws else None,
    )
    return replace(change, former=identity(event.former)) if isinstance(event.former, str) else change


def suppression(event: ChangeEvent, offset: int, contact_list_id: str, number: str) -> Change | None:
    """The change that a rejected event still asks for: one that withdraws consent or sets do-not-call suppresses.

    One that tells a flag which is neither true nor false suppresses as a precaution: perhaps it withdraws. All others,
    and those that name nobody, ask for nothing: None.

    Args:
        event: What happened.
        offset: Its place in the order of its partition.
        contact_list_id: Part of the fingerprint.
        number: Its `valid_number`, for the do-not-call list alone: nothing else of a rejected event is trusted.
    """
    withdraws = event.consent is False or event.do_not_call is True
    unreadable = _is_unreadable(event.consent), _is_unreadable(event.do_not_call)
    if not (withdraws or any(unreadable)):
        return None
    if event.named is None:
        return None
    amendment = _without_flags(event.named, event.consent is False, event.do_not_call is True)
    content = _suppressing(contact_list_id, unreadable, _withdraws(amendment))
    suppressing = _amending(Operation.SUPPRESS, event, amendment, offset, contact_list_id)
    return replace(suppressing, fingerprint=content, number=number if withdraws else "", withdrawal=True)


def _is_unreadable(flag: object) -> bool:
    return flag is not UNCHANGED and type(flag) is not bool


def withdrawn(change: Change, contact_list_id: str, before: Withdrawn = Withdrawn.NOTHING) -> Withdrawn:
    """What is withdrawn once a change took the place of others: a suppression takes nothing of that back.

    Args:
        change: The newest of them.
        contact_list_id: Part of its fingerprint.
        before: What the others withdrew.
    """
    if change.operation is _DELETE:
        return Withdrawn.CONTACT
    consent, do_not_call = _unclear_flags(contact_list_id).get(change.fingerprint, (False, False))
    told = {
        Withdrawn.CONSENT: change.contact.consent is False,
        Withdrawn.DO_NOT_CALL: change.contact.do_not_call is True,
        Withdrawn.PERHAPS_CONSENT: consent,
        Withdrawn.PERHAPS_NOT_TO_BE_CALLED: do_not_call,
    }
    kept = before if change.operation is Operation.SUPPRESS else Withdrawn.NOTHING
    return reduce(or_, (flag for flag, holds in told.items() if holds), kept)


def withdrawing(change: Change, before: Withdrawn, contact_list_id: str) -> Change:
    """A suppression by its own flags, and by those by which what it takes the place of withdrew; others as they are."""
    amendment = change.contact
    if change.operation is not Operation.SUPPRESS or not isinstance(amendment, Amendment):
        return change
    flags = withdrawn(change, contact_list_id, before)
    consent, do_not_call = Withdrawn.CONSENT in flags, Withdrawn.DO_NOT_CALL in flags
    unreadable = Withdrawn.PERHAPS_CONSENT in flags, Withdrawn.PERHAPS_NOT_TO_BE_CALLED in flags
    told = replace(
        amendment,
        consent=False if consent else amendment.consent,
        do_not_call=True if do_not_call else amendment.do_not_call,
    )
    content = _suppressing(contact_list_id, unreadable, (consent, do_not_call))
    return replace(change, contact=told, fingerprint=content)


def narrowed(change: Change, counts: tuple[bool, bool], contact_list_id: str) -> Change | None:
    """What a withdrawal, late for all else, still withdraws, or perhaps does; None where that is nothing.

    What it grants beside is late too. So is a delete: a contact that was told of since is there again.

    Args:
        change: The withdrawal.
        counts: Whether what it says of consent still counts, and of do-not-call.
        contact_list_id: Part of the fingerprint.
    """
    if change.operation is _DELETE:
        return None
    unreadable = _both(counts, _unclear_flags(contact_list_id).get(change.fingerprint, (False, False)))
    withdrawn = _both(counts, _withdraws(change.contact))
    if not any((*unreadable, *withdrawn)):
        return None
    amendment = _without_flags(change.contact.external_id, *withdrawn)
    if change.operation is Operation.SUPPRESS:
        content = _suppressing(contact_list_id, unreadable, withdrawn)
    else:
        content = fingerprint(amendment, contact_list_id)
    return replace(change, contact=amendment, fingerprint=content, imprint=b"", granted=None, late=True)


def _both(one: tuple[bool, bool], other: tuple[bool, bool]) -> tuple[bool, bool]:
    return one[0] and other[0], one[1] and other[1]


def _without_flags(external_id: str, consent: bool, do_not_call: bool) -> Amendment:
    """The amendment that withdraws consent, or sets do-not-call, and tells nothing else."""
    flags = False if consent else UNCHANGED, True if do_not_call else UNCHANGED
    return Amendment(external_id, UNCHANGED, UNCHANGED, *flags, {})


def _amending(
    operation: Operation, event: ChangeEvent, amendment: Amendment, offset: int, contact_list_id: str
) -> Change:
    return Change(
        operation,
        amendment,
        identity(amendment.external_id),
        fingerprint(amendment, contact_list_id),
        event.version,
        event.occurred_at,
        offset,
        amendment.withdraws,
    )


def precaution(external_id: str, offset: int, contact_list_id: str) -> Change:
    """The change that a record asks for which nobody can decode, and which may be a withdrawal: do not call for now.

    The flags of the contact are not withdrawn: only what can be read withdraws them.
    """
    return Change(
        Operation.SUPPRESS,
        Amendment(external_id, UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED, {}),
        identity(external_id),
        undecoded(contact_list_id),
        None,
        0,
        offset,
        withdrawal=True,
        undecoded=True,
    )


def merged(
    change: Change, contact: Contact, state: State | None, contact_list_id: str, *, blind: bool = False
) -> Change:
    """What an amendment came to: the same change of the whole contact.

    A precaution holds on where it has to, and of a suppressed contact nobody knows what the CRM says.

    Args:
        change: The amendment.
        contact: What Genesys has now.
        state: What was known before.
        contact_list_id: Part of the fingerprint.
        blind: Whether it was made into something else than what was accepted last.
    """
    content = fingerprint(contact, contact_list_id)
    hidden = blind and _may_hide(change, contact, state)
    left = _left_unclear(change, state, contact_list_id)
    stays = grants_nothing(change, state)
    if hidden or any(left):
        content = undecoded(contact_list_id)
        if not hidden:
            content = unclear(contact_list_id, *left, *_withdraws(change.contact))
    elif change.operation is Operation.SUPPRESS:
        content = change.fingerprint
    elif stays and contact.callable:  # whatever the CRM says next differs from that, a grant with this content too
        content = suppressed(contact_list_id, consent=False, do_not_call=False)
    withdrew = change.withdrew or stays or hidden or any(left)
    granted = None if hidden else _one_of(_granted_then(change, contact, state, left))
    return replace(
        change, contact=contact, fingerprint=content, withdrew=withdrew, granted=granted, told=change.contact
    )


def _may_hide(change: Change, contact: Contact, state: State | None) -> bool:
    """Whether what an amendment was made into, perhaps an older read, may hide a flag that the CRM has withdrawn.

    Not one that it tells, nor one that is withdrawn there, nor one that the CRM is known to have granted.
    """
    flags = zip(_tells(change.contact), _grants(contact), _known_as_granted(state), strict=True)
    return any(shown and not (told or known) for told, shown, known in flags)


def _granted_then(
    change: Change, contact: Contact, state: State | None, unclear_flags: tuple[bool, bool]
) -> tuple[bool, bool]:
    """Whether consent, and do-not-call, are known as granted by the CRM, after an amendment.

    What Genesys shows of a flag that is not told proves no grant, since somebody may have set it there; it may end one.
    """
    flags = zip(_tells(change.contact), _grants(contact), _known_as_granted(state), unclear_flags, strict=True)
    consent, do_not_call = (shown and (told or known) and not unclear_ for told, shown, known, unclear_ in flags)
    return consent, do_not_call


def _known_as_granted(state: State | None) -> tuple[bool, bool]:
    """Whether the CRM is known to have granted consent, and do-not-call, when it told these last."""
    if state is None:
        return False, False
    both = state.callable is True
    return both or state.granted is Flag.CONSENT, both or state.granted is Flag.DO_NOT_CALL


def _one_of(granted: tuple[bool, bool]) -> Flag | None:
    """The flag that alone is granted, of consent and of do-not-call; None where it is none, or both."""
    return {(True, False): Flag.CONSENT, (False, True): Flag.DO_NOT_CALL}.get(granted)


def _grants(contact: Contact) -> tuple[bool, bool]:
    """Whether consent, and do-not-call, let a contact be called."""
    return contact.consent, not contact.do_not_call


def _tells(contact: Contact | Amendment) -> tuple[bool, bool]:
    """Whether consent, and do-not-call, are told."""
    return contact.consent is not UNCHANGED, contact.do_not_call is not UNCHANGED


def held_back(change: Change, state: State | None, contact_list_id: str) -> bool:
    """Whether an amendment leaves its contact not callable, as a precaution.

    A record that nobody could decode may have changed either flag: only who tells both of them says who may be called.
    """
    return any(_left_unclear(change, state, contact_list_id))


def _left_unclear(change: Change, state: State | None, contact_list_id: str) -> tuple[bool, bool]:
    """Whether nobody knows what the CRM says of consent, and of do-not-call, once a change was made of its contact."""
    if not isinstance(change.contact, Amendment):
        return False, False
    flags = _unclear_flags(contact_list_id)
    own = flags.get(change.fingerprint, (False, False))
    before = (False, False) if state is None else flags.get(state.fingerprint, (False, False))
    told = _tells(change.contact)
    return own[0] or (before[0] and not told[0]), own[1] or (before[1] and not told[1])


def grants_nothing(change: Change, state: State | None) -> bool:
    """Whether an amendment tells neither flag of a contact that is not callable: it stays so.

    Genesys may show flags that let somebody call, as after an edit there: the CRM has withdrawn them all the same.
    """
    if state is None or state.callable is not False or not isinstance(change.contact, Amendment):
        return False
    return not any(_tells(change.contact))


def is_applied(change: Change, shown: Contact, state: State, contact_list_id: str) -> bool:
    """Whether a contact is what an amendment of flags alone makes of what was accepted last: its answer got lost."""
    amendment = change.contact
    if not isinstance(amendment, Amendment) or amendment.onto(shown) != shown:
        return False
    before = [
        replace(shown, consent=consent, do_not_call=do_not_call)
        for consent in _before(shown.consent, amendment.consent)
        for do_not_call in _before(shown.do_not_call, amendment.do_not_call)
    ]
    return any(fingerprint(contact, contact_list_id) == state.fingerprint for contact in before)


def _before(shown: bool, told: bool | Unchanged) -> tuple[bool, ...]:
    """What a flag may have been before an amendment told it."""
    return (shown,) if told is UNCHANGED else (False, True)


def under_new_id(change: Change, former: State | None, contact_list_id: str) -> Change:
    """The change of a contact that had another external id: who was not callable under that one is not by it either.

    Args:
        change: What makes the contact under its new id.
        former: What is known of the old id, all that is under way included.
        contact_list_id: Part of the fingerprint.
    """
    if former is None or former.callable is not False or change.withdrawal or not isinstance(change.contact, Contact):
        return replace(change, former=None)
    contact = replace(change.contact, consent=False)
    content = fingerprint(contact, contact_list_id)
    positional, granted = change.version is not None, _one_of(_grants(contact))
    return replace(
        change,
        contact=contact,
        fingerprint=content,
        withdrawal=True,
        positional=positional,
        former=None,
        granted=granted,
    )


def as_delete(change: Change, contact_list_id: str) -> Change:
    """The same withdrawal, carried out as a delete."""
    withdrew = change.withdrew or change.operation is not _DELETE
    fingerprint = without_content(_DELETE, contact_list_id)
    return replace(change, operation=_DELETE, fingerprint=fingerprint, withdrew=withdrew, imprint=b"")


def is_content(contact: Contact, state: State, contact_list_id: str) -> bool:
    """Whether a contact is as it was accepted last; nobody can tell of one that was suppressed."""
    return fingerprint(contact, contact_list_id) == state.fingerprint


def fingerprint(contact: Contact | Amendment, contact_list_id: str) -> bytes:
    """SHA-256 of all that Genesys is told of a contact, and of the list in which it is told."""
    content = orjson.dumps((contact_list_id, *astuple(contact)), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).digest()


def without_content(operation: Operation, contact_list_id: str) -> bytes:
    """Fingerprint of no content, or of unknown content: whatever the CRM says next differs from it, and is sent."""
    return hashlib.sha256(f"{operation} {contact_list_id}".encode()).digest()


def suppressed(contact_list_id: str, *, consent: bool, do_not_call: bool) -> bytes:
    """Fingerprint of a contact of which only withdrawals are known: by consent, by do-not-call, or both.

    One by the other flag differs, and is sent: a grant of one flag must find the other as the CRM has it.
    """
    told = f"{Operation.SUPPRESS} {contact_list_id}" + " consent" * consent + " do_not_call" * do_not_call
    return hashlib.sha256(told.encode()).digest()


def _suppressing(contact_list_id: str, unreadable: tuple[bool, bool], withdrawn: tuple[bool, bool]) -> bytes:
    """Fingerprint of a contact that a rejected event suppresses, by what it says of consent and of do-not-call."""
    if any(unreadable):
        return unclear(contact_list_id, *unreadable, *withdrawn)
    consent, do_not_call = withdrawn
    return suppressed(contact_list_id, consent=consent, do_not_call=do_not_call)


def _withdraws(contact: Contact | Amendment) -> tuple[bool, bool]:
    """Whether consent and do-not-call are plainly withdrawn."""
    return contact.consent is False, contact.do_not_call is True


def unclear(
    contact_list_id: str,
    consent: bool,
    do_not_call: bool,
    consent_withdrawn: bool = False,
    do_not_call_withdrawn: bool = False,
) -> bytes:
    """Fingerprint of a contact that is not callable as a precaution, since nobody could read these flags of it.

    What is plainly withdrawn beside them is part of it: another one by another flag differs, and is sent.
    """
    which = "" if consent and do_not_call else " consent" if consent else " do_not_call"
    beside = " withdrawn consent" * consent_withdrawn + " withdrawn do_not_call" * do_not_call_withdrawn
    return hashlib.sha256(f"precaution {contact_list_id}{which}{beside}".encode()).digest()


def undecoded(contact_list_id: str) -> bytes:
    """Fingerprint of a contact of whom nobody could read anything; no content has it."""
    return unclear(contact_list_id, consent=True, do_not_call=True)


@cache
def _unclear_flags(contact_list_id: str) -> Mapping[bytes, tuple[bool, bool]]:
    """Which flags are unclear, by fingerprint."""
    return {
        unclear(contact_list_id, *flags, *beside): flags
        for flags in ((True, True), (True, False), (False, True))
        for beside in product((False, True), repeat=2)
    }


@cache
def withheld(contact_list_id: str) -> frozenset[bytes]:
    """The fingerprints of contacts that are not callable whatever their flags in Genesys say."""
    both = product((False, True), repeat=2)
    suppressions = [suppressed(contact_list_id, consent=consent, do_not_call=flag) for consent, flag in both]
    return frozenset([*suppressions, *_unclear_flags(contact_list_id)])
