"""What must hold when answers, later changes and moving partitions interleave: each test is one such story."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from consumer.core.lane import Effect
from consumer.errors import RefusedByGenesys, SinkUnavailable, SourceUnavailable, Throttled, TransientError
from consumer.model import Record, TopicPartition
from consumer.ports import ChangelogOvertaken, Lost
from tests import virtual_time
from tests.checker import check
from tests.lives import Life, arrives, in_life, live, survive, world_of
from tests.memory_ports import MemorySchemas, MemorySink, MemoryStore, MemoryTopics, World, outage
from tests.stories import TOPIC, Event, Story
from tests.virtual_time import passes, until

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
CONFLICT = ("consent_conflicts_with_do_not_call",)


# -- who owns what


def test_nothing_is_sent_while_the_source_is_not_sure() -> None:
    """A process that stood still must not send what it had: what it lost meanwhile is somebody else's to send."""
    story = Story().tell(0, Event("mine", 1)).tell(1, Event("theirs", 1))
    world = world_of(story)

    async def act(life: Life) -> None:
        life.source.sure = False
        await passes(5)
        assert world.requested == []
        life.source.lose([P1])
        await passes(5)
        assert world.requested == []
        life.source.sure = True
        await until(lambda: world.committed.get(P0) == 1)

    in_life(world, act)
    assert world.requested == [("mine",)]


def test_nothing_is_sent_together_with_what_the_source_is_not_sure_of() -> None:
    """A request with contacts of two partitions waits for both."""
    world = world_of(Story().tell(0, Event("a", 1)).tell(1, Event("b", 1)))

    async def act(life: Life) -> None:
        await until(lambda: len(life.pipeline.lanes) == 2)
        position = life.source._positions.pop(P1)
        await passes(30)
        assert world.requested == []
        life.source._positions[P1] = position
        await until(lambda: world.committed == {P0: 1, P1: 1})

    in_life(world, act)


def test_a_partition_leaves_at_once_while_another_is_read_on_and_on() -> None:
    """It settles what is its own; that the other one always has more to settle is nothing to wait for."""
    story = Story().tell(0, Event("a", 1)).tell(1, *(Event("b", 1) for _ in range(4000)))
    world = world_of(story)
    world.poll_s, world.poll_records = 0.001, 2
    took: list[float] = []

    async def act(life: Life) -> None:
        clock = asyncio.get_running_loop().time
        await until(lambda: world.committed.get(P0) == 1)
        started = clock()
        await life.source.revoke([P0])
        took.append(clock() - started)
        assert world.committed.get(P1, 0) < 3000

    in_life(world, act, settle_interval_ms=10)
    assert took[0] < 0.1


def test_a_partition_leaves_after_the_request_under_way_and_sends_nothing_more() -> None:
    """What waits is for the next owner to send, withdrawals too: they would hold up the group one after the other."""
    world = world_of(Story().tell(0, *(Event(f"c-{n}", 1, consent=n % 2 == 0) for n in range(40))))
    world.latency, world.poll_records = 1.0, 40

    async def act(life: Life) -> None:
        await until(lambda: len(world.requested) == 1)
        await until(lambda: len(life.pipeline.lanes) == 40)
        await life.source.revoke([P0])
        assert len(world.requested) == 1

    in_life(world, act, batch_max_records=5, genesys_max_in_flight=1)


def test_what_the_source_knows_of_a_loss_counts_before_its_event() -> None:
    """A partition that is gone is not sent for, although the event that tells so waits behind others."""
    story = Story().tell(0, *(Event(f"c-{n}", 1) for n in range(50)))
    world = world_of(story)

    async def act(life: Life) -> None:
        await until(lambda: len(life.pipeline.lanes) == 50)
        life.source._positions.clear()
        await passes(5)
        life.source._events.put_nowait(Lost([P0]))
        life.source.wake()

    in_life(world, act)
    assert world.requested == []


@pytest.mark.parametrize(
    "event",
    [Event("c", 2, consent=False), Event("c", 2, delete=True), Event("c", 2, do_not_call=True, reasons=CONFLICT)],
    ids=["upsert", "delete", "amend"],
)
@pytest.mark.parametrize("back", [False, True], ids=["not sure", "lost and back"])
def test_what_is_no_longer_owned_when_a_request_is_to_be_written_is_not_sent(event: Event, *, back: bool) -> None:
    """It was when the request began: whoever had the partition meanwhile may have sent something newer."""
    story = Story().tell(0, Event("c", 1))
    world = world_of(story)
    live(world)
    world.connecting = 1.0

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, event))
        await until(lambda: life.pipeline.gate.in_flight == 1)
        await passes(0.5)
        if back:
            life.source.lose([P0])
            life.source.assign([P0])
        else:
            life.source.sure = False
        await passes(0.6)
        assert world.requested == [("c",)]
        life.source.sure = True
        await until(lambda: world.committed.get(P0) == 2)

    in_life(world, act)
    assert world.requested == [("c",)] * 2
    check(world, story, set())


# -- what comes while a request is under way

NO_ANSWER: dict[str, TransientError | RefusedByGenesys] = {
    "told to wait": Throttled("busy", 2.0),
    "no answer": SinkUnavailable("no answer"),
    "refused": RefusedByGenesys("invalid.value"),
}


@pytest.mark.parametrize("error", NO_ANSWER.values(), ids=NO_ANSWER)
@pytest.mark.parametrize("withdrawal", [Event("c", 2, consent=False), Event("c", 2, delete=True)], ids=["no", "gone"])
def test_a_withdrawal_that_comes_meanwhile_takes_the_place_of_a_grant_that_has_to_be_sent_again(
    error: TransientError | RefusedByGenesys, withdrawal: Event
) -> None:
    """Whatever the answer was: from then on nothing goes out as callable."""
    story = Story().tell(0, Event("c", 1), *(Event(f"other-{n}", 1) for n in range(3)))
    world = world_of(story)
    world.latency, world.answer = 1.0, outage(1, error)
    seen: list[bool] = []
    world.on_upsert = lambda bodies: seen.extend(body["callable"] for body in bodies if body["externalId"] == "c")

    async def act(life: Life) -> None:
        await until(lambda: len(seen) == 1)
        arrives(world, life, story.tell(0, withdrawal))
        await until(lambda: world.committed == {P0: 5})

    in_life(world, act)
    assert True not in seen[1:]
    assert world.events()[0]["outcome"] == "superseded"


# -- what was superseded


def test_a_withdrawal_behind_a_grant_that_was_perhaps_applied_is_sent_by_the_next_owner() -> None:
    """Withdrawn, granted (applied, answer lost), withdrawn again, partition lost: the last one is no duplicate."""
    story = Story().tell(0, Event("c", 1, consent=False))
    world = world_of(story)
    live(world)

    async def act(life: Life) -> None:
        world.latency = 1.0
        world.answer_lost = True
        arrives(world, life, story.tell(0, Event("c", 2)))
        await until(lambda: world.list["c"]["callable"] is True)
        world.answer = outage(1000, SinkUnavailable("refused"))
        arrives(world, life, story.tell(0, Event("c", 3, consent=False)))
        await passes(20)
        life.source.lose([P0])
        await passes(1)
        world.answer, world.answer_lost = lambda: None, False
        life.source.assign([P0])
        await until(lambda: world.committed.get(P0) == 3)

    in_life(world, act)
    check(world, story, set())
    assert world.list["c"]["callable"] is False


def test_a_delete_behind_a_create_that_was_applied_before_a_crash_is_sent() -> None:
    """Deleted, created (applied, then a crash), deleted, another crash before that is sent: it is no duplicate."""
    story = Story().tell(0, Event("c", 1), Event("c", 2, delete=True))
    world = world_of(story)
    live(world)
    world.append(story.tell(0, Event("c", 3)).records()[2:])
    step = 1
    while not (survive(world, step, after_effect=True) and "c" in world.list and world.committed[P0] == 2):
        step += 1
    world.append(story.tell(0, Event("c", 4, delete=True)).records()[3:])
    world.die_at = None
    world.answer = outage(10**6, SinkUnavailable("down"))
    in_life(world, lambda _: passes(100), drain_timeout_s=1)
    world.answer = lambda: None
    live(world)
    check(world, story, set())
    assert world.list == {}


@pytest.mark.parametrize("waits", [False, True])
def test_content_that_was_perhaps_applied_before_a_refused_change_is_overwritten(*, waits: bool) -> None:
    """Withdrawn, granted (applied, answer lost), refused change, withdrawn as before: the last one is sent.

    Also when it waits behind the refused one, and is judged before anything of that is settled.
    """
    story = Story().tell(0, Event("c", 1, consent=False))
    world = world_of(story)
    live(world)

    def refuse(bodies: list[dict[str, Any]]) -> None:
        world.poison = {body["externalId"] for body in bodies if body["data"]["phone"] == "+15550199"}

    async def act(life: Life) -> None:
        world.answer_lost = True
        world.latency = 1.0
        arrives(world, life, story.tell(0, Event("c", 2)))
        await until(lambda: world.list["c"]["callable"] is True)
        world.on_upsert = refuse
        arrives(world, life, story.tell(0, Event("c", 3, phone="+15550199")))
        await until(lambda: bool(world.poison) if waits else world.committed.get(P0) == 3)
        world.answer_lost = False
        arrives(world, life, story.tell(0, Event("c", 4, consent=False)))
        await until(lambda: world.committed.get(P0) == 4)

    in_life(world, act)
    assert [event["outcome"] for event in world.events()] == ["delivered", "superseded", "undeliverable", "delivered"]
    assert world.list["c"]["callable"] is False


# -- withdrawals that meet a request


def test_a_withdrawal_that_arrives_during_a_request_takes_the_grants_place_when_that_is_split() -> None:
    """After the refusal of the whole request the grant is not sent again as callable."""
    story = Story().tell(0, *[Event(f"n-{n}", 1) for n in range(7)], Event("poison", 1), Event("c", 1))
    world = world_of(story)
    world.poison, world.latency = {"poison"}, 1.0
    sent: list[tuple[str, bool]] = []

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight == 1)
        arrives(world, life, story.tell(0, Event("c", 2, consent=False)))
        await passes(0.5)
        world.on_upsert = lambda bodies: sent.extend((body["externalId"], body["callable"]) for body in bodies)
        await until(lambda: world.committed.get(P0) == 10)

    in_life(world, act, genesys_max_in_flight=1, batch_max_records=9)
    assert ("c", False) in sent
    assert ("c", True) not in sent


@pytest.mark.parametrize(
    "older",
    [
        [Event("c", 5), Event("c", 3, consent=False)],
        [Event("c", 5), Event("c", 3, do_not_call=True, reasons=CONFLICT)],
        [Event("c", 1), Event("c", 3, phone="+15550100"), Event("c", 2, consent=False)],
    ],
    ids=["withdrawal", "suppression", "behind a duplicate"],
)
def test_a_stale_withdrawal_withholds_nothing(older: Sequence[Event]) -> None:
    """A withdrawal that is older than what it waits behind leaves the contact callable."""
    world = world_of(Story().tell(0, *older))
    live(world)
    assert world.list["c"]["callable"] is True


@pytest.mark.parametrize("consent", [True, False], ids=["grant", "withdrawal"])
def test_a_good_contact_is_not_blamed_when_the_guilty_one_left_meanwhile(*, consent: bool) -> None:
    """Two contacts in a refused request, one of a partition that is lost before the answer: the other is sent again."""
    story = Story().tell(0, Event("a", 1)).tell(1, Event("b", 1))
    world = world_of(story)
    world.poison = {"poison"}

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {P0: 1, P1: 1})
        world.latency = 5.0
        arrives(world, life, story.tell(0, Event("first", 1, consent=False)))
        await until(lambda: life.pipeline.gate.in_flight == 1)
        arrives(
            world, life, story.tell(0, Event("good", 1, consent=consent)).tell(1, Event("poison", 1, consent=consent))
        )
        await until(lambda: {"good", "poison"} <= set(world.requested[-1]))
        life.source.lose([P1])
        await until(lambda: world.committed.get(P0) == 3)

    in_life(world, act, genesys_max_in_flight=1)
    assert "good" in world.list
    assert world.dead_letters == []


# -- partitions that move


def test_a_batch_whose_partition_was_lost_still_gets_its_event() -> None:
    """What other partitions had in it is accounted for."""
    world = world_of(Story().tell(0, Event("a", 1)).tell(1, Event("b", 1)))
    world.latency = 5.0

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight == 1)
        life.source.lose([P0])
        await until(lambda: world.committed.get(P1) == 1)
        life.source.assign([P0])
        await until(lambda: world.committed.get(P0) == 1)
        await passes(1)

    in_life(world, act)
    events = {event["batchId"]: event for event in world.events("batch")}
    assert {event["batchId"] for event in world.events()} == set(events)
    assert [(each["recordsIn"], each["recordsOut"], each["status"]) for each in events.values()] == [
        (1, 1, "success")
    ] * 2


def test_a_batch_whose_partition_moves_away_before_it_is_tried_again_still_gets_its_event() -> None:
    """What came to nothing waits to be sent again: what other partitions had in it is accounted for."""
    world = world_of(Story().tell(0, Event("a", 1)).tell(1, Event("b", 1)))
    world.answer = outage(1, SinkUnavailable("no answer"))
    world.latency = 5.0

    async def act(life: Life) -> None:
        await until(lambda: len(world.requested) == 1)
        await until(lambda: life.pipeline.gate.in_flight == 0)
        life.source.lose([P0])
        await until(lambda: world.committed.get(P1) == 1)
        await passes(1)

    in_life(world, act)
    assert world.requested == [("a", "b"), ("b",)]
    (event,) = world.events("batch")
    assert (event["recordsIn"], event["recordsOut"], event["status"], event["attempts"]) == (1, 1, "success", 2)


def test_a_refused_request_is_not_split_for_a_partition_that_moves_away() -> None:
    """When the partition is released nothing of it is under way, however long the hunt would have taken."""
    story = Story().tell(0, *[Event(f"n-{n}", 1) for n in range(7)], Event("poison", 1))
    world = world_of(story)
    world.poison, world.latency = {"poison"}, 12.0
    under_way: list[int] = []

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight == 1)
        await life.source.revoke([P0])
        under_way.append(sum(world.in_flight.values()))

    in_life(world, act)
    assert under_way == [0]
    live(world)
    check(world, story, world.poison)


def test_a_postponed_delete_does_not_hold_up_a_revocation() -> None:
    """A delete of a contact in use that waits for its next try is not under way: its partition moves at once."""
    world = world_of(Story().tell(0, Event("x", 1, delete=True)))
    world.in_use = {"x"}
    world.list["x"] = {"callable": True}
    waited: list[float] = []

    async def act(life: Life) -> None:
        await until(lambda: len(world.requested) == 1)
        await passes(1)
        begun = asyncio.get_running_loop().time()
        await life.source.revoke([P0])
        waited.append(asyncio.get_running_loop().time() - begun)

    in_life(world, act)
    assert waited[0] < 1


def test_caught_up_is_not_said_of_partitions_that_are_away_for_a_moment() -> None:
    """Everything lost and assigned again: the run ends only when all is settled."""
    story = Story().tell(0, *[Event(f"n-{n}", 1) for n in range(50)])
    world = world_of(story)
    world.latency = 5.0

    async def main() -> None:
        life = Life(world)
        running = asyncio.create_task(life.run())
        await until(lambda: life.pipeline.gate.in_flight == 1)
        life.source.lose([P0])
        await passes(1)
        life.source.assign([P0])
        await running

    virtual_time.run(main())
    check(world, story, set())


def test_a_member_without_partitions_is_ready_and_caught_up() -> None:
    """More members than partitions: the idle one is at work like the others, and has nothing left to do."""
    world = World()
    ready: list[bool] = []

    async def main() -> None:
        life = Life(world)
        ready.append(life.pipeline.ready)
        await life.run()
        ready.append(life.pipeline.ready)

    virtual_time.run(main())
    assert ready == [False, True]


# -- one stuck partition


def test_a_delete_that_is_postponed_for_ever_stops_its_own_partition_alone() -> None:
    """The contact stays in use; the other partition is read and settled to its end."""
    story = Story().tell(0, Event("x", 1, delete=True), *[Event(f"n-{n}", 1) for n in range(400)])
    story.tell(1, *[Event(f"o-{n}", 1, consent=False) for n in range(1000)])
    world = world_of(story)
    world.in_use = {"x"}
    world.list["x"] = {"callable": True}
    in_life(world, lambda _: passes(3600), read_ahead_records=300, drain_timeout_s=1)
    assert world.committed == {P1: 1000}


def test_a_registry_outage_of_one_partition_leaves_the_others_alone() -> None:
    """What is held for a schema that cannot be had fills that partition's share of the read-ahead, and no more."""
    story = (
        Story().tell(0, *[Event(f"n-{n}", 1) for n in range(500)]).tell(1, *[Event(f"o-{n}", 1) for n in range(500)])
    )
    world = world_of(story)
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]

    async def act(life: Life) -> None:
        life.source.size = 150
        await passes(3600)

    in_life(world, act, MemorySchemas({7: [SourceUnavailable("down")]}), read_ahead_records=100, drain_timeout_s=1)
    assert world.committed == {P1: 500}


def test_schemas_that_stay_unknown_cost_their_time_once() -> None:
    """Twenty records of twenty unknown schemas: what comes behind them waits as long as for one."""
    world = World()
    world.append([Record(TOPIC, 0, n, 0, b"k", b"\0\0\0\1" + bytes([n]) + b"junk") for n in range(20)])
    world.append([Record(TOPIC, 0, 20, 0, b"c", Event("c", 1).value())])
    took: list[float] = []

    async def main() -> None:
        life = Life(world, schema_unknown_timeout_s=60)
        life.source.size = 40
        begun = asyncio.get_running_loop().time()
        await life.run()
        took.append(asyncio.get_running_loop().time() - begun)

    virtual_time.run(main())
    assert took[0] < 65
    assert len(world.events()) == 21


# -- what comes again, what fails for a moment


def test_an_offset_that_comes_again_has_one_audit_event() -> None:
    """A repeat within a poll and one of an earlier poll are dropped."""
    story = Story().tell(0, *[Event(f"n-{n}", 1) for n in range(20)])
    world = world_of(story)
    polled = world.log[P0]
    world.log[P0] = [*polled[:3], *polled[1:10], *polled[2:]]

    async def act(_: Life) -> None:
        await until(lambda: world.committed.get(P0) == 20)

    in_life(world, act)
    assert [event["source"]["offset"] for event in world.events()] == list(range(20))


class _ResetFailsOnce(MemoryStore):
    """A disk that is full when the store is to begin anew."""

    failures = 1

    async def reset(self, partition: TopicPartition) -> None:
        if self.failures:
            self.failures -= 1
            raise TransientError("no space left in the state directory")
        await super().reset(partition)


class _Overtaken(MemoryTopics):
    """A changelog that does not have the position of any store."""

    async def changelog(self, partition: TopicPartition, start: int) -> Any:
        if start > 0:
            raise ChangelogOvertaken
        async for chunk in super().changelog(partition, start):
            yield chunk


def test_a_disk_that_is_full_when_a_store_begins_anew_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restoring is tried again, as with any other outage."""
    monkeypatch.setattr("tests.lives.MemoryStore", _ResetFailsOnce)
    monkeypatch.setattr("tests.lives.MemoryTopics", _Overtaken)
    world = world_of(Story().tell(0, Event("a", 1)))
    world.stores[P0] = ({}, 999)
    live(world)
    assert [event["outcome"] for event in world.events()] == ["delivered"]


def test_a_pulse_between_looking_and_waiting_is_not_missed() -> None:
    """Caught up in the very turn in which it was asked: the run ends."""
    world = world_of(Story().tell(0, Event("a", 1)))

    async def main() -> None:
        life = Life(world)
        answers = iter([False, True])

        def caught_up() -> bool:
            answer = next(answers)
            if not answer:
                asyncio.get_running_loop().call_soon(life.pipeline._progress.made)
            return answer

        life.pipeline._caught_up = caught_up  # type: ignore[method-assign]
        async with asyncio.timeout(3600):
            await life.pipeline._ended(life.stop, until_caught_up=True)
        assert next(answers, None) is None

    virtual_time.run(main())


def test_many_changes_of_one_contact_leave_one_entry_in_the_queue() -> None:
    """A contact that changes all the time while Genesys is away waits in one place."""
    world = world_of(Story().tell(0, *[Event("hot", n, phone=f"+1555{n:07d}") for n in range(1, 3001)]))
    entries: list[int] = []

    async def act(life: Life) -> None:
        world.answer = outage(10**6, SinkUnavailable("down"))
        await until(lambda: life.pipeline.partitions.unsettled == 3000)
        entries.append(len(life.pipeline.lanes._calm[Effect.UPSERT]))

    in_life(world, act, drain_timeout_s=1)
    assert entries == [1]


def test_the_memory_sink_loses_answers_after_the_effect() -> None:
    """The stories above rest on it."""
    world = World()
    world.answer_lost = True

    async def main() -> None:
        sink = MemorySink(world)
        body = orjson.dumps({"externalId": "a", "callable": True, "data": {}})
        with pytest.raises(SinkUnavailable):
            await sink.upsert([body])

    virtual_time.run(main())
    assert "a" in world.list
