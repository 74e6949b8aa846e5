"""The columns of the contact list that every list has: their names, and a contact as it stands in them.

Answers for what is written into them and what is read from them. Attribute columns come after them. Touches nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from consumer.model import Contact

EXTERNAL_ID, PHONE, EMAIL, CONSENT, DO_NOT_CALL = (
    "external_id",
    "phone_number",
    "email",
    "consent_flag",
    "do_not_call",
)
OWN: Final = (EXTERNAL_ID, PHONE, EMAIL, CONSENT, DO_NOT_CALL)

VALUE_CHARACTERS = 512
"""Longest value of a contact that Genesys takes."""

_TEXTS: Final = {True: "true", False: "false"}
_FLAGS: Final = {"true": True, "false": False}
_NOT_SET = frozenset({"", "false"})
"""What do-not-call may be for a contact to be called, in whatever case: with anything else there, nobody calls."""


def data_of(contact: Contact) -> dict[str, str]:
    """What stands in the columns of a contact, in their order."""
    return {
        EXTERNAL_ID: contact.external_id,
        PHONE: contact.phone,
        EMAIL: contact.email,
        CONSENT: _TEXTS[contact.consent],
        DO_NOT_CALL: _TEXTS[contact.do_not_call],
        **contact.attributes,
    }


def values_of(contact: Contact) -> tuple[str, ...]:
    """The same without the names."""
    return tuple(data_of(contact).values())


def contact_of(values: Sequence[str], attribute_columns: Sequence[str]) -> Contact | None:
    """The contact that the values of all columns make; None when a flag is not one that was ever sent."""
    external_id, phone, email, consent, do_not_call, *attributes = values
    if consent not in _FLAGS or do_not_call not in _FLAGS:
        return None
    named = dict(zip(attribute_columns, attributes, strict=True))
    return Contact(external_id, phone, email, _FLAGS[consent], _FLAGS[do_not_call], named)


def shown(external_id: str, data: Mapping[str, str]) -> Contact:
    """A contact as Genesys has it, with every column; flags that say neither true nor false let nobody call.

    Its id is the one by which it was asked for.
    """
    return Contact(
        external_id,
        data[PHONE],
        data[EMAIL],
        is_consent(data[CONSENT]),
        is_do_not_call(data[DO_NOT_CALL]),
        {column: value for column, value in data.items() if column not in OWN},
    )


def is_consent(text: str) -> bool:
    """Whether somebody agreed to be called, by a flag that perhaps somebody else wrote."""
    return text.casefold() == "true"


def is_do_not_call(text: str) -> bool:
    """Whether somebody asked not to be called, by such a flag."""
    return text.casefold() not in _NOT_SET
