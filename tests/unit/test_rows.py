"""Rows of files as change events: names, text that is more than text, and what is refused."""

import pytest

from consumer.core.rows import Rows, deletes, typed
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
def test_what_cannot_be_read_is_a_flaw_that_names_it(fields: dict[str, object], says: str) -> None:
    """The flaw names the field and what may stand there, and no value; everything else is told."""
    event = ROWS.event({"externalId": "a", "consent": False, "doNotCall": True, **fields})
    assert event.flaw.startswith(says)
    assert (event.external_id, event.consent, event.do_not_call) == ("a", False, True)


def test_all_that_cannot_be_read_is_told_at_once() -> None:
    """What takes its place is what is taken where nothing is told."""
    event = ROWS.event({"occurredAt": "yesterday", "version": 1.5, "segment": [], "language": "en"})
    assert [flaw.split(" ")[0] for flaw in event.flaw.split("; ")] == ["occurredAt", "version", "attribute"]
    assert (event.occurred_at, event.version, event.attributes["preferredLanguage"]) == (1_000, None, "en")


def test_a_row_that_names_two_external_ids_is_about_nobody() -> None:
    """Whoever it withdraws from cannot be told."""
    with pytest.raises(DecodeError, match="externalId is given twice"):
        ROWS.event({"externalId": "a", "external_id": "b", "consent": False})


@pytest.mark.parametrize("consent", [(True, False), (False, True)], ids=str)
@pytest.mark.parametrize("do_not_call", [(True, False), (False, True)], ids=str)
def test_of_a_flag_that_is_given_twice_the_withdrawal_counts(
    consent: tuple[bool, bool], do_not_call: tuple[bool, bool]
) -> None:
    """Whichever stands first."""
    event = ROWS.event(
        dict(zip(("consent", "consent_flag", "doNotCall", "do_not_call"), (*consent, *do_not_call), strict=True))
    )
    assert event.flaw == "consent is given twice; doNotCall is given twice"
    assert (event.consent, event.do_not_call) == (False, True)


@pytest.mark.parametrize("field", ["occurredAt", "version"])
def test_a_delete_that_does_not_tell_when_withdraws(field: str) -> None:
    """The contact may be there again: as in the stream, it has no consent until that is told."""
    event = ROWS.event({"externalId": "a", "changeType": "DELETE", field: "x"})
    assert (event.change_type, event.external_id, event.consent) == (ChangeType.GAP, "a", False)
    assert event.flaw.startswith(field)


def test_a_delete_needs_the_external_id_alone() -> None:
    """Whatever else stands in its row."""
    event = ROWS.event({"externalId": "a", "changeType": "DELETE", "version": 7, "phone": "x", "segment": []})
    assert event == ChangeEvent(ChangeType.DELETE, "a", 1_000, 7, None, None, None, None, {})


def test_a_time_may_be_iso_8601() -> None:
    """With any time zone."""
    for text in ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00.000+01:00"):
        assert ROWS.event({"occurredAt": text}).occurred_at == 1_767_225_600_000


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("consent", "true", True),
        ("consent_flag", "FALSE", False),
        ("consent", "t", True),
        ("doNotCall", "f", False),
        ("doNotCall", "no", "no"),
        ("segment", "t", "t"),
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
    assert ROWS.missing(["external_id", "doNotCall", "phone_number"]) == ["consent"]
    assert ROWS.missing(["externalId", "consent", "doNotCall", "mobile"]) == ["phone"]
    assert ROWS.doubled(["external_id", "phone", "externalId", "language", "preferredLanguage"]) == [
        "externalId",
        "preferredLanguage",
    ]


def test_what_contacts_would_lose_is_told_by_the_names_of_fields() -> None:
    """Attributes that may stand in an object of their own are not told: their names do not show."""
    assert ROWS.emptied(["externalId", "email", "language", "segment"]) == []
    assert ROWS.emptied(["externalId", "segment"]) == ["email", "preferredLanguage"]
    assert ROWS.emptied(["attributes"]) == ["email"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"change_type": "DELETE"}, True), ({"changeType": "UPDATE"}, False), ({"changeType": 1}, False), ({}, False)],
)
def test_a_delete_is_told_by_its_change_type(fields: dict[str, object], expected: bool) -> None:
    """Whatever else it tells, or does not."""
    assert deletes(fields) is expected
