"""Positions of a source that go back, through the whole pipeline: what applies, what is told, what a crash leaves."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.core import epochs, fingerprints, state_bytes
from consumer.errors import SinkUnavailable
from consumer.model import Record
from consumer.pipeline.settle import EPOCHS_KEY
from tests.debezium_rows import PARTITION, ROWS, callable_, reading, schemas
from tests.envelopes import ROW, TIME_MS, TOPIC, encoded
from tests.lives import Life, in_life, live, survive
from tests.memory_ports import World, outage
from tests.stories import Event, Story
from tests.virtual_time import until

DENIED: dict[str, Any] = {"consent": "denied"}

Told = dict[str, object]


def row(op: str, pos: int, at: int, external_id: int = 7, **columns: object) -> Told:
    """A record of Debezium, at a position of the log and a time."""
    whole = ROW | {"id": external_id} | columns
    before, after = (whole, None) if op == "d" else (None, whole)
    return {"before": before, "after": after, "source": {"ts_ms": TIME_MS + at, "file": "log.1", "pos": pos}, "op": op}


def tell(world: World, *values: Told) -> World:
    """Append records."""
    start = len(world.log.setdefault(PARTITION, []))
    for offset, fields in enumerate(values, start):
        value = b"\0\0\0\0\1" + encoded(ROWS, fields)
        world.append([Record(*PARTITION, offset, TIME_MS, b"key", value)])
    return world


@pytest.fixture(name="rows")
def _rows(tmp_path: Path) -> dict[str, Any]:
    """Settings for rows of Debezium."""
    return reading(tmp_path)


def outcomes(world: World) -> list[Any]:
    """Outcomes in the order of the audit topic."""
    return [event["outcome"] for event in world.events()]


def kept(world: World) -> bytes | None:
    """The epochs in the store of the partition."""
    return world.stores[PARTITION][0].get(EPOCHS_KEY)


def test_what_a_snapshot_read_knows_of_all_that_stands_before_it(rows: dict[str, Any]) -> None:
    """In MySQL versions are in the order of commits: no earlier grant was committed since, whatever its time says."""
    world = tell(World(), row("r", 100, 0, **DENIED), row("u", 50, 5))
    live(world, schemas(), **rows)
    assert outcomes(world) == ["delivered", "stale"]
    assert callable_(world) == {"7": False}


def test_after_a_failover_changes_apply_and_it_is_told_once(rows: dict[str, Any]) -> None:
    """Withdrawals and grants of the new log, whatever the positions of the old one were; one warning, one count."""
    world = tell(World(), row("c", 1000, 1), row("c", 1001, 2, 8), row("c", 1002, 3, 9))
    live(world, schemas(), **rows)
    tell(world, row("u", 5, 10, **DENIED), row("u", 6, 11, 8, phone="+15550111"), row("u", 7, 12), row("d", 8, 13, 9))
    with capture_logs() as logs:
        life = live(world, schemas(), **rows)
    assert callable_(world) == {"7": True, "8": True}
    assert world.list["8"]["phone"] == "+15550111"
    assert "stale" not in outcomes(world)
    assert [entry["record"] for entry in logs if entry["event"] == "source_epoch_began"] == [f"{TOPIC}/0/3"]
    assert life.telemetry.epochs == {PARTITION: 1}


def test_what_the_old_log_granted_is_stale_when_it_is_sent_again(rows: dict[str, Any]) -> None:
    """Although its position is far above; and a withdrawal of the new log that is sent again is a duplicate."""
    world = tell(World(), row("c", 1000, 1), row("u", 1001, 2, phone="+15550111"), row("u", 5, 10, **DENIED))
    live(world, schemas(), **rows)
    tell(world, row("u", 1001, 2, phone="+15550111"), row("u", 5, 10, **DENIED))
    with capture_logs() as logs:
        live(world, schemas(), **rows)
    assert outcomes(world)[-2:] == ["stale", "duplicate"]
    assert callable_(world) == {"7": False}
    assert [entry for entry in logs if entry["event"] == "source_epoch_began"] == []


@pytest.mark.parametrize(
    "last", [row("u", 5, 10, **DENIED, phone="+15550177"), row("d", 5, 10)], ids=["withdrawn", "deleted"]
)
def test_a_withdrawal_of_the_old_log_that_is_sent_again_lets_no_grant_behind_it_apply(
    rows: dict[str, Any], last: Told
) -> None:
    """Nobody knows its order, so it applies; the grant that followed it is still older than what withdrew last."""
    old = [row("u", 1001, 2, **DENIED), row("u", 1002, 3)]
    world = tell(World(), row("c", 1000, 1), *old)
    for told in ([last], old, [last]):
        live(world, schemas(), **rows)
        tell(world, *told)
        live(world, schemas(), **rows)
        assert True not in callable_(world).values()


def test_a_withdrawal_by_a_position_applies_where_none_is_known(rows: dict[str, Any]) -> None:
    """A tombstone has none: nothing went back, and nobody is told so."""
    world = World()
    world.append([Record(*PARTITION, 0, TIME_MS, b"7", None)])
    tell(world, row("c", 5, 10, **DENIED))
    with capture_logs() as logs:
        live(world, schemas(), **rows)
    assert callable_(world) == {"7": False}
    assert [entry for entry in logs if entry["event"] == "source_order_went_back"] == []


def test_reading_the_topic_again_from_its_start_sends_nothing(rows: dict[str, Any]) -> None:
    """Every record has the epoch that it had."""
    story = [
        row("c", 1000, 1),
        row("u", 1001, 2, **DENIED),
        row("u", 5, 10),
        row("u", 3, 20, **DENIED),
        row("u", 4, 21),
    ]
    world = tell(World(), *story)
    live(world, schemas(), **rows)
    before, sent = kept(world), list(world.sent)
    world.committed.clear()
    life = live(world, schemas(), **rows)
    assert world.sent == sent
    assert set(outcomes(world)[len(story) :]) <= {"stale", "duplicate"}
    assert kept(world) == before
    assert life.telemetry.epochs == {}


def test_a_restored_database_does_not_grant_what_was_withdrawn(rows: dict[str, Any]) -> None:
    """A snapshot of it reads the row as it was in the backup: no change tells that the person agreed since."""
    world = tell(World(), row("c", 1000, 1), row("u", 1001, 2, **DENIED), row("c", 1002, 3, 8))
    live(world, schemas(), **rows)
    tell(world, row("r", 6, 10), row("u", 7, 11, 8), row("r", 9, 12), row("r", 9, 12, 8, **DENIED))
    live(world, schemas(), **rows)
    assert outcomes(world)[-4:] == ["stale", "duplicate", "stale", "delivered"]
    assert callable_(world) == {"7": False, "8": False}


def test_a_later_grant_waits_for_no_position(rows: dict[str, Any]) -> None:
    """Also where the withdrawal applied before the failover showed: while the new server's clock was behind."""
    world = tell(World(), row("c", 1000, 1), row("c", 1001, 50, 8), row("u", 5, 40, **DENIED))
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False, "8": True}
    tell(world, row("u", 6, 60))
    live(world, schemas(), **rows)
    assert outcomes(world)[-1] == "delivered"
    assert callable_(world) == {"7": True, "8": True}


def test_the_state_tells_the_epoch(rows: dict[str, Any]) -> None:
    """And is written in the format of earlier releases before the first failover."""
    world = tell(World(), row("c", 1000, 1), row("c", 1001, 2, 8), row("u", 5, 10))
    live(world, schemas(), **rows)
    entries, _ = world.stores[PARTITION]
    raws = [entries[fingerprints.identity(name)] for name in ("7", "8")]
    assert [(raw[0], state_bytes.decode(raw).epoch, state_bytes.decode(raw).version) for raw in raws] == [
        (3, 1, 1 << 32 | 5),
        (2, 0, 1 << 32 | 1001),
    ]


STORY = [
    row("c", 1000, 1),
    row("c", 1001, 2, 8),
    row("u", 1002, 3, 8, **DENIED),
    row("u", 5, 10, **DENIED),
    row("u", 6, 11, 8),
    row("u", 1002, 3, 8, **DENIED),
    row("u", 5, 10, **DENIED),
    row("u", 6, 11, 8),
    row("c", 7, 12, 9),
    row("u", 2, 20),
    row("u", 3, 21, 9, **DENIED),
]


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_crash_anywhere_leaves_the_same_epochs(rows: dict[str, Any], after_effect: bool) -> None:
    """What was seen and not settled comes again, and is seen in the same way."""
    undisturbed = tell(World(), *STORY)
    live(undisturbed, schemas(), **rows)
    step, died = 0, True
    while died:
        step += 1
        world = tell(World(), *STORY)
        world.poll_records = 2
        died = survive(world, step, after_effect=after_effect, schemas=schemas(), **rows)
        world.die_at = None
        live(world, schemas(), **rows)
        assert callable_(world) == {"7": True, "8": True, "9": False}
        assert kept(world) == kept(undisturbed)
        assert world.committed == {PARTITION: len(STORY)}
    assert epochs.decode(kept(undisturbed)).last == 2
    assert step > 10


def test_what_was_seen_of_a_lost_partition_is_forgotten_with_it(rows: dict[str, Any]) -> None:
    """Its next owner sees the records that were not settled anew, and finds the same failover."""
    world = tell(World(), row("c", 1000, 1))
    live(world, schemas(), **rows)
    tell(world, row("u", 5, 10, **DENIED), row("u", 6, 11))
    world.answer = outage(3, SinkUnavailable("no answer"))

    async def move(life: Life) -> None:
        await until(lambda: life.telemetry.epochs[PARTITION] == 1)
        life.source.lose([PARTITION])
        await until(lambda: PARTITION not in life.pipeline.partitions)
        life.source.assign([PARTITION])
        await until(lambda: world.committed[PARTITION] == 3)
        assert life.telemetry.epochs == {PARTITION: 2}

    in_life(world, move, schemas(), **rows)
    assert callable_(world) == {"7": True}
    assert epochs.decode(kept(world)).last == 1


def test_a_topic_without_positions_keeps_no_epochs() -> None:
    """Nothing more is written for it than before."""
    story = Story().tell(0, Event("a", 5), Event("a", 3, occurred_at=2 * TIME_MS))
    world = World()
    world.append(story.records())
    live(world)
    assert [event["outcome"] for event in world.events()][-1] == "stale"
    assert EPOCHS_KEY not in {name for entries in world.changelog.values() for name, _ in entries}
