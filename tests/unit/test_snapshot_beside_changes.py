"""What a snapshot read while transactions were under way, whose changes stand before it in PostgreSQL's log."""

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.model import Record
from tests.debezium_rows import PARTITION, callable_, reading
from tests.envelopes import COLUMNS, ROW, TIME_MS, encoded, record_type
from tests.lives import live
from tests.memory_ports import MemorySchemas, World

POSTGRESQL = record_type(
    "Envelope",
    {
        "before": ["null", record_type("Value", COLUMNS)],
        "after": ["null", "Value"],
        "source": record_type("Source", {"ts_ms": "long", "lsn": "long", "sequence": "string"}),
        "op": "string",
    },
)
READ, MADE = 2000, 1000
"""Where the snapshot read, and where a change was made that is committed after that."""

OLD, NEW, DENIED = {"phone": "+14155550100"}, {"phone": "+14155550199"}, {"consent": "denied"}
LATER, EARLIER = 5, -5
"""When it was committed, milliseconds after the snapshot read."""


def row(op: str, lsn: int, at: int, **columns: str) -> dict[str, object]:
    """A record of Debezium's connector for PostgreSQL; the commit before it stands just before what was read."""
    source = {"ts_ms": TIME_MS + at, "lsn": lsn, "sequence": f'["{READ - 10}","{lsn}"]'}
    return {"before": None, "after": ROW | columns, "source": source, "op": op}


def after(directory: Path, *told: dict[str, object]) -> World:
    """A world in which these records came."""
    world = World()
    for offset, fields in enumerate(told):
        value = b"\0\0\0\0\1" + encoded(POSTGRESQL, fields)
        world.append([Record(*PARTITION, offset, TIME_MS, b"key", value)])
        live(world, MemorySchemas({1: [json.dumps(POSTGRESQL)]}), **reading(directory))
    return world


def ended(world: World) -> list[Any]:
    """The outcomes, in order."""
    return [event["outcome"] for event in world.events()]


def test_a_change_that_was_committed_since_applies(tmp_path: Path) -> None:
    """And so does the next one of its transaction, but neither once more when it is told again."""
    first, second = row("u", MADE, LATER, **NEW), row("u", MADE + 1, LATER, **NEW, email="j@example.com")
    world = after(tmp_path, row("r", READ, 0, **OLD), first, second, first)
    assert ended(world) == ["delivered", "delivered", "delivered", "stale"]
    assert world.list["7"]["phone"] == NEW["phone"]


def test_a_change_that_was_committed_before_is_told_again(tmp_path: Path) -> None:
    """The snapshot saw it, and what came of it: who withdrew since is not called for an old grant."""
    grant = row("u", MADE, EARLIER, **OLD)
    world = after(tmp_path, grant, row("r", READ, 0, **DENIED), grant)
    assert ended(world) == ["delivered", "delivered", "stale"]
    assert callable_(world) == {"7": False}


def test_what_a_snapshot_read_undoes_no_withdrawal_that_was_committed_since(tmp_path: Path) -> None:
    """When it is told again, although it stands behind in the log."""
    read, withdrawal = row("r", READ, 0), row("u", MADE, LATER, **DENIED)
    world = after(tmp_path, read, withdrawal, read)
    assert ended(world) == ["delivered", "delivered", "stale"]
    assert callable_(world) == {"7": False}
    newer = row("r", READ + 50, LATER + 1)
    assert callable_(after(tmp_path, read, withdrawal, newer)) == {"7": True}


def test_a_withdrawal_that_was_committed_in_the_millisecond_of_the_snapshot_applies(tmp_path: Path) -> None:
    """Whether the snapshot saw it nobody knows; nor does it, told again, or read once more in that moment, undo it."""
    read, withdrawal = row("r", READ, 0), row("u", MADE, 0, **DENIED)
    world = after(tmp_path, read, withdrawal, read, row("r", READ + 50, 0))
    assert ended(world) == ["delivered", "delivered", "stale", "stale"]
    assert callable_(world) == {"7": False}


def test_who_withdrew_is_not_called_while_all_of_it_is_told_again(tmp_path: Path) -> None:
    """The transaction granted before it withdrew, and both stand before what the snapshot read."""
    told = [row("r", READ, 0, **DENIED), row("u", MADE, LATER), row("u", MADE + 1, LATER, **DENIED)]
    world = after(tmp_path, *told)
    records, world.committed[PARTITION], seen = world.log[PARTITION], 0, []
    for count in range(1, len(told) + 1):
        world.log[PARTITION] = records[:count]
        live(world, MemorySchemas({1: [json.dumps(POSTGRESQL)]}), **reading(tmp_path))
        seen.append(callable_(world))
    assert seen == [{"7": False}] * len(told)


def test_a_grant_told_again_was_committed_before_however_far_the_clocks_are_apart(tmp_path: Path) -> None:
    """Its record came before that of the snapshot, which has an earlier time all the same."""
    grant = row("u", MADE, LATER)
    world = after(tmp_path, grant, row("r", READ, 0, **DENIED))
    world.committed[PARTITION] = 0
    live(world, MemorySchemas({1: [json.dumps(POSTGRESQL)]}), **reading(tmp_path))
    assert ended(world) == ["delivered", "delivered", "stale", "duplicate"]
    assert callable_(world) == {"7": False}


@pytest.mark.parametrize("behind", [row("u", READ + 5, 1, **OLD), row("r", READ + 5, 1, **OLD)], ids=["change", "read"])
def test_only_what_was_read_last_can_be_overtaken(tmp_path: Path, behind: dict[str, object]) -> None:
    """A change of the row since waited for the lock of the one before; and a read is no change."""
    late = row("u" if behind["op"] == "u" else "r", MADE, LATER, **NEW)
    world = after(tmp_path, row("r", READ, 0, **OLD), behind, late)
    assert ended(world) == ["delivered", "duplicate", "stale"]


def test_what_says_the_same_is_a_duplicate_and_hides_nothing(tmp_path: Path) -> None:
    """The next change of that transaction applies."""
    told = [row("r", READ, 0, **OLD), row("u", MADE, LATER, **OLD), row("u", MADE + 1, LATER, **NEW)]
    assert ended(after(tmp_path, *told)) == ["delivered", "duplicate", "delivered"]


def test_what_follows_a_withdrawal_in_its_transaction_applies(tmp_path: Path) -> None:
    """And nobody is told that the log began anew."""
    withdrawal, number = row("u", MADE, LATER, **DENIED), row("u", MADE + 1, LATER, **DENIED, **NEW)
    with capture_logs() as logs:
        world = after(tmp_path, row("r", READ, 0, **OLD), withdrawal, number)
    assert ended(world) == ["delivered"] * 3
    assert (world.list["7"]["phone"], callable_(world)) == (NEW["phone"], {"7": False})
    assert "source_order_went_back" not in {line["event"] for line in logs}


def test_a_withdrawal_and_a_grant_that_were_committed_since(tmp_path: Path) -> None:
    """Whoever withdrew is not called; a later grant of another transaction stands behind, and applies."""
    read, withdrawal, grant = row("r", READ, 0), row("u", MADE, LATER, **DENIED), row("u", READ + 9, LATER + 1)
    assert callable_(after(tmp_path, read, withdrawal)) == {"7": False}
    assert callable_(after(tmp_path, read, withdrawal, grant)) == {"7": True}
