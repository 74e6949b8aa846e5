"""A tripped fuse in the pipeline: what is held, what goes on, how it is told, and how it is released."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from consumer.core.fuse import release
from consumer.errors import FatalError
from consumer.model import Record, TopicPartition
from consumer.ports import Grown, Lost
from tests.envelopes import COLUMNS, MAPPING, ROW, TIME_MS, encoded, record_type
from tests.lives import Life, in_life, live
from tests.memory_ports import MemorySchemas, World
from tests.stories import Event
from tests.virtual_time import passes, until

ROWS, OTHER = "crm.public.customers", "crm.leads"
R0, R1, OTHER0 = TopicPartition(ROWS, 0), TopicPartition(ROWS, 1), TopicPartition(OTHER, 0)
ENVELOPE = record_type(
    "Envelope",
    {
        "before": ["null", record_type("Value", COLUMNS)],
        "after": ["null", "Value"],
        "source": record_type("Source", {"ts_ms": "long", "lsn": "long"}),
        "op": "string",
    },
)
TOPICS = {"kafka_source_topics": f"{ROWS},{OTHER}"}


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Any]:
    """Settings for a topic of Debezium and one of native events."""
    texts = [f"{name} = {json.dumps(field)}" for name, field in MAPPING.items() if isinstance(field, str)]
    flag = 'consent = { path = "consent", values = { granted = true, denied = false } }'
    path = tmp_path / "mapping.toml"
    path.write_text("\n".join(["[default]", *texts, 'do_not_call = { path = "dnc", values = { N = false } }', flag]))
    return {**TOPICS, "source_envelope": f"{ROWS}=debezium", "source_mapping": str(path)}


def row(op: str, number: int) -> tuple[bytes, bytes]:
    """Key and value of a change of a row."""
    image = ROW | {"id": number}
    sides = {"before": image if op == "d" else None, "after": image if op in {"c", "u"} else None}
    fields = {"op": op, **sides, "source": {"ts_ms": TIME_MS, "lsn": 1}}
    return str(number).encode(), b"\0\0\0\0\7" + encoded(ENVELOPE, fields)


def tell(world: World, partition: TopicPartition, *told: tuple[bytes, bytes | None]) -> None:
    """Append records, a second apart."""
    log = world.log.setdefault(partition, [])
    for key, value in told:
        log.append(Record(*partition, len(log), TIME_MS + 1000 * len(log), key, value))


def told(count: int, **kind: Any) -> Sequence[tuple[bytes, bytes | None]]:
    """Keys and values of native events of so many contacts."""
    events = [Event(f"contact-{n}", None, **kind) for n in range(count)]
    return [(event.external_id.encode(), event.value()) for event in events]


def schemas() -> MemorySchemas:
    """Those of the rows, and the native one."""
    return MemorySchemas({7: [json.dumps(ENVELOPE)]})


def tripping(world: World, **settings: Any) -> dict[str, Any]:
    """A life until all is settled that a fuse lets in; what the log says of the fuse."""
    with capture_logs() as lines, pytest.raises(FatalError, match="stands still"):
        live(world, schemas(), **settings)
    (line,) = [line for line in lines if line["event"] == "fuse_tripped"]
    return dict(line)


def released_by(line: dict[str, Any]) -> dict[str, str]:
    """The setting that a line of the log asks for."""
    return {"fuse_releases": line["remedy"].partition("FUSE_RELEASES=")[2].partition(" ")[0]}


def outcomes(world: World, topic: str = ROWS) -> list[str]:
    """Of the records of a topic, in the order of the audit topic."""
    return [event["outcome"] for event in world.events() if event["source"]["topic"] == topic]


def test_a_truncate_holds_its_topic_and_others_go_on(rows: dict[str, Any]) -> None:
    """What stood before it is delivered, nothing after it, and a withdrawal on another topic is."""
    world = World()
    tell(world, R0, row("c", 1), row("c", 2), row("t", 0), row("u", 1), row("c", 3))
    tell(world, OTHER0, *told(1), *told(1, consent=False))
    line = tripping(world, **rows)
    assert {*world.list} == {"1", "2", "contact-0"}
    assert world.list["contact-0"]["callable"] is False
    assert world.committed == {R0: 2, OTHER0: 2}
    assert (line["topic"], line["partition"], line["offset"], line["cause"]) == (ROWS, 0, 2, "truncate")
    assert line["log_level"] == "error"


def test_a_released_truncate_is_rejected_and_what_it_held_follows_in_order(rows: dict[str, Any]) -> None:
    """The log says with which setting; nothing was lost, and a restart without it stands where it stood."""
    world = World()
    tell(world, R0, row("c", 1), row("t", 0), row("u", 1), row("d", 1), row("c", 2), row("c", 1))
    assert tripping(world, **rows)["offset"] == 1
    line = tripping(world, **rows)
    assert line["offset"] == 1
    assert world.committed == {R0: 1}
    live(world, schemas(), **rows, **released_by(line))
    assert {*world.list} == {"1", "2"}
    assert world.committed == {R0: 6}
    assert [event["source"]["offset"] for event in world.events()] == [*range(6)]
    assert outcomes(world)[1] == "rejected"
    assert [reason for _, reason in world.dead_letters] == ["resync_needed"]


def test_a_release_is_of_one_truncate(rows: dict[str, Any]) -> None:
    """A later one trips again."""
    world = World()
    tell(world, R0, row("t", 0), row("c", 1), row("t", 0))
    line = tripping(world, **rows)
    assert tripping(world, **rows, **released_by(line))["offset"] == 2
    assert world.committed == {R0: 2}


def test_a_replayed_truncate_does_not_trip_again(rows: dict[str, Any]) -> None:
    """Somebody put all dead letters back: it is rejected once more, and that is all."""
    world = World()
    tell(world, R0, row("t", 0), row("c", 1))
    origin = f"{ROWS}/0/0".encode()
    world.log[R0][0] = replace(world.log[R0][0], headers=[("dead-letter.origin", origin)])
    live(world, schemas(), **rows)
    assert outcomes(world) == ["rejected", "delivered"]


def test_an_overflow_of_salesforce_trips_too() -> None:
    """It names nobody: more changed than is told."""
    header = {"recordIds": {"type": "array", "items": "string"}, "changeType": "string", "commitTimestamp": "long"}
    fields = {name: ["null", "string"] for name in ("MobilePhone", "Email")}
    fields |= {name: ["null", "boolean"] for name in ("DoNotCall", "Call_Consent__c")}
    schema = record_type("LeadChangeEvent", {"ChangeEventHeader": record_type("Header", header), **fields})
    about = {"recordIds": ["000000000000000AAA"], "changeType": "GAP_OVERFLOW", "commitTimestamp": TIME_MS}
    body = encoded(schema, {"ChangeEventHeader": about, **dict.fromkeys(fields)})
    world = World()
    tell(world, OTHER0, (b"k", b"\0\0\0\0\7" + body))
    settings = {"kafka_source_topics": OTHER, "source_envelope": "salesforce"}
    with capture_logs() as lines, pytest.raises(FatalError, match="more changed than is told"):
        live(world, MemorySchemas({7: [json.dumps(schema)]}), **settings)
    assert [line["cause"] for line in lines if line["event"] == "fuse_tripped"] == ["overflow"]


def test_a_mass_of_deletes_without_a_time_is_held_until_it_is_released_as_told() -> None:
    """No release of a time is for it, not that of the record with a time behind it either; the line says so."""
    world = World()
    tell(world, OTHER0, *told(600), *told(600, delete=True))
    log = world.log[OTHER0]
    log[600:] = [record if record.offset == 702 else replace(record, timestamp_ms=-1) for record in log[600:]]
    settings: dict[str, Any] = {"kafka_source_topics": OTHER, "fuse_deletes": 100}
    line = tripping(world, **settings, fuse_releases=release(OTHER, log[702].timestamp_ms))
    assert (line["offset"], line["cause"]) == (700, "deletes")
    assert "take it back" in line["remedy"]
    live(world, schemas(), **settings, **released_by(line))
    assert world.list == {}


def test_a_mass_of_deletes_with_and_without_a_time_is_released_as_told() -> None:
    """The line keeps what is released: who sets what it says needs no third one."""
    world = World()
    tell(world, OTHER0, *told(600), *told(600, delete=True))
    log = world.log[OTHER0]
    log[600:] = [replace(record, timestamp_ms=-1) if record.offset % 2 else record for record in log[600:]]
    settings: dict[str, Any] = {"kafka_source_topics": OTHER, "fuse_deletes": 100}
    last = release(OTHER, log[-2].timestamp_ms)
    line = tripping(world, **settings, fuse_releases=last)
    assert released_by(line) == {"fuse_releases": f"{last},{OTHER}@1970-01-01T00:00:00Z"}
    assert "take it back" in line["remedy"]
    line = tripping(world, **settings, fuse_releases=f"{OTHER}@1970-01-01T00:00:00Z")
    assert released_by(line)["fuse_releases"].endswith(f"Z,{OTHER}@1970-01-01T00:00:00Z")
    live(world, schemas(), **settings, fuse_releases=f"{OTHER}@1970-01-01T00:00:00Z,{last}")
    assert world.list == {}


def test_a_mass_of_deletes_is_held_and_done_once_released() -> None:
    """Some of it gets in before it is a mass, and as much again with each restart; after the release all of it."""
    world = World()
    tell(world, OTHER0, *told(600), *told(600, delete=True))
    settings: dict[str, Any] = {"kafka_source_topics": OTHER, "fuse_deletes": 100}
    line = tripping(world, **settings)
    assert (line["cause"], line["offset"]) == ("deletes", 700)
    assert released_by(line) == {"fuse_releases": release(OTHER, world.log[OTHER0][706].timestamp_ms)}
    assert len(world.list) == 500
    line = tripping(world, **settings)
    assert 400 <= len(world.list) < 414
    tripping(world, **settings, **released_by(line))
    assert 280 <= len(world.list) < 307, "the release that was told is of what was seen"
    live(world, **settings, fuse_releases=release(OTHER, world.log[OTHER0][-1].timestamp_ms))
    assert world.list == {}
    assert outcomes(world, OTHER) == ["delivered"] * 1200


def test_deletes_with_their_tombstones_are_counted_once(rows: dict[str, Any]) -> None:
    """A hundred pairs are a hundred deletes; the fuse holds, and trips with the next one."""
    world = World()
    for number in range(100):
        tell(world, R0, row("d", number), (str(number).encode(), None))
    live(world, schemas(), **rows, fuse_deletes=100)
    assert len(outcomes(world)) == 200
    world.committed.clear()
    tell(world, R0, row("d", 100))
    assert tripping(world, **rows, fuse_deletes=100)["cause"] == "deletes"


def test_any_number_of_people_may_withdraw() -> None:
    """A thousand withdrawals are no mass of deletes."""
    world = World()
    tell(world, OTHER0, *told(1000, consent=False))
    live(world, kafka_source_topics=OTHER, fuse_deletes=1)
    assert outcomes(world, OTHER) == ["delivered"] * 1000


def test_all_partitions_of_the_topic_stop_and_it_is_told(rows: dict[str, Any]) -> None:
    """Also one that is assigned later, and one that comes back; other topics go on, whatever comes meanwhile."""
    world = World()
    tell(world, R0, row("c", 0))
    tell(world, R1, row("c", 1))
    tell(world, OTHER0, *told(1))

    async def act(life: Life) -> None:
        pipeline = life.pipeline
        await until(lambda: world.committed == {R0: 1, R1: 1, OTHER0: 1})
        tell(world, R0, row("t", 0))
        life.source.wake()
        await until(lambda: pipeline.fuses.tripped)
        later = TopicPartition(ROWS, 2)
        tell(world, R1, row("c", 2))
        tell(world, later, row("c", 3))
        life.source.assign([later])
        await life.source.revoke([R0])
        life.source.assign([R0])
        tell(world, OTHER0, *told(2, phone="+15550199"))
        life.source.wake()
        await until(lambda: world.committed[OTHER0] == 3)
        await passes(60)
        assert world.committed == {R0: 1, R1: 1, OTHER0: 3}
        assert pipeline.ready
        assert {key for key, partition in pipeline.partitions.items() if partition.blocked} == {R0, R1, later}
        assert life.source.paused == {R0, R1, later}
        assert {part.status()["state"] for key, part in pipeline.partitions.items() if key.topic == ROWS} == {"fused"}
        assert pipeline.partitions[OTHER0].status()["state"] == "running"
        assert pipeline.fuses.levels() == {ROWS: 1, OTHER: 0}
        stalled = pipeline.stalled()
        assert all(60 <= stalled[key] < 65 for key in (R0, later))  # nothing is held, and what stands there waits
        assert stalled[R1] == stalled[OTHER0] == 0  # where, as far as is known, nothing does
        status = pipeline.status()
        assert status["state"] == "degraded"
        assert status["reason"] == (
            "crm.public.customers stands still at 0/1: its table was truncated; "
            "if that is meant, set FUSE_RELEASES=crm.public.customers@2023-11-14T22:13:21Z and restart"
        )

    in_life(world, act, schemas(), **rows)
    assert world.committed == {R0: 1, R1: 1, OTHER0: 3}


def test_a_partition_stalls_from_when_something_waits_for_the_release(rows: dict[str, Any]) -> None:
    """Not since it settled something last, which may be a day ago, nor while it has nothing."""
    world = World()
    tell(world, R0, row("c", 0))
    tell(world, R1, row("c", 1))

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {R0: 1, R1: 1})
        await passes(1000)
        tell(world, R0, row("t", 0))
        life.source.wake()
        await until(lambda: life.pipeline.fuses.tripped)
        await passes(100)
        assert life.pipeline.stalled() == {R0: pytest.approx(100, abs=2), R1: 0}
        life.source._events.put_nowait(Grown({R1: 2}))
        life.source.wake()
        await passes(50)
        assert life.pipeline.stalled() == {R0: pytest.approx(150, abs=2), R1: pytest.approx(50, abs=2)}

    in_life(world, act, schemas(), **rows)


def test_without_a_trip_all_is_well(rows: dict[str, Any]) -> None:
    """Nothing is degraded, and nobody is told to release anything."""
    world = World()
    tell(world, R0, row("c", 1))
    life = live(world, schemas(), **rows)
    assert life.pipeline.fuses.levels() == {ROWS: 0, OTHER: 0}
    assert life.pipeline.degraded is None
    assert life.pipeline.fuses.reason == ""


def test_records_of_a_lost_partition_that_come_again_are_counted_once() -> None:
    """They are the same deletes: no mass."""
    world = World()
    tell(world, OTHER0, *told(60, delete=True))
    world.latency = 5.0

    async def act(life: Life) -> None:
        await until(lambda: bool(world.requested) and len(life.pipeline.partitions[OTHER0].tracker) == 60)
        life.source.lose([OTHER0])
        life.source.assign([OTHER0])
        await until(lambda: world.committed == {OTHER0: 60})
        assert not life.pipeline.fuses.tripped

    in_life(world, act, kafka_source_topics=OTHER, fuse_deletes=100)


def test_a_revocation_that_ends_late_forgets_nothing_of_the_next_assignment() -> None:
    """It took too long, so the partition was lost, and came back: what was counted since is part of the mass."""
    world = World()
    tell(world, OTHER0, *told(60, delete=True))
    world.latency = 5.0

    async def act(life: Life) -> None:
        partitions = life.pipeline.partitions
        await until(lambda: bool(world.requested) and len(partitions[OTHER0].tracker) == 60)
        former = partitions[OTHER0]
        revoked = asyncio.create_task(life.source.revoke([OTHER0]))
        await until(lambda: former.closing)
        life.source._events.put_nowait(Lost([OTHER0]))
        life.source.assign([OTHER0])
        await until(lambda: partitions.get(OTHER0, former) is not former and len(partitions[OTHER0].tracker) == 60)
        assert not revoked.done()
        await revoked
        tell(world, OTHER0, *told(60, delete=True))
        life.source.wake()
        await until(lambda: life.pipeline.fuses.tripped)

    in_life(world, act, kafka_source_topics=OTHER, fuse_deletes=100)


def test_it_trips_among_records_that_waited_for_a_schema(rows: dict[str, Any]) -> None:
    """The partition that waits, and another of its topic that still waits then, take in nothing more."""
    world = World()
    tell(world, R0, row("t", 0), row("c", 1))
    unknown = b"\0\0\0\0\x09" + row("c", 2)[1][5:]
    tell(world, R1, (b"2", unknown), row("c", 3))

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.fuses.tripped)
        await passes(60)
        assert all(partition.blocked for partition in life.pipeline.partitions.values())
        assert [len(partition.held) for partition in life.pipeline.partitions.values()] == [2, 2]

    late = MemorySchemas({7: [None, json.dumps(ENVELOPE)], 9: [None] * 5 + [json.dumps(ENVELOPE)]})
    in_life(world, act, late, **rows)
    assert world.committed == {}


def test_a_process_that_is_told_to_stop_ends_as_ever(rows: dict[str, Any]) -> None:
    """Only who waits for all to be settled is told that it will not be."""
    world = World()
    tell(world, R0, row("c", 1), row("t", 0))

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.fuses.tripped and world.committed == {R0: 1})

    in_life(world, act, schemas(), **rows)
    assert world.committed == {R0: 1}
