"""Rows without a schema: of several places of a list the first that a row has counts, also where that is null."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from consumer.core.changes import suppression
from consumer.core.connect_json import JsonReader
from consumer.core.validate import validate
from consumer.errors import ValidationError
from consumer.model import ChangeEvent, Headers, Record
from tests.envelopes import MAPPING, TIME_MS, TOPIC, envelopes


def read(
    envelope: str,
    fields: Mapping[str, object],
    mapping: dict[str, Any] | None = None,
    headers: Headers = (),
    key: bytes | None = b"7",
) -> ChangeEvent:
    """The event of a record in JSON."""
    value = json.dumps(fields).encode()
    reader = JsonReader(envelopes(envelope, mapping).of_topic(TOPIC))
    event = reader(value, Record(TOPIC, 0, 0, TIME_MS, key, value, headers))
    assert isinstance(event, ChangeEvent)
    return event


def suppressed(event: ChangeEvent) -> bool:
    """Whether the event is rejected, and its contact not called for that."""
    (error,) = validate([event], ())
    return isinstance(error, ValidationError) and suppression(event, 0, "list", "") is not None


FLAGS = {"consent": ["consent", "marketing_consent"], "do_not_call": ["do_not_call", "dnc"]}


def document(**columns: object) -> ChangeEvent:
    """The event of a document of MongoDB."""
    text = json.dumps({"id": 7, "phone": "+14155550100", **columns})
    fields = {"before": None, "after": text, "source": {"ts_ms": TIME_MS, "ord": 1}, "op": "u"}
    return read("debezium", fields, MAPPING | FLAGS)


@pytest.mark.parametrize(
    ("columns", "flags"),
    [
        ({"consent": None, "marketing_consent": True, "dnc": False}, (None, False)),
        ({"consent": True, "do_not_call": None, "dnc": False}, (True, None)),
        ({"marketing_consent": True, "dnc": False}, (True, False)),
        ({}, (None, None)),
    ],
)
def test_of_several_places_the_first_that_is_there_counts(
    columns: dict[str, object], flags: tuple[object, object]
) -> None:
    """A withdrawn consent must not be made up from another column: it is rejected, and suppresses."""
    event = document(**columns)
    assert (event.consent, event.do_not_call) == flags
    assert flags == (True, False) or suppressed(event)


def test_a_document_is_named_by_one_place_for_all_its_life() -> None:
    """Not by another one until the first is filled: the contact would be there twice, and be called under both."""
    mapping = MAPPING | {"external_id": ["crm.no", "_id"], "phone": ["crm.phone", "phone"]}

    def of(**columns: object) -> ChangeEvent:
        fields = {"before": None, "after": json.dumps({"_id": "a", "phone": "+1", **columns}), "op": "u"}
        return read("debezium", fields | {"source": {"ts_ms": TIME_MS, "ord": 1}}, mapping)

    assert (of(crm={"no": None, "phone": None}).external_id, of(crm={"no": 7}).external_id) == (None, "7")
    assert (of(crm={"no": 7, "phone": None}).phone, of(crm={"no": 7}).phone) == (None, "+1")
    assert (of(crm=None).external_id, of().external_id) == ("a", "a")


@pytest.mark.parametrize(
    ("headers", "key", "flags", "named"),
    [
        ([("consent", b"no"), ("id", b"8")], b"9", (False, False), "8"),
        ([("other", b"8")], b"9", (True, False), "9"),
        ([("consent", None), ("id", None)], None, (True, False), "7"),
    ],
)
def test_a_header_that_a_record_does_not_have_hides_no_other_place(
    headers: Headers, key: bytes | None, flags: tuple[object, object], named: str
) -> None:
    """Nor does a key: neither is there to be null. Of the row itself a null counts all the same."""
    consent = {"path": ["@header.consent", "consent"], "values": {"no": False}}
    mapping = MAPPING | FLAGS | {"external_id": ["@header.id", "@key", "id"], "consent": consent}
    row = {"id": 7, "phone": "+14155550100", "consent": True, "dnc": False}
    metadata = {"operation": "update", "timestamp": "2026-01-01T00:00:00Z"}
    event = read("dms", {"data": row, "metadata": metadata}, mapping, headers, key)
    assert ((event.consent, event.do_not_call), event.external_id) == (flags, named)


def test_in_the_ready_made_mapping_of_dms_flags_have_one_name() -> None:
    """The service leaves nulls out: a consent that is null would be another column's."""
    metadata = {"operation": "update", "timestamp": "2026-01-01T00:00:00Z"}
    event = read("dms", {"data": {"id": 7, "marketing_consent": 1, "dnc": 0}, "metadata": metadata})
    assert (event.consent, event.do_not_call) == (None, None)
    assert suppressed(event)
