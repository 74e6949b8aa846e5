"""Times: none depends on where the program runs, and none is beyond what a change may have."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, strategies as st

from consumer.core import keys
from consumer.core.moments import MAX_MS, iso, kafka_time, milliseconds
from consumer.model import ChangeEvent, Record
from tests.envelopes import COLUMNS, MAPPING, ROW, TOPIC, envelopes, record_type

SCHEMA = record_type("Row", COLUMNS)
METADATA = {"record-type": "data", "operation": "update"}


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's clock shows the time of Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@given(st.integers(0, MAX_MS))
def test_what_is_written_is_read_as_the_same_moment(moment: int) -> None:
    """To the millisecond, whatever floating point makes of it."""
    assert milliseconds(iso(moment)) == moment
    assert milliseconds(iso(moment, "seconds")) == moment - moment % 1000


def test_a_zone_is_taken_from_the_text_first() -> None:
    """Else from who knows what the text means; nobody guesses."""
    assert milliseconds("2023-11-14T23:13:20+01:00", zone=UTC) == 1_700_000_000_000
    assert milliseconds("2023-11-14 22:13:20", zone=UTC) == 1_700_000_000_000
    with pytest.raises(ValueError, match="no time zone"):
        milliseconds("2023-11-14T22:13:20")


@pytest.mark.usefixtures("far_away")
def test_a_time_without_a_zone_is_utc_wherever_the_program_runs() -> None:
    """A withdrawal must not come nine hours after itself on another machine."""
    of_dms = change("dms", {"data": ROW, "metadata": METADATA | {"commit-timestamp": "2023-11-14T22:13:20"}})
    row = {"data": ROW | {"at": "2023-11-14T22:13:20"}, "metadata": METADATA}
    of_mapping = change("dms", row, {**MAPPING, "occurred_at": "at"})
    assert (of_dms.occurred_at, of_mapping.occurred_at) == (1_700_000_000_000, 1_700_000_000_000)


@pytest.mark.parametrize(("kafka_ms", "expected"), [(-1, 0), (2**62, MAX_MS), (5, 5)])
def test_a_producer_s_time_is_one_that_a_change_may_have(kafka_ms: int, expected: int) -> None:
    """Wherever no other is told: of a tombstone, a row without a time."""
    record = Record(TOPIC, 0, 0, kafka_ms, b"7", b"")
    tombstone = keys.read_text(b"7", record)
    assert isinstance(tombstone, ChangeEvent)
    of_dms = change("dms", {"data": ROW, "metadata": METADATA}, record=record)
    rows = [change(envelope, dict(ROW), record=record, schema=SCHEMA) for envelope in ("outbox", "flattened")]
    assert kafka_time(record) == expected
    assert [told.occurred_at for told in (tombstone, of_dms, *rows)] == [expected] * 4


def change(
    envelope: str,
    fields: dict[str, object],
    mapping: dict[str, object] = MAPPING,
    record: Record | None = None,
    schema: Mapping[str, Any] = {},
) -> ChangeEvent:
    """What a record tells, in JSON unless a schema is given."""
    told = envelopes(envelope, mapping).mapper(TOPIC, schema)(fields, record or Record(TOPIC, 0, 0, 0, b"7", b""))
    assert isinstance(told, ChangeEvent)
    return told
