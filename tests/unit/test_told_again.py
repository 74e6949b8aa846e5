"""What is told again, or comes back: nobody is lost or called for it, and nothing of before touches what is now."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, replace

from consumer.core import dead_letters, framing
from consumer.core.fingerprints import identity
from consumer.core.offsets import Tracker
from consumer.errors import SinkUnavailable, SourceUnavailable
from consumer.formats import Framing, KeyFormat
from consumer.model import Assignment, ChangeEvent, Contact, DeadLetter, Record, Settlement, TopicPartition
from consumer.pipeline.partitions import Partition
from consumer.pipeline.quarantine import Quarantine
from consumer.pipeline.restore import AT_ONCE, Restorer
from consumer.pipeline.settle import DELETED_KEY, IMPORT_KEY
from consumer.ports import ChangelogOvertaken
from tests import virtual_time
from tests.debezium_rows import PARTITION, ROWS, callable_, reading, schemas
from tests.envelopes import COLUMNS, ROW, TEXT_KEYS, TIME_MS, encoded, record_type
from tests.fills import WRITTEN_MS, empty_world, fill, row as file_row
from tests.lives import Life, arrives, in_life, live, world_of
from tests.memory_ports import (
    SCHEMA,
    MemoryBreadcrumbs,
    MemorySchemas,
    MemorySink,
    MemoryStore,
    MemoryTopics,
    SilentTelemetry,
    World,
    outage,
)
from tests.stories import TOPIC, Event, Story, partly
from tests.virtual_time import passes, until

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
CONFLICT = ("consent_conflicts_with_do_not_call",)


WITHDRAWN = Event("c", 1, consent=False)
IN_CONFLICT = Event("c", 6, do_not_call=True, reasons=CONFLICT)
GIVEN_UP = {
    "withdrawn again": ([WITHDRAWN], Event("c", 6, consent=False)),
    "deleted again": ([Event("c", 1), Event("c", 2, delete=True)], Event("c", 6, delete=True)),
    "rejected, and never there": ([], IN_CONFLICT),
    "rejected, and gone before": ([Event("c", 1), Event("c", 2, delete=True)], IN_CONFLICT),
}


@pytest.mark.parametrize(("before", "after"), GIVEN_UP.values(), ids=GIVEN_UP)
@pytest.mark.parametrize("died", [False, True])
def test_a_grant_that_was_applied_and_then_refused_hides_no_withdrawal(
    before: list[Event], after: Event, died: bool
) -> None:
    """Its answer got lost, perhaps with the process: what was accepted last says nothing of what is there."""
    story = Story().tell(0, *before)
    world = world_of(story)
    live(world)
    grant = Event("c", 5)

    class Refusing(MemorySink):
        async def upsert(self, *arguments: Any, **named: Any) -> Any:
            if world.list.get("c", {}).get("callable") is not True:
                await super().upsert(*arguments, **named)
                raise SinkUnavailable("no answer, and applied")
            raise world.refusal

    if died:
        world.list["c"] = {"callable": True, **asdict(Contact("c", "+15550100", "", True, False, {}))}
    world.append(story.tell(0, grant, after).records()[len(before) : -1])
    live(world, sink=Refusing(world))
    assert (world.events()[-1]["outcome"], world.list["c"]["callable"]) == ("undeliverable", True)
    world.append(story.records()[-1:])
    live(world)
    assert world.list.get("c", {}).get("callable") is not True


@pytest.mark.usefixtures("partial_events")
def test_a_partial_grant_that_was_applied_and_then_not_shown_hides_no_withdrawal() -> None:
    """It ends as undeliverable after some tries, although one of them did it."""
    story = Story().tell(0, WITHDRAWN)
    world = world_of(story)
    live(world)

    class Hiding(MemorySink):
        async def amend(self, *arguments: Any, **named: Any) -> Any:
            amended = await super().amend(*arguments, **named)
            if amended:
                world.unseen = {"c"}
                raise SinkUnavailable("no answer, and applied")
            return amended

    world.append(story.tell(0, partly("c", 2, consent=True)).records()[1:])
    live(world, sink=Hiding(world))
    assert (world.events()[-1]["outcome"], world.list["c"]["callable"]) == ("undeliverable", True)
    world.append(story.tell(0, Event("c", 3, consent=False)).records()[2:])
    live(world)
    assert world.list["c"]["callable"] is False


@pytest.mark.parametrize("undecodable", [False, True])
def test_a_rejected_withdrawal_that_became_a_delete_stays_rejected(undecodable: bool) -> None:
    """Also when a newer change takes its place: the record is bad, and has to be found among the dead letters."""
    story = Story().tell(0, Event("c", 1))
    world = world_of(story)
    live(world)
    bad = (
        Event("c", 2, garbage=b"\1x", reasons=("not_decodable",))
        if undecodable
        else Event("c", 2, do_not_call=True, reasons=CONFLICT)
    )

    async def act(life: Life) -> None:
        world.poison, world.in_use = {"c"}, {"c"}
        arrives(world, life, story.tell(0, bad))
        await until(lambda: len(world.sent) > 0 and world.sent[-1][0] == "delete")
        await passes(1)
        world.poison = set()
        arrives(world, life, story.tell(0, Event("c", 3, phone="+15550199")))
        await until(lambda: world.committed.get(P0) == 3)

    in_life(world, act, suppress_undecodable="true")
    assert [event["outcome"] for event in world.events()] == ["delivered", "rejected", "delivered"]
    assert len(world.dead_letters) == 1


def row(op: str, pos: int, after: object, before: object = None, at: int | None = None) -> dict[str, object]:
    """A change of Debezium at a position of the log, at the time `at` or one that follows the position."""
    source = {"ts_ms": TIME_MS + (pos if at is None else at), "file": "log.1", "pos": pos}
    return {"before": before, "after": after, "source": source, "op": op}


def contact(external_id: int, **columns: object) -> dict[str, object]:
    """A row of one contact."""
    return ROW | {"id": external_id} | columns


def tell(world: World, *values: dict[str, object] | None, lag: int = 60_000) -> World:
    """Put records of one key on the topic, with Kafka's times behind those of the source; None is a tombstone."""
    start = len(world.log.setdefault(PARTITION, []))
    for offset, fields in enumerate(values, start):
        value = None if fields is None else b"\0\0\0\0\1" + encoded(ROWS, fields)
        world.append([Record(*PARTITION, offset, TIME_MS + lag + offset, b"6", value)])
    return world


@pytest.mark.parametrize("lag", [0, 60_000])
def test_a_connector_that_sends_delete_tombstone_create_again_loses_nobody(tmp_path: Path, lag: int) -> None:
    """The tombstone is the delete that stands before it, and no later one by Kafka's clock."""
    rows = reading(tmp_path)
    window = [row("d", 5, None, contact(6)), None, row("c", 6, contact(6, phone="+15550199"))]
    world = tell(World(), row("c", 1, contact(6)), *window, lag=lag)
    live(world, schemas(), **rows)
    assert callable_(world) == {"6": True}
    tell(world, *window, lag=lag)
    live(world, schemas(), **rows)
    assert callable_(world) == {"6": True}


@pytest.mark.parametrize("is_disk_kept", [True, False])
def test_nor_where_another_process_goes_on_at_the_tombstone(tmp_path: Path, *, is_disk_kept: bool) -> None:
    """What stood right before it is settled with the delete, until something else is settled."""
    rows = reading(tmp_path)
    window = [row("d", 5, None, contact(6)), None, row("c", 6, contact(6, phone="+15550199"))]
    world = tell(World(), row("c", 1, contact(6)))
    seen = []
    for value in (*window, *window):
        tell(world, value)
        live(world, schemas(), **rows)
        seen.append(callable_(world))
        if not is_disk_kept:
            world.stores.clear()
    assert seen == [{}, {}, *[{"6": True}] * 4]
    live(world, schemas(), **rows)
    assert DELETED_KEY not in world.stores[PARTITION][0]


def test_a_delete_is_remembered_until_something_else_is_settled(tmp_path: Path) -> None:
    """Nothing of those before it is kept."""
    rows = reading(tmp_path)
    world = tell(World(), row("c", 1, contact(6)))

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(PARTITION) == 1)
        partition = life.pipeline.partitions[PARTITION]
        marks = []
        for value in (row("d", 5, None, contact(6)), None, row("c", 6, contact(6)), row("u", 7, contact(6))):
            tell(world, value)
            life.source.wake()
            await until(lambda: world.committed[PARTITION] == len(world.log[PARTITION]) and not partition.overlay)
            marks.append((DELETED_KEY in world.stores[PARTITION][0], len(partition.deletes)))
        assert marks == [(True, 0), (True, 0), (False, 0), (False, 0)]
        entries = [value is None for key, value in world.changelog[PARTITION] if key == DELETED_KEY]
        assert entries == [False, False, True], "removed once"

    in_life(world, act, schemas(), **rows)


def test_a_delete_is_remembered_where_only_something_old_is_forgotten(tmp_path: Path) -> None:
    """Nothing is settled behind it then: its tombstone comes yet."""
    world = tell(World(), row("c", 1, contact(9)), row("c", 2, contact(6)), row("d", 5, None, contact(6)))

    async def act(life: Life) -> None:
        await until(lambda: DELETED_KEY in world.stores.get(PARTITION, ({}, 0))[0])
        partition, (entries, _) = life.pipeline.partitions[PARTITION], world.stores[PARTITION]
        partition.expired = {identity("9"): entries[identity("9")]}
        life.pipeline._settler.wake()
        await until(lambda: not partition.expired)
        assert entries.keys() & {identity("9"), DELETED_KEY} == {DELETED_KEY}

    in_life(world, act, schemas(), **reading(tmp_path))


class SeenTopics(MemoryTopics):
    """Without transactions: a settlement that ends with a delete is written, and nobody hears of it, once."""

    was_seen = False

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        positions = await super().settle(settlement)
        if not self.was_seen and DELETED_KEY in {key for _, key, _ in settlement.changelog}:
            self.was_seen = True
            raise SourceUnavailable("no answer")
        return positions


def test_nor_is_a_delete_that_was_seen_in_a_settlement_that_failed(tmp_path: Path) -> None:
    """What settles behind it takes the mark away that readers may have seen."""
    world = tell(World(), row("c", 1, contact(6)))
    topics = SeenTopics(world)

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(PARTITION) == 1)
        tell(world, row("d", 5, None, contact(6)))
        life.source.wake()
        await until(lambda: topics.was_seen)
        tell(world, row("c", 6, contact(6)))
        life.source.wake()
        await until(lambda: DELETED_KEY not in world.stores[PARTITION][0] and world.committed[PARTITION] == 3)

    in_life(world, act, schemas(), topics=topics, kafka_guarantee="at_least_once", **reading(tmp_path))
    assert dict(world.changelog[PARTITION])[DELETED_KEY] is None


def test_a_tombstone_that_follows_on_another_delete_deletes(tmp_path: Path) -> None:
    """Of another key, or not right behind it: it is one by itself."""
    rows = reading(tmp_path)
    world = tell(World(), row("c", 9, contact(6)), row("c", 2, contact(9)), row("d", 3, None, contact(9)))
    live(world, schemas(), **rows)
    world.append([Record(*PARTITION, 3, TIME_MS + 60_000, b"9", None)])
    live(world, schemas(), **rows)
    assert callable_(world) == {"6": True}
    tell(world, None)
    live(world, schemas(), **rows)
    assert callable_(world) == {}


def test_a_tombstone_right_behind_the_delete_of_somebody_else_has_none_of_its_order(tmp_path: Path) -> None:
    """By that version it would be older than what is known of its own contact, who would stay and be called."""
    rows = reading(tmp_path)
    world = tell(World(), row("c", 9, contact(6)), row("c", 2, contact(9)))
    gone = b"\0\0\0\0\1" + encoded(ROWS, row("d", 3, None, contact(9)))
    world.append([Record(*PARTITION, 2, TIME_MS + 60_000, b"9", gone)])
    tell(world, None)
    live(world, schemas(), **rows)
    assert callable_(world) == {}


def test_offsets_set_back_lose_nobody(tmp_path: Path) -> None:
    """The same records are read once more."""
    rows = reading(tmp_path)
    window = [row("d", 5, None, contact(6)), None, row("c", 6, contact(6, phone="+15550199"))]
    world = tell(World(), row("c", 1, contact(6)), *window)
    live(world, schemas(), **rows)
    world.committed.clear()
    live(world, schemas(), **rows)
    assert callable_(world) == {"6": True}


def test_a_withdrawal_that_went_back_and_took_a_place_lets_no_grant_from_before_apply(tmp_path: Path) -> None:
    """What it took the place of was told: its version counts, although nothing of it was sent."""
    rows = reading(tmp_path)
    denied = contact(6, consent="denied")
    grant = row("u", 30, contact(6, phone="+15550199"))
    world = tell(World(), row("c", 1, contact(6)), row("c", 2, contact(9), at=10**9))
    live(world, schemas(), **rows)

    async def act(life: Life) -> None:
        world.answer = outage(2, SinkUnavailable("down"))
        tell(world, grant)
        life.source.wake()
        await until(lambda: ("6",) in world.requested[1:])
        tell(world, row("u", 5, denied, at=40))
        life.source.wake()
        await until(lambda: world.committed[PARTITION] == 4)
        tell(world, grant)
        life.source.wake()
        await until(lambda: world.committed[PARTITION] == 5)

    in_life(world, act, schemas(), **rows)
    assert callable_(world)["6"] is False


def test_the_mark_of_a_load_that_was_given_up_does_not_stay() -> None:
    """The first start waits for an import that may be under way; the next ones know that there is none.

    So it is when the settlement that removes the mark fails at first.
    """
    story = Story()
    for number in range(16):
        story.tell(number, Event(f"c-{number}", 1))
    world = world_of(story)
    live(world)
    for key in world.stores:
        world.changelog[key].append((IMPORT_KEY, b"load-x"))
    took = []
    for _ in range(2):

        async def act(life: Life) -> None:
            life.topics.failures = [SourceUnavailable("down")]
            begun = asyncio.get_running_loop().time()
            await until(lambda: life.pipeline.ready)
            took.append(asyncio.get_running_loop().time() - begun)
            await passes(10)

        in_life(world, act)
    assert took[1] < 1


class _Registry(MemorySchemas):
    def __init__(self) -> None:
        super().__init__()
        self.up = False
        self.asked: list[float] = []

    async def fetch(self, reference: Any) -> str | None:
        if reference == 7:
            self.asked.append(asyncio.get_running_loop().time())
            if not self.up:
                raise SourceUnavailable("down")
            return SCHEMA
        return await super().fetch(reference)


def test_a_partition_that_came_back_during_an_outage_of_the_registry_is_held_back_all_the_same() -> None:
    """The end of the outage resumes what was assigned before: that is over, and the new assignment is full."""
    story = Story().tell(0, *[Event(f"n-{n}", 1) for n in range(3000)])
    world = world_of(story)
    world.log[P0] = [replace(r, value=b"\0\0\0\0\7" + (r.value or b"")[5:]) for r in world.log[P0]]
    registry = _Registry()
    held: list[int] = []

    async def act(life: Life) -> None:
        world.answer = outage(10**9, SinkUnavailable("down"))
        await until(lambda: len(registry.asked) == 1)
        await passes(0.5)
        life.source.lose([P0])
        await passes(0.2)
        life.source.assign([P0])
        # The old assignment has just asked, so that it learns last; it asks every second since its first time.
        await until(lambda: len(registry.asked) > 4 and (registry.asked[-1] - registry.asked[0]) % 1 < 0.1)
        registry.up = True
        for _ in range(60):
            await passes(1)
            held.append(life.pipeline.partitions.unsettled)

    in_life(world, act, registry, read_ahead_records=100, drain_timeout_s=1)
    assert max(held) < 200


def test_a_store_of_a_partition_that_came_back_is_not_emptied_by_who_restored_it_before() -> None:
    """Who learns late that the changelog has overtaken it has no store any more."""
    world = World()
    world.log[P0] = []
    world.changelog[P0] = [(n.to_bytes(32), b"state") for n in range(40)]
    world.stores[P0] = ({}, 999)

    class _Slow(MemoryTopics):
        first = True

        async def changelog(self, partition: TopicPartition, start: int) -> Any:
            if start == 999:
                slow, self.first = self.first, False
                await asyncio.sleep(10 if slow else 1)
                raise ChangelogOvertaken
            async for chunk in super().changelog(partition, start):
                yield chunk

    async def main() -> None:
        store = MemoryStore(world)
        restorer = Restorer(_Slow(world), store, MemorySink(world), SilentTelemetry(), asyncio.get_running_loop().time)
        old, new = (Partition(Assignment(P0), Tracker(Assignment(P0), 0), 0) for _ in range(2))
        first = asyncio.create_task(restorer.restore(old))
        await passes(0.5)
        old.assignment.alive, old.closing = False, True
        await store.close(P0)
        await restorer.restore(new)
        assert new.restored
        assert len(world.stores[P0][0]) == 40
        await first

    virtual_time.run(main())
    assert len(world.stores[P0][0]) == 40


def test_what_waits_goes_on_when_the_last_request_under_way_is_given_up() -> None:
    """It makes room without an answer."""
    story = Story().tell(1, Event("theirs", 1, consent=False)).tell(0)
    world = world_of(story)
    world.log[P0] = []

    async def act(life: Life) -> None:
        life.source.sure = False
        await until(lambda: life.pipeline.gate.in_flight == 1)
        arrives(world, life, story.tell(0, Event("mine", 1, consent=False)))
        await until(lambda: len(life.pipeline.lanes) == 2)
        await passes(5)
        life.source.lose([P1])
        await passes(1)
        life.source.sure = True
        await passes(3600)
        assert world.list.keys() == {"mine"}

    in_life(world, act, genesys_max_in_flight=1)


def test_a_replayed_grant_does_not_undo_a_withdrawal_whose_clock_was_behind() -> None:
    """It stands where it stood first, whatever the clocks said."""
    world = World()

    def append(event: Event, **changed: object) -> Record:
        offset = len(world.log.get(P0, ()))
        record = Record(*P0, offset, event.occurred_at, event.external_id.encode(), event.value())
        world.append([replace(record, **changed)])
        return world.log[P0][-1]

    grant = Event("c", None, phone="+15550177", occurred_at=1_700_000_000_002)
    value = grant.value() or b""
    letter = append(grant, value=b"\0\0\0\0\x09" + value[5:])
    append(Event("c", None, consent=False, occurred_at=1_700_000_000_000))
    live(world, schema_unknown_timeout_s=0)
    assert world.list["c"]["callable"] is False
    headers = dead_letters.headers(DeadLetter(letter, "schema_unknown", "", 0))
    read = dead_letters.read(headers)
    assert read is not None
    world.append([replace(letter, offset=2, headers=dead_letters.replayed(headers, read))])
    live(world, MemorySchemas({9: [SCHEMA]}))
    assert world.list["c"]["callable"] is False


def test_a_replayed_record_that_is_still_rejected_withdraws_nothing_that_was_granted_since() -> None:
    """It stands where it stood first, too: what came after it lets the person be called, whatever the clocks said."""
    now = 1_700_000_000_000
    bad = Event("c", None, do_not_call=True, occurred_at=now + 2)
    world = world_of(Story().tell(0, Event("c", None, occurred_at=now), bad, Event("c", None, occurred_at=now)))
    live(world)
    assert world.list["c"]["callable"] is True
    letter = world.log[P0][1]
    headers = dead_letters.headers(DeadLetter(letter, "consent_conflicts_with_do_not_call", "", now))
    read = dead_letters.read(headers)
    assert read is not None
    world.append([replace(letter, offset=3, headers=dead_letters.replayed(headers, read))])
    live(world)
    assert world.list["c"]["callable"] is True


def test_a_replayed_tombstone_takes_nobody_away_who_was_made_anew() -> None:
    """It has no version, and what came after it has: it stands where it stood first all the same."""
    world = World()

    def append(event: Event, **changed: object) -> Record:
        record = Record(*P0, len(world.log.get(P0, ())), event.occurred_at, b"c", event.value())
        world.append([replace(record, **changed)])
        return world.log[P0][-1]

    append(Event("c", 10))
    append(Event("c", 20, delete=True))
    tombstone = append(Event("c", 21), value=None, key=b'{"id": "c"}')
    append(Event("c", 30))
    live(world)
    assert world.list["c"]["callable"] is True
    headers = dead_letters.headers(DeadLetter(tombstone, "not_decodable", "", 0))
    letter = dead_letters.read(headers)
    assert letter is not None
    again = dead_letters.replayed(headers, letter)
    world.append([replace(tombstone, offset=4, key=b"c", headers=again, timestamp_ms=tombstone.timestamp_ms + 10**9)])
    live(world)
    assert world.list["c"]["callable"] is True
    assert [event["outcome"] for event in world.events()][-1] == "stale"


def test_a_replayed_tombstone_has_the_time_at_which_kafka_got_it_first() -> None:
    """By that of the replay it would come after what a file said meanwhile."""
    form = framing.form(TOPIC, Framing.CONFLUENT, KeyFormat.STRING)
    tombstone = Record(*P0, 0, TIME_MS, b"c", None)
    headers = dead_letters.headers(DeadLetter(tombstone, "not_decodable", "", TIME_MS + 1000))
    letter = dead_letters.read(headers)
    assert letter is not None
    again = replace(tombstone, timestamp_ms=TIME_MS + 10**9, headers=dead_letters.replayed(headers, letter))
    (event,) = Quarantine(MemoryBreadcrumbs()).decode([again], TEXT_KEYS, form).results
    assert isinstance(event, ChangeEvent)
    assert event.occurred_at == TIME_MS


FLAT_TS = record_type(
    "Value", COLUMNS | {"__op": ["null", "string"], "__lsn": ["null", "long"], "__source_ts_ms": ["null", "long"]}
)


@pytest.mark.parametrize("told", [True, False])
def test_flattened_rows_that_are_deleted_and_made_again_are_there(tmp_path: Path, told: bool) -> None:
    """A delete, by default a tombstone alone, and an insert at once: Kafka's time is later than the source's."""
    rows = reading(tmp_path) | {"source_envelope": "flattened"}

    def values(lsn: int, at: int, **columns: object) -> dict[str, object]:
        return contact(6, **columns) | {"__op": "c", "__lsn": lsn, "__source_ts_ms": TIME_MS + at if told else None}

    world = World()
    world.log[PARTITION] = []
    for offset, (fields, at) in enumerate(
        [(values(1, 0), 100), (None, 5_100), (values(7, 5_000, phone="+15550199"), 5_100)]
    ):
        value = None if fields is None else b"\0\0\0\0\1" + encoded(FLAT_TS, fields)
        world.append([Record(*PARTITION, offset, TIME_MS + at, b"6", value)])
    live(world, MemorySchemas({1: [json.dumps(FLAT_TS)]}), **rows)
    assert callable_(world) == {"6": True}


@pytest.mark.parametrize("version", [None, 1])
@pytest.mark.parametrize("repeated", [True, False])
def test_a_backlog_from_before_a_file_grants_nothing_that_the_file_withdraws_once_more(
    version: int | None, repeated: bool
) -> None:
    """Withdrawn; granted, of which nothing was read yet; a file that withdraws, in the same words or in others."""
    world = empty_world(1)

    def put(**told: Any) -> None:
        event = Event("c", **told)
        offset = len(world.log[P0])
        world.append([Record(*P0, offset, event.occurred_at, b"c", event.value())])

    put(version=version, consent=False, occurred_at=WRITTEN_MS - 30)
    live(world)
    put(version=version and 2, occurred_at=WRITTEN_MS - 20)
    assert fill(world, [file_row("c", consent=False, phone="+15550100" if repeated else "+15550199")]).outcomes == {
        "duplicate" if repeated else "delivered": 1
    }
    live(world)
    assert world.list["c"]["callable"] is False


@pytest.mark.parametrize("how", ["sent again", "read again"])
def test_a_change_of_key_that_is_told_again_grants_nothing(tmp_path: Path, how: str) -> None:
    """The old id is somebody else's now, who may be called."""
    rows = reading(tmp_path)
    renamed = row("u", 5, contact(7), contact(6, consent="denied"))
    world = tell(World(), row("c", 1, contact(6)), row("u", 2, contact(6, consent="denied")), renamed)
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False}
    tell(world, row("c", 8, contact(6)))
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False, "6": True}
    if how == "sent again":
        tell(world, renamed)
    else:
        world.committed[PARTITION] = 2
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False, "6": True}


def test_a_partition_that_goes_while_it_waits_for_its_turn_is_not_opened() -> None:
    """Nobody reads a store that was not opened; the others are restored all the same."""
    world = World()
    places = [TopicPartition(TOPIC, number) for number in range(AT_ONCE + 1)]
    for place in places:
        world.log[place] = []
        world.changelog[place] = [(b"x" * 32, b"state")]

    class _Slow(MemoryTopics):
        async def changelog(self, partition: TopicPartition, start: int) -> Any:
            await asyncio.sleep(10)
            async for chunk in super().changelog(partition, start):
                yield chunk

    async def main() -> None:
        store = MemoryStore(world)
        restorer = Restorer(_Slow(world), store, MemorySink(world), SilentTelemetry(), asyncio.get_running_loop().time)
        partitions = [Partition(Assignment(place), Tracker(Assignment(place), 0), 0) for place in places]
        restoring = [asyncio.create_task(restorer.restore(partition)) for partition in partitions]
        await passes(1)
        partitions[-1].closing = True
        await asyncio.gather(*restoring)
        assert [partition.restored for partition in partitions] == [True] * AT_ONCE + [False]

    virtual_time.run(main())


def test_a_withdrawal_without_a_version_that_is_sent_again_lets_no_grant_behind_it_apply() -> None:
    """What withdrew last has a version: neither of the two has an order beside it, and both are older by time."""
    told = [Event("c", None, consent=False, occurred_at=1), Event("c", None, occurred_at=2)]
    story = Story().tell(0, *told, Event("c", 30, consent=False, phone="+15550103", occurred_at=3), *told)
    world = World()
    for record in story.records():
        world.append([record])
        live(world)
    assert [event["outcome"] for event in world.events()] == ["delivered"] * 4 + ["stale"]
    assert world.list["c"]["callable"] is False


def test_a_tombstone_of_one_of_two_sources_is_the_delete_before_it(tmp_path: Path) -> None:
    """It stands in that one's log: sent again with its delete, it takes nobody away who was made anew."""
    source = record_type("Source", {"ts_ms": "long", "name": "string", "file": "string", "pos": "long"})
    fields = {field["name"]: field["type"] for field in ROWS["fields"]}
    two_sources = record_type("Envelope", fields | {"source": source})
    known = MemorySchemas({1: [json.dumps(two_sources)]})

    def of(name: str, change: dict[str, Any]) -> bytes:
        return b"\0\0\0\0\1" + encoded(two_sources, change | {"source": change["source"] | {"name": name}})

    window = [(b"6", of("b", row("d", 5, None, contact(6)))), (b"6", None)]
    made = [(b"9", of("a", row("c", 1, contact(9)))), (b"6", of("b", row("c", 2, contact(6))))]
    anew = (b"6", of("b", row("c", 6, contact(6, phone="+15550199"))))
    world = World()
    for offset, (key, value) in enumerate([*made, *window, anew, *window]):
        world.append([Record(*PARTITION, offset, TIME_MS + 60_000 + offset, key, value)])
    live(world, known, **reading(tmp_path))
    assert [event["outcome"] for event in world.events()][-2:] == ["stale", "stale"]
    assert callable_(world) == {"9": True, "6": True}


def test_what_took_a_place_is_told_again_where_only_that_was_settled() -> None:
    """A record between the two holds up the partition, which then moves: what is there is not what was before both."""
    story = Story().tell(0, Event("c", 1), Event("gone", 1))
    world = world_of(story)
    live(world)
    del world.list["gone"]
    stuck = Event("gone", 2, do_not_call=True, reasons=CONFLICT)
    story.tell(0, Event("c", 2, phone="+15550199"), stuck, Event("c", 3))

    async def act(life: Life) -> None:
        arrives(world, life, story)
        await until(lambda: world.committed[P0] == 3)
        await passes(1)
        life.source.lose([P0])
        await passes(1)
        life.source.assign([P0])
        await until(lambda: world.committed[P0] == 5)

    in_life(world, act)
    assert [event["outcome"] for event in world.events()[2:]] == ["superseded", "rejected", "delivered"]


def test_a_version_that_lost_its_place_counts_where_only_that_was_settled(tmp_path: Path) -> None:
    """A withdrawal whose version went back took it; the grant, sent again, is from before the withdrawal."""
    rows = reading(tmp_path)
    grant = row("u", 30, contact(6, phone="+15550199"))
    stuck = row("u", 31, contact(9, phone="nonsense", consent="denied"))
    withdrawal = row("u", 5, contact(6, consent="denied"), at=40)
    world = tell(World(), row("c", 1, contact(6)), row("c", 2, contact(9), at=10**9))
    live(world, schemas(), **rows)
    del world.list["9"]

    async def act(life: Life) -> None:
        tell(world, grant, stuck, withdrawal)
        life.source.wake()
        await until(lambda: world.committed[PARTITION] == 3)
        await passes(1)
        life.source.lose([PARTITION])
        await passes(1)
        life.source.assign([PARTITION])
        tell(world, grant)
        life.source.wake()
        await until(lambda: world.committed[PARTITION] == 6)

    in_life(world, act, schemas(), **rows)
    assert callable_(world)["6"] is False


@pytest.mark.parametrize("op", ["u", "d"])
def test_a_withdrawal_without_a_time_that_can_be_read_is_rejected_and_suppresses(tmp_path: Path, op: str) -> None:
    """A delete too: the contact may have been made again. A grant is rejected, and changes nothing."""
    rows = reading(tmp_path)
    denied, granted = contact(6, consent="denied"), contact(9, phone="+15550199")
    world = tell(World(), row("c", 1, contact(6)), row("c", 2, contact(9)))
    no_time = -TIME_MS - 1
    change = row("u", 3, denied, at=no_time) if op == "u" else row("d", 3, None, contact(6), at=no_time)
    tell(world, change, row("u", 4, granted, at=no_time))
    live(world, schemas(), **rows)
    assert callable_(world) == {"6": False, "9": True}
    assert [event["outcome"] for event in world.events()[2:]] == ["rejected", "rejected"]
    assert world.list["9"]["phone"] != "+15550199"
