"""What a change event asks for, and what an amendment comes to.

Answers for every withdrawal becoming a change, also one of an event that breaks a rule or that nobody can decode, and
for nothing granting what it does not tell. Touches nothing else.
"""

from enum import IntFlag
from functools import reduce
from operator import or_

from msgspec.structs import replace

from consumer.core.fingerprints import (
    BOTH,
    NEITHER,
    Flags,
    fingerprint,
    identity,
    is_content,
    no_content,
    suppressed,
    unclear,
    unclear_flags,
    undecoded,
)
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

# Bound once, since each record needs them: to find a member in its class takes Python 3.11 longer than a comparison.
_UPSERT, _DELETE, _SUPPRESS = Operation
_DELETE_EVENT = ChangeType.DELETE


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
    deletes = event.change_type is _DELETE_EVENT
    withdraws = deletes or not contact.callable
    change = Change(
        _DELETE if deletes else _UPSERT,
        contact,
        identity(contact.external_id),
        no_content(contact_list_id) if deletes else fingerprint(contact, contact_list_id),
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
    withdrawn = Flags(event.consent is False, event.do_not_call is True)
    unreadable = Flags(_is_unreadable(event.consent), _is_unreadable(event.do_not_call))
    if event.named is None or not (withdrawn.any or unreadable.any):
        return None
    amendment = _without_flags(event.named, withdrawn)
    content = _suppressing(contact_list_id, unreadable, withdrawn)
    suppressing = _amending(_SUPPRESS, event, amendment, offset, contact_list_id)
    return replace(suppressing, fingerprint=content, number=number if withdrawn.any else "", withdrawal=True)


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
    plainly, perhaps = _withdraws(change.contact), _unclear_flags_of(change, contact_list_id)
    told = {
        Withdrawn.CONSENT: plainly.consent,
        Withdrawn.DO_NOT_CALL: plainly.do_not_call,
        Withdrawn.PERHAPS_CONSENT: perhaps.consent,
        Withdrawn.PERHAPS_NOT_TO_BE_CALLED: perhaps.do_not_call,
    }
    kept = before if change.operation is _SUPPRESS else Withdrawn.NOTHING
    return reduce(or_, (flag for flag, holds in told.items() if holds), kept)


def withdrawing(change: Change, before: Withdrawn, contact_list_id: str) -> Change:
    """A suppression by its own flags, and by those by which what it takes the place of withdrew; others as they are."""
    amendment = change.contact
    if change.operation is not _SUPPRESS or not isinstance(amendment, Amendment):
        return change
    all_withdrawn = withdrawn(change, contact_list_id, before)
    plainly = Flags(Withdrawn.CONSENT in all_withdrawn, Withdrawn.DO_NOT_CALL in all_withdrawn)
    perhaps = Flags(Withdrawn.PERHAPS_CONSENT in all_withdrawn, Withdrawn.PERHAPS_NOT_TO_BE_CALLED in all_withdrawn)
    told = replace(
        amendment,
        consent=False if plainly.consent else amendment.consent,
        do_not_call=True if plainly.do_not_call else amendment.do_not_call,
    )
    return replace(change, contact=told, fingerprint=_suppressing(contact_list_id, perhaps, plainly))


def narrowed(change: Change, counts: Flags, contact_list_id: str) -> Change | None:
    """What a withdrawal, late for all else, still withdraws, or perhaps does; None where that is nothing.

    What it grants beside is late too. So is a delete: a contact that was told of since is there again.

    Args:
        change: The withdrawal.
        counts: Whether what it says of a flag still counts.
        contact_list_id: Part of the fingerprint.
    """
    if change.operation is _DELETE:
        return None
    plainly = _in_both(counts, _withdraws(change.contact))
    perhaps = _in_both(counts, _unclear_flags_of(change, contact_list_id))
    if not (plainly.any or perhaps.any):
        return None
    amendment = _without_flags(change.contact.external_id, plainly)
    if change.operation is _SUPPRESS:
        content = _suppressing(contact_list_id, perhaps, plainly)
    else:
        content = fingerprint(amendment, contact_list_id)
    return replace(change, contact=amendment, fingerprint=content, imprint=b"", granted=None, late=True)


def _in_both(one: Flags, other: Flags) -> Flags:
    return Flags(one.consent and other.consent, one.do_not_call and other.do_not_call)


def _without_flags(external_id: str, withdrawn: Flags) -> Amendment:
    """The amendment that withdraws consent, or sets do-not-call, and tells nothing else."""
    consent = False if withdrawn.consent else UNCHANGED
    do_not_call = True if withdrawn.do_not_call else UNCHANGED
    return Amendment(external_id, UNCHANGED, UNCHANGED, consent, do_not_call, {})


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
        _SUPPRESS,
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
    hides = blind and _may_hide(change, contact, state)
    left = BOTH if hides else _left_unclear(change, state, contact_list_id)
    stays = grants_nothing(change, state)
    if hides:
        content = undecoded(contact_list_id)
    else:
        content = _merged_content(change, contact, contact_list_id, left, stays=stays)
    return replace(
        change,
        contact=contact,
        fingerprint=content,
        withdrew=change.withdrew or stays or left.any,
        granted=_one_of(_granted_then(change, contact, state, left)),
        told=change.contact,
    )


def _merged_content(change: Change, contact: Contact, contact_list_id: str, left: Flags, *, stays: bool) -> bytes:
    """The fingerprint of what an amendment came to, of which these flags are left unclear; `stays` not callable."""
    if left.any:
        return unclear(contact_list_id, left, _withdraws(change.contact))
    if change.operation is _SUPPRESS:
        return change.fingerprint
    if stays and contact.callable:  # whatever the CRM says next differs from that, a grant with this content too
        return suppressed(contact_list_id, NEITHER)
    return fingerprint(contact, contact_list_id)


def _may_hide(change: Change, contact: Contact, state: State | None) -> bool:
    """Whether what an amendment was made into, perhaps an older read, may hide a flag that the CRM has withdrawn.

    Not one that it tells, nor one that is withdrawn there, nor one that the CRM is known to have granted.
    """
    told, shown, known = _tells(change.contact), _grants(contact), _known_as_granted(state)
    consent = shown.consent and not (told.consent or known.consent)
    return consent or (shown.do_not_call and not (told.do_not_call or known.do_not_call))


def _granted_then(change: Change, contact: Contact, state: State | None, left_unclear: Flags) -> Flags:
    """Which flags are known as granted by the CRM, after an amendment.

    What Genesys shows of a flag that is not told proves no grant, since somebody may have set it there; it may end one.
    """
    told, shown, known = _tells(change.contact), _grants(contact), _known_as_granted(state)
    return Flags(
        shown.consent and (told.consent or known.consent) and not left_unclear.consent,
        shown.do_not_call and (told.do_not_call or known.do_not_call) and not left_unclear.do_not_call,
    )


def _known_as_granted(state: State | None) -> Flags:
    """Which flags the CRM is known to have granted when it told them last."""
    if state is None:
        return NEITHER
    both = state.callable is True
    return Flags(both or state.granted is Flag.CONSENT, both or state.granted is Flag.DO_NOT_CALL)


def _one_of(granted: Flags) -> Flag | None:
    """The flag that alone is granted; None where it is none, or both."""
    if granted.consent is granted.do_not_call:
        return None
    return Flag.CONSENT if granted.consent else Flag.DO_NOT_CALL


def grants_beside(change: Change, state: State) -> bool:
    """Whether a withdrawal says that do-not-call is not set, of which it is not known that the CRM said so last.

    Nobody grants consent beside do-not-call: that is a conflict.
    """
    return change.contact.do_not_call is False and not _known_as_granted(state).do_not_call


def _grants(contact: Contact) -> Flags:
    """Which flags let a contact be called."""
    return Flags(contact.consent, not contact.do_not_call)


def _tells(contact: Contact | Amendment) -> Flags:
    """Which flags are told."""
    return Flags(contact.consent is not UNCHANGED, contact.do_not_call is not UNCHANGED)


def is_precaution(change: Change, state: State | None, contact_list_id: str) -> bool:
    """Whether an amendment leaves its contact not callable, as a precaution.

    A record that nobody could decode may have changed either flag: only who tells both of them says who may be called.
    """
    return _left_unclear(change, state, contact_list_id).any


def _left_unclear(change: Change, state: State | None, contact_list_id: str) -> Flags:
    """Of which flags nobody knows what the CRM says, once a change was made of its contact."""
    if not isinstance(change.contact, Amendment):
        return NEITHER
    own, told = _unclear_flags_of(change, contact_list_id), _tells(change.contact)
    before = NEITHER if state is None else _unclear_flags_of(state, contact_list_id)
    return Flags(
        own.consent or (before.consent and not told.consent),
        own.do_not_call or (before.do_not_call and not told.do_not_call),
    )


def _unclear_flags_of(it: Change | State, contact_list_id: str) -> Flags:
    """Which flags nobody could read of what was asked for, or accepted."""
    return unclear_flags(contact_list_id).get(it.fingerprint, NEITHER)


def grants_nothing(change: Change, state: State | None) -> bool:
    """Whether an amendment tells neither flag of a contact that is not callable: it stays so.

    Genesys may show flags that let somebody call, as after an edit there: the CRM has withdrawn them all the same.
    """
    if state is None or state.callable is not False or not isinstance(change.contact, Amendment):
        return False
    return not _tells(change.contact).any


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
    return any(is_content(contact, state, contact_list_id) for contact in before)


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
    content = no_content(contact_list_id)
    return replace(change, operation=_DELETE, fingerprint=content, withdrew=withdrew, imprint=b"")


def _suppressing(contact_list_id: str, unreadable: Flags, withdrawn: Flags) -> bytes:
    """Fingerprint of a contact that a rejected event suppresses, by what it says of the flags."""
    if unreadable.any:
        return unclear(contact_list_id, unreadable, withdrawn)
    return suppressed(contact_list_id, withdrawn)


def _withdraws(contact: Contact | Amendment) -> Flags:
    """Which flags are plainly withdrawn."""
    return Flags(contact.consent is False, contact.do_not_call is True)
