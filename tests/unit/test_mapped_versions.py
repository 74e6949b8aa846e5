"""Versions that a mapping names, beside deletes: these tell no column, and a position in the log is none of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from consumer.model import Record, TopicPartition
from tests.envelopes import TIME_MS, encoded, record_type
from tests.lives import live
from tests.memory_ports import MemorySchemas, World
from tests.stories import TOPIC

PARTITION = TopicPartition(TOPIC, 0)
COLUMNS = {"id": "long", "phone": "string", "consent": "boolean", "dnc": "boolean", "counted": "long"}
SOURCE = record_type("Source", {"ts_ms": "long", "lsn": "long"})
ENVELOPE = record_type(
    "Envelope",
    {"before": ["null", record_type("Value", COLUMNS)], "after": ["null", "Value"], "source": SOURCE, "op": "string"},
)
FLAT = record_type(
    "Flat", COLUMNS | {"__op": "string", "__deleted": "string", "__lsn": "long", "__source_ts_ms": "long"}
)
MAPPING = """
[default]
external_id = "id"
phone = "phone"
consent = "consent"
do_not_call = "dnc"
version = "counted"
"""
LSN = 24_000_000
"""Of the first change; the others follow."""

HIGH = TIME_MS
"""A version above all positions, as the time of a change is; a count of changes is below them."""

Told = tuple[str, int, int] | tuple[str, int, int, dict[str, object]]
"""Operation, version, time; and what else the row says. A delete of op `t` is its tombstone."""


class Stream:
    """Changes of one row in an envelope, one life after the other.

    Args:
        envelope: `debezium` or `flattened`.
        directory: Where the mapping is written.
    """

    def __init__(self, envelope: str, directory: Path) -> None:
        path = directory / "mapping.toml"
        path.write_text(MAPPING)
        self.world = World()
        self.world.log[PARTITION] = []
        self._flat = envelope == "flattened"
        quick = {"batch_linger_ms": 20, "settle_interval_ms": 10}
        self._settings: dict[str, Any] = {"source_envelope": envelope, "source_mapping": path, **quick}

    def comes(self, *told: Told) -> Sequence[Any]:
        """Changes come at once; how all of the topic ended that came so far."""
        for change in told:
            offset = len(self.world.log[PARTITION])
            self.world.append([Record(*PARTITION, offset, TIME_MS + 10**6, b"42", self._value(offset, *change))])
        live(self.world, MemorySchemas({1: [json.dumps(FLAT if self._flat else ENVELOPE)]}), **self._settings)
        return [event["outcome"] for event in self.world.events()]

    def _value(
        self, offset: int, op: str, version: int, at: int, more: dict[str, object] | None = None
    ) -> bytes | None:
        if op == "tombstone":
            return None
        row = {"id": 42, "phone": "+14155550100", "consent": True, "dnc": False, "counted": version} | (more or {})
        if self._flat:
            meta = {"__op": op, "__deleted": str(op == "d").lower(), "__lsn": LSN + at, "__source_ts_ms": TIME_MS + at}
            return b"\0\0\0\0\1" + encoded(FLAT, row | meta)
        before, after = ({**row, "counted": 0}, None) if op == "d" else (None, row)
        source = {"ts_ms": TIME_MS + at, "lsn": LSN + at}
        return b"\0\0\0\0\1" + encoded(ENVELOPE, {"op": op, "before": before, "after": after, "source": source})

    @property
    def callable(self) -> dict[str, object]:
        """Who of the list may be called."""
        return {name: contact["callable"] for name, contact in self.world.list.items()}


@pytest.fixture(params=["debezium", "flattened"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Stream:
    """A stream in each of the envelopes that have positions."""
    return Stream(request.param, tmp_path)


@pytest.mark.parametrize("version", [2, HIGH])
@pytest.mark.parametrize("at", [1, 5])
def test_a_delete_applies_whatever_the_versions_of_its_row_were(stream: Stream, version: int, at: int) -> None:
    """Also in the transaction of an update; the tombstone behind it is the same delete."""
    stream.comes(("u", version, 1))
    assert stream.comes(("d", version, at), ("tombstone", 0, 0)) == ["delivered", "delivered", "duplicate"]
    assert stream.callable == {}


@pytest.mark.parametrize("version", [3, HIGH])
@pytest.mark.parametrize("op", ["c", "r"])
@pytest.mark.parametrize("made_at", [5, 6])
def test_a_row_that_is_made_anew_is_there(stream: Stream, version: int, op: str, made_at: int) -> None:
    """Later, or at the same moment as one transaction does it; its next changes count by version again."""
    stream.comes(("c", version - 1, 1))
    stream.comes(("d", 0, 5), ("tombstone", 0, 0))
    assert stream.comes((op, version, made_at))[-1] == "delivered"
    assert stream.callable == {"42": True}
    assert stream.comes(("u", version + 1, 7, {"consent": False}), ("u", version - 1, 8))[-2:] == ["delivered", "stale"]
    assert stream.callable == {"42": False}


def test_a_row_whose_versions_stay_as_they_were_is_there_too(stream: Stream) -> None:
    """All rows are deleted and put back in one transaction."""
    stream.comes(("c", 4, 1))
    assert stream.comes(("d", 0, 5), ("c", 4, 5))[1:] == ["superseded", "delivered"]
    assert stream.callable == {"42": True}


def test_so_is_one_whose_last_change_had_not_been_sent_when_it_was_deleted(stream: Stream) -> None:
    """The delete takes the place of a grant, and withdraws nothing that would need a later time."""
    stream.comes(("c", 3, 1))
    assert stream.comes(("u", 4, 4, {"phone": "+14155550199"}), ("d", 0, 5), ("c", 4, 5))[-1] == "delivered"
    assert stream.callable == {"42": True}


@pytest.mark.parametrize("at", [1, 4])
def test_an_older_row_that_is_told_again_brings_nobody_back(stream: Stream, at: int) -> None:
    """Whether or not it had been the last one."""
    stream.comes(("c", 3, 1), ("u", 4, 4), ("d", 0, 5))
    assert stream.comes(("u", 3 + (at == 4), at))[-1] == "stale"
    assert stream.callable == {}


def test_what_is_told_again_comes_to_the_same(stream: Stream) -> None:
    """From the update on, and by offsets that were set back; the withdrawal of before holds in between."""
    window: Sequence[Told] = [("u", 2, 2, {"consent": False}), ("d", 0, 5), ("tombstone", 0, 0), ("c", 3, 6)]
    stream.comes(("c", 1, 1), *window)
    assert stream.callable == {"42": True}
    for change in window:
        stream.comes(change)
    assert stream.callable == {"42": True}
    stream.world.committed.clear()
    stream.comes()
    assert stream.callable == {"42": True}


def test_who_had_withdrawn_needs_a_later_grant(stream: Stream) -> None:
    """At the moment of the delete nobody knows which of the two is the last word."""
    stream.comes(("u", 2, 2, {"consent": False}), ("d", 0, 5))
    assert stream.comes(("c", 3, 5))[-1] == "stale"
    assert stream.comes(("u", 4, 6))[-1] == "delivered"
    assert stream.callable == {"42": True}


def test_a_row_whose_versions_begin_anew_waits_until_they_are_as_high(stream: Stream) -> None:
    """A lower version is an older one: nobody can tell it from one that is told again."""
    stream.comes(("u", 3, 2), ("d", 0, 5))
    assert stream.comes(("c", 0, 6), ("u", 3, 7))[-2:] == ["stale", "delivered"]
    assert stream.callable == {"42": True}
