"""How stores are brought up to their changelogs, and what is told meanwhile."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.core.offsets import Tracker
from consumer.errors import SinkUnavailable, SourceUnavailable, TransientError
from consumer.model import Assignment, TopicPartition
from consumer.pipeline.imports import LOOK_S, UNSEEN_S
from consumer.pipeline.partitions import Partition
from consumer.pipeline.restore import AT_ONCE, TELL_EVERY_S, Restorer
from consumer.pipeline.settle import CHAIN_KEY, IMPORT_KEY
from consumer.ports import ChangelogChunk, ChangelogOvertaken, Polled
from tests import virtual_time
from tests.checker import check
from tests.lives import Life, arrives, in_life, live, world_of
from tests.memory_ports import MemorySink, MemoryStore, MemoryTopics, SilentTelemetry, World
from tests.stories import TOPIC, Event, Story
from tests.virtual_time import passes, until

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
CHUNKS, CHUNK_S = 4, 2.0


class _Changelog(MemoryTopics):
    """A changelog of four chunks of ten, each two seconds after the one before.

    Attributes:
        outages: How often it breaks off after the first chunk.
        asks_to_wait_s: What it says then.
        starts: Where its readers began.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.outages = 0
        self.asks_to_wait_s: float | None = None
        self.starts: list[int] = []

    async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        self.starts.append(start)
        for begin in range(start, 10 * CHUNKS, 10):
            await asyncio.sleep(CHUNK_S)
            yield ChangelogChunk([(begin.to_bytes(32), b"state")], begin + 10, 10 * CHUNKS)
            if self.outages:
                self.outages -= 1
                raise SourceUnavailable("no broker", self.asks_to_wait_s)


def _restore(world: World, topics: _Changelog, beside: Any = None) -> tuple[Partition, list[Any]]:
    """Restore a partition in virtual time; the partition, and the lines of the log."""
    partition = Partition(Assignment(P0), Tracker(Assignment(P0), 0), 0)

    async def main() -> None:
        restorer = Restorer(
            topics, MemoryStore(world), MemorySink(world), SilentTelemetry(), asyncio.get_running_loop().time
        )
        watching = asyncio.create_task(beside(partition)) if beside else None
        await restorer.restore(partition)
        if watching:
            await watching

    with capture_logs() as logs:
        virtual_time.run(main())
    return partition, logs


def test_progress_is_told_in_the_log_and_on_the_status_page() -> None:
    """Every five seconds a line, not one for each chunk; what is left counts down to nothing."""
    seen: list[Any] = []

    async def watch(partition: Partition) -> None:
        while not partition.restored:
            if not seen or partition.status()["changelog_left"] != seen[-1]:
                seen.append(partition.status()["changelog_left"])
            await asyncio.sleep(CHUNK_S / 10)
        seen.append(partition.status()["changelog_left"])

    world = World()
    partition, logs = _restore(world, _Changelog(world), watch)
    assert partition.restored
    assert seen == [None, 30, 20, 10, 0]
    assert len(world.stores[P0][0]) == CHUNKS
    assert world.stores[P0][1] == 10 * CHUNKS
    told = [(line["event"], line.get("position"), line.get("end")) for line in logs]
    assert CHUNK_S * 2 < TELL_EVERY_S < CHUNK_S * 3
    assert told == [("restoring", 30, 40), ("restored", None, None)]
    assert logs[-1]["seconds"] == pytest.approx(CHUNKS * CHUNK_S, abs=0.1)


def test_an_outage_on_the_way_goes_on_where_the_store_stands() -> None:
    """What was read is kept: the next attempt begins behind it."""
    world = World()
    topics = _Changelog(world)
    topics.outages = 1
    partition, logs = _restore(world, topics)
    assert partition.restored
    assert topics.starts == [0, 10]
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["restore_failed"]


class _FullDisk(MemoryStore):
    """A volume on which no store opens for seventy seconds, with another number in its words each time."""

    tries = 0

    async def open(self, partition: TopicPartition) -> int:
        self.tries += 1
        if self.tries <= 2 * 70:
            raise TransientError(f"no space left, try {self.tries}")
        return await super().open(partition)


def test_a_full_disk_at_the_start_is_told_now_and_then_and_is_the_reason() -> None:
    """As after a restart: two partitions try each second, nothing else would say why they stand still."""
    story = Story().tell(0, Event("a", 1)).tell(1, Event("b", 1))
    world = world_of(story)

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.degraded is not None)
        await passes(3)
        assert life.pipeline.status()["state"] == "degraded"
        assert re.fullmatch(
            rf"{TOPIC}/. is not restored: no space left, try \d+; 1 other partitions neither",
            str(life.pipeline.status()["reason"]),
        )
        await until(lambda: world.committed == {P0: 1, P1: 1})
        assert life.pipeline.degraded is None

    with capture_logs() as logs:
        in_life(world, act, store=_FullDisk(world))
    told = [line for line in logs if line["event"] == "restore_failed"]
    assert [line["partition"] for line in told].count(P0) == len(told) / 2 == 3
    assert all("STATE_DIR is full, make room" in line["remedy"] for line in told)


def test_a_store_that_goes_on_is_no_reason_any_more() -> None:
    """A long changelog takes its time after an outage, in which nobody is to look for one."""
    world = World()
    topics = _Changelog(world)
    topics.outages = 1
    seen: list[tuple[str | None, int | None]] = []

    async def watch(partition: Partition) -> None:
        while not partition.restored:
            if (now := (partition.unrestored, partition.changelog_left)) not in seen:
                seen.append(now)
            await asyncio.sleep(CHUNK_S / 10)
        assert partition.unrestored is None

    _restore(world, topics, watch)
    assert seen == [(None, None), ("no broker", 30), (None, 20), (None, 10)]


@pytest.mark.parametrize(("asked", "waited"), [(None, 1), (20.0, 20), (3600.0, 60)])
def test_who_asks_to_be_left_alone_is_for_a_minute_at_most(asked: float | None, waited: int) -> None:
    """All records of the partition wait meanwhile."""
    topics = _Changelog(World())
    topics.outages, topics.asks_to_wait_s = 1, asked
    began = virtual_time.START
    ended: list[float] = []

    async def look(partition: Partition) -> None:
        await until(lambda: partition.restored)
        ended.append(asyncio.get_running_loop().time())

    _restore(World(), topics, look)
    took = CHUNKS * CHUNK_S + waited
    assert began + took <= ended[0] < began + took + 10


def test_a_partition_that_is_lost_meanwhile_is_not_ready() -> None:
    """Nothing more is written to its store, and it never counts as restored."""
    world = World()

    async def lose(partition: Partition) -> None:
        await until(lambda: partition.changelog_left == 20)
        partition.assignment.alive = False

    partition, logs = _restore(world, _Changelog(world), lose)
    assert not partition.restored
    assert world.stores[P0][1] == 20
    assert logs == []


def test_whoever_is_lost_meanwhile_lets_go_of_the_changelog_before_anything_else() -> None:
    """Its reader is a consumer of its own, which the next one for the partition would stand beside."""
    let_go: list[TopicPartition] = []

    class Noted(_Changelog):
        async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
            try:
                async for chunk in super().changelog(partition, start):
                    yield chunk
            finally:
                let_go.append(partition)

    async def main() -> None:
        world, partition = World(), Partition(Assignment(P0), Tracker(Assignment(P0), 0), 0)
        clock = asyncio.get_running_loop().time
        restorer = Restorer(Noted(world), MemoryStore(world), MemorySink(world), SilentTelemetry(), clock)
        asyncio.get_running_loop().call_later(1.5 * CHUNK_S, setattr, partition, "closing", True)
        await restorer.restore(partition)
        assert let_go == [P0]

    virtual_time.run(main())


class _Silent(MemoryTopics):
    """Changelogs of which nothing comes, except that of P0."""

    async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        while partition != P0:
            await asyncio.sleep(CHUNK_S / 10)
            yield ChangelogChunk([], start, 10 * CHUNKS)
        async for chunk in super().changelog(partition, start):
            yield chunk


@pytest.mark.parametrize("how", ["revoked", "lost"])
def test_a_partition_that_goes_while_nothing_comes_makes_room_for_others(how: str) -> None:
    """Its restoring ends, and one of those that wait for their turn has it."""
    world = World()
    keys = [*(TopicPartition(TOPIC, number) for number in range(1, AT_ONCE + 1)), P0]
    *silent, sound = (Partition(Assignment(key), Tracker(Assignment(key), 0), 0) for key in keys)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        restorer = Restorer(_Silent(world), MemoryStore(world), MemorySink(world), SilentTelemetry(), clock)
        restoring = [asyncio.create_task(restorer.restore(partition)) for partition in [*silent, sound]]
        await passes(3600)
        assert not any(task.done() for task in restoring)
        for partition in silent:
            partition.closing, partition.assignment.alive = True, how == "revoked"
        async with asyncio.timeout(CHUNK_S):
            await asyncio.gather(*restoring)

    virtual_time.run(main())
    assert [partition.restored for partition in [*silent, sound]] == [False] * AT_ONCE + [True]


class _Halting(_Changelog):
    """Nothing comes for a moment before each chunk."""

    async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        position = start
        async for chunk in super().changelog(partition, start):
            yield ChangelogChunk([], position, chunk.end)
            yield chunk
            position = chunk.position


def test_nothing_is_written_while_nothing_comes() -> None:
    """The store knows already how far it is, and a write is flushed to the disk."""
    world = World()
    partition, _ = _restore(world, _Halting(world))
    assert partition.restored
    assert world.stores[P0][1] == 10 * CHUNKS
    assert world.steps == 1 + CHUNKS, "to open it, and each chunk"


def test_other_partitions_work_meanwhile() -> None:
    """A store that takes long to restore holds up its own partition alone; the process is not ready before."""
    story = Story().tell(0, Event("slow", 1)).tell(1, Event("quick", 1))
    world = world_of(story)
    ready: list[bool] = []

    class _OneSlow(MemoryTopics):
        async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
            if partition == P0:
                await until(lambda: world.committed.get(P1) == 1)
            async for chunk in super().changelog(partition, start):
                yield chunk

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(P1) == 1)
        ready.append(life.pipeline.ready)
        await until(lambda: world.committed.get(P0) == 1)
        ready.append(life.pipeline.ready)

    in_life(world, act, topics=_OneSlow(world))
    assert ready == [False, True]
    check(world, story, set())


class _Overtaken(MemoryTopics):
    """A changelog that was cleaned up beyond where the store stands."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.starts: list[int] = []

    async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        self.starts.append(start)
        if start > 0:
            raise ChangelogOvertaken
        async for chunk in super().changelog(partition, start):
            yield chunk


def test_a_store_that_the_changelog_does_not_know_is_rebuilt() -> None:
    """A store ahead of its changelog is set aside and rebuilt from zero, and judging is right."""
    story = Story().tell(0, *[Event(f"contact-{n}", 1) for n in range(20)])
    world = world_of(story)
    live(world)
    world.stores[P0] = ({}, 999)
    story.tell(0, *[Event(f"contact-{n}", 1) for n in range(20)])
    world.append(story.records()[20:])

    topics = _Overtaken(world)
    live(world, topics=topics)
    assert topics.starts == [999, 0]
    assert [event["outcome"] for event in world.events()][20:] == ["duplicate"] * 20
    check(world, story, set())


LATE_S = UNSEEN_S - 1


class _Late(MemorySink):
    """Imports that show at certain times after the sink was made, and between them nothing does.

    Attributes:
        looks: When it was asked, seconds.
        failures: Raised by the next looks.
    """

    def __init__(self, world: World, *shown: tuple[float, float]) -> None:
        super().__init__(world)
        self._shown = shown
        self._begun = asyncio.get_running_loop().time()
        self.looks: list[float] = []
        self.failures: list[Exception] = []

    async def is_importing(self) -> bool:
        now = asyncio.get_running_loop().time() - self._begun
        self.looks.append(now)
        if self.failures:
            raise self.failures.pop(0)
        return any(begins <= now < ends for begins, ends in self._shown)


async def _stand_after(sink: _Late, world: World, partitions: int = 1, *, come_every_s: float = 0.0) -> list[float]:
    """Restore marked partitions, which come one after the other; seconds from when each came until it stood."""
    clock = asyncio.get_running_loop().time
    restorer = Restorer(MemoryTopics(world), MemoryStore(world), sink, SilentTelemetry(), clock)

    async def stands(number: int) -> float:
        key = TopicPartition(TOPIC, number)
        world.changelog[key] = [(IMPORT_KEY, b"mark")]
        partition = Partition(Assignment(key), Tracker(Assignment(key), 0), 0)
        await passes(number * come_every_s)
        came_at = clock()
        await restorer.restore(partition)
        assert (partition.restored, partition.expired) == (True, {IMPORT_KEY: b"mark"})
        return clock() - came_at

    return list(await asyncio.gather(*map(stands, range(partitions))))


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [(LATE_S, 40.0)],
        [(LATE_S, LATE_S + 600)],
        [(8.0, 10.0), (10.0 + LATE_S, 60.0)],
    ],
    ids=["none", "late", "long", "two that follow each other"],
)
def test_an_import_that_does_not_show_at_once_is_waited_for(shown: list[tuple[float, float]]) -> None:
    """Its file has just been sent, and whoever sent it is gone: what is withdrawn now comes after it."""

    async def main() -> None:
        world = World()
        (seconds,) = await _stand_after(_Late(world, *shown), world)
        over_at = max((ends for _, ends in shown), default=0.0)
        assert over_at + UNSEEN_S - 2 * LOOK_S < seconds < over_at + UNSEEN_S + 2 * LOOK_S

    virtual_time.run(main())


def test_all_partitions_wait_for_an_import_together() -> None:
    """However many were marked, Genesys is asked as often as for one, and they stand at the same time."""

    async def main() -> None:
        world = World()
        sink = _Late(world, (LATE_S, 40.0))
        seconds = await _stand_after(sink, world, 8 * AT_ONCE)
        assert max(seconds) < 40 + UNSEEN_S + 2 * LOOK_S
        assert all(after - before >= LOOK_S for before, after in pairwise(sink.looks))

    virtual_time.run(main())


def test_what_was_seen_before_a_partition_came_does_not_count_for_it() -> None:
    """Its former owner may have sent his file in the last moment."""

    async def main() -> None:
        world = World()
        seconds = await _stand_after(_Late(world), world, 3, come_every_s=20.0)
        assert min(seconds) >= UNSEEN_S

    virtual_time.run(main())


def test_who_is_not_told_of_imports_waits_anew() -> None:
    """What came and went meanwhile may have been the first of two."""

    async def main() -> None:
        world = World()
        sink = _Late(world)
        asking = asyncio.create_task(_stand_after(sink, world))
        await passes(LATE_S)
        sink.failures = [SinkUnavailable("away")]
        (seconds,) = await asking
        assert seconds >= LATE_S + UNSEEN_S

    virtual_time.run(main())


IMPORT_LASTS = 10_000
"""Looks at an import before it is over: more than its first owner makes."""


def test_a_partition_that_goes_while_it_waits_for_an_import_keeps_its_mark() -> None:
    """It is settled with the others that leave, which have something under way: its new owner waits in turn.

    Nor does its chain of audit events begin anew.
    """
    story = Story().tell(0, *[Event(f"old-{n}", 1) for n in range(5)]).tell(1, Event("other", 1))
    world = world_of(story)
    live(world)
    chain = dict(world.changelog[P0])[CHAIN_KEY]
    world.changelog[P0].append((IMPORT_KEY, b"mark"))
    imported = {"external_id": "a", "phone": "+15550100", "consent": True, "do_not_call": False}
    world.pending_import = (IMPORT_LASTS, [imported])
    world.connecting = 8.0

    async def act(life: Life) -> None:
        story.tell(0, Event("a", 1, consent=False)).tell(1, Event("other", 2, phone="+15550101"))
        arrives(world, life, story)
        await until(lambda: life.pipeline.gate.in_flight > 0 and world.pending_import[0] < IMPORT_LASTS)
        await life.source.revoke([P0, P1])

    in_life(world, act)
    last = dict(world.changelog[P0])
    assert (last[IMPORT_KEY], last[CHAIN_KEY]) == (b"mark", chain)
    assert world.committed[P1] == 2
    world.connecting = 0.0
    live(world)
    assert not world.import_goes_on()
    assert (world.list["a"]["callable"], world.list["a"]["consent"]) == (False, False)
    check(world, story, set())


def test_who_goes_before_the_looks_are_over_takes_no_mark_away() -> None:
    """Neither one that asks whether an import is under way, nor one that waits until that one is done asking."""
    world = World()
    partitions = [Partition(Assignment(key), Tracker(Assignment(key), 0), 0) for key in (P0, P1)]
    for partition in partitions:
        world.changelog[partition.key] = [(IMPORT_KEY, b"mark")]

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        restorer = Restorer(MemoryTopics(world), MemoryStore(world), MemorySink(world), SilentTelemetry(), clock)
        restoring = [asyncio.create_task(restorer.restore(partition)) for partition in partitions]
        await passes(LATE_S)
        for partition in partitions:
            partition.closing = True
        await asyncio.gather(*restoring)

    virtual_time.run(main())
    assert [(partition.restored, partition.expired) for partition in partitions] == [(False, {})] * 2


def test_a_partition_whose_store_does_not_stand_is_not_settled() -> None:
    """The end of its chain is not known yet: whatever is to be forgotten of it waits."""
    world = world_of(Story().tell(1, Event("quick", 1)))
    world.log[P0] = []
    stands = asyncio.Event()

    class _Waits(MemoryTopics):
        async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
            if partition == P0:
                await stands.wait()
            async for chunk in super().changelog(partition, start):
                yield chunk

    async def act(life: Life) -> None:
        await until(lambda: P0 in life.pipeline.partitions)
        life.pipeline.partitions[P0].expired[b"k" * 32] = b"state"
        await until(lambda: world.committed.get(P1) == 1)
        await life.source.revoke([P0])
        stands.set()

    in_life(world, act, topics=_Waits(world))
    assert world.changelog[P0] == []
    assert P0 not in world.committed


def test_the_source_is_told_up_to_where_a_partition_was_settled() -> None:
    """Brokers may have forgotten that. It outlives the disk too, being in the changelog; a new partition has none."""
    story = Story().tell(0, *[Event(f"old-{n}", 1) for n in range(5)])
    world = world_of(story)

    def settle(topic_id: str, forgotten: TopicPartition) -> dict[TopicPartition, tuple[int, str]]:
        recalled: dict[TopicPartition, tuple[int, str]] = {}

        async def main() -> None:
            life = Life(world)
            life.source.topic_ids[P0] = topic_id
            world.committed.pop(forgotten, None)
            await life.run()
            recalled.update(life.source.recalled)

        virtual_time.run(main())
        return recalled

    assert settle("first", P0) == {}
    world.stores.clear()
    assert settle("second", P1) == {P0: (5, "first")}
    story.tell(0, Event("new", 1))
    world.append(story.records()[5:])
    assert settle("second", P1) == {P0: (5, "first")}
    assert settle("second", P1) == {P0: (6, "second")}


@pytest.mark.parametrize(("reached", "settled"), [(7, 7), (3, 5)])
def test_what_ends_transactions_is_settled_with_the_last_record(reached: int, settled: int) -> None:
    """Else its removal by retention would pass for that of records that nobody has read."""
    world = world_of(Story().tell(0, *[Event(f"old-{n}", 1) for n in range(5)]))

    def recalled(ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, tuple[int, str]]:
        told: dict[TopicPartition, tuple[int, str]] = {}

        async def act(life: Life) -> None:
            life.source._events.put_nowait(Polled([], ends))
            await until(lambda: world.committed.get(P0) == 5)
            await until(lambda: P0 in life.pipeline.partitions and life.pipeline.partitions[P0].restored)
            told.update(life.source.recalled)

        in_life(world, act)
        return told

    assert recalled({P0: reached}) == {}
    assert recalled({}) == {P0: (settled, "")}
