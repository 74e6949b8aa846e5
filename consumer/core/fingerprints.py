"""What contacts and contents are known by where they are not kept: identities, and fingerprints.

Answers for each content having its own fingerprint, and for those that tell what is known where no content is. Touches
nothing else.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import product

import orjson
from msgspec import Struct
from msgspec.structs import astuple

from consumer.model import Amendment, Contact, Operation, State

IDENTITY_BYTES = 32


class Flags(Struct, frozen=True, gc=False):
    """Of which flags of a contact something holds."""

    consent: bool
    do_not_call: bool

    @property
    def any(self) -> bool:
        """Whether it does of either."""
        return self.consent or self.do_not_call


NEITHER = Flags(consent=False, do_not_call=False)
BOTH = Flags(consent=True, do_not_call=True)
_EACH = [Flags(*both) for both in product((False, True), repeat=2)]


def identity(external_id: str) -> bytes:
    """What a contact is known by in the store: SHA-256 of its external id."""
    return hashlib.sha256(external_id.encode()).digest()


def identity_of_key(key: bytes | None) -> bytes:
    """The identity that a record's key gives, where the key is the external id."""
    return hashlib.sha256(key or b"").digest()


def fingerprint(contact: Contact | Amendment, contact_list_id: str) -> bytes:
    """SHA-256 of all that Genesys is told of a contact, and of the list in which it is told."""
    content = orjson.dumps((contact_list_id, *astuple(contact)), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).digest()


def is_content(contact: Contact, state: State, contact_list_id: str) -> bool:
    """Whether a contact is as it was accepted last; nobody can tell of one that was suppressed."""
    return fingerprint(contact, contact_list_id) == state.fingerprint


@cache
def no_content(contact_list_id: str) -> bytes:
    """Fingerprint of a contact that was deleted: whatever the CRM says next differs from it, and is sent."""
    return _hashed(f"{Operation.DELETE} {contact_list_id}")


@cache
def unknown_content(contact_list_id: str) -> bytes:
    """Fingerprint of a contact of which nobody knows what Genesys has: whatever the CRM says next is sent too."""
    return _hashed(f"{Operation.UPSERT} {contact_list_id}")


def suppressed(contact_list_id: str, withdrawn: Flags) -> bytes:
    """Fingerprint of a contact of which only withdrawals are known: by consent, by do-not-call, or both.

    One by the other flag differs, and is sent: a grant of one flag must find the other as the CRM has it.
    """
    told = " consent" * withdrawn.consent + " do_not_call" * withdrawn.do_not_call
    return _hashed(f"{Operation.SUPPRESS} {contact_list_id}{told}")


def unclear(contact_list_id: str, flags: Flags, withdrawn: Flags = NEITHER) -> bytes:
    """Fingerprint of a contact that is not callable as a precaution, since nobody could read these flags of it.

    What is plainly withdrawn beside them is part of it: another one by another flag differs, and is sent.
    """
    which = "" if flags == BOTH else " consent" if flags.consent else " do_not_call"
    beside = " withdrawn consent" * withdrawn.consent + " withdrawn do_not_call" * withdrawn.do_not_call
    return _hashed(f"precaution {contact_list_id}{which}{beside}")


def undecoded(contact_list_id: str) -> bytes:
    """Fingerprint of a contact of whom nobody could read anything; no content has it."""
    return unclear(contact_list_id, BOTH)


@cache
def unclear_flags(contact_list_id: str) -> Mapping[bytes, Flags]:
    """Which flags nobody could read, by fingerprint."""
    return {
        unclear(contact_list_id, flags, withdrawn): flags for flags in _EACH if flags != NEITHER for withdrawn in _EACH
    }


@cache
def not_callable_contents(contact_list_id: str) -> frozenset[bytes]:
    """The fingerprints of contacts that are not callable whatever their flags in Genesys say."""
    suppressions = [suppressed(contact_list_id, withdrawn) for withdrawn in _EACH]
    return frozenset([*suppressions, *unclear_flags(contact_list_id)])


def _hashed(told: str) -> bytes:
    return hashlib.sha256(told.encode()).digest()
