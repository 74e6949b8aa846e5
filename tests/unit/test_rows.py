"""Rows of files as change events: names, text that is more than text, and what is refused."""

import pytest

from consumer.core.rows import Rows, typed
from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType

ROWS = Rows([("segment", "segment"), ("preferredLanguage", "language")], occurred_at=1_000)


def test_native_names_make_a_change_event() -> None:
    """Each field is where the stream's would be; attributes that are not configured are left out."""
    event = ROWS.event(
        {
            "externalId": "a",
            "phone": "+15550100",
            "email": "a@example.org",
            "consent": True,
            "doNotCall": False,
            "occurredAt": 5,
            "version": 7,
            "changeType": "CREATE",
            "segment": "gold",
            "shoeSize": "44",
        }
    )
    assert event == ChangeEvent(
        ChangeType.CREATE, "a", 5, 7, "+15550100", "a@example.org", True, False, {"segment": "gold"}
    )


def test_names_of_the_contact_list_columns_mean_the_same() -> None:
    """What a list exports can be loaded; without a time it is that of the file."""
    event = ROWS.event(
        {
            "external_id": "a",
            "phone_number": "+15550100",
            "email": None,
            "consent_flag": True,
            "do_not_call": False,
            "language": "en",
            "Callable-phone_number": "1",
        }
    )
    assert event == ChangeEvent(
        ChangeType.UPDATE, "a", 1_000, None, "+15550100", None, True, False, {"preferredLanguage": "en"}
    )


def test_attributes_may_stand_in_an_object_of_their_own() -> None:
    """Booleans and numbers become text, null is nothing."""
    event = ROWS.event({"attributes": {"segment": True, "preferredLanguage": 3, "other": []}, "language": None})
    assert event.attributes == {"segment": "true", "preferredLanguage": "3"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"phone": "1", "phone_number": "2"}, "phone is given twice"),
        ({"language": "a", "preferredLanguage": "b"}, "attribute preferredLanguage is given twice"),
        ({"segment": "a", "attributes": {"segment": "b"}}, "attribute segment is given twice"),
        ({"segment": ["a"]}, "attribute segment is of type list"),
        ({"attributes": "a"}, "attributes is not an object"),
        ({"changeType": "MERGE"}, "changeType is none of CREATE"),
        ({"changeType": 1}, "changeType is none of CREATE"),
        ({"version": "7"}, "version is not a whole number"),
        ({"version": True}, "version is not a whole number"),
        ({"version": 2**63}, "version is not a whole number"),
        ({"occurredAt": "yesterday"}, "occurredAt is neither"),
        ({"occurredAt": "2026-01-01T00:00:00"}, "occurredAt is neither"),
        ({"occurredAt": -1}, "occurredAt is neither"),
        ({"occurredAt": 1_767_225_600_000_000}, "occurredAt is neither"),
        ({"occurredAt": 1.5}, "occurredAt is neither"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_told_is_refused_by_name(fields: dict[str, object], says: str) -> None:
    """The detail names the field and what may stand there, and no value."""
    with pytest.raises(DecodeError, match=says):
        ROWS.event(fields)


def test_a_time_may_be_iso_8601() -> None:
    """With any time zone."""
    for text in ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00.000+01:00"):
        assert ROWS.event({"occurredAt": text}).occurred_at == 1_767_225_600_000


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("consent", "true", True),
        ("consent_flag", "FALSE", False),
        ("doNotCall", "no", "no"),
        ("do_not_call", "", None),
        ("phone", "", None),
        ("phone", "true", "true"),
        ("version", "-12", -12),
        ("version", "1.0", "1.0"),
        ("occurredAt", "1767225600000", 1_767_225_600_000),
        ("occurredAt", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("segment", "12", "12"),
    ],
)
def test_text_stands_for_what_its_field_holds(name: str, text: str, value: object) -> None:
    """Only flags and numbers are more than text; an empty value is none."""
    assert typed(name, text) == value


def test_names_that_are_missing_or_doubled_are_told() -> None:
    """By the name of the field."""
    assert ROWS.missing(["external_id", "doNotCall"]) == ["consent"]
    assert ROWS.doubled(["external_id", "phone", "externalId", "language", "preferredLanguage"]) == [
        "externalId",
        "preferredLanguage",
    ]
