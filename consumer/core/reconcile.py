"""Compares a contact as Genesys has it with what was delivered of it.

Answers for what is drift, and what is not: the managed columns and `callable` alone are compared. Of what was delivered
only a fingerprint is known, so a row is turned into the contact that it would be and fingerprinted again. Touches
nothing else.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from consumer.columns import contact_of, is_consent, is_do_not_call, values_of
from consumer.core.contact_id import contact_id
from consumer.core.fingerprints import identity, is_content, not_callable_contents, unknown_content
from consumer.model import Contact, ExportedContact, State

DIGEST_BYTES = 8


class Standing(StrEnum):
    """How a contact in Genesys stands to what was delivered of it; the first five are drift."""

    CALLABLE = "callable"
    """A campaign may dial it, and the CRM withdrew or deleted it, or its flags say so where that is not known."""
    MISSING = "missing"
    DRIFTED = "drifted"
    """A managed column has another value."""
    DELETED = "deleted"
    """The CRM deleted it, and it is still there."""
    FOREIGN = "foreign"
    """It was never delivered under this id."""
    IN_STEP = "in_step"
    HELD_BACK = "held_back"
    """As delivered, but somebody in Genesys made it not callable: that is left alone."""
    UNKNOWN = "unknown"
    """Nobody knows what was delivered last: there is nothing to compare with."""


def owner(row: ExportedContact) -> bytes | None:
    """The identity whose contact a row is; None where its id is not the one that its external id gives."""
    external_id = row.values[0]
    return identity(external_id) if external_id and contact_id(external_id) == row.contact_id else None


def standing(
    row: ExportedContact, state: State | None, contact_list_id: str, attribute_columns: Sequence[str]
) -> Standing:
    """Compare a row with the state of its owner; None: nothing was delivered for it."""
    if state is None:
        return Standing.FOREIGN
    if state.deleted:
        return Standing.CALLABLE if row.callable else Standing.DELETED
    if state.fingerprint in not_callable_contents(contact_list_id):
        return Standing.CALLABLE if row.callable else Standing.IN_STEP
    against_its_flags = row.callable and state.callable is not True and not _lets_call(row)
    if state.fingerprint == unknown_content(contact_list_id):
        return Standing.CALLABLE if against_its_flags else Standing.UNKNOWN
    if against_its_flags or (row.callable and state.callable is False):
        return Standing.CALLABLE
    return _of_content(row, state, contact_list_id, attribute_columns)


def _of_content(row: ExportedContact, state: State, contact_list_id: str, attribute_columns: Sequence[str]) -> Standing:
    contact = contact_of(row.values, attribute_columns)
    if contact is None or not is_content(contact, state, contact_list_id):
        return Standing.DRIFTED
    if row.callable == contact.callable:
        return Standing.IN_STEP
    return Standing.CALLABLE if row.callable else Standing.HELD_BACK


def has_drifted(row: ExportedContact, state: State, contact_list_id: str, attribute_columns: Sequence[str]) -> bool:
    """Whether a managed column has another value, however the row stands; without known content there is no other."""
    if not is_missed(state, contact_list_id):
        return False
    contact = contact_of(row.values, attribute_columns)
    return contact is None or not is_content(contact, state, contact_list_id)


def _lets_call(row: ExportedContact) -> bool:
    """Whether the flags of a row, as Genesys has them, let somebody call."""
    _, _, _, consent, do_not_call, *_ = row.values
    return is_consent(consent) and not is_do_not_call(do_not_call)


def is_missed(state: State, contact_list_id: str) -> bool:
    """Whether a contact without a row should have one. One that was suppressed may be gone: nobody calls it."""
    no_contents = not_callable_contents(contact_list_id) | {unknown_content(contact_list_id)}
    return not state.deleted and state.fingerprint not in no_contents


def digests(of: Sequence[str], key: bytes) -> bytes:
    """Keyed hashes of the values of the managed columns, to compare them later without keeping them."""
    return b"".join(hashlib.blake2b(value.encode(), digest_size=DIGEST_BYTES, key=key).digest() for value in of)


def differing(contact: Contact, seen: bytes, key: bytes) -> list[int]:
    """The columns, by place, whose values are others than those whose digests were kept."""
    wanted = digests(values_of(contact), key)
    starts = range(0, len(wanted), DIGEST_BYTES)
    return [n for n, at in enumerate(starts) if wanted[at : at + DIGEST_BYTES] != seen[at : at + DIGEST_BYTES]]
