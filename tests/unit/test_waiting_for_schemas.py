"""A partition waits for the schema of the record that is next, for no other one, and it is said that it does."""

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from structlog.testing import capture_logs

from consumer.core.offsets import decode_settled
from consumer.errors import SourceUnavailable
from consumer.formats import SchemaReference
from consumer.model import Record, Settlement, TopicPartition
from consumer.pipeline import intake
from consumer.pipeline.feed import TOLD_AFTER_S
from consumer.pipeline.intake import CHUNK
from consumer.pipeline.settle import SETTLED_KEY
from consumer.ports import Polled
from tests import virtual_time
from tests.lives import Life, in_life, live, world_of
from tests.memory_ports import SCHEMA, MemorySchemas, MemoryTopics
from tests.stories import TOPIC, Event, Story
from tests.virtual_time import passes, until

P0 = TopicPartition(TOPIC, 0)
AWAY = SourceUnavailable("down")


class _Timed(MemorySchemas):
    """Remembers when it was asked."""

    def __init__(self, answers: Mapping[SchemaReference, Sequence[str | Exception | None]]) -> None:
        super().__init__(answers)
        self.asked: list[float] = []

    async def fetch(self, reference: SchemaReference) -> str | None:
        self.asked.append(asyncio.get_running_loop().time())
        return await super().fetch(reference)


def _written_with(schema: int, record: Record) -> Record:
    return replace(record, value=b"\0\0\0\0" + bytes([schema]) + (record.value or b"")[5:])


def _story() -> Story:
    """A grant, its withdrawal, and somebody else."""
    return Story().tell(0, Event("contact-0", 1), Event("contact-0", 2, consent=False), Event("contact-1", 1))


def test_what_can_be_read_goes_on_before_a_record_of_a_schema_that_cannot_be_had() -> None:
    """As after a start without the registry, when all that was polled is held: a withdrawal may be among it."""
    world = world_of(_story())
    world.log[P0][2] = _written_with(7, world.log[P0][2])

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {P0: 2})
        assert not world.list["contact-0"]["callable"]
        assert life.pipeline.partitions[P0].held == world.log[P0][2:]

    in_life(world, act, MemorySchemas({7: [AWAY]}))


def test_schemas_of_what_is_held_are_fetched_at_the_same_time() -> None:
    """Each for ten seconds: one after the other they would take thirty."""
    world = world_of(_story())
    world.log[P0] = [_written_with(7 + n, record) for n, record in enumerate(world.log[P0])]

    async def act(_: Life) -> None:
        began = asyncio.get_running_loop().time()
        await until(lambda: world.committed == {P0: 3})
        assert asyncio.get_running_loop().time() - began < 20

    in_life(world, act, MemorySchemas({7 + n: [AWAY] * 10 + [SCHEMA] for n in range(3)}))


def test_what_waits_for_a_second_schema_stays_before_what_was_polled_meanwhile() -> None:
    """A poll was under way when the partition was paused. Taken in behind it, the rest would pass for repeats."""
    world = world_of(Story().tell(0, *(Event(f"c-{n}", 1) for n in range(600))))
    world.poll_records = 500
    for offset, schema in ((0, 7), (300, 8)):
        world.log[P0][offset] = _written_with(schema, world.log[P0][offset])

    async def act(life: Life) -> None:
        await until(lambda: P0 in life.pipeline.partitions)
        partition = life.pipeline.partitions[P0]
        while not 0 < len(partition.tracker) < 300:  # noqa: ASYNC110 -- between two chunks of what was held
            await asyncio.sleep(0)
        life.source._positions[P0] = 600
        await life.pipeline._feed.take(world.log[P0][500:], {})
        await until(lambda: world.committed == {P0: 600})

    in_life(world, act, MemorySchemas({7: [SCHEMA], 8: [AWAY] * 3 + [SCHEMA]}), genesys_requests_per_minute=3000)
    assert len(world.list) == 600
    assert [event["source"]["offset"] for event in world.events()] == list(range(600))


def test_a_partition_that_leaves_takes_in_no_more_of_what_waited() -> None:
    """It is for the next owner, and nobody would drop it any more."""
    world = world_of(Story().tell(0, *(Event(f"c-{n}", 1) for n in range(500))))
    world.poll_records = 500
    world.log[P0][0] = _written_with(7, world.log[P0][0])

    async def act(life: Life) -> None:
        await until(lambda: P0 in life.pipeline.partitions)
        partition = life.pipeline.partitions[P0]
        while not len(partition.tracker):  # noqa: ASYNC110 -- between two chunks of what was held
            await asyncio.sleep(0)
        life.pipeline._assignments.revoke([P0], lambda: None)
        await passes(5)
        assert len(partition.tracker) < 500
        assert (world.requested, len(life.pipeline.lanes)) == ([], 0)

    in_life(world, act, MemorySchemas({7: [SCHEMA]}), batch_max_records=500)


def test_a_schema_is_asked_for_once_by_all_who_wait_for_it() -> None:
    """Partitions of a topic share what is learnt, and the asking."""
    world = world_of(Story().tell(0, Event("contact-0", 1)).tell(1, Event("contact-1", 1)))
    for key, log in world.log.items():
        world.log[key] = [_written_with(7, record) for record in log]
    schemas = _Timed({7: [AWAY] * 4 + [SCHEMA]})
    live(world, schemas)
    assert len(schemas.asked) == 5
    assert all(later - earlier >= 1 for earlier, later in pairwise(schemas.asked))


def test_a_consumer_ends_while_schemas_are_asked_for() -> None:
    """The end of the pipeline is the end of all its tasks."""
    world = world_of(_story())
    world.log[P0][2] = _written_with(7, world.log[P0][2])

    async def main() -> None:
        life = Life(world, MemorySchemas({7: [AWAY]}))
        running = asyncio.create_task(life.run(until_caught_up=False))
        await until(lambda: world.committed == {P0: 2})
        life.stop.set()
        await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("registry", "remedy"),
    [
        ({"schema_registry_url": "http://registry.invalid"}, "have the registry answer"),
        ({}, "set SCHEMA_REGISTRY_URL, or add it to SCHEMAS_DIR, and restart"),
    ],
)
def test_who_waits_for_a_schema_is_told_once_with_the_remedy(registry: dict[str, str], remedy: str) -> None:
    """In the log, and as the reason of the status for as long as it lasts: `running` would hide what stands still."""
    world = world_of(_story())
    world.log[P0][2] = _written_with(7, world.log[P0][2])

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {P0: 2})
        await passes(2 * TOLD_AFTER_S)
        assert life.pipeline.status()["state"] == "degraded"
        assert life.pipeline.degraded == f"{TOPIC}/0 waits for schema 7"
        await until(lambda: world.committed == {P0: 3})
        assert life.pipeline.degraded is None

    with capture_logs() as logs:
        in_life(world, act, MemorySchemas({7: [AWAY] * 60 + [SCHEMA]}), **registry)
    (told,) = [entry for entry in logs if entry["event"] == "waiting_for_schema"]
    assert (told["topic"], told["partition"], told["schema_id"], told["log_level"]) == (TOPIC, 0, "7", "warning")
    assert told["remedy"].startswith(remedy)


def test_a_registry_that_is_away_is_told_at_once_and_every_30_seconds() -> None:
    """A line each second would push all others out of sight."""
    world = world_of(_story())
    world.log[P0] = [_written_with(7 + (n == 2), record) for n, record in enumerate(world.log[P0])]
    told: list[float] = []

    def note(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if line["event"] == "schema_not_available" and line["schema_id"] == "7":
            told.append(asyncio.get_running_loop().time())
        raise structlog.DropEvent

    with capture_logs(processors=[note]):
        live(world, MemorySchemas({7: [AWAY] * 70 + [SCHEMA], 8: [SCHEMA]}))
    assert [round(later - told[0]) for later in told] == [0, 30, 60]


def test_a_registry_that_answers_is_not_told() -> None:
    """Each new schema is fetched once: that is no trouble."""
    world = world_of(_story())
    with capture_logs() as logs:
        live(world)
    assert "waiting_for_schema" not in [entry["event"] for entry in logs]


def test_a_partition_that_is_gone_is_not_said_to_wait() -> None:
    """Whoever has it now says so."""
    world = world_of(_story())
    world.log[P0] = [_written_with(7, record) for record in world.log[P0]]

    async def act(life: Life) -> None:
        await until(lambda: any(partition.held for partition in life.pipeline.partitions.values()))
        await passes(TOLD_AFTER_S / 2)
        life.source.lose([P0])
        await passes(2 * TOLD_AFTER_S)
        assert life.pipeline.degraded is None

    with capture_logs() as logs:
        in_life(world, act, MemorySchemas({7: [AWAY]}))
    assert "waiting_for_schema" not in [entry["event"] for entry in logs]


def test_brokers_that_do_not_answer_are_the_reason() -> None:
    """Where nothing is to be settled nobody else would notice."""
    world = world_of(_story())

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {P0: 3})
        assert life.pipeline.degraded is None
        life.source.connected = False
        assert life.pipeline.status()["state"] == "degraded"
        assert life.pipeline.degraded == "no broker answers"

    in_life(world, act)


def test_a_source_topic_that_is_gone_is_the_reason() -> None:
    """Once the group has taken its partitions away nothing else shows it."""
    world = world_of(_story())

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {P0: 3})
        life.source.missing = {"people", "crm"}
        assert life.pipeline.status()["state"] == "degraded"
        assert life.pipeline.degraded == "source topic crm is gone; source topic people is gone"

    in_life(world, act)


def test_every_reason_is_told() -> None:
    """One does not hide the other: each has a remedy of its own."""
    world = world_of(_story())
    world.log[P0][2] = _written_with(7, world.log[P0][2])

    async def act(life: Life) -> None:
        await until(lambda: bool(life.pipeline.partitions.waiting))
        life.source.connected = False
        assert life.pipeline.degraded == f"no broker answers; {TOPIC}/0 waits for schema 7"

    in_life(world, act, MemorySchemas({7: [AWAY]}))


class _Settled(MemoryTopics):
    """Notes what each settlement commits, and up to where it says that nothing is left."""

    noted: Sequence[tuple[int, int]] = ()

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        (raw,) = [value for _, name, value in settlement.changelog if name == SETTLED_KEY]
        assert raw is not None
        self.noted = [*self.noted, (settlement.offsets[P0], decode_settled(raw)[0])]
        return await super().settle(settlement)


@pytest.mark.parametrize("revoked", [False, True])
def test_what_was_held_is_not_settled_while_it_is_taken_in(monkeypatch: pytest.MonkeyPatch, *, revoked: bool) -> None:
    """Nor what is let go of meanwhile: the store would know of no loss where the group's offset is forgotten.

    The end of the partition was reached when all of it was held, and all that is taken in is decided: duplicates.
    """
    monkeypatch.setattr(intake, "TURNS", 10_000)
    count = 5 * CHUNK
    world = world_of(Story().tell(0, *[Event(f"contact-{number}", 1) for number in range(count)]))
    live(world)
    world.committed.clear()
    world.log[P0] = [_written_with(7, record) for record in world.log[P0]]
    world.poll_records = count
    topics = _Settled(world)

    async def act(life: Life) -> None:
        await until(lambda: P0 in life.pipeline.partitions and len(life.pipeline.partitions[P0].held) == count)
        assert life.pipeline.partitions[P0].unsettled == count
        life.source._events.put_nowait(Polled([], {P0: count + 1}))
        life.source.wake()
        await until(lambda: P0 in world.committed)
        if revoked:
            await life.source.revoke([P0])
        else:
            await until(lambda: world.committed == {P0: count})

    schemas = MemorySchemas({7: [AWAY, SCHEMA]})
    in_life(world, act, schemas, topics=topics, settle_interval_ms=1, genesys_max_in_flight=1)
    unfinished = [(committed, settled) for committed, settled in topics.noted if committed < count]
    assert unfinished
    assert all(committed == settled for committed, settled in unfinished)
    assert revoked or topics.noted[-1] == (count, count + 1)
