"""Judges change events against the six rules of the contact list: every violation at once, in the order of the rules.

Answers for what a contact may look like. Touches nothing else, and no detail of an error holds contact data.

Phone: E.164 as the ITU writes it, a plus sign and 2 to 15 ASCII digits of which the first is not 0. That is syntax:
whether a carrier serves the number is for Genesys to find out, and numbering plans change more often than programs.

E-mail: an RFC 5322 address, judged by email-validator without DNS, with these choices where the standard leaves room
that a contact list has no use for:

- internationalised addresses (RFC 6531) are accepted, and local parts of more than 64 octets: the limit of all is 254;
- quoted local parts, domain literals, comments and display names are not;
- the domain has a dot, its last label ends with a letter and is not reserved (`test`, `local`, `localhost`, `onion`,
  `arpa`, `invalid`; the last is what Salesforce appends to addresses in a sandbox);
- what is accepted is kept as the CRM wrote it.

None is what the CRM has no value for, and is fine for both. An empty string is a value, and not a valid one.

Of a partial event only what it carries is judged. Whether a flag of it contradicts the one that it does not carry shows
when it is merged, and there do-not-call wins.
"""

import re
from collections.abc import Sequence
from typing import Protocol, cast

from email_validator import validate_email

from consumer.errors import ValidationError
from consumer.model import UNCHANGED, Amendment, ChangeEvent, ChangeType, Contact, Reason, Unchanged

MAX_PHONE_CHARACTERS = 16
MAX_EMAIL_CHARACTERS = 254

_E164 = re.compile(r"\+[1-9][0-9]{1,14}")

_COMMON_ADDRESS = re.compile(
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@(?:(?=[^.]{1,63}\.)[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+"
    r"[A-Za-z]{2,3}"  # no reserved name is as short
)
"""What nearly every address looks like: a strict subset of what email-validator accepts, at a hundredth of its cost.

No character can be matched by two neighbouring parts, so a mismatch is found in one pass.
"""

# Bound once: to find a member in its class takes Python 3.11 longer than a comparison.
_DELETE_EVENT = ChangeType.DELETE

_WITHOUT_CONTENT = {
    ChangeType.DELETE: [],
    ChangeType.GAP: [(Reason.RESYNC_NEEDED, "the contact changed, and the event does not say how")],
}
"""What is wrong in any case with events that say nothing of the contact but its external id."""


class _Valid(Protocol):
    """A whole change event that breaks no rule."""

    external_id: str
    phone: str | None
    email: str | None


class _ValidPart(Protocol):
    """A partial change event that breaks no rule; None is a value that the CRM has cleared."""

    external_id: str
    phone: str | Unchanged | None
    email: str | Unchanged | None
    consent: bool | Unchanged
    do_not_call: bool | Unchanged
    attributes: dict[str, str]


def validate(
    events: Sequence[ChangeEvent], columns: Sequence[tuple[str, str]]
) -> list[Contact | Amendment | ValidationError]:
    """Make a contact of each change event, of a partial one an amendment, or name every rule that it breaks.

    Args:
        events: What was decoded.
        columns: Source name and column name of each configured attribute.
    """
    return [_validated(event, columns) for event in events]


def _validated(event: ChangeEvent, columns: Sequence[tuple[str, str]]) -> Contact | Amendment | ValidationError:
    violations = _violations(event)
    if violations:
        return ValidationError([reason for reason, _ in violations], "; ".join(detail for _, detail in violations))
    valid = cast("_Valid", event)
    if event.change_type is _DELETE_EVENT:
        return Contact(valid.external_id, "", "", consent=False, do_not_call=False, attributes={})
    if event.partial:
        return _amendment(cast("_ValidPart", event), columns)
    return Contact(
        valid.external_id,
        valid.phone or "",
        valid.email or "",
        event.consent is True,
        event.do_not_call is True,
        {column: event.attributes.get(source, "") for source, column in columns},
    )


def _amendment(event: _ValidPart, columns: Sequence[tuple[str, str]]) -> Amendment:
    """What a partial event carries."""
    return Amendment(
        event.external_id,
        event.phone or "",
        event.email or "",
        event.consent,
        event.do_not_call,
        {column: event.attributes[source] for source, column in columns if source in event.attributes},
    )


def _violations(event: ChangeEvent) -> list[tuple[Reason, str]]:
    """Every rule that the event breaks, with what to look at. A delete needs the external id alone."""
    violations: list[tuple[Reason, str]] = []
    if not (isinstance(event.external_id, str) and event.external_id.strip()):
        violations.append((Reason.EXTERNAL_ID_MISSING, f"externalId: {_shape(event.external_id)}"))
    if event.change_type in _WITHOUT_CONTENT:
        return violations + _WITHOUT_CONTENT[event.change_type] + _flaws(event)
    if not (event.phone is None or _is_e164(event.phone) or _is_kept(event, event.phone)):
        violations.append((Reason.PHONE_NOT_E164, f"phone: {_shape(event.phone)}"))
    if not (event.email is None or _is_address(event.email) or _is_kept(event, event.email)):
        violations.append((Reason.EMAIL_INVALID, f"email: {_shape(event.email)}"))
    if type(event.consent) is not bool and not _is_kept(event, event.consent):
        violations.append((Reason.CONSENT_NOT_BOOLEAN, f"consent: {_shape(event.consent)}"))
    if type(event.do_not_call) is not bool and not _is_kept(event, event.do_not_call):
        violations.append((Reason.DO_NOT_CALL_NOT_BOOLEAN, f"doNotCall: {_shape(event.do_not_call)}"))
    if event.consent is True and event.do_not_call is True:
        violations.append((Reason.CONSENT_CONFLICTS_WITH_DO_NOT_CALL, "consent and doNotCall are both true"))
    return violations + _flaws(event) if event.flaw else violations


def _flaws(event: ChangeEvent) -> list[tuple[Reason, str]]:
    return [(Reason.NOT_DECODABLE, event.flaw)] if event.flaw else []


def _is_kept(event: ChangeEvent, value: object) -> bool:
    return value is UNCHANGED and event.partial


def _is_e164(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_PHONE_CHARACTERS and _E164.fullmatch(value) is not None


def _is_address(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_EMAIL_CHARACTERS:
        return False
    return _COMMON_ADDRESS.fullmatch(value) is not None or _is_uncommon_address(value)


def _is_uncommon_address(value: str) -> bool:
    try:
        validate_email(
            value,
            allow_smtputf8=True,
            allow_empty_local=False,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_display_name=False,
            strict=False,
            check_deliverability=False,
            test_environment=False,
            globally_deliverable=True,
        )
    except ValueError:  # also of the libraries below, when they meet text that nobody thought of
        return False
    return True


def _shape(value: object) -> str:
    """What can be told of a value without telling the value."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return f"text of {len(value):,} characters" + (", the last one blank" if value.endswith(" ") else "")
    return f"of type {type(value).__name__}"
