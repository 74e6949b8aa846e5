"""Requests that come to nothing: because of one of their contacts, because of Genesys, and nobody knows which."""

import asyncio
import hashlib
import random
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import asdict
from structlog.testing import capture_logs

from consumer.core.batch import Lanes
from consumer.core.delivery import BREAKER_OPEN_S, Breaker
from consumer.core.lane import Batch, Effect, Lane
from consumer.errors import FatalError, InUse, RefusedByGenesys, SinkUnavailable, Throttled, Withheld
from consumer.model import Assignment, Change, Contact, Operation, Record, Settlement, TopicPartition, Work
from consumer.pipeline.again import MISSES
from consumer.pipeline.blame import TRIES, Blame
from consumer.pipeline.late import LATE_S, REMEMBERED, Late
from consumer.pipeline.often import AT_ONCE
from consumer.pipeline.waits import for_the_list
from consumer.ports import always
from tests import virtual_time
from tests.checker import check, check_without_outcomes
from tests.lives import Life, arrives, in_life, live, world_of
from tests.memory_ports import MemorySink, MemoryTopics, World
from tests.stories import TOPIC, Event, Story, partly
from tests.virtual_time import EPOCH, passes, until

ONE_PAUSE_S = BREAKER_OPEN_S + 5
"""Of the breaker, and what comes before and after."""

P0 = TopicPartition(TOPIC, 0)
BAD = "bad"
KNOWN = [f"known-{n}" for n in range(30)]
CONFLICT: dict[str, Any] = {"do_not_call": True, "reasons": ("consent_conflicts_with_do_not_call",)}


def begun() -> tuple[Story, World]:
    """Thirty contacts that may be called, and Genesys answers nothing for another one."""
    story = Story().tell(0, *(Event(name, 1) for name in KNOWN))
    world = world_of(story)
    live(world)
    world.unanswered = {BAD}
    return story, world


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


async def seconds_until_withdrawn(world: World, life: Life, story: Story, name: str) -> float:
    """How long it takes from a withdrawal of a contact until nobody calls it."""
    arrives(world, life, story.tell(0, Event(name, 2, consent=False)))
    told = now()
    await until(lambda: not world.list[name]["callable"])
    return now() - told


async def traffic(world: World, life: Life, story: Story, hours: float) -> None:
    """A new contact every ten seconds."""
    for n in range(int(hours * 360)):
        arrives(world, life, story.tell(0, Event(f"traffic-{now()}-{n}", 1)))
        await passes(10)


# -- because of one contact


@pytest.mark.parametrize("others", [0, 3, 40, 300])
def test_a_contact_without_an_answer_holds_up_nobody(others: int) -> None:
    """New contacts that came with it are delivered, and once it stands alone a withdrawal goes out at once."""
    story, world = begun()
    new = [f"new-{n}" for n in range(others)]

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 1), *(Event(name, 1) for name in new)))
        await passes(60)
        assert await seconds_until_withdrawn(world, life, story, KNOWN[0]) < ONE_PAUSE_S
        await passes(120)
        assert world.list.keys() == {*KNOWN, *new}
        for name in KNOWN[1:6]:
            assert await seconds_until_withdrawn(world, life, story, name) < 1
            await passes(600)
            assert life.pipeline.gate.breaker(now()) is Breaker.CLOSED

    in_life(world, act)


def test_neighbours_of_a_contact_without_an_answer_do_not_fail_with_it_again_and_again() -> None:
    """While there is a backlog of many batches, its own batch is taken apart: the others cost nothing more."""
    story, world = begun()
    world.append(story.tell(0, *(Event(f"new-{n}", 1) for n in range(2000)), Event(BAD, 1)).records()[len(KNOWN) :])
    world.poll_records = 500

    async def act(life: Life) -> None:
        await until(lambda: len(world.list) == 2030)
        assert sum(BAD in names for names in world.requested) < 12
        await traffic(world, life, story, 0.1)

    in_life(world, act)


def test_it_is_given_up_once_it_failed_alone_many_times_while_others_were_delivered() -> None:
    """Undeliverable, with a reason of its own; the partition goes on, and the log names the record and what to do."""
    story, world = begun()
    with capture_logs() as logs:

        async def act(life: Life) -> None:
            arrives(world, life, story.tell(0, Event(BAD, 1)))
            await traffic(world, life, story, 0.08)
            assert world.committed == {P0: len(KNOWN)}
            await traffic(world, life, story, 0.3)
            assert world.committed[P0] > len(KNOWN) + 100

        in_life(world, act)
    outcomes = check_without_outcomes(world, story, {BAD})
    refused = [event for event in outcomes.values() if event["outcome"] == "undeliverable"]
    assert [event["reasons"] for event in refused] == [["genesys:no.usable.answer"]]
    assert len(world.dead_letters) == 1
    (given_up,) = [entry for entry in logs if entry["event"] == "contact_given_up"]
    assert given_up["record"] == f"{TOPIC}/0/{len(KNOWN)}"
    assert len([entry for entry in logs if entry["event"] == "contact_unanswered"]) == TRIES - 1


def test_a_newer_change_takes_the_place_of_one_that_waits_alone() -> None:
    """What Genesys does not answer for may be in the data: the newer one is sent with all others, and at once."""
    story, world = begun()

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 1)))
        await traffic(world, life, story, 0.04)
        world.unanswered = set()
        arrives(world, life, story.tell(0, Event(BAD, 2, phone="+15550199")))
        await passes(1)
        assert BAD in world.list

    in_life(world, act)
    check(world, story, set())


@pytest.mark.parametrize("withdrawal", [{"consent": False}, CONFLICT], ids=["consent", "suppressed"])
def test_a_withdrawal_without_an_answer_is_carried_out_as_a_delete(withdrawal: dict[str, Any]) -> None:
    """While other withdrawals are not held up by it; the record keeps the reason."""
    story, world = begun()
    story.tell(0, Event(BAD, 1))
    world.append(story.records()[len(KNOWN) :])
    world.unanswered = set()
    live(world)
    world.unanswered = {BAD}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 2, **withdrawal), Event(KNOWN[0], 2, **withdrawal)))
        await passes(1)
        for name in KNOWN[1:8]:
            assert await seconds_until_withdrawn(world, life, story, name) < ONE_PAUSE_S
            await passes(20)
        assert not world.list[KNOWN[0]]["callable"]
        assert BAD not in world.list

    in_life(world, act)
    (event,) = [each for each in world.events() if each["operation"] == "delete"]
    assert event["reasons"][-1] == "genesys:no.usable.answer"


def test_new_contacts_do_not_wait_for_a_withdrawal_without_an_answer() -> None:
    """It would go first each time that the breaker lets one request through."""
    story, world = begun()

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 1, consent=False)))
        await passes(60)
        arrives(world, life, story.tell(0, Event("new", 1)))
        told = now()
        await until(lambda: "new" in world.list)
        assert now() - told < ONE_PAUSE_S

    in_life(world, act)


def test_after_an_outage_nobody_waits_for_a_withdrawal_that_stays_without_an_answer() -> None:
    """They failed together: whoever was tried the longest time ago is tried next, withdrawal or not."""
    story, world = begun()
    world.unanswered = {BAD, "new"}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 1, consent=False), Event("new", 1)))
        await passes(300)
        world.unanswered = {BAD}
        ended = now()
        await until(lambda: "new" in world.list)
        assert now() - ended < 2 * ONE_PAUSE_S

    in_life(world, act)


def test_a_delete_without_an_answer_is_tried_again_for_ever_and_holds_up_nobody() -> None:
    """Nothing else could be done for it."""
    story, world = begun()

    def answer() -> None:
        if KNOWN[0] in world.requested[-1]:
            raise SinkUnavailable("no usable answer")

    world.answer = answer

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(name, 2, delete=True) for name in KNOWN[:4])))
        await passes(120)
        assert world.list.keys() & {*KNOWN[:4]} == {KNOWN[0]}
        for name in KNOWN[4:7]:
            arrives(world, life, story.tell(0, Event(name, 2, delete=True)))
            await passes(1)
            assert name not in world.list
            await passes(3600)
        assert len(world.requested) < 400
        world.answer = lambda: None
        await passes(31)
        assert KNOWN[0] not in world.list

    in_life(world, act, genesys_max_in_flight=1)
    check(world, story, set())


def test_a_search_that_meets_no_answer_holds_up_no_withdrawal() -> None:
    """One contact is refused and another gets no answer: newer withdrawals go out, and so do their neighbours'."""
    story, world = begun()
    world.refusal, world.poison, world.unanswered = RefusedByGenesys("invalid.update"), {KNOWN[0]}, {KNOWN[5]}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(name, 2, consent=False) for name in KNOWN[:8])))
        for name in KNOWN[8:12]:
            await seconds_until_withdrawn(world, life, story, name)
            await passes(60)
        assert not any(world.list.get(name, {}).get("callable") for name in KNOWN[:8])

    in_life(world, act)


def test_who_is_doubted_goes_on_when_the_half_that_was_tried_gets_no_answer() -> None:
    """That half is taken apart for another reason: nobody would ever tell the others what came of it."""
    story, world = begun()
    world.poison = {"new-3"}

    def answer() -> None:
        if world.requested[-1] == ("new-0", "new-1"):
            world.unanswered = {"new-0"}

    async def act(life: Life) -> None:
        world.answer = answer
        arrives(world, life, story.tell(0, *(Event(f"new-{n}", 1) for n in range(4))))
        for name in KNOWN[:5]:
            await seconds_until_withdrawn(world, life, story, name)
            await passes(30)
        assert world.list.keys() == {*KNOWN, "new-1", "new-2"}

    in_life(world, act)


@pytest.mark.parametrize("partitions", [1, 2])
def test_in_front_of_a_backlog_a_contact_without_an_answer_does_not_stop_its_partition(partitions: int) -> None:
    """Held back, it is read on for a bit: without others nobody could tell whether Genesys works."""
    story = Story()
    for n in range(partitions):
        story.tell(n, Event(f"{BAD}-{n}", 1), *(Event(f"new-{n}-{each}", 1) for each in range(4000)))
    story.tell(0, Event("new-0-7", 2, consent=False))
    world = world_of(story)
    world.unanswered, world.poll_records = {f"{BAD}-{n}" for n in range(partitions)}, 100
    held: list[int] = []

    async def act(life: Life) -> None:
        async with asyncio.timeout(900):
            while sum(world.committed.values()) < 4001 * partitions + 1:
                await passes(1)
                held.append(life.pipeline.partitions.unsettled)

    in_life(world, act, read_ahead_records=1000)
    outcomes = check_without_outcomes(world, story, world.unanswered)
    assert [event["outcome"] for event in outcomes.values()].count("undeliverable") == partitions
    assert max(held) < 1000 + 100 * (partitions + 3 * TRIES)


def test_polls_of_what_is_not_sent_do_not_end_the_search_for_proof() -> None:
    """Duplicates behind the backlog, as of a connector that begins anew, tell nothing against Genesys."""
    new = [Event(f"new-{n}", 1) for n in range(1200)]
    story = Story().tell(0, Event(BAD, 1), *new, *new[:400], *(Event(f"more-{n}", 1) for n in range(1500)))
    world = world_of(story)
    world.unanswered, world.poll_records = {BAD}, 100

    async def act(_: Life) -> None:
        async with asyncio.timeout(5400):
            await until(lambda: world.committed.get(P0) == 3101)

    in_life(world, act, read_ahead_records=1000)
    outcomes = check_without_outcomes(world, story, world.unanswered)
    assert outcomes[TOPIC, 0, 0]["outcome"] == "undeliverable"


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("what", ["part", "delete"])
def test_a_partition_that_is_busy_with_another_kind_does_not_keep_back_proof(what: str) -> None:
    """A change of a part is told where a whole contact is; deletes show nothing, and others are read for."""
    story = Story().tell(0, Event("first", 1)).tell(1, *(Event(name, 1) for name in KNOWN))
    world = world_of(story)
    live(world)
    story.tell(0, Event(BAD, 1), *(Event(f"new-{n}", 1) for n in range(1200)))
    for n in range(3000):
        part = partly(KNOWN[n % 30], 2 + n, phone=f"+1555{n:06}")
        story.tell(1, part if what == "part" else Event(f"deleted-{n}", 2, delete=True))
    world.append(story.records()[1:1202])
    others = story.records()[1202 + len(KNOWN) :]
    world.unanswered, world.poll_records, world.latency = {BAD}, 100, 0.4

    async def act(life: Life) -> None:
        while world.committed[P0] < 1202:
            world.append([others.pop(0)])
            life.source.wake()
            await passes(0.3)

    in_life(world, act, read_ahead_records=1000, genesys_requests_per_minute=3000, fuse_deletes=0)
    assert [letter.offset for letter, _ in world.dead_letters] == [1]


def test_in_an_outage_no_more_is_read_for_a_contact_without_an_answer() -> None:
    """What came tells nothing as long as it fails too; once it is over the contact is given up."""
    story = Story().tell(0, Event(BAD, 1), *(Event(f"new-{each}", 1) for each in range(4000)))
    world = world_of(story)
    world.unanswered, world.poll_records = {BAD}, 100

    def fail() -> None:
        raise SinkUnavailable("no usable answer")

    async def act(life: Life) -> None:
        await until(lambda: len(world.list) > 1000)
        await passes(30)
        world.answer, before = fail, life.pipeline.partitions.unsettled
        await passes(36_000)
        assert not world.dead_letters
        assert life.pipeline.partitions.unsettled <= before + 3 * 100
        world.answer = lambda: None
        await until(lambda: world.committed.get(P0) == 4001)

    in_life(world, act, read_ahead_records=1000)
    check_without_outcomes(world, story, {BAD})


def test_the_status_tells_that_a_contact_without_an_answer_holds_its_partition() -> None:
    """By the position of its record, as long as it does."""
    story, world = begun()

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(f"{BAD}-{n}", 1) for n in range(2))))
        world.unanswered = {f"{BAD}-{n}" for n in range(2)}
        await traffic(world, life, story, 0.05)
        assert life.pipeline.genesys_answers
        assert life.pipeline.status()["state"] == "degraded"
        assert life.pipeline.degraded == (
            f"no usable answer for the contact of {TOPIC}/0/{len(KNOWN)} (and 1 more): no usable answer"
        )
        world.unanswered = set()
        await passes(600)
        assert life.pipeline.degraded is None

    in_life(world, act)


def test_a_run_that_is_to_end_does_not_wait_for_proof_that_does_not_come() -> None:
    """All else is settled up to the contact; nobody knows whether it is to blame, so it comes again."""
    story = Story().tell(0, Event("first", 1), Event(BAD, 1), *(Event(name, 1) for name in KNOWN))
    world = world_of(story)
    world.unanswered = {BAD}
    with pytest.raises(FatalError, match=f"{TOPIC}/0/1: no usable answer"):
        live(world)
    assert world.list.keys() == {"first", *KNOWN}
    assert world.committed == {P0: 1}
    world.unanswered = set()
    live(world)
    check(world, story, set())


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("settings", [{}, {"genesys_dnc_list": "do not call"}], ids=["", "list"])
@pytest.mark.parametrize("bad", [Event(BAD, 3, phone="+15550777"), partly(BAD, 3, phone="+15550777")], ids=["", "part"])
def test_a_contact_whose_like_nobody_sends_holds_up_nobody(bad: Event, settings: dict[str, Any]) -> None:
    """It withdrew and agreed again, or tells a part alone: that any others are carried out sets it apart."""
    story, world = begun()
    told = len(story.records())
    world.append(story.tell(0, Event(BAD, 1), Event(BAD, 2, consent=False)).records()[told:])
    world.unanswered = set()
    live(world, **settings)
    world.unanswered = {BAD}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, bad))
        await traffic(world, life, story, 0.05)
        for name in KNOWN[:20]:
            await traffic(world, life, story, 0.01)
            assert await seconds_until_withdrawn(world, life, story, name) < 1
            assert life.pipeline.gate.breaker(now()) is Breaker.CLOSED
        assert world.committed[P0] > told + 50 or bad.partial

    in_life(world, act, **settings)


@pytest.mark.parametrize("releases", [True, False])
def test_who_needs_the_do_not_call_list_is_not_blamed_while_that_is_away(*, releases: bool) -> None:
    """Grants that take no number off it tell nothing of it; nor does it matter where none does."""
    story, world = begun()
    told = len(story.records())
    world.append(story.tell(0, Event(BAD, 1), Event(BAD, 2, consent=False)).records()[told:])
    world.unanswered = set()
    settings: dict[str, Any] = {"genesys_dnc_list": "do not call", "genesys_dnc_release": releases}
    live(world, **settings)
    world.unanswered = {BAD}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 3)))
        await traffic(world, life, story, 0.5)
        assert bool(world.dead_letters) is not releases

    in_life(world, act, **settings)


def test_who_is_of_another_kind_by_now_is_blamed_only_by_what_shows_that_this_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What others of the former kind did before tells nothing of it, and is no failure of it either."""
    kinds: set[int] = set()
    monkeypatch.setattr("consumer.pipeline.blame.releases_number", lambda lane: id(lane) in kinds)
    blame, lane = Blame(releases=True), _lane("c")
    for _ in range(3):
        blame.failed(Batch(Effect.UPSERT, [lane]), stopped=False)
        for _ in range(40):
            blame.carried_out(Batch(Effect.UPSERT, [_lane("other")]))
    before = lane.blamed
    assert before > 0
    kinds.add(id(lane))
    blame.failed(Batch(Effect.UPSERT, [lane]), stopped=False)
    assert (lane.blamed, lane.unproven) == (before, 1)


def test_where_one_endpoint_fails_nobody_is_taken_apart_because_another_works() -> None:
    """Sent one by one, thousands that came in requests of a hundred would take hours once it works again."""
    story, world = begun()
    world.unanswered = {f"new-{n}" for n in range(600)}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(f"new-{n}", 1) for n in range(600))))
        for name in KNOWN[:20]:
            arrives(world, life, story.tell(0, Event(name, 2, delete=True)))
            await passes(30)
        world.unanswered, tries = set(), len(world.requested)
        await until(lambda: len(world.list) == 610)
        assert len(world.requested) - tries < 30

    in_life(world, act)


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("withdrawal", [{"consent": False}, CONFLICT, {"delete": True}], ids=["no", "bad", "delete"])
@pytest.mark.parametrize("known_for_s", [0.1, 300.0])
@pytest.mark.parametrize("part", [False, True])
def test_a_withdrawal_does_not_wait_for_a_change_without_an_answer(
    known_for_s: float, withdrawal: dict[str, Any], *, part: bool
) -> None:
    """What it waits behind is judged as a withdrawal is, from then on."""
    story, world = begun()
    name = KNOWN[0]
    world.unanswered = {name}

    async def act(life: Life) -> None:
        change = partly(name, 2, phone="+15550777") if part else Event(name, 2, phone="+15550777")
        arrives(world, life, story.tell(0, change))
        await passes(0.1)
        await traffic(world, life, story, known_for_s / 3600)
        whole = part and "delete" not in withdrawal and withdrawal is not CONFLICT
        arrives(world, life, story.tell(0, partly(name, 3, **withdrawal) if whole else Event(name, 3, **withdrawal)))
        for _ in range(20):
            await traffic(world, life, story, 10 / 3600)
        assert not world.list.get(name, {}).get("callable")

    in_life(world, act)


# -- an answer that leaves one out


def test_a_grant_that_genesys_leaves_out_is_told_by_itself_and_given_up_in_the_end() -> None:
    """Its neighbours count as delivered at once, and it has a reason of its own."""
    story, world = begun()
    world.unanswered, world.left_out = set(), {BAD}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1), Event(BAD, 1), Event("other", 1)))
        await passes(1)
        assert world.list.keys() == {*KNOWN, "new", "other"}
        await passes(60)

    in_life(world, act)
    outcomes = check_without_outcomes(world, story, {BAD})
    refused = [event for event in outcomes.values() if event["outcome"] == "undeliverable"]
    assert [event["reasons"] for event in refused] == [["genesys:contact.left.out"]]
    assert [names for names in world.requested if BAD in names][1:] == [(BAD,), (BAD,)]


def test_a_grant_that_was_left_out_once_is_delivered_when_it_is_not_any_more() -> None:
    """It is told again ten seconds later."""
    story, world = begun()
    world.unanswered, world.left_out = set(), {BAD}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1), Event(BAD, 1)))
        await passes(5)
        world.left_out = set()
        await passes(8)

    in_life(world, act)
    check(world, story, set())


def test_how_often_an_older_change_was_left_out_does_not_count_against_a_newer_one() -> None:
    """The newer one is told as often by itself."""
    story, world = begun()
    world.unanswered, world.left_out = set(), {BAD}

    async def act(life: Life) -> None:
        for version in (1, 2, 3):
            arrives(
                world, life, story.tell(0, Event(BAD, version, phone=f"+1555019{version}"), Event(f"n-{version}", 1))
            )
            await passes(3)
        world.left_out = set()
        await passes(20)
        assert BAD in world.list

    in_life(world, act)
    check(world, story, set())


def test_who_is_kept_back_again_is_not_let_go_by_the_end_of_an_earlier_time() -> None:
    """A newer change took the place of the one that waited, and waits as long itself."""
    story, world = begun()
    world.unanswered, world.left_out = set(), {BAD}

    async def act(life: Life) -> None:
        for version in (1, 2):
            arrives(
                world, life, story.tell(0, Event(BAD, version, phone=f"+1555019{version}"), Event(f"n-{version}", 1))
            )
            await passes(8)
        assert (BAD,) not in world.requested
        await passes(5)
        assert (BAD,) in world.requested
        world.left_out = set()

    in_life(world, act)


def test_a_withdrawal_that_genesys_leaves_out_is_carried_out_as_a_delete_at_once() -> None:
    """Whatever it did with the others, this person may still be called."""
    story, world = begun()
    world.unanswered, world.left_out = set(), {KNOWN[0]}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(name, 2, consent=False) for name in KNOWN[:3])))
        await passes(1)
        assert KNOWN[0] not in world.list
        assert not any(world.list[name]["callable"] for name in KNOWN[1:3])

    in_life(world, act)
    (event,) = [each for each in world.events() if each["operation"] == "delete"]
    assert event["reasons"] == ["genesys:contact.left.out"]


def test_answers_that_leave_everybody_out_blame_nobody() -> None:
    """They are those of a service in trouble: all is delivered once they are whole."""
    story, world = begun()
    new = {f"new-{n}" for n in range(20)}
    world.unanswered, world.left_out = set(), {*new, BAD, *KNOWN}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(name, 1) for name in sorted(new))))
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, consent=False)))
        await passes(3600)
        assert not world.dead_letters
        world.left_out = set()
        await passes(60)

    in_life(world, act)
    check(world, story, set())
    assert {event["operation"] for event in world.events()} == {"upsert"}


def test_a_number_stays_blocked_where_its_grant_was_left_out() -> None:
    """Those of the others come off the list."""
    story, world = begun()
    world.unanswered = set()
    names = KNOWN[:2]
    for version, consent in ((2, False), (3, True)):
        told = len(story.records())
        story.tell(0, *(Event(names[n], version, phone=f"+1555019{n}", consent=consent) for n in range(2)))
        world.append(story.records()[told:])
        world.left_out = {names[0]} if consent else set()
        live(world, genesys_dnc_list="do not call")
    assert world.blocked == {"+15550190"}


# -- a contact that is in use


@pytest.mark.parametrize("change", [{"consent": False}, {"phone": "+15550199"}], ids=["withdrawal", "grant"])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_a_contact_in_use_holds_up_nobody_and_is_changed_later(in_flight: int, change: dict[str, Any]) -> None:
    """Others that come with it go out at once, and nobody is asked to wait; it has its change half a minute later."""
    story, world = begun()
    world.unanswered, world.poison, world.refusal = set(), {KNOWN[0]}, InUse()

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(name, 2, **change) for name in KNOWN[:2])))
        for name in KNOWN[2:8]:
            assert await seconds_until_withdrawn(world, life, story, name) < 1
            await passes(5)
        assert world.list[KNOWN[0]] != world.list[KNOWN[1]] | {"external_id": KNOWN[0]}
        world.poison = set()
        await passes(31)
        assert world.list[KNOWN[0]] == world.list[KNOWN[1]] | {"external_id": KNOWN[0]}

    in_life(world, act, genesys_max_in_flight=in_flight)
    check(world, story, set())
    assert {event["operation"] for event in world.events()} == {"upsert"}


def be_busy(world: World, what: str) -> None:
    """Have Genesys neither change nor delete the first of the known contacts, or no more."""
    world.unanswered = set()
    world.in_use = {KNOWN[0]} if what == "used" else set()
    world.delete_refusal = RefusedByGenesys("invalid.delete") if what == "refused" else None
    world.poison, world.refusal = {KNOWN[0]} if what == "changed" else set(), InUse()


each_busy = pytest.mark.parametrize(
    ("what", "why"),
    [
        ("used", "it shows yet after its delete, as one does that a campaign uses"),
        ("refused", "its delete is refused: invalid.delete"),
        ("changed", "a campaign uses it"),
    ],
)


@pytest.mark.parametrize(
    ("what", "event"), [("used", "delete_postponed"), ("refused", "delete_refused"), ("changed", "contact_in_use")]
)
def test_the_log_tells_whom_genesys_neither_changes_nor_deletes(what: str, event: str) -> None:
    """By the position of the record, with every try."""
    story, world = begun()
    be_busy(world, what)

    async def act(life: Life) -> None:
        change = {"phone": "+15550199"} if what == "changed" else {"delete": True}
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, **change)))
        await passes(45)
        told = [(line["event"], line["record"]) for line in logs if "record" in line]
        assert told == [(event, f"{TOPIC}/0/{len(KNOWN)}")] * 2
        be_busy(world, "no more")

    with capture_logs() as logs:
        in_life(world, act)


def test_the_log_tells_who_is_left_out_until_it_is_given_up() -> None:
    """By the position of the record."""
    story, world = begun()
    world.unanswered, world.left_out = set(), {"new"}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1), Event("other", 1)))
        await until(lambda: world.committed == {P0: len(story.records())})

    with capture_logs() as logs:
        in_life(world, act)
    told = [line["event"] for line in logs if line.get("record") == f"{TOPIC}/0/{len(KNOWN)}"]
    assert told == ["contact_left_out"] * (MISSES - 1) + ["contact_given_up"]


@each_busy
def test_the_status_tells_who_is_in_use_for_long(what: str, why: str) -> None:
    """By the position of the record, once it was tried for a minute; a call is over by then, most are."""
    story, world = begun()
    be_busy(world, what)

    async def act(life: Life) -> None:
        change = {"phone": "+15550199"} if what == "changed" else {"delete": True}
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, **change), Event("behind", 1)))
        await passes(45)
        assert not life.pipeline.degraded
        await passes(45)
        record = f"{TOPIC}/0/{len(KNOWN)}"
        assert life.pipeline.degraded == f"Genesys neither changes nor deletes the contact of {record}: {why}"
        assert life.pipeline.status()["state"] == "degraded"
        be_busy(world, "no more")
        await passes(31)
        assert life.pipeline.degraded is None

    in_life(world, act)
    assert world.committed[P0] == len(KNOWN) + 2


@each_busy
def test_a_run_that_is_to_end_does_not_wait_for_ever_for_whom_a_campaign_uses(what: str, why: str) -> None:
    """It ends after ten minutes, with all else settled up to the contact; the next start takes it up again."""
    story, world = begun()
    told = len(story.records())
    change = {"phone": "+15550199"} if what == "changed" else {"delete": True}
    story.tell(0, Event("before", 1), Event(KNOWN[0], 2, **change), Event("behind", 1))
    world.append(story.records()[told:])
    be_busy(world, what)
    with pytest.raises(FatalError, match=f"the contact of {TOPIC}/0/{told + 1}: {why}"):
        live(world)
    assert {"before", "behind"} <= world.list.keys()
    assert world.committed == {P0: told + 1}
    be_busy(world, "no more")
    live(world)
    check(world, story, set())


@pytest.mark.parametrize("in_use", [False, True])
def test_a_run_that_is_to_end_does_so_however_many_a_campaign_uses(*, in_use: bool) -> None:
    """Of so many one is always tried."""
    names = [f"many-{number}" for number in range(150)]
    story = Story().tell(0, *(Event(name, 1) for name in names))
    world = world_of(story)
    live(world)
    story.tell(0, *(Event(name, 2, delete=True) for name in names))
    world.append(story.records()[len(names) :])
    world.delete_refusal = InUse() if in_use else RefusedByGenesys("invalid.delete")
    world.latency = 0.15
    with pytest.raises(FatalError, match="neither changes nor deletes"):
        live(world)


class SlowTopics(MemoryTopics):
    """Brokers that take half the time after which who is in use is tried again."""

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        await passes(15)
        return await super().settle(settlement)


def test_a_run_that_ends_in_vain_says_so_however_long_its_last_settlement_takes() -> None:
    """Meanwhile one who is in use is due once more, and waits for nothing in the moment of the question."""
    story, world = begun()
    world.append(story.tell(0, Event(KNOWN[0], 2, delete=True)).tell(1, Event("first", 1)).records()[len(KNOWN) :])
    be_busy(world, "used")

    async def main() -> None:
        life = Life(world, topics=SlowTopics(world))
        running = asyncio.create_task(life.run())
        await passes(20)
        arrives(world, life, story.tell(0, Event(KNOWN[1], 2, delete=True)))
        while not running.done():  # so that there is always something to settle
            arrives(world, life, story.tell(1, Event(f"other-{now()}", 1)))
            await passes(5)
        running.result()

    world.in_use = {KNOWN[0], KNOWN[1]}
    with pytest.raises(FatalError, match="neither changes nor deletes"):
        virtual_time.run(main())


def test_the_status_tells_why_of_the_contact_that_it_names() -> None:
    """Another one's reason would lead to another code of Genesys."""
    story, world = begun()
    be_busy(world, "used")

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, delete=True)))
        await passes(95)
        world.poison, world.refusal = {KNOWN[1]}, InUse()
        arrives(world, life, story.tell(0, Event(KNOWN[1], 2, phone="+15550199")))
        await passes(2)
        assert "it shows yet after its delete" in str(life.pipeline.degraded)
        be_busy(world, "no more")
        await passes(40)

    in_life(world, act)


def test_deletes_that_are_all_postponed_do_not_fill_the_log() -> None:
    """Where reads lag it is each of a mass of them; all are tried again, and the next line has their number."""
    story, world = begun()

    async def act(life: Life) -> None:
        world.unanswered, world.in_use = set(), set(KNOWN)
        arrives(world, life, story.tell(0, *(Event(name, 2, delete=True) for name in KNOWN)))
        await passes(50)
        assert set(KNOWN) <= world.list.keys()
        world.in_use = set()
        await passes(60)
        assert not world.list.keys() & set(KNOWN)

    with capture_logs() as logs:
        in_life(world, act)
    told = [line for line in logs if line["event"] == "delete_postponed"]
    assert len(told) == 2 * AT_ONCE
    assert [line["left_out"] for line in told if "left_out" in line] == [len(KNOWN) - AT_ONCE]


def test_a_newer_change_of_who_is_in_use_begins_anew() -> None:
    """What took the place of a delete has been tried for no time yet."""
    story, world = begun()
    be_busy(world, "used")

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, delete=True)))
        await passes(100)
        assert life.pipeline.degraded
        arrives(world, life, story.tell(0, Event(KNOWN[0], 3), Event(KNOWN[0], 4, delete=True)))
        await passes(1)
        assert life.pipeline.status()["reason"] is None
        be_busy(world, "no more")
        await passes(31)

    in_life(world, act)
    assert KNOWN[0] not in world.list


def test_what_becomes_of_a_newer_change_is_told_and_not_what_was_before() -> None:
    """A grant that gets no answer takes the place of a delete: nobody is told any more that this was in vain."""
    story, world = begun()
    be_busy(world, "used")

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, delete=True)))
        await passes(100)
        assert life.pipeline.degraded
        world.unanswered = {KNOWN[0]}
        arrives(world, life, story.tell(0, Event(KNOWN[0], 3)))
        await passes(3)
        assert "neither changes nor deletes" not in (life.pipeline.degraded or "")
        assert len(life.pipeline.lanes) == 1

    in_life(world, act, drain_timeout_s=1)


# -- an organisation that is full


def test_who_withdraws_is_not_called_although_there_is_no_room_for_new_contacts() -> None:
    """Those that came with new contacts go out at once; a new one that withdraws is deleted instead."""
    story, world = begun()
    world.unanswered, world.full = set(), True

    async def act(life: Life) -> None:
        grants = [Event(f"new-{n}", 1) for n in range(40)]
        arrives(world, life, story.tell(0, *grants, *(Event(name, 2, consent=False) for name in KNOWN[:5])))
        arrives(world, life, story.tell(0, *(Event(f"no-{n}", 1, consent=False) for n in range(5))))
        await passes(3)
        assert not any(world.list[name]["callable"] for name in KNOWN[:5])
        for name in KNOWN[5:10]:
            await passes(100)
            assert await seconds_until_withdrawn(world, life, story, name) < ONE_PAUSE_S
        world.full = False
        await passes(660)

    in_life(world, act)
    deleted = [each["reasons"] for each in world.events() if each["operation"] == "delete"]
    assert deleted == [["genesys:contacts.per.org.limit.exceeded"]] * 5


def test_new_contacts_without_consent_do_not_keep_a_withdrawal_waiting_while_there_is_no_room() -> None:
    """However many: they are told from those that Genesys has at once, and not found one by one."""
    story, world = begun()
    world.unanswered, world.full, world.poll_records = set(), True, 500
    sent = len(world.requested)

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(f"no-{n}", 1, consent=False) for n in range(1000))))
        for name in KNOWN[:3]:
            assert await seconds_until_withdrawn(world, life, story, name) < ONE_PAUSE_S
        await until(lambda: world.committed.get(P0) == len(story.records()))

    in_life(world, act)
    assert len(world.requested) - sent < 100


def test_a_withdrawal_behind_a_new_contact_whose_request_is_under_way_gets_its_number_on_the_list() -> None:
    """It takes the place of what found no room, and has been nowhere yet."""
    story, world = begun()
    world.unanswered, world.full, world.latency = set(), True, 1.0
    sent = len(world.requested)

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1, phone="+15550177")))
        await until(lambda: len(world.requested) > sent)
        arrives(world, life, story.tell(0, Event("new", 2, phone="+15550177", consent=False)))
        await until(lambda: world.committed.get(P0) == len(story.records()))

    in_life(world, act, genesys_dnc_list="do not call")
    assert "+15550177" in world.blocked


def test_new_contacts_that_waited_for_the_list_do_not_wait_for_room() -> None:
    """Once it is back their numbers are on it, however many they are; that there is no room is no matter."""
    story, world = begun()
    world.unanswered, world.full, world.poll_records = set(), True, 500
    sink = _ListAway(world)

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(f"no-{n}", 1, consent=False) for n in range(1000))))
        await passes(600)
        sink.away, back = False, now()
        await until(lambda: world.committed.get(P0) == len(story.records()))
        assert now() - back < 120

    in_life(world, act, sink=sink, genesys_dnc_list="do not call")


def test_an_offer_is_postponed_once_however_often_somebody_is_told_to_wait() -> None:
    """As by requests that had to be made meanwhile."""

    async def main() -> None:
        lanes = Lanes(100, 500_000, 0.5, lambda *_, **__: b"")
        for n in range(30):
            lane = _lane(f"contact-{n}", withdrawal=True)
            lanes.open(lane.work, lane.change, None, now())
        batch = lanes.take(now(), 100)
        assert batch is not None
        wait = for_the_list(lanes, lambda: None)
        for lane in batch.lanes:
            wait.add([lane], SinkUnavailable("503", retry_after=60), for_good=False)
            await passes(5)
        assert not lanes.is_parked(batch.lanes[0])

    virtual_time.run(main())


class _ListAway(MemorySink):
    """The do-not-call list takes no numbers."""

    away = True

    async def upsert(
        self, contacts: Any, sure: Any = always, withdrawn: Any = (), *more: Any, asks: bool = True, **named: Any
    ) -> Any:
        if withdrawn and (self.away or not asks):
            raise Withheld(FatalError("no permission"), {each.external_id for each in withdrawn}, asked=asks)
        return await super().upsert(contacts, sure, withdrawn, *more, **named)


def test_who_was_deleted_in_vain_is_held_before_the_next_delete() -> None:
    """Also where deletes alone are told to wait: nobody knows for how long."""
    story, world = begun()
    world.unanswered = set()

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(KNOWN[0], 2, delete=True)))
        await passes(60)

    sink = _FailingDeletes(world)
    in_life(world, act, sink=sink)
    assert sink.tried[:2] == [False, True]


class _FailingDeletes(MemorySink):
    """No delete is done; it is told to wait, or gets no answer, by turns."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.tried: list[bool] = []

    async def delete(self, external_ids: Any, sure: Any = always, *, tried: bool = False, held: Any = ()) -> Any:
        self.tried.append(tried)
        raise Throttled("busy", 1.0) if len(self.tried) % 2 else SinkUnavailable("no usable answer")


def test_new_contacts_wait_for_room_as_long_as_it_takes_and_known_ones_do_not() -> None:
    """Nobody is given up, and within ten minutes after somebody made room all are there."""
    story, world = begun()
    world.unanswered, world.full = set(), True

    async def act(life: Life) -> None:
        changed = [Event(name, 2, phone="+15550199") for name in KNOWN[:20]]
        arrives(world, life, story.tell(0, *(Event(f"new-{n}", 1) for n in range(10)), *changed))
        await passes(300)
        assert all(world.list[name]["phone"] == "+15550199" for name in KNOWN[:20])
        for n in range(360):
            arrives(world, life, story.tell(0, Event(KNOWN[n % 10], 3 + n, phone=f"+155501{n:02}")))
            await passes(100)
        assert not world.dead_letters
        world.full = False
        await passes(660)
        assert all(f"new-{n}" in world.list for n in range(10))

    in_life(world, act)
    check(world, story, set())


def test_a_full_organisation_is_no_outage() -> None:
    """However many wait for room, changes of known contacts go out at once; new ones are taken in the next minute."""
    story, world = begun()
    world.unanswered, world.full, world.poll_records = set(), True, 500

    async def seconds_until_changed(life: Life, name: str) -> float:
        arrives(world, life, story.tell(0, Event(name, 2, phone="+15550199")))
        told = now()
        await until(lambda: world.list[name]["phone"] == "+15550199")
        return now() - told

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(f"new-{n}", 1) for n in range(1000))))
        await passes(30)
        for n in range(10):
            arrives(world, life, story.tell(0, *(Event(f"newer-{n}-{each}", 1) for each in range(3))))
            assert await seconds_until_changed(life, KNOWN[n]) < 1
            assert await seconds_until_withdrawn(world, life, story, KNOWN[10 + n]) < 1
            assert life.pipeline.gate.breaker(now()) is Breaker.CLOSED
            assert "new contacts wait for room" in (life.pipeline.degraded or "")
            await passes(60)
        world.full = False
        await passes(65)
        assert len(world.list) == len(KNOWN) + 1030

    in_life(world, act)
    check(world, story, set())


def test_new_contacts_that_come_all_the_time_do_not_keep_out_known_ones() -> None:
    """Each request with a new one is refused: whoever was refused with one is sent without those that came since."""
    story, world = begun()
    world.unanswered, world.full, world.latency = set(), True, 0.2

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1), Event(KNOWN[0], 2, phone="+15550199")))
        for n in range(40):
            arrives(world, life, story.tell(0, Event(f"new-{n}", 1)))
            await passes(0.05)
        assert world.list[KNOWN[0]]["phone"] == "+15550199"
        world.full = False
        await passes(65)

    in_life(world, act, genesys_max_in_flight=1)
    check(world, story, set())


def test_whom_genesys_has_although_nobody_knows_it_does_not_wait_with_those_it_has_not() -> None:
    """As where the state was lost: those that it takes are not kept out by who is new, for good."""
    story = Story().tell(0, *(Event(name, 2, phone="+15550199") for name in KNOWN), Event("new", 1))
    world = world_of(story)
    world.list = {name: {"callable": True, "phone": "+15550100"} for name in KNOWN}
    world.full, world.poll_records = True, 500

    async def act(_: Life) -> None:
        await passes(120)
        assert all(world.list[name]["phone"] == "+15550199" for name in KNOWN)
        assert "new" not in world.list
        world.full = False
        await passes(65)

    in_life(world, act)
    check(world, story, set())


def forgotten(names: list[str]) -> World:
    """A full organisation with contacts of whom nothing is known any more."""
    world = World()
    for name in names:
        world.list[name] = {"callable": True, **asdict(Contact(name, "+15550100", "", True, False, {}))}
    world.full, world.poll_records = True, 500
    return world


def test_where_all_states_are_lost_those_that_genesys_has_are_told_from_those_it_has_not() -> None:
    """By asking it, as many as a request holds: one by one they would take hours."""
    names = [f"there-{n}" for n in range(300)]
    world = forgotten(names)
    story = Story()
    for n, name in enumerate(names):
        story.tell(0, Event(name, 2, phone="+15550199"), *([Event(f"new-{n}", 1)] if n % 30 == 0 else []))
    world.append(story.records())

    async def act(_: Life) -> None:
        await passes(5)
        assert all(world.list[name]["phone"] == "+15550199" for name in names)
        assert len(world.list) == len(names)
        world.full = False
        await passes(65)

    in_life(world, act)
    check(world, story, set())


def test_who_withdraws_and_is_there_is_not_deleted_for_want_of_room() -> None:
    """Only who would have to be added is: the others have room, whatever is known of them."""
    world = forgotten(["there"])
    story = Story().tell(0, Event("there", 2, consent=False), Event("new", 1, consent=False), Event("other", 1))
    world.append(story.records())

    async def act(_: Life) -> None:
        await until(lambda: world.committed.get(P0) == 2)
        assert world.list == {"there": {**world.list["there"], "callable": False, "consent": False}}

    in_life(world, act)
    assert [event["operation"] for event in world.events()] == ["upsert", "delete"]


@pytest.mark.parametrize(
    "error", [Throttled("busy"), RefusedByGenesys("contact.not.found"), FatalError("no permission to read")], ids=str
)
def test_whom_genesys_tells_nothing_of_is_taken_for_new(error: Exception) -> None:
    """While it cannot be asked, known contacts go on all the same."""
    story, world = begun()
    world.unanswered, world.full, world.poll_records = set(), True, 500

    class Silent(MemorySink):
        async def absent(self, _: object) -> Any:
            raise error

    async def act(life: Life) -> None:
        sent, new = len(world.requested), [Event(f"new-{n}", 1) for n in range(20)]
        arrives(world, life, story.tell(0, *new, Event(KNOWN[0], 2, phone="+15550199")))
        await passes(1)
        assert world.list[KNOWN[0]]["phone"] == "+15550199"
        assert "new contacts wait for room" in (life.pipeline.degraded or "")
        assert len(world.requested) - sent < 5
        world.full = False
        await passes(65)

    in_life(world, act, sink=Silent(world))
    check(world, story, set())


def test_who_is_not_there_any_more_waits_for_room_by_itself() -> None:
    """Somebody deleted it in Genesys: it would keep out others that were known with it."""
    story, world = begun()
    world.unanswered, world.full = set(), True
    del world.list[KNOWN[7]]

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(name, 2, phone="+15550199") for name in KNOWN)))
        await passes(5)
        assert {name for name in KNOWN if world.list.get(name, {}).get("phone") != "+15550199"} == {KNOWN[7]}
        assert life.pipeline.gate.breaker(now()) is Breaker.CLOSED
        assert life.pipeline.degraded == "new contacts wait for room in Genesys: no room"
        world.full = False
        await passes(65)

    in_life(world, act)
    check(world, story, set())


def test_who_waits_for_room_no_more_is_not_offered_with_those_who_do() -> None:
    """It gets no usable answer by now, and is given up after so many tries that take five minutes."""
    story, world = begun()
    world.unanswered, world.full = set(), True

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 1), Event("new", 1)))
        await passes(130)
        world.unanswered, before = {BAD}, len(world.requested)
        await until(lambda: (BAD,) in world.requested[before:])
        for n in range(56):
            arrives(world, life, story.tell(0, Event(KNOWN[n % 10], 3 + n, phone=f"+155502{n:02}")))
            await passes(5)
        assert not world.dead_letters
        world.unanswered, world.full = set(), False
        await passes(660)

    in_life(world, act)
    check(world, story, set())


def test_a_run_that_is_to_end_does_not_wait_until_somebody_makes_room() -> None:
    """It ends with what is missing, once all others are done."""
    story, world = begun()
    world.unanswered, world.full = set(), True
    world.append(story.tell(0, Event("new", 1), Event(KNOWN[0], 2, consent=False)).records()[len(KNOWN) :])
    with pytest.raises(FatalError, match="new contacts wait for room in Genesys: no room"):
        live(world)
    assert not world.list[KNOWN[0]]["callable"]


def test_a_withdrawal_does_not_wait_for_room_for_the_contact_before_it() -> None:
    """Nobody would call the contact, but its number has to be on the do-not-call list."""
    story, world = begun()
    world.unanswered, world.full = set(), True

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1)))
        for n in range(60):
            if n == 5:
                arrives(world, life, story.tell(0, Event("new", 2, **CONFLICT)))
            arrives(world, life, story.tell(0, Event(KNOWN[n % 10], 3 + n, phone=f"+155501{n:02}")))
            await passes(5)
        assert world.committed == {P0: len(story.records())}

    with capture_logs() as logs:
        in_life(world, act)
    told = [line["event"] for line in logs if line.get("record") == f"{TOPIC}/0/{len(KNOWN)}"]
    assert told == ["contact_without_room"] * (MISSES - 1)
    (suppressed,) = [each["outcome"] for each in world.events() if each["operation"] == "suppress"]
    assert suppressed == "rejected"
    (given_up,) = [each["reasons"] for each in world.events() if each["outcome"] == "undeliverable"]
    assert given_up == ["genesys:contacts.per.org.limit.exceeded"]


def test_a_contact_before_a_withdrawal_is_delivered_if_there_is_room_within_some_seconds() -> None:
    """An organisation may be full for a moment."""
    story, world = begun()
    world.unanswered, world.full = set(), True

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("new", 1)))
        await passes(5)
        arrives(world, life, story.tell(0, Event("new", 2, **CONFLICT)))
        await passes(15)
        world.full = False
        await passes(10)
        assert world.list["new"]["callable"] is False

    in_life(world, act)
    check(world, story, set())


# -- because of Genesys


def test_a_connection_that_breaks_under_four_requests_does_not_open_the_breaker() -> None:
    """A withdrawal that comes then is not told half a minute later."""
    story, world = begun()
    world.unanswered, world.latency, world.poll_records = set(), 1.0, 500

    def answer() -> None:
        if len(world.requested) == 5:
            raise SinkUnavailable("the connection broke")

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *(Event(f"new-{n}", 1) for n in range(400))))
        await until(lambda: len(world.requested) == 5)
        world.answer = answer
        await passes(1.1)
        assert life.telemetry.retries["unavailable"] == 4
        assert await seconds_until_withdrawn(world, life, story, KNOWN[0]) < 5

    in_life(world, act)
    check(world, story, set())


def test_nobody_is_given_up_while_everything_fails() -> None:
    """Ten hours without an answer: then all is delivered, among it one that was under suspicion before."""
    story, world = begun()

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event(BAD, 1), *(Event(f"new-{n}", 1) for n in range(20))))
        await traffic(world, life, story, 0.04)
        world.unanswered = {*KNOWN, BAD, *(f"later-{n}" for n in range(50))}
        arrives(world, life, story.tell(0, *(Event(f"later-{n}", 1) for n in range(50))))
        arrives(world, life, story.tell(0, *(Event(name, 2, consent=False) for name in KNOWN)))
        await passes(36_000)
        assert not world.dead_letters
        world.unanswered = set()
        await passes(660)

    in_life(world, act)
    check(world, story, set())
    assert {event["outcome"] for event in world.events()} == {"delivered"}
    assert {event["operation"] for event in world.events()} == {"upsert"}


@pytest.mark.parametrize("failing", [0.3, 0.6, 0.9])
def test_nobody_is_given_up_while_answers_fail_by_chance(failing: float) -> None:
    """For an hour so many requests fail, whoever is in them: nobody is to blame for that."""
    story, world = begun()
    world.unanswered = set()
    dice = random.Random(7)

    def answer() -> None:
        if dice.random() < failing:
            raise SinkUnavailable("no usable answer")

    async def act(life: Life) -> None:
        world.answer = answer
        await traffic(world, life, story, 1)
        world.answer = lambda: None
        await passes(660)

    in_life(world, act)
    check(world, story, set())
    assert {event["outcome"] for event in world.events()} == {"delivered"}


# -- what may be applied yet


async def held_up(world: World, life: Life, story: Story, event: Event) -> Any:
    """Tell an event whose request something before Genesys holds; what applies it later."""
    held: list[dict[str, Any]] = []

    def hold(bodies: list[dict[str, Any]]) -> None:
        held.extend(body for body in bodies if body["externalId"] == event.external_id)
        raise SinkUnavailable("no answer in time")

    world.on_upsert = hold
    arrives(world, life, story.tell(0, event))
    await until(lambda: held != [])
    world.on_upsert = lambda _: None
    (body,) = held
    return lambda: world.list.update({event.external_id: {"callable": body["callable"], **body["data"]}})


def test_the_log_tells_which_withdrawal_is_sent_again() -> None:
    """Once, with its record and for how long what nobody answered may come."""
    story, world = begun()
    world.unanswered = set()

    async def act(life: Life) -> None:
        await held_up(world, life, story, Event(KNOWN[0], 2, phone="+15550199"))
        arrives(world, life, story.tell(0, Event(KNOWN[0], 3, consent=False)))
        await passes(LATE_S + 12)

    with capture_logs() as logs:
        in_life(world, act)
    (line,) = [line for line in logs if line["event"] == "withdrawal_sent_again"]
    assert line["record"] == f"{TOPIC}/0/{len(KNOWN) + 1}"
    assert LATE_S - 10 < line["seconds"] <= LATE_S


@pytest.mark.parametrize(
    "withdrawal", [{"consent": False}, {"delete": True}, CONFLICT], ids=["consent", "delete", "bad"]
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@pytest.mark.parametrize("late", [2, 40, 80])
def test_a_grant_that_is_applied_late_does_not_undo_a_withdrawal(
    late: float, withdrawal: dict[str, Any], *, known: bool
) -> None:
    """The withdrawal is sent once more when nothing can come any more, and settles then; applied it was before."""
    story, world = begun()
    name = KNOWN[0] if known else BAD
    world.unanswered = set()

    async def act(life: Life) -> None:
        apply = await held_up(world, life, story, Event(name, 2, phone="+15550199"))
        arrives(world, life, story.tell(0, Event(name, 3, **withdrawal)))
        told = now()
        await passes(late)
        assert not world.list.get(name, {}).get("callable")
        apply()
        await passes(LATE_S + 12 - late)
        assert not world.list.get(name, {}).get("callable")
        await passes(1)
        assert world.committed == {P0: len(story.records())}
        applied_at = life.telemetry.settled_records[-1].applied_at
        assert applied_at is None or applied_at < EPOCH + told + 2
        assert applied_at is not None or not known

    in_life(world, act)


def test_who_does_not_show_is_looked_for_as_long_as_a_grant_may_come_late() -> None:
    """A withdrawal that does not find its contact was carried out on nobody."""
    story, world = begun()
    world.unanswered, world.unseen = set(), {KNOWN[0]}

    async def act(life: Life) -> None:
        apply = await held_up(world, life, story, Event(KNOWN[0], 2, phone="+15550199"))
        arrives(world, life, story.tell(0, Event(KNOWN[0], 3, **CONFLICT)))
        await passes(80)
        apply()
        world.unseen = set()
        await passes(LATE_S)
        assert not world.list[KNOWN[0]]["callable"]
        assert world.committed == {P0: len(story.records())}

    in_life(world, act)


def test_only_a_withdrawal_waits_for_what_may_come_late() -> None:
    """A newer grant settles at once, and so does a withdrawal of somebody else."""
    story, world = begun()
    world.unanswered = set()

    async def act(life: Life) -> None:
        await held_up(world, life, story, Event(KNOWN[0], 2, phone="+15550199"))
        grant, withdrawal = Event(KNOWN[0], 3, phone="+15550198"), Event(KNOWN[1], 2, consent=False)
        arrives(world, life, story.tell(0, grant, withdrawal))
        await passes(3)
        assert world.committed == {P0: len(story.records())}

    in_life(world, act)


def test_a_withdrawal_long_after_an_answer_did_not_come_settles_at_once() -> None:
    """Nothing can undo it any more, nor is anything remembered."""
    story, world = begun()
    world.unanswered = set()

    async def act(life: Life) -> None:
        await held_up(world, life, story, Event(KNOWN[0], 2, phone="+15550199"))
        await passes(LATE_S + 2)
        arrives(world, life, story.tell(0, Event(KNOWN[0], 3, consent=False)))
        await passes(1)
        assert world.committed == {P0: len(story.records())}

    in_life(world, act)


def test_a_newer_grant_takes_the_place_of_a_withdrawal_that_is_to_be_sent_again() -> None:
    """The person may be called again: sent once more, the withdrawal would undo that."""
    story, world = begun()
    world.unanswered = set()

    async def act(life: Life) -> None:
        await held_up(world, life, story, Event(KNOWN[0], 2, phone="+15550199"))
        arrives(world, life, story.tell(0, Event(KNOWN[0], 3, consent=False)))
        await passes(20)
        arrives(world, life, story.tell(0, Event(KNOWN[0], 4)))
        await passes(LATE_S + 12)

    in_life(world, act)
    check(world, story, set())


def test_a_change_that_was_sent_as_not_callable_may_come_late_too() -> None:
    """Its number has to be on the do-not-call list, and the withdrawal that waited behind it may tell none."""
    late, lane = Late(), _lane("c")
    lane.muted = True
    late.unanswered([lane], 0.0)
    assert late.left(_lane("c", withdrawal=True), 1.0) == LATE_S - 1


def test_no_more_than_so_many_are_remembered() -> None:
    """The oldest are forgotten first, and whatever is over."""
    late = Late()
    lanes = [_lane(f"c-{n}") for n in range(REMEMBERED + 10)]
    withdrawals = [_lane(f"c-{n}", withdrawal=True) for n in range(REMEMBERED + 10)]
    late.unanswered(lanes, 0.0)
    assert [late.left(withdrawals[n], 1.0) for n in (0, 9, 10, -1)] == [0.0, 0.0, LATE_S - 1, LATE_S - 1]
    assert late.left(lanes[-1], 1.0) == 0.0
    late.unanswered([lanes[10], _lane("c-new")], 2.0)
    assert [late.left(withdrawals[n], 2.0) for n in (10, 11, 12)] == [LATE_S, 0.0, LATE_S - 2]
    late.unanswered([], LATE_S)
    assert late.left(withdrawals[-1], LATE_S - 1) == 0.0
    late.unanswered(withdrawals, 0.0)
    assert late.left(withdrawals[-1], 0.0) == 0.0


def _lane(name: str, *, withdrawal: bool = False) -> Lane:
    identity = hashlib.sha256(name.encode()).digest()
    contact = Contact(name, "", "", not withdrawal, False, {})
    change = Change(Operation.UPSERT, contact, identity, b"", None, 0, 0, withdrawal)
    work = Work(Record(*P0, 0, 0, None, b""), Assignment(P0), name, change)
    return Lane(work, change, None, 0.0, urgent=withdrawal)
