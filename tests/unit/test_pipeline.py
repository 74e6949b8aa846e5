"""What the pipeline does when the outside does not behave: outages, refusals, rebalances, schemas that come late."""

import asyncio
import gc
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from consumer.core.audit_chain import AuditCheck, Finding
from consumer.core.contact_id import contact_id
from consumer.core.offsets import Tracker
from consumer.errors import (
    ConsumerError,
    FatalError,
    Rebalancing,
    RefusedByGenesys,
    SinkUnavailable,
    SourceUnavailable,
    TakesNoNumbers,
    Throttled,
    TransientError,
    Withheld,
)
from consumer.model import Assignment, Contact, Record, Settlement, TopicPartition
from consumer.pipeline import settle
from consumer.pipeline.again import DELETE_RETRY_S
from consumer.pipeline.assignments import NO_PARTITIONS, NO_PARTITIONS_AFTER_S
from consumer.pipeline.late import LATE_S
from consumer.pipeline.partitions import Partition
from consumer.pipeline.put_off import LONG_S
from consumer.pipeline.readers import Readers
from consumer.pipeline.settle import HANGS_AFTER_S, REBALANCING_RETRY_S
from consumer.pipeline.waits import OFFERED_EVERY_S
from consumer.ports import Assigned, Grown, Lost, Polled, Revoked, Starting, StoreWrite, Sure, always
from tests import virtual_time
from tests.checker import check
from tests.lives import Life, arrives, in_life, live, world_of
from tests.memory_ports import (
    SCHEMA,
    MemorySchemas,
    MemorySink,
    MemorySource,
    MemoryStore,
    MemoryTopics,
    SilentTelemetry,
    World,
    outage,
)
from tests.stories import BAD_RECORDS, TOPIC, Event, Story, partly, random_story
from tests.virtual_time import START, passes, until

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def _contacts(count: int, version: int = 1) -> list[Event]:
    return [Event(f"contact-{n}", version) for n in range(count)]


def _outcomes(world: World) -> list[Any]:
    """Outcomes in the order of the audit topic."""
    return [event["outcome"] for event in world.events()]


def test_an_outage_loses_nothing_and_opens_the_breaker() -> None:
    """Ten failures in a row: nothing is lost, and work resumes only after the breaker's pauses."""
    story = Story().tell(0, *_contacts(50))
    world = world_of(story)
    world.answer = outage(10, SinkUnavailable("no answer"))
    life = live(world)
    check(world, story, set())
    assert life.telemetry.retries["unavailable"] == 10
    assert life.pipeline.gate.limit < 100


def test_work_resumes_with_small_batches_that_grow_back() -> None:
    """After the breaker was open, batches hold a tenth, then twice as many each time."""
    world = world_of(Story().tell(0, *_contacts(300)))
    world.answer = outage(3, SinkUnavailable("no answer"))
    live(world, genesys_max_in_flight=1)
    assert [len(names) for _, names in world.sent] == [10, 20, 40, 80, 100, 50]


def test_a_throttled_request_waits_as_long_as_was_asked() -> None:
    """After a 429 with Retry-After no request starts before that time, and nothing counts as a failure."""
    starts: list[float] = []

    def answer() -> None:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) == 1:
            raise Throttled("too many requests", retry_after=42)

    world = world_of(Story().tell(0, *_contacts(3)))
    world.answer = answer
    life = live(world)
    assert starts[1] - starts[0] >= 42
    assert life.telemetry.retries == {"throttled": 1}
    assert _outcomes(world) == ["delivered"] * 3


def test_a_service_that_says_when_it_is_back_is_not_asked_before() -> None:
    """A 503 with Retry-After: no request starts before that time, although one failure alone backs off for a second."""
    starts: list[float] = []

    def answer() -> None:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) == 1:
            raise SinkUnavailable("maintenance", retry_after=20)

    world = world_of(Story().tell(0, *_contacts(3)))
    world.answer = answer
    live(world)
    assert starts[1] - starts[0] >= 20


def test_the_client_keeps_to_its_requests_per_minute() -> None:
    """No minute sees more requests than the setting allows."""
    starts: list[float] = []
    world = world_of(Story().tell(0, *_contacts(500)))
    world.answer = lambda: starts.append(asyncio.get_running_loop().time())
    live(world, genesys_requests_per_minute=30, batch_max_records=5)
    assert len(starts) == 100
    assert max(sum(1 for other in starts if 0 <= other - start < 60) for start in starts) <= 30


def test_a_fatal_error_stops_the_pipeline() -> None:
    """A missing permission ends the run with that error; nothing is settled that was not answered."""
    world = world_of(Story().tell(0, *_contacts(3)))
    world.answer = outage(1, FatalError("outbound:contact:add is missing"))
    with pytest.raises(ExceptionGroup) as caught:
        live(world)
    assert caught.group_contains(FatalError, match="outbound:contact:add")
    assert not world.committed


def test_one_poison_contact_among_a_hundred_stands_alone() -> None:
    """Its 99 neighbours are delivered, it is undeliverable with Genesys' code, and its batch is told as partial."""
    story = Story().tell(0, *_contacts(100))
    world = world_of(story)
    world.poison = {"contact-37"}
    live(world)
    check(world, story, world.poison)
    undelivered = [event for event in world.events() if event["outcome"] != "delivered"]
    assert [event["reasons"] for event in undelivered] == [["genesys:contact.datum.length.limit.exceeded"]]
    (batch,) = world.events("batch")
    assert (batch["status"], batch["recordsIn"], batch["recordsOut"]) == ("partial", 100, 99)
    assert batch["attempts"] <= 15


def test_a_batch_tells_the_rules_that_its_contacts_have_passed() -> None:
    """Who is deleted, or withdraws by a record that breaks some, has passed no more than that he has a name."""
    conflict = "consent_conflicts_with_do_not_call"
    events = Event("a", 1), Event("a", 2, do_not_call=True, reasons=(conflict,)), Event("a", 3, delete=True)
    world, story, checks = World(), Story(), list[Sequence[str]]()
    for event in events:
        world.append(story.tell(0, event).records()[len(checks) :])
        live(world)
        checks.append(world.events("batch")[-1]["complianceChecks"])
    assert [len(each) for each in checks] == [6, 1, 1]
    assert {*checks[0]} > {*checks[1]} == {*checks[2]} == {"external_id"}


def test_a_contact_without_a_name_has_none_in_its_audit_event() -> None:
    """All of them would look like one person, by the pseudonym of nothing."""
    missing = ("external_id_missing",)
    world = world_of(Story().tell(0, *(Event(name, 1, reasons=missing) for name in ("", " "))))
    live(world)
    assert [(each["reasons"], each["contactRef"]) for each in world.events()] == [([*missing], None)] * 2


def test_the_event_of_a_rejected_record_names_its_contact() -> None:
    """As any other of it does, whether or not it suppresses: whoever looks for a person finds all that was said."""
    bad: dict[str, Any] = {"phone": "bad", "reasons": ("phone_not_e164",)}
    world = world_of(Story().tell(0, Event("c", 1), Event("c", 2, **bad), Event("c", 3, consent=False, **bad)))
    live(world)
    assert [event["outcome"] for event in world.events()] == ["delivered", "rejected", "rejected"]
    (pseudonym,) = {event["contactRef"] for event in world.events()}
    assert {key for key, value in world.audit if b'"type":"record"' in value} == {pseudonym.encode()}


def test_who_is_given_away_by_a_refusal_stands_alone_at_once() -> None:
    """The others are accepted with the next request, which the bad ones are not in."""
    story = Story().tell(0, *_contacts(8))
    world = world_of(story)
    world.poison = {"contact-2", "contact-5"}
    world.refusal = RefusedByGenesys(world.refusal.code, set(map(contact_id, world.poison)))
    live(world)
    check(world, story, world.poison)
    assert sorted(map(len, world.requested)) == [1, 1, 6, 8]


def test_whoever_withdraws_is_not_searched_among_the_rest() -> None:
    """A refused request is parted between the two first: the withdrawals are done with the next one."""
    story = Story().tell(0, *_contacts(8), Event("withdrawn", 1, consent=False))
    world = world_of(story)
    world.poison = {"contact-0"}
    live(world)
    check(world, story, world.poison)
    assert len(world.requested[0]) == 9
    assert world.requested[1] == ("withdrawn",)


def test_a_search_goes_on_after_an_outage_where_it_was() -> None:
    """The half that is tried is tried again by itself; the other one still waits for what comes of it."""
    story = Story().tell(0, *_contacts(8))
    world = world_of(story)
    world.poison = {"contact-0"}

    def answer() -> None:
        if len(world.requested) == 2:
            raise SinkUnavailable("down")

    world.answer = answer
    live(world)
    check(world, story, world.poison)
    assert world.requested[1] == world.requested[2] == tuple(f"contact-{n}" for n in range(4))


def test_a_withdrawal_that_genesys_refuses_is_carried_out_as_a_delete() -> None:
    """The person leaves the list even though the data of the withdrawal is refused."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    live(world)
    assert world.list["contact-0"]["callable"] is True
    world.poison = {"contact-0"}
    story.tell(0, Event("contact-0", 2, consent=False))
    world.append(story.records()[1:])
    live(world)
    assert world.list == {}
    last = world.events()[-1]
    assert (last["outcome"], last["operation"]) == ("delivered", "delete")
    assert last["reasons"] == ["genesys:contact.datum.length.limit.exceeded"]
    assert not world.dead_letters


def test_numbers_of_people_who_withdraw_are_told_with_their_contacts() -> None:
    """Consent withdrawn or do-not-call set: those numbers go on the do-not-call list, and nobody else's."""
    events = (
        Event("granted", 1, phone="+15550100"),
        Event("withdrawn", 1, phone="+15550101", consent=False),
        Event("do-not-call", 1, phone="+15550102", consent=False, do_not_call=True),
    )
    world = world_of(Story().tell(0, *events))
    live(world)
    assert world.blocked == {"+15550101", "+15550102"}


DNC: dict[str, Any] = {"genesys_dnc_list": "do not call"}


def _one_by_one(world: World, *events: Event) -> None:
    """Tell events of one contact, each settled before the next comes."""
    story = Story().tell(0, *events)
    for record in story.records():
        world.append([record])
        live(world, **DNC)


def test_a_grant_that_is_provably_newer_takes_the_number_off_the_do_not_call_list() -> None:
    """Withdrawn and granted again, each settled before the next; so after a rejected withdrawal."""
    conflict = ("consent_conflicts_with_do_not_call",)
    for withdrawal in (Event("contact-0", 2, consent=False), Event("contact-0", 2, do_not_call=True, reasons=conflict)):
        world = World()
        _one_by_one(world, Event("contact-0", 1), withdrawal)
        assert world.blocked == {withdrawal.phone}
        world = World()
        _one_by_one(world, Event("contact-0", 1), withdrawal, Event("contact-0", 3))
        assert world.blocked == set()


def test_a_grant_that_cannot_be_compared_leaves_the_number_where_it_is() -> None:
    """It makes the contact callable for its later time, which proves nothing."""
    world = World()
    later = Event("contact-0", None, occurred_at=1_700_000_000_001)
    _one_by_one(world, Event("contact-0", 5, consent=False), later)
    assert world.list["contact-0"]["callable"] is True
    assert world.blocked == {"+15550100"}


def test_a_grant_takes_no_number_off_that_somebody_else_put_there() -> None:
    """Without a do-not-call list at the time of the withdrawal, this program blocked nothing."""
    world = World()
    story = Story().tell(0, Event("contact-0", 1, consent=False), Event("contact-0", 2))
    world.append(story.records()[:1])
    live(world)
    world.append(story.records()[1:])
    live(world, **DNC)
    assert world.blocked == {"+15550100"}


def test_a_grant_behind_a_refused_one_releases_no_number_that_somebody_else_blocked() -> None:
    """Nobody withdrew by us: the block is not ours."""
    story, world = Story().tell(0, Event("contact-0", 1), Event("contact-0", 2, phone="+15550199")), World()
    story.tell(0, Event("contact-0", 3))
    for record in story.records():
        world.poison, world.blocked = {"contact-0"} if record.offset == 1 else set(), {"+15550100"}
        world.append([record])
        live(world, **DNC)
    assert _outcomes(world) == ["delivered", "undeliverable", "delivered"]
    assert world.blocked == {"+15550100"}


def test_a_grant_in_the_place_of_a_withdrawal_that_may_have_been_applied_releases_nothing() -> None:
    """The withdrawal's answer is lost, and the grant takes its place: nobody compared it with what Genesys has."""
    story = Story().tell(0, Event("contact-0", 1, consent=False))
    world = world_of(story)
    live(world, **DNC)
    world.append(story.tell(0, Event("contact-0", 2, consent=False, phone="+15550199")).records()[1:])

    async def act(life: Life) -> None:
        world.answer_lost = True
        await until(lambda: len(world.sent) == 2)
        world.answer_lost = False
        world.append(story.tell(0, Event("contact-0", 3, phone="+15550199")).records()[2:])
        life.source.wake()
        await until(lambda: world.committed == {P0: 3})

    in_life(world, act, **DNC)
    assert _outcomes(world) == ["delivered", "superseded", "delivered"]
    assert world.list["contact-0"]["callable"] is True
    assert world.blocked == {"+15550100", "+15550199"}


def test_after_a_refused_grant_that_took_the_place_of_one_that_may_have_been_applied_nothing_is_released() -> None:
    """That one may have released the number, and somebody else have blocked it since: the block is not ours then."""
    story = Story().tell(0, Event("contact-0", 1, consent=False))
    world = world_of(story)
    live(world, **DNC)
    world.append(story.tell(0, Event("contact-0", 2)).records()[1:])

    async def act(life: Life) -> None:
        world.answer_lost = True
        await until(lambda: len(world.sent) == 2)
        world.answer_lost, world.poison = False, {"contact-0"}
        world.blocked.add("+15550100")
        world.append(story.tell(0, Event("contact-0", 3, phone="+15550199")).records()[2:])
        life.source.wake()
        await until(lambda: world.committed == {P0: 3})
        world.poison = set()
        world.append(story.tell(0, Event("contact-0", 4)).records()[3:])
        life.source.wake()
        await until(lambda: world.committed == {P0: 4})

    in_life(world, act, **DNC)
    assert _outcomes(world) == ["delivered", "superseded", "undeliverable", "delivered"]
    assert world.blocked == {"+15550100"}


def test_a_grant_that_a_rejected_withdrawal_waits_behind_releases_nothing() -> None:
    """It is sent as not callable, and its number is on the list at every moment."""
    story = Story().tell(0, Event("contact-0", 1, consent=False))
    world = world_of(story)
    live(world, **DNC)
    conflict = ("consent_conflicts_with_do_not_call",)
    story.tell(0, Event("contact-0", 2), Event("contact-0", 3, do_not_call=True, reasons=conflict))
    world.append(story.records()[1:])
    seen: list[set[str]] = []
    world.answer = lambda: seen.append(set(world.blocked))
    live(world, **DNC)
    assert seen == [{"+15550100"}] * 2
    assert world.blocked == {"+15550100"}


def test_a_release_whose_answer_is_lost_is_made_again() -> None:
    """The grant was applied, perhaps before its number was released: both happen again."""
    story = Story().tell(0, Event("contact-0", 1, consent=False))
    world = world_of(story)
    live(world, **DNC)
    world.append(story.tell(0, Event("contact-0", 2)).records()[1:])

    async def act(_: Life) -> None:
        world.answer_lost = True
        await until(lambda: len(world.sent) == 2)
        world.blocked.add("+15550100")
        world.answer_lost = False
        await until(lambda: world.committed == {P0: 2})

    in_life(world, act, **DNC)
    assert world.blocked == set()


@pytest.mark.parametrize(
    ("event", "blocked"),
    [
        pytest.param(
            {"do_not_call": True, "reasons": ("consent_conflicts_with_do_not_call",)}, True, id="valid number"
        ),
        pytest.param({"phone": "bad", "consent": False, "reasons": ("phone_not_e164",)}, False, id="no valid number"),
    ],
)
@pytest.mark.parametrize(
    "before", [(), (Event("contact-0", 1), Event("contact-0", 2, delete=True))], ids=["new", "gone"]
)
def test_a_rejected_withdrawal_blocks_its_number_although_genesys_does_not_know_the_contact(
    before: tuple[Event, ...], event: dict[str, Any], *, blocked: bool
) -> None:
    """It settles with the answer and makes no contact; without a valid number nothing is asked of who was deleted."""
    world = World()
    _one_by_one(world, *before)
    asked = len(world.requested)
    withdrawal = Event("contact-0", 3, **event)
    story = Story().tell(0, *before, withdrawal, Event("contact-0", 2))
    world.append(story.records()[len(before) :])
    live(world, **DNC)
    assert world.blocked == ({withdrawal.phone} if blocked else set())
    assert len(world.requested) - asked == (blocked or not before)
    assert world.list == {}
    assert _outcomes(world)[-2:] == ["rejected", "stale"]
    assert world.events()[-2]["operation"] == ("suppress" if blocked else None)


def test_each_number_that_a_rejected_withdrawal_names_is_blocked() -> None:
    """The second one is no duplicate of the first, of which nobody knows what number it named."""
    world = World()
    conflict: dict[str, Any] = {"do_not_call": True, "reasons": ("consent_conflicts_with_do_not_call",)}
    numbers = ("+15550101", "+15550102")
    _one_by_one(world, *(Event("contact-0", n, phone=number, **conflict) for n, number in enumerate(numbers, 1)))
    assert world.blocked == set(numbers)


def test_without_a_do_not_call_list_a_rejected_withdrawal_of_an_unknown_contact_is_asked_for_and_noted() -> None:
    """Genesys does not have the contact, and nothing is sent."""
    conflict = ("consent_conflicts_with_do_not_call",)
    world = world_of(Story().tell(0, Event("contact-0", 1, do_not_call=True, reasons=conflict)))
    live(world)
    assert (world.sent, world.list) == ([("amend", ("contact-0",))], {})
    assert _outcomes(world) == ["rejected"]
    assert world.events()[0]["operation"] is None


def test_a_delete_of_a_contact_in_use_is_tried_again_until_it_is_done() -> None:
    """A contact that is being dialled is not callable at once, which counts as applied, and is deleted later."""
    world = world_of(Story().tell(0, Event("contact-0", 1), Event("contact-1", 1, delete=True)))
    world.in_use = {"contact-1"}
    world.list["contact-1"] = {"callable": True}

    async def act(life: Life) -> None:
        await until(lambda: len(life.pipeline.lanes) == 1 and "contact-0" in world.list)
        await passes(1)
        assert world.list["contact-1"]["callable"] is False
        await passes(100)
        assert world.committed.get(P0, 0) < 2
        world.in_use = set()
        await until(lambda: len(life.telemetry.settled_records) == 2)
        settled_at = asyncio.get_running_loop().time()
        (applied,) = [each.applied_at for each in life.telemetry.settled_records if each.withdrawal]
        assert applied is not None
        assert applied < 1_700_000_100 + settled_at - 90

    in_life(world, act)
    assert "contact-1" not in world.list
    assert _outcomes(world) == ["delivered", "delivered"]


@pytest.mark.parametrize(("read_lag", "settles_within"), [(5.0, 70), (45.0, 130)])
def test_a_delete_that_reads_lag_behind_comes_to_its_end(read_lag: float, settles_within: float) -> None:
    """Who shows yet is held, which adds whom the delete took away; the next ones delete him and add nobody."""
    world = world_of(Story().tell(0, Event("contact-1", 1)))
    live(world)
    story = Story().tell(0, Event("contact-1", 1), Event("contact-1", 2, delete=True), Event("contact-2", 1))
    world.append(story.records()[1:])
    world.read_lag = read_lag

    async def act(life: Life) -> None:
        begun = asyncio.get_running_loop().time()
        await until(lambda: len(life.telemetry.settled_records) == 2)
        assert asyncio.get_running_loop().time() - begun < settles_within

    in_life(world, act)
    assert world.list.keys() == {"contact-2"}
    assert _outcomes(world) == ["delivered"] * 3


def test_a_first_delete_trusts_nobody_who_shows_as_not_callable() -> None:
    """What is read may be from before a grant: whom no delete has held yet is held whatever shows of him."""
    story = Story().tell(0, Event("contact-1", 1, consent=False))
    world = world_of(story)
    live(world)
    world.read_lag, world.in_use = 20.0, {"contact-1"}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("contact-1", 2)))
        await until(lambda: world.list["contact-1"]["callable"] is True)
        arrives(world, life, story.tell(0, Event("contact-1", 3, delete=True)))
        await passes(3)
        assert world.list["contact-1"]["callable"] is False
        world.in_use = set()
        await until(lambda: world.list == {})

    in_life(world, act)


def test_who_is_in_use_and_made_callable_meanwhile_is_not_so_for_long() -> None:
    """A repeated delete leaves alone who is not callable yet, and not who is so again, whoever made him so."""
    world = world_of(Story().tell(0, Event("contact-1", 1, delete=True)))
    world.in_use = {"contact-1"}
    world.list["contact-1"] = {"callable": True}

    async def act(life: Life) -> None:
        await until(lambda: world.list["contact-1"]["callable"] is False)
        await passes(3 * DELETE_RETRY_S)
        world.list["contact-1"]["callable"] = True
        await passes(DELETE_RETRY_S + 1)
        assert world.list["contact-1"]["callable"] is False
        world.in_use = set()
        await until(lambda: len(life.telemetry.settled_records) == 1)

    in_life(world, act)
    assert world.list == {}


async def _delete_meets_next_try(life: Life, story: Story, name: str) -> None:
    """Tell a delete that has to wait, until one that was postponed is due too; then let both be tried."""
    told = len(story.records())
    life.world.answer = outage(1, Throttled("too many requests", DELETE_RETRY_S + 5))
    story.tell(0, Event(name, 1, delete=True))
    life.world.append(story.records()[told:])
    life.source.wake()
    await passes(3 * DELETE_RETRY_S)


def test_a_contact_in_use_does_not_keep_others_from_being_deleted() -> None:
    """Genesys refuses the whole request for it: all are not callable at once, the others are deleted, it goes alone."""
    names = [f"contact-{n}" for n in range(50)]
    story = Story().tell(0, *(Event(name, 1, delete=True) for name in names))
    world = world_of(story)
    world.poll_records = 50
    world.list = {name: {"callable": True} for name in (*names, "late")}
    world.in_use, world.refuses_in_use = {"contact-7"}, True
    searched: list[int] = []

    async def act(life: Life) -> None:
        await until(lambda: world.requested != [])
        await passes(2 * world.latency)
        assert not any(world.list[name]["callable"] for name in names if name in world.list)
        await passes(5)
        assert world.list.keys() == {"contact-7", "late"}
        assert life.telemetry.retries == {}
        searched.append(len(world.requested))
        await _delete_meets_next_try(life, story, "late")
        assert world.list.keys() == {"contact-7"}
        world.in_use = set()
        await passes(DELETE_RETRY_S)

    in_life(world, act)
    assert searched[0] < 20
    assert set(world.requested[searched[0] :]) == {("late",), ("contact-7",)}
    assert world.list == {}
    assert _outcomes(world) == ["delivered"] * 51


class _WithoutDncList(MemorySink):
    """A contact list whose do-not-call list takes no numbers for so long."""

    until = 600.0
    cause: ConsumerError = FatalError("no permission")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.tries = 0
        self.tried = Counter[str]()

    async def upsert(
        self,
        contacts: Sequence[bytes],
        sure: Sure = always,
        withdrawn: Sequence[Contact] = (),
        granted: Any = (),
        *,
        asks: bool = True,
        **named: Any,
    ) -> Collection[str]:
        if not withdrawn or (asks and asyncio.get_running_loop().time() >= START + self.until):
            return await super().upsert(contacts, sure, withdrawn, granted, **named)
        self.tries += asks
        names = {each.external_id for each in withdrawn}
        self.tried.update(names)
        await super().upsert([self.encode(each, callable_=False) for each in withdrawn], sure)
        raise Withheld(self.cause, names, asked=asks)

    async def amend(self, amendments: Any, sure: Sure = always, *more: Any, **named: Any) -> Any:
        amended = await super().amend(amendments, sure, *more, **named)
        self.tried.update(amended.keys())
        if amended:
            raise Withheld(self.cause, amended.keys(), asked=named["asks"])
        return amended


def test_withdrawals_that_wait_for_the_do_not_call_list_hold_up_nobody() -> None:
    """Everybody who withdrew is not callable at once, in however many requests, and all else goes on."""
    people = [f"contact-{n}" for n in range(300)]
    withdrawals = [Event(name, 2, consent=False) for name in people]
    story = Story().tell(0, *_contacts(300))
    world = world_of(story)
    live(world)
    sink = _WithoutDncList(world)

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, *withdrawals, Event("other", 1)))
        await until(lambda: "other" in world.list)
        await passes(1)
        assert [world.list[name]["callable"] for name in people] == [False] * 300
        assert life.pipeline.degraded == "withdrawals wait for the do-not-call list: no permission"
        assert life.pipeline.genesys_answers
        assert world.blocked == set()
        tries = sink.tries
        await passes(5 * OFFERED_EVERY_S)
        assert sink.tries - tries < 12
        assert len(_outcomes(world)) == 300
        await until(lambda: world.committed[P0] == 601)
        assert asyncio.get_running_loop().time() < START + _WithoutDncList.until + OFFERED_EVERY_S + 5
        assert life.pipeline.degraded is None

    in_life(world, act, sink=sink)
    check(world, story, set())
    assert world.blocked == {"+15550100"}


def test_a_busy_do_not_call_list_has_all_requests_wait_as_was_asked() -> None:
    """What Genesys says of too many requests goes for all of them; it is no failure."""
    story = Story().tell(0, Event("contact-0", 1, consent=False), Event("other", 1))
    world = world_of(story)
    sink = _WithoutDncList(world)
    sink.until, sink.cause = 1.0, Throttled("busy", retry_after=42)

    async def act(life: Life) -> None:
        await until(lambda: sink.tries == 1)
        await passes(1)
        assert life.pipeline.gate.wait(START + 30) == pytest.approx(12, abs=1)
        await until(lambda: world.committed.get(P0) == 2)
        assert life.telemetry.retries == {"throttled": 1}

    in_life(world, act, sink=sink)
    check(world, story, set())


class _SometimesWithoutDncList(_WithoutDncList):
    """Its do-not-call list does not answer every so many requests, and says then how long it is away."""

    every = 5
    cause: ConsumerError = SinkUnavailable("503", retry_after=60)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.asked: list[float] = []

    async def upsert(
        self, contacts: Any, sure: Any = always, withdrawn: Any = (), *more: Any, asks: bool = True, **named: Any
    ) -> Any:
        if withdrawn and asks:
            now = asyncio.get_running_loop().time()
            self.until = 0.0 if len(self.asked) % self.every else now
            self.asked.append(now)
        return await super().upsert(contacts, sure, withdrawn, *more, asks=asks, **named)


def test_who_waits_for_the_do_not_call_list_is_offered_although_others_are_told_to_wait() -> None:
    """Whoever withdraws meanwhile is told to wait again and again: nobody is put off for good by that."""
    people = [f"contact-{n}" for n in range(80)]
    story = Story().tell(0, *_contacts(80))
    world = world_of(story)
    live(world)
    sink = _SometimesWithoutDncList(world)

    async def act(life: Life) -> None:
        for name in people:
            arrives(world, life, story.tell(0, Event(name, 2, consent=False)))
            await passes(5)
        assert world.committed[P0] > 80 + 50
        await until(lambda: world.committed[P0] == 160)

    in_life(world, act, sink=sink)
    check(world, story, set())


def test_whoever_is_offered_to_the_do_not_call_list_is_so_after_the_time_that_it_asked_for() -> None:
    """Also where that is longer than the usual wait."""
    story = Story().tell(0, Event("contact-0", 1, consent=False))
    world = world_of(story)
    sink = _SometimesWithoutDncList(world)
    sink.every, sink.cause = 1, SinkUnavailable("503", retry_after=200)

    async def act(_: Life) -> None:
        await until(lambda: len(sink.asked) > 3)
        assert min(later - earlier for earlier, later in pairwise(sink.asked)) >= 200

    in_life(world, act, sink=sink)


def test_grants_do_not_go_with_one_withdrawal_after_the_other_while_the_do_not_call_list_is_busy() -> None:
    """Those that were kept back with a withdrawal are sent without those that came since."""
    people = [f"contact-{n}" for n in range(60)]
    story = Story().tell(0, *_contacts(60)).tell(1, Event("other", 1))
    world = world_of(story)
    live(world)
    sink = _WithoutDncList(world)
    sink.cause = Throttled("busy", retry_after=5)

    async def act(life: Life) -> None:
        for n, name in enumerate(people):
            story.tell(1, Event(f"new-{n}", 1))
            arrives(world, life, story.tell(0, Event(name, 2, consent=False)))
            await passes(1)
            assert n < 15 or f"new-{n - 15}" in world.list

    in_life(world, act, sink=sink)


def test_a_do_not_call_list_that_hangs_takes_the_time_of_nobody_but_those_who_are_offered() -> None:
    """While somebody waits for it, whoever withdraws is held without asking it, and waits too; all end on the list."""
    people = [f"contact-{n}" for n in range(60)]
    story = Story().tell(0, *_contacts(60)).tell(1, Event("other", 1))
    world = world_of(story)
    live(world)

    class Hanging(_WithoutDncList):
        until = 600.0
        cause: ConsumerError = SinkUnavailable("no answer")

        async def upsert(
            self, contacts: Any, sure: Any = always, withdrawn: Any = (), *more: Any, asks: bool = True, **named: Any
        ) -> Any:
            if withdrawn and asks and asyncio.get_running_loop().time() < START + self.until:
                await passes(10)
            return await super().upsert(contacts, sure, withdrawn, *more, asks=asks, **named)

    async def act(life: Life) -> None:
        for n, name in enumerate(people):
            story.tell(1, Event(f"new-{n}", 1))
            arrives(world, life, story.tell(0, Event(name, 2, phone=f"+155501{n:02}", consent=False)))
            await passes(1)
            if n > 15:  # some go with those who are offered
                assert f"new-{n - 12}" in world.list
                assert not world.list[people[n - 12]]["callable"]
        assert world.committed[P0] == 60
        assert not world.blocked
        await until(lambda: world.committed[P0] == 120)

    in_life(world, act, sink=Hanging(world))
    check(world, story, set())
    assert world.blocked == {f"+155501{n:02}" for n in range(60)}


@pytest.mark.parametrize("people", [1, 1000])
def test_who_waits_for_the_do_not_call_list_is_told_again_once_nothing_can_come_late(people: int) -> None:
    """A grant that nobody answered may be applied meanwhile: however many wait, that person is not called for long."""
    names = [f"contact-{n}" for n in range(people)]
    story = Story().tell(0, *_contacts(people))
    world = world_of(story)
    live(world)
    sink = _WithoutDncList(world)
    sink.until = 7200.0

    def hold(_: object) -> None:
        raise SinkUnavailable("no answer in time")

    async def act(life: Life) -> None:
        world.on_upsert = hold
        arrives(world, life, story.tell(0, Event(names[0], 2, phone="+15550199")))
        await until(lambda: life.telemetry.retries["unavailable"] == 1)
        world.on_upsert = lambda _: None
        arrives(world, life, story.tell(0, *(Event(name, 3, consent=False) for name in names)))
        await passes(70)
        assert not world.list[names[0]]["callable"]
        world.list[names[0]]["callable"] = True
        await passes(LATE_S - 70 + 5)
        assert not world.list[names[0]]["callable"]

    in_life(world, act, sink=sink)


class _BusyDeletes(MemorySink):
    """Whoever deletes is asked to wait, each time."""

    async def delete(self, external_ids: Any, sure: Any = always, **_: Any) -> Any:
        raise Throttled("the contacts are busy", 5.0)


def test_what_one_endpoint_calls_busy_keeps_no_withdrawal_from_another() -> None:
    """Genesys asks everybody to wait each time; then whatever waits the longest goes, also what came meanwhile."""
    story = Story().tell(0, *_contacts(200))
    world = world_of(story)
    live(world)

    async def act(life: Life) -> None:
        gone = [Event(f"contact-{n}", 2, delete=True) for n in range(160)]
        arrives(world, life, story.tell(0, *gone))
        await passes(20)
        arrives(world, life, story.tell(0, Event("contact-199", 2, consent=False)))
        await passes(12)
        assert not world.list["contact-199"]["callable"]

    in_life(world, act, sink=_BusyDeletes(world))


def test_what_one_endpoint_calls_busy_keeps_no_withdrawal_from_another_after_an_outage() -> None:
    """Until a request is carried out nobody knows that it is over; what is asked to wait is no better than the rest."""
    story = Story().tell(0, *_contacts(200))
    world = world_of(story)
    live(world)

    def fail(_: object) -> None:
        raise SinkUnavailable("503")

    async def act(life: Life) -> None:
        world.on_upsert = fail
        arrives(world, life, story.tell(0, Event("contact-199", 2, consent=False)))
        await passes(180)
        world.on_upsert = lambda _: None
        arrives(world, life, story.tell(0, Event("contact-1", 2, delete=True)))
        await passes(60)
        assert not world.list["contact-199"]["callable"]

    in_life(world, act, sink=_BusyDeletes(world))


def test_the_status_tells_whom_genesys_asks_to_wait_with_while_others_go_on() -> None:
    """As while reads alone are busy: a rejected withdrawal cannot be done without, and the person may be called."""
    story = Story().tell(0, Event("contact-0", 1), Event("contact-1", 1)).tell(1, Event("other", 1))
    world = world_of(story)
    live(world)

    class BusyReads(MemorySink):
        busy = True

        async def amend(self, *arguments: Any, **named: Any) -> Any:
            if self.busy:
                raise Throttled("too many reads", 1.0)
            return await super().amend(*arguments, **named)

    sink = BusyReads(world)

    async def act(life: Life) -> None:
        conflict: dict[str, Any] = {"do_not_call": True, "reasons": ("consent_conflicts_with_do_not_call",)}
        arrives(world, life, story.tell(0, *(Event(f"contact-{n}", 2, **conflict) for n in range(2))))
        await passes(30)
        assert life.pipeline.degraded is None
        for n in range(10):
            arrives(world, life, story.tell(1, Event(f"new-{n}", 1)))
            await passes(5)
        assert world.list["contact-0"]["callable"]
        told = f"again and again to wait with the contact of {TOPIC}/0/2 (and 1 more): too many reads"
        assert told in str(life.pipeline.status()["reason"])
        sink.busy = False
        await until(lambda: world.committed[P0] == 4)
        assert life.pipeline.degraded is None

    in_life(world, act, sink=sink)
    check(world, story, set())


def test_whom_genesys_has_answered_meanwhile_is_not_told_of_as_waiting_all_along() -> None:
    """Asked to wait once, in use for minutes, and asked to wait once more: that is not again and again."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    live(world)
    asked: list[float] = []

    class Busy(MemorySink):
        async def delete(self, external_ids: Sequence[str], *_: Any, **__: Any) -> Collection[str]:
            asked.append(asyncio.get_running_loop().time())
            if len(asked) in {1, 6}:
                raise Throttled("too many deletes", 1.0)
            return external_ids

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("contact-0", 2, delete=True)))
        await until(lambda: len(asked) == 6)
        await passes(0.5)
        assert asked[5] - asked[0] > LONG_S
        assert "to wait with" not in (life.pipeline.degraded or "")

    in_life(world, act, sink=Busy(world))


def test_who_goes_alone_goes_alone_again_after_too_many_requests() -> None:
    """Among others he would be why they come to nothing."""
    story = Story().tell(0, *_contacts(30))
    world = world_of(story)
    live(world)
    world.unanswered = {"contact-0"}

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, Event("contact-0", 2, phone="+15550199")))
        for n in range(5):
            arrives(world, life, story.tell(0, Event(f"new-{n}", 1)))
            await passes(10)
        begun = len(world.requested)
        world.answer = lambda: _throttle(world, "contact-0")
        for n in range(100):
            arrives(world, life, story.tell(0, Event(f"more-{n}", 1)))
            await passes(1)
        tries = [names for names in world.requested[begun:] if "contact-0" in names]
        assert len(tries) > 5
        assert set(tries) == {("contact-0",)}

    in_life(world, act)


def _throttle(world: World, name: str) -> None:
    if name in world.requested[-1]:
        raise Throttled("too many requests", 2.0)


def test_who_shares_a_request_with_a_withdrawal_does_not_wait_with_it() -> None:
    """Only the number of who withdrew has to be on the do-not-call list before."""
    world = world_of(Story().tell(0, Event("contact-0", 1, consent=False), Event("other", 1)))

    async def act(_: Life) -> None:
        await until(lambda: world.list.keys() == {"contact-0", "other"})
        assert asyncio.get_running_loop().time() < START + 5

    in_life(world, act, sink=_WithoutDncList(world))


def test_who_is_doubted_does_not_wait_for_the_do_not_call_list_with_the_half_that_was_tried() -> None:
    """That half holds who withdrew; nobody says of it whether it was to blame for the request that was refused."""
    world = world_of(Story().tell(0, Event("withdrawn", 1, consent=False), *_contacts(3)))
    world.poison = {"contact-0"}
    sink = _WithoutDncList(world)
    sink.until = 0.0
    world.answer = lambda: setattr(sink, "until", 600.0)

    async def act(_: Life) -> None:
        await until(lambda: world.list.keys() == {"withdrawn", "contact-1", "contact-2"})
        assert asyncio.get_running_loop().time() < START + 5
        assert world.requested[1] == ("withdrawn",)

    in_life(world, act, sink=sink)


def test_a_list_that_is_slow_to_refuse_keeps_nobody_else_waiting() -> None:
    """Of thousands that wait a request's worth is tried at a time: who withdraws meanwhile is not callable at once."""
    people = [f"contact-{n}" for n in range(3000)]
    story = Story().tell(0, *(Event(name, 1, consent=False) for name in people))
    world = world_of(story)
    world.poll_records = 500

    class Slow(_WithoutDncList):
        until = 3600.0

        async def upsert(
            self, contacts: Any, sure: Any = always, withdrawn: Any = (), *more: Any, asks: bool = True, **named: Any
        ) -> Any:
            if withdrawn and asks:
                await passes(10)
            return await super().upsert(contacts, sure, withdrawn, *more, asks=asks, **named)

    async def act(life: Life) -> None:
        await until(lambda: len(world.list) == 3000)
        await passes(3 * OFFERED_EVERY_S)
        for n in range(5):
            arrives(world, life, story.tell(0, Event(f"late-{n}", 1, consent=False), Event(f"granted-{n}", 1)))
            told = asyncio.get_running_loop().time()
            await until(partial(world.list.keys().__ge__, {f"late-{n}", f"granted-{n}"}))
            assert asyncio.get_running_loop().time() - told < 25
            await passes(17)

    in_life(world, act, sink=Slow(world))


def test_a_moment_without_the_do_not_call_list_costs_no_more_than_a_moment() -> None:
    """It is tried again soon, and then all are that had to wait."""
    story = Story().tell(0, *(Event(f"contact-{n}", 1, consent=False) for n in range(300)))
    world = world_of(story)
    sink = _WithoutDncList(world)
    sink.until = 2.0

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(P0) == 300)
        assert asyncio.get_running_loop().time() < START + 10
        assert life.pipeline.degraded is None

    in_life(world, act, sink=sink)


@pytest.mark.parametrize("cause", [FatalError("no permission"), TakesNoNumbers("it is full")], ids=str)
def test_a_run_that_is_to_end_does_not_wait_for_somebody_to_mend_the_do_not_call_list(cause: ConsumerError) -> None:
    """All who withdrew are not callable by then, in however many requests, and what needs no list is settled."""
    people = [f"contact-{n}" for n in range(300)]
    story = Story().tell(0, Event("other", 1), *(Event(name, 1, consent=False) for name in people))
    world = world_of(story)
    world.poll_records, world.poll_s = 100, 1.0

    async def main() -> None:
        sink = _WithoutDncList(world)
        sink.cause = cause
        with pytest.raises(FatalError, match=str(cause)):
            await Life(world, sink=sink).run()
        assert asyncio.get_running_loop().time() < START + 10

    virtual_time.run(main())
    assert [world.list[name]["callable"] for name in people] == [False] * 300
    assert world.committed == {P0: 1}


def test_a_run_that_is_to_end_waits_until_nothing_can_come_late_to_who_is_held() -> None:
    """A grant that nobody answered may be applied until then, and whoever withdrew is told as not callable again."""
    world = world_of(Story().tell(0, Event("contact-0", 1), Event("contact-0", 2, consent=False)))
    world.poll_records, world.poll_s = 1, 2.0

    def hold(_: object) -> None:
        world.on_upsert = lambda _: None
        raise SinkUnavailable("no answer in time")

    async def main() -> None:
        world.on_upsert = hold
        running = asyncio.create_task(Life(world, sink=_WithoutDncList(world)).run())
        await passes(60)
        world.list["contact-0"]["callable"] = True
        with pytest.raises(FatalError, match="no permission"):
            await running

    virtual_time.run(main())
    assert not world.list["contact-0"]["callable"]


def test_a_run_that_is_to_end_does_not_wait_for_room_that_nobody_makes() -> None:
    """As many as may be held wait for the do-not-call list, and the rest cannot be read."""
    world = world_of(Story().tell(0, *(Event(f"contact-{n}", 1, consent=False) for n in range(300))))

    async def main() -> None:
        with pytest.raises(FatalError, match="no permission"):
            await Life(world, sink=_WithoutDncList(world), read_ahead_records=100).run()

    virtual_time.run(main())
    assert 100 <= len(world.list) < 300


def test_all_who_wait_for_the_do_not_call_list_have_their_turn() -> None:
    """What one of them meets does not keep the others behind it."""
    people = [f"contact-{n}" for n in range(250)]
    world = world_of(Story().tell(0, *(Event(name, 1, consent=False) for name in people)))
    sink = _WithoutDncList(world)

    async def act(_: Life) -> None:
        await passes(6 * OFFERED_EVERY_S)
        assert min(sink.tried[name] for name in people) >= 3

    in_life(world, act, sink=sink)


@pytest.mark.usefixtures("partial_events")
def test_a_contact_that_genesys_does_not_show_says_nothing_of_the_do_not_call_list() -> None:
    """Its number was not asked for: the others wait on, and are not all tried."""
    story = Story().tell(0, Event("hidden", 1), *(Event(f"contact-{n}", 1) for n in range(300)))
    world = world_of(story)
    live(world)
    sink = _WithoutDncList(world)

    async def act(life: Life) -> None:
        arrives(world, life, story.tell(0, partly("hidden", 2, consent=False)))
        await until(lambda: sink.tried["hidden"] == 1)
        arrives(world, life, story.tell(0, *(Event(f"contact-{n}", 2, consent=False) for n in range(300))))
        await until(lambda: len(sink.tried) == 301)
        world.unseen, tries = {"hidden"}, sink.tries
        await passes(5 * OFFERED_EVERY_S)
        assert sink.tries - tries < 12

    in_life(world, act, sink=sink)


def test_a_run_that_is_to_end_waits_for_a_do_not_call_list_that_comes_back_by_itself() -> None:
    """Nobody has to do anything for that."""
    world = world_of(Story().tell(0, Event("contact-0", 1, consent=False)))
    sink = _WithoutDncList(world)
    sink.until, sink.cause = 300.0, SinkUnavailable("no answer")

    async def main() -> None:
        await Life(world, sink=sink).run()

    virtual_time.run(main())
    assert world.committed == {P0: 1}


def test_a_run_that_is_to_end_goes_on_with_what_needs_no_do_not_call_list() -> None:
    """It was in one request with who withdrew, and is sent once more."""
    world = world_of(Story().tell(0, Event("contact-0", 1, consent=False), Event("other", 1)))
    world.latency = 5.0

    async def main() -> None:
        with pytest.raises(FatalError, match="no permission"):
            await Life(world, sink=_WithoutDncList(world)).run()

    virtual_time.run(main())
    assert world.list["other"]["callable"] is True


def test_a_do_not_call_list_that_asks_to_wait_is_left_alone_for_so_long() -> None:
    """After each try, while everything else goes on."""
    world = world_of(Story().tell(0, Event("contact-0", 1, consent=False), Event("other", 1)))
    sink = _WithoutDncList(world)
    sink.until, sink.cause = 130.0, SinkUnavailable("no answer", retry_after=42)

    async def act(_: Life) -> None:
        await until(lambda: "other" in world.list)
        assert asyncio.get_running_loop().time() < START + 5
        for number in (1, 2):
            await passes(40)
            assert sink.tries == number
            await until(partial(lambda number: sink.tries > number, number))

    in_life(world, act, sink=sink)


def test_a_newer_grant_does_not_wait_for_the_do_not_call_list() -> None:
    """It takes the place of the withdrawal that waits."""
    story = Story().tell(0, Event("contact-0", 1, consent=False))
    world = world_of(story)

    async def act(life: Life) -> None:
        await until(lambda: "contact-0" in world.list)
        arrives(world, life, story.tell(0, Event("contact-0", 2)))
        await until(lambda: world.committed.get(P0) == 2)
        assert world.list["contact-0"]["callable"] is True

    in_life(world, act, sink=_WithoutDncList(world))
    assert _outcomes(world) == ["superseded", "delivered"]


def test_a_delete_that_is_refused_goes_alone_when_it_is_tried_again() -> None:
    """Whoever is deleted in the same moment would be refused with it, and be searched for each time."""
    story = Story().tell(0, Event("contact-0", 1, delete=True))
    world = world_of(story)
    world.list = {"contact-0": {"callable": True}, "late": {"callable": True}}
    world.delete_refusal = RefusedByGenesys("bad.request")

    async def act(life: Life) -> None:
        await until(lambda: world.requested == [("contact-0",)])
        await passes(0.1)
        await _delete_meets_next_try(life, story, "late")

    in_life(world, act)
    assert set(world.requested) == {("contact-0",), ("late",)}


def test_what_waits_behind_a_refused_delete_makes_it_no_more_frequent() -> None:
    """A withdrawal behind it has nothing to hold back, and the delete goes on to go alone."""
    story = Story().tell(0, Event("contact-0", 1, delete=True))
    world = world_of(story)
    world.list = {"contact-0": {"callable": True}}
    world.delete_refusal = RefusedByGenesys("bad.request")

    async def act(life: Life) -> None:
        await passes(1)
        arrives(
            world, life, story.tell(0, Event("contact-0", 2, consent=False, phone="bad", reasons=("phone_not_e164",)))
        )
        await passes(20 * DELETE_RETRY_S)
        assert 19 <= len(world.requested) <= 22

    in_life(world, act)


def test_a_refused_delete_is_tried_again_until_genesys_accepts_it() -> None:
    """Whoever withdrew is not given up: every half minute, for as long as it takes."""
    world = world_of(Story().tell(0, Event("contact-0", 1, delete=True)))
    world.list["contact-0"] = {"callable": True}
    world.delete_refusal = RefusedByGenesys("bad.request")
    tries: list[float] = []
    world.answer = lambda: tries.append(asyncio.get_running_loop().time())

    async def act(_: Life) -> None:
        await passes(1000)
        assert world.audit == []
        world.delete_refusal = None
        await passes(DELETE_RETRY_S)

    in_life(world, act)
    waited = [later - earlier for earlier, later in pairwise(tries)]
    assert waited == [pytest.approx(DELETE_RETRY_S, abs=0.1)] * 34
    assert _outcomes(world) == ["delivered"]
    assert world.dead_letters == []
    assert world.list == {}


def test_a_suppression_looks_again_for_a_contact_that_cannot_be_read_yet() -> None:
    """Genesys may not show yet what it accepted a moment ago: the contact is not left callable for that."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    live(world)
    story.tell(0, Event("contact-0", 2, phone="nonsense", do_not_call=True, reasons=("phone_not_e164",)))
    world.append(story.records()[1:])
    world.unseen = {"contact-0"}

    async def act(_: Life) -> None:
        await until(lambda: world.sent[-1][0] == "amend")
        await passes(5)
        assert world.committed == {P0: 1}
        world.unseen = set()
        await until(lambda: world.committed == {P0: 2})

    in_life(world, act)
    assert world.list["contact-0"]["callable"] is False


def test_a_contact_that_genesys_does_not_know_is_looked_for_three_times() -> None:
    """Somebody may have deleted it there: the record settles, and nothing is made."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    live(world)
    story.tell(0, Event("contact-0", 2, phone="nonsense", do_not_call=True, reasons=("phone_not_e164",)))
    world.append(story.records()[1:])
    world.list.clear()
    with capture_logs() as logs:
        live(world)
    assert [request[0] for request in world.sent].count("amend") == 3
    assert [entry["event"] for entry in logs].count("contact_unknown") == 1
    assert world.committed == {P0: 2}
    assert world.list == {}


def test_what_took_the_place_of_another_change_is_judged_as_behind_it_when_it_comes_again_alone() -> None:
    """A record between the two holds the partition up: the first is settled, and the process ends before the second.

    It says what was delivered before both, and is no duplicate of that.
    """
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    live(world)
    world.unanswered = {"held"}
    world.append(
        story.tell(0, Event("contact-0", 2, phone="+15550199"), Event("held", 1), Event("contact-0", 3)).records()[1:]
    )
    in_life(world, lambda _: until(lambda: world.committed == {P0: 2}), batch_max_records=1)
    assert world.committed == {P0: 2}
    world.unanswered = set()
    live(world)
    assert _outcomes(world) == ["delivered", "superseded", "delivered", "delivered"]


def test_grant_revoke_grant_are_three_deliveries() -> None:
    """The third event equals the first, and still is no duplicate."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    for n, event in enumerate((Event("contact-0", 2, consent=False), Event("contact-0", 3)), 1):
        live(world)
        story.tell(0, event)
        world.append(story.records()[n:])
    live(world)
    check(world, story, set())
    assert _outcomes(world) == ["delivered"] * 3
    assert world.list["contact-0"]["callable"] is True


def test_a_duplicate_with_a_newer_version_makes_what_lies_between_stale() -> None:
    """Version 5 repeats version 1: a late version 3 must not come after it."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    for n, event in enumerate((Event("contact-0", 5), Event("contact-0", 3, phone="+15550199")), 1):
        live(world)
        story.tell(0, event)
        world.append(story.records()[n:])
    live(world)
    assert _outcomes(world) == ["delivered", "duplicate", "stale"]


def test_a_late_update_does_not_bring_a_deleted_person_back() -> None:
    """The marker of a delete knows its version."""
    story = Story().tell(0, Event("contact-0", 1), Event("contact-0", 3, delete=True))
    world = world_of(story)
    live(world)
    story.tell(0, Event("contact-0", 2))
    world.append(story.records()[2:])
    live(world)
    check(world, story, set())
    assert world.list == {}


def test_a_rejected_withdrawal_suppresses_and_settles_with_the_answer() -> None:
    """A conflict is rejected and dead-lettered, and the contact is not callable once it settles."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    live(world)
    conflict = ("consent_conflicts_with_do_not_call",)
    story.tell(0, Event("contact-0", 2, do_not_call=True, reasons=conflict))
    world.append(story.records()[1:])
    settled_callable: list[object] = []

    async def act(_: Life) -> None:
        await until(lambda: world.committed[P0] == 2)
        settled_callable.append(world.list["contact-0"]["callable"])

    in_life(world, act)
    assert settled_callable == [False]
    check(world, story, set())
    assert world.events()[-1]["operation"] == "suppress"


@pytest.mark.parametrize("delivered", [True, False])
def test_a_grant_older_than_the_last_rejected_withdrawal_is_stale(*, delivered: bool) -> None:
    """Two conflicts, then a grant whose version lies between them: the person is not to be called."""
    conflict = ("consent_conflicts_with_do_not_call",)
    story = Story().tell(0, *([Event("contact-0", 1)] if delivered else []))
    for version in (2, 4):
        story.tell(0, Event("contact-0", version, do_not_call=True, reasons=conflict))
    story.tell(0, Event("contact-0", 3))
    records, world = story.records(), World()
    for record in records:
        world.append([record])
        live(world)
    check(world, story, set())
    assert _outcomes(world)[-3:] == ["rejected", "rejected", "stale"]


def test_before_a_rejected_withdrawal_nothing_goes_out_as_callable() -> None:
    """The grant that still waits when the conflict arrives is sent as not callable."""
    conflict = ("consent_conflicts_with_do_not_call",)
    story = Story().tell(0, Event("contact-0", 1), Event("contact-0", 2, do_not_call=True, reasons=conflict))
    world = world_of(story)
    seen: list[object] = []
    world.answer = lambda: seen.extend(body["callable"] for body in world.list.values())
    live(world)
    check(world, story, set())
    assert True not in seen


def test_a_partition_with_an_unknown_schema_waits_and_the_others_go_on() -> None:
    """The registry lags: the partition's records are delivered once it knows, in their order."""
    story = Story().tell(0, *_contacts(3)).tell(1, *[Event(f"other-{n}", 1) for n in range(3)])
    world = world_of(story)
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]
    order: list[int] = []
    schemas = MemorySchemas({7: [SourceUnavailable("down"), None, None, SCHEMA]})
    world.answer = lambda: order.append(len(world.list))
    live(world, schemas)
    assert len(world.list) == 6
    assert world.committed == {P0: 3, P1: 3}
    assert set(_outcomes(world)) == {"delivered"}
    first = next(event for event in world.events() if event["outcome"] == "delivered")
    assert first["source"]["partition"] == 1


def test_a_partition_stalls_while_something_waits_and_nothing_settles() -> None:
    """One that has nothing to do does not, for however long; after a rest time counts from what comes then."""
    world = world_of(Story().tell(0, *_contacts(1)).tell(1, Event("other", 1)))
    strange = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]

    async def act(life: Life) -> None:
        await passes(500)
        assert life.pipeline.stalled() == {P0: 0, P1: 0}
        world.log[P0] += [replace(record, offset=1) for record in strange]
        life.source.wake()
        await passes(60)
        stalled = life.pipeline.stalled()
        assert 55 < stalled[P0] <= 60
        assert stalled[P1] == 0
        await until(lambda: world.committed[P0] == 2)
        await passes(10)
        assert life.pipeline.stalled() == {P0: 0, P1: 0}

    in_life(world, act, MemorySchemas({7: [SourceUnavailable("down")] * 100 + [SCHEMA]}))


def test_a_partition_that_goes_while_it_waits_for_a_schema_leaves_nothing_behind() -> None:
    """All that it holds would stay in memory for as long as the registry is away, once more with each rebalance."""
    world = world_of(Story().tell(0, *_contacts(3)))
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]

    async def act(life: Life) -> None:
        await passes(10)
        assignment = life.pipeline.partitions[P0].assignment
        life.source.lose([P0])
        await passes(10)
        gc.collect()
        held = [each for each in gc.get_objects() if isinstance(each, Partition) and each.assignment is assignment]
        assert held == []
        life.source.assign([P0])
        await until(lambda: world.committed.get(P0) == 3)

    in_life(world, act, MemorySchemas({7: [SourceUnavailable("down")] * 100 + [SCHEMA]}))


def test_a_partition_that_goes_while_it_waits_for_a_schema_is_not_caught_up() -> None:
    """It is given back at once, as after a member rejoined: what it held has not been judged."""
    world = world_of(Story().tell(0, Event("a", 1, consent=False)))
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]

    async def main() -> None:
        life = Life(world, MemorySchemas({7: [SourceUnavailable("down")] * 60 + [SCHEMA]}))
        running = asyncio.create_task(life.run())
        await passes(3)
        life.source._events.put_nowait(Polled([], {P0: 1}))
        life.source.wake()
        await passes(3)
        await life.source.revoke([P0])
        life.source.assign([P0])
        await running

    virtual_time.run(main())
    assert world.committed[P0] == 1
    assert set(_outcomes(world)) == {"delivered"}


def test_what_fails_while_a_schema_is_learnt_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bug, and to go round for ever would hide it."""
    learn, failures = Readers.learn, [ZeroDivisionError()]

    async def fails_once(*args: Any) -> None:
        if failures:
            raise failures.pop()
        await learn(*args)

    monkeypatch.setattr(Readers, "learn", fails_once)
    with pytest.raises(ExceptionGroup) as caught:
        live(world_of(Story().tell(0, *_contacts(1))))
    assert caught.group_contains(ZeroDivisionError)


def test_a_member_without_partitions_stays_ready_when_its_last_revocation_ends_late() -> None:
    """The group had taken them before, and has said since that there are none to have."""
    world = world_of(Story().tell(0, *_contacts(1)))

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(P0) == 1)
        keys = list(life.pipeline.partitions)
        life.pipeline.lanes.busy = lambda _: True  # type: ignore[assignment]
        life.source._events.put_nowait(Revoked(keys, lambda: None))
        life.source.wake()
        await passes(3)
        life.source.lose(keys)
        life.source._events.put_nowait(Assigned({}, {}))
        await passes(60)
        assert life.pipeline.ready

    in_life(world, act)


def test_a_revocation_concerns_what_was_there_when_it_came() -> None:
    """All of it came in a moment in which this process did nothing: what is assigned last stays."""
    world = world_of(Story().tell(0, *_contacts(1)))

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(P0) == 1)
        world.log[P1] = [replace(record, partition=1) for record in world.log[P0]]
        life.source._events.put_nowait(Revoked([P1], lambda: None))
        life.source._events.put_nowait(Lost([P1], lambda: None))
        life.source.assign([P1])
        await until(lambda: world.committed.get(P1) == 1)

    in_life(world, act)


def test_to_forget_what_expired_is_no_progress() -> None:
    """A sweep goes on for as long as there is something old, also where the records stand still."""
    world = world_of(Story().tell(0, *_contacts(1)))
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]

    async def act(life: Life) -> None:
        await passes(60)
        partition = life.pipeline.partitions[P0]
        partition.expired[b"x" * 32] = b"state"
        life.pipeline._settler.wake()
        await until(lambda: not partition.expired)
        assert life.pipeline.stalled()[P0] > 55
        await until(lambda: len(world.list) == 1)

    in_life(world, act, MemorySchemas({7: [SourceUnavailable("down")] * 100 + [SCHEMA]}))


def test_a_partition_that_moves_slowly_does_not_stall() -> None:
    """Each settlement begins the time anew, also while much waits behind it."""
    world = world_of(Story().tell(0, *_contacts(1000)))
    world.latency = 30
    seen: list[float] = []

    async def act(life: Life) -> None:
        while len(world.list) < 1000:
            await passes(7)
            seen.append(life.pipeline.stalled()[P0])

    in_life(world, act, genesys_max_in_flight=1)
    assert 20 < max(seen) < 40
    assert len(seen) * 7 > 200


def test_lag_counts_what_was_not_read_yet() -> None:
    """Brokers tell with each fetch where a partition ends; to have caught up is something else."""
    world = world_of(Story().tell(0, *_contacts(3)))

    async def act(life: Life) -> None:
        await until(lambda: P0 in life.pipeline.partitions)
        partition = life.pipeline.partitions[P0]
        await until(lambda: partition.lag == 0)
        life.source._events.put_nowait(Grown({P0: 1003, P1: 7}))
        life.source.wake()
        await until(lambda: partition.lag == 1000)
        assert partition.caught_up

    in_life(world, act)


def test_what_is_not_assigned_yet_is_neither_caught_up_nor_out_of_sight() -> None:
    """It is not known where one of the partitions begins: nobody may take the others for all there is."""
    world = world_of(Story().tell(0, *_contacts(3)).tell(1, Event("late", 1)))

    async def main() -> None:
        life = Life(world)
        life.source._events = asyncio.Queue()
        life.source._positions.clear()
        life.source._events.put_nowait(Starting([P0, P1]))
        life.source.assign([P0])
        life.source._events.put_nowait(Starting([P1]))
        running = asyncio.create_task(life.run())
        await until(lambda: world.committed.get(P0) == 3)
        await passes(30)
        life.source._events.put_nowait(Starting([P1]))
        life.source.wake()
        await passes(30)
        assert not running.done()
        assert not life.pipeline.ready
        assert life.pipeline.stalled() == {P0: 0.0, P1: pytest.approx(60, abs=5)}
        states = [(each["partition"], each["state"]) for each in life.pipeline.partitions.status()]
        assert states == [(0, "running"), (1, "starting")]
        life.source.assign([P1])
        life.source._events.put_nowait(Starting([]))
        life.source.wake()
        await running

    virtual_time.run(main())
    assert world.committed == {P0: 3, P1: 1}


def test_an_idle_partition_of_which_it_is_not_known_where_it_goes_on_is_told_once() -> None:
    """The brokers do not have its next offset any more, and do not say which they have: it stands still."""
    world = world_of(Story().tell(0, Event("early", 1)))

    async def act(life: Life) -> None:
        await until(lambda: world.committed.get(P0) == 1)
        life.source._events.put_nowait(Starting([P0]))
        life.source.wake()
        await passes(30)
        assert life.pipeline.stalled() == {P0: pytest.approx(30, abs=5)}
        (told,) = life.pipeline.partitions.status()
        assert (told["partition"], told["state"], told["settled"]) == (0, "starting", 1)

    in_life(world, act)


class Leaky(MemoryTopics):
    """Without transactions: what was to be settled is there, and then the commit fails."""

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        if self.failures:
            self._world.audit.extend(settlement.audit)
        return await super().settle(settlement)


@pytest.mark.parametrize("failure", [SourceUnavailable("away"), Rebalancing("moving")], ids=["away", "moving"])
def test_what_readers_may_have_seen_of_a_settlement_that_failed_is_told_again_as_it_was(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are the same ones, in smaller settlements too, and what was decided meanwhile follows: no fork."""
    monkeypatch.setattr(settle, "MAX_RECORDS", 64)
    story = Story().tell(0, *_contacts(300))
    world = world_of(story)

    async def main() -> None:
        topics = Leaky(world)
        topics.failures = [failure] * 4
        life = Life(world, topics=topics, kafka_guarantee="at_least_once", batch_max_records=20)
        await life.run()

    virtual_time.run(main())
    verified = AuditCheck(from_start=True)
    for _, value in world.audit:
        verified.take(value, "")
    verified.finish()
    assert verified.chains[P0].problems.counts.keys() == {Finding.REPEATED}
    records = {value for _, value in world.audit if b'"type":"record"' in value}
    assert len(records) == verified.chains[P0].events == 300


def test_what_ends_a_transaction_is_no_lag() -> None:
    """It has an offset, and nothing of it is ever settled; what comes behind it counts."""
    assignment = Assignment(P0)
    partition = Partition(assignment, Tracker(assignment, 1), 2, reached=2)
    assert (partition.lag, partition.caught_up) == (0, False)
    partition.latest = 101
    assert partition.lag == 99
    partition.tracker.add([Record(*P0, 1, 0, None, None)])
    assert partition.lag == 100


def test_what_the_brokers_do_not_take_in_time_is_settled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made again as large as it was it would never be settled, nor anything else; once it is, parts grow again."""
    monkeypatch.setattr("consumer.pipeline.settle.MAX_RECORDS", 8)
    world = world_of(Story().tell(0, *(Event(f"bad-{n}", 1, garbage=b"junk") for n in range(40))))
    world.poll_records = 40
    sizes: list[int] = []

    class Slow(MemoryTopics):
        async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
            sizes.append(len(settlement.audit))
            if len(sizes) < 3:
                raise SourceUnavailable("the brokers do not take what is to be settled")
            return await super().settle(settlement)

    async def main() -> None:
        await Life(world, topics=Slow(world)).run()

    virtual_time.run(main())
    assert sizes == [8, 4, 2, 4, 8, 8, 8, 8, 2]
    assert world.committed == {P0: 40}


@pytest.mark.parametrize("size", [50, 100, 600])
def test_records_keep_their_order_when_polls_go_on_while_schemas_are_fetched(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Polls that were under way when the partition was paused come behind what waits for the next schema."""
    story = Story().tell(0, *_contacts(4500))
    world = world_of(story)
    numbers = range(2, 12)
    for number in numbers:
        offset = 450 * (number - 2)
        record = world.log[P0][offset]
        world.log[P0][offset] = replace(record, value=b"\0\0\0\0" + bytes([number]) + (record.value or b"")[5:])
    world.poll_s, world.poll_records = 0, size
    monkeypatch.setattr(MemorySource, "pause", lambda *_: None)
    life = live(world, MemorySchemas({number: [SCHEMA] for number in numbers}))
    assert life.telemetry.gaps == []
    check(world, story, set())


def test_a_schema_that_stays_unknown_rejects_after_the_set_time() -> None:
    """After the time-out each of its records is rejected as schema_unknown; later records of known schemas go on."""
    story = Story().tell(0, Event("contact-0", 1))
    world = world_of(story)
    unknown = Record(TOPIC, 0, 1, 0, b"contact-1", b"\0\0\0\0\7junk")
    known = Record(TOPIC, 0, 2, 0, b"contact-2", Event("contact-2", 1).value())
    world.append([unknown, known])
    live(world, MemorySchemas({7: [None]}), schema_unknown_timeout_s=90)
    assert _outcomes(world) == ["delivered", "rejected", "delivered"]
    assert world.events()[1]["reasons"] == ["schema_unknown"]
    assert world.dead_letters == [(unknown, "schema_unknown")]


@pytest.mark.parametrize(("asked", "waited"), [(30.0, 30), (86_400.0, 60)])
def test_a_registry_that_asks_to_be_left_alone_is(asked: float, waited: int) -> None:
    """For as long as it says, or a minute: what is held waits, and a withdrawal may be among it."""
    world = world_of(Story().tell(0, Event("contact-0", 1)))
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]
    answered: list[float] = []
    world.answer = lambda: answered.append(asyncio.get_running_loop().time())
    live(world, MemorySchemas({7: [SourceUnavailable("busy", asked), SCHEMA]}))
    assert START + waited <= answered[0] < START + waited + 5


@pytest.mark.parametrize("error", [Throttled("busy", 200.0), SinkUnavailable("busy", 200.0)])
def test_a_long_wait_that_genesys_asks_for_is_told(error: TransientError) -> None:
    """No request goes out, not even a withdrawal, and the breaker is closed: all would seem to be well."""
    world = world_of(Story().tell(0, *_contacts(3)))
    world.answer = outage(1, error)

    async def act(life: Life) -> None:
        await until(lambda: bool(world.requested))
        await passes(20)
        assert life.pipeline.genesys_answers
        told.append(life.pipeline.degraded)
        await passes(160)
        told.append(life.pipeline.degraded)
        await until(lambda: len(world.list) == 3)

    told: list[str | None] = []
    in_life(world, act)
    assert told in (["Genesys asks to wait for 180 s", None], ["Genesys asks to wait for 181 s", None])  # jitter


def test_a_registry_that_is_down_is_waited_for_without_limit() -> None:
    """An hour without an answer rejects nothing."""
    world = world_of(Story().tell(0, Event("contact-0", 1)))
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]
    live(world, MemorySchemas({7: [SourceUnavailable("down")] * 3600 + [SCHEMA]}), schema_unknown_timeout_s=60)
    assert _outcomes(world) == ["delivered"]


def test_a_registry_that_was_down_may_lag() -> None:
    """One that comes back and has not read its own topic yet does not know a schema: the set time begins then."""
    world = world_of(Story().tell(0, Event("contact-0", 1)))
    world.log[P0] = [replace(record, value=b"\0\0\0\0\7" + (record.value or b"")[5:]) for record in world.log[P0]]
    down = SourceUnavailable("down")
    live(
        world,
        MemorySchemas({7: [down] * 90 + [None] * 20 + [down] + [None] * 20 + [SCHEMA]}),
        schema_unknown_timeout_s=60,
    )
    assert _outcomes(world) == ["delivered"]


def test_a_registry_that_fails_now_and_then_does_not_hold_an_unknown_schema_for_ever() -> None:
    """What it fails does not count; what it said before that does."""
    world = world_of(Story().tell(0, Event("contact-0", 1), Event("contact-1", 1)))
    world.log[P0][0] = replace(world.log[P0][0], value=b"\0\0\0\0\7junk")
    flapping = [*[None] * 29, SourceUnavailable("503")] * 4 + [SCHEMA]
    live(world, MemorySchemas({7: flapping}), schema_unknown_timeout_s=60)
    assert _outcomes(world) == ["rejected", "delivered"]
    assert [reason for _, reason in world.dead_letters] == ["schema_unknown"]


def test_memory_stays_bounded_while_genesys_does_not_answer() -> None:
    """A stalled sink pauses the partitions near the set number of records, and all is delivered in the end."""
    story = Story().tell(0, *_contacts(2000)).tell(1, *[Event(f"other-{n}", 1) for n in range(2000)])
    world = world_of(story)
    held: list[int] = []

    async def act(life: Life) -> None:
        world.answer = outage(1000, SinkUnavailable("no answer"))
        await passes(60)
        held.append(life.pipeline.partitions.unsettled)
        world.answer = lambda: None
        await until(lambda: world.committed == {P0: 2000, P1: 2000})

    in_life(world, act, read_ahead_records=300)
    assert 300 <= held[0] <= 320
    check(world, story, set())


@pytest.mark.parametrize(("schema_s", "genesys_s"), [(600, 60), (60, 600)], ids=["Genesys first", "schema first"])
def test_a_partition_that_waits_for_a_schema_and_for_room_flows_when_it_has_both(schema_s: int, genesys_s: int) -> None:
    """What it got first is no reason to read on: records would be held without limit behind the other one."""
    story = Story().tell(0, *_contacts(500))
    world = world_of(story)
    known, unknown = world.log[P0][:100], world.log[P0][100:]
    world.log[P0] = known + [replace(each, value=b"\0\0\0\0\7" + (each.value or b"")[5:]) for each in unknown]
    world.answer = outage(10**6, SinkUnavailable("no answer"))

    async def act(life: Life) -> None:
        asyncio.get_running_loop().call_later(genesys_s, setattr, world, "answer", lambda: None)
        await passes(300)
        (partition,) = life.pipeline.partitions.values()
        assert partition.blocked is (schema_s > 300)
        assert partition.held_back is (genesys_s > 300)
        assert partition.unsettled + world.committed.get(P0, 0) == 105
        await passes(600)

    in_life(world, act, MemorySchemas({7: [SourceUnavailable("down")] * schema_s + [SCHEMA]}), read_ahead_records=100)
    check(world, story, set())


def test_nothing_is_held_of_what_is_settled() -> None:
    """Neither records nor states: memory would grow with the contacts."""
    story, poison = random_story(1)
    world = world_of(story)
    world.poison = poison
    life = live(world)
    assert world.committed
    assert [(each.overlay, each.unsettled, each.tracker.bytes) for each in life.pipeline.partitions.values()] == [
        ({}, 0, 0)
    ] * 2


def test_a_transaction_is_shared_out_among_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has an equal part of what one may hold, however much all have decided."""
    monkeypatch.setattr("consumer.pipeline.settle.MAX_RECORDS", 10)
    world = world_of(Story().tell(0, *_contacts(50)).tell(1, *[Event(f"other-{n}", 1) for n in range(50)]))
    topics = _CountedTopics(world)
    live(world, topics=topics, settle_interval_ms=5000)
    assert topics.settled == [{P0: 5, P1: 5}] * 10


def test_a_revoked_partition_is_settled_before_it_moves_and_goes_on_elsewhere() -> None:
    """Requests under way are finished and settled; what was not sent is left to the next owner."""
    story = Story().tell(0, *_contacts(200)).tell(1, *[Event(f"other-{n}", 1) for n in range(200)])
    world = world_of(story)
    world.latency = 5.0

    async def act(life: Life) -> None:
        await until(lambda: bool(life.pipeline.lanes) and life.pipeline.gate.in_flight > 0)
        await life.source.revoke([P0])
        settled = world.committed.get(P0, 0)
        await passes(60)
        assert world.committed.get(P0, 0) == settled, "settled after it was let go"
        life.source.assign([P0])
        await until(lambda: world.committed == {P0: 200, P1: 200})

    in_life(world, act, batch_max_records=20)
    check(world, story, set())


def test_stores_of_partitions_that_move_are_closed_together_and_none_at_the_end() -> None:
    """A volume that hangs costs a deadline, not one for each; at the end the member leaves its group before it may."""
    closed: list[set[TopicPartition]] = []

    class _Noting(MemoryStore):
        async def close(self, *partitions: TopicPartition) -> None:
            closed.append({*partitions})
            await super().close(*partitions)

    world = world_of(Story().tell(0, *_contacts(20)).tell(1, Event("other", 1)))

    async def act(life: Life) -> None:
        await until(lambda: world.committed == {P0: 20, P1: 1})
        await life.source.revoke([P0, P1])
        life.source.assign([P0, P1])
        await until(lambda: life.pipeline.ready and len(life.pipeline.partitions) == 2)

    in_life(world, act, store=_Noting(world))
    assert closed == [{P0, P1}]


def test_a_revoked_partition_is_settled_beyond_a_change_whose_place_another_took() -> None:
    """It ends with the answer to its contact's request; else all behind it would come again, and be sent again."""
    others = [Event(f"contact-{n}", 1) for n in range(30)]
    story = Story().tell(0, Event("twice", 1), *others, Event("twice", 2, phone="+15550177"))
    world = world_of(story)
    world.latency = 5.0

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight > 0)
        await life.source.revoke([P0])
        assert world.committed == {P0: 32}

    in_life(world, act)
    assert [len(request) for request in world.requested] == [31]
    check(world, story, set())


@pytest.mark.parametrize("begun", [False, True])
def test_a_partition_that_begins_anew_moves_only_when_no_request_from_before_is_under_way(*, begun: bool) -> None:
    """As where its topic is made anew: the next owner may send what is newer for the same contact."""
    story = Story().tell(0, *_contacts(20))
    world = world_of(story)
    world.latency = 15.0

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight > 0)
        asked_at = asyncio.get_running_loop().time()
        life.source.lose([P0])
        if begun:
            life.source.assign([P0])
            await until(lambda: P0 in life.pipeline.partitions)
        released = asyncio.Event()
        life.source._positions.pop(P0, None)
        life.source._events.put_nowait(Revoked([P0], released.set))
        life.source.wake()
        await released.wait()
        assert asyncio.get_running_loop().time() - asked_at == pytest.approx(15, abs=1)
        assert len(world.list) == 20

    in_life(world, act)


def test_what_comes_back_for_a_lost_partition_is_not_settled() -> None:
    """The answer to a request of a lost partition changes neither offsets nor store; the next owner repeats it."""
    story = Story().tell(0, *_contacts(50))
    world = world_of(story)
    world.latency = 5.0

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight > 0)
        life.source.lose([P0])
        await passes(30)
        assert world.sent, "the request was answered"
        assert not world.committed
        assert not world.audit
        life.source.assign([P0])
        await until(lambda: world.committed == {P0: 50})

    in_life(world, act)
    check(world, story, set())


def test_who_is_doubted_goes_on_when_the_half_that_was_tried_is_turned_away_and_lost() -> None:
    """Nobody would ever tell them what came of it, and their partition would stand still."""
    story = Story().tell(0, *_contacts(4)).tell(1, *[Event(f"other-{n}", 1) for n in range(4)])
    world = world_of(story)
    world.latency, world.poison = 5.0, {"other-0"}

    def answer() -> None:
        if len(world.requested) == 2:
            raise Throttled("busy", retry_after=1.0)

    async def act(life: Life) -> None:
        await until(lambda: len(world.requested) == 2)
        life.source.lose([P0])
        await until(lambda: world.committed == {P1: 4})

    world.answer = answer
    in_life(world, act)
    assert world.requested[1] == tuple(f"contact-{n}" for n in range(4))
    assert world.list.keys() == {"other-1", "other-2", "other-3"}


def test_who_is_doubted_goes_on_when_the_half_to_be_tried_is_lost_before() -> None:
    """Its partition moves while the request that was refused is under way: the half is not sent any more."""
    story = Story().tell(0, *_contacts(4)).tell(1, *[Event(f"other-{n}", 1) for n in range(4)])
    world = world_of(story)
    world.poison = {"other-0"}

    async def act(life: Life) -> None:
        world.answer = lambda: life.source.lose([P0]) if len(world.requested) == 1 else None
        await until(lambda: world.committed == {P1: 4})

    in_life(world, act)
    assert set(world.requested[0]) == {*world.list, "other-0", *(f"contact-{n}" for n in range(4))}
    assert world.list.keys() == {"other-1", "other-2", "other-3"}


class _CountedTopics(MemoryTopics):
    """Remembers how many records of each partition each transaction has."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.settled: list[dict[TopicPartition, int]] = []

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        offsets = settlement.offsets
        before = self._world.committed
        self.settled.append({key: offset - before.get(key, 0) for key, offset in offsets.items()})
        return await super().settle(settlement)


class _SlowTopics(MemoryTopics):
    """A transaction that takes until it is told to go on."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        self.begun.set()
        await self.goes_on.wait()
        return await super().settle(settlement)


def test_a_lost_partition_is_forgotten_once_the_settlement_under_way_is_over() -> None:
    """It may still succeed: where the partition begins anew must not be asked before."""
    world = world_of(Story().tell(0, *_contacts(20)))
    committed: list[int | None] = []

    async def main() -> None:
        topics = _SlowTopics(world)
        life = Life(world, topics=topics)
        running = asyncio.create_task(life.run(until_caught_up=False))
        await topics.begun.wait()
        life.source.lose([P0], lambda: committed.append(world.committed.get(P0)))
        await until(lambda: not life.pipeline.partitions)
        await passes(5)
        assert committed == []
        topics.goes_on.set()
        await until(lambda: bool(committed))
        life.stop.set()
        await running

    virtual_time.run(main())
    assert committed == [world.committed[P0]]
    assert committed[0]


def test_a_stop_finishes_what_is_under_way() -> None:
    """Told to stop, the pipeline sends what waits without linger, and settles it."""
    story = Story().tell(0, *_contacts(7))
    world = world_of(story)

    async def act(life: Life) -> None:
        await until(lambda: len(life.pipeline.lanes) == 7)

    in_life(world, act, batch_linger_ms=60_000)
    check(world, story, set())


def test_a_stop_gives_up_at_its_deadline() -> None:
    """With Genesys away the drain ends at the deadline, and the records stay for the next start."""
    story = Story().tell(0, *_contacts(7))
    world = world_of(story)
    world.answer = outage(10**6, SinkUnavailable("no answer"))

    async def act(life: Life) -> None:
        await until(lambda: life.telemetry.retries["unavailable"] > 0)

    in_life(world, act, drain_timeout_s=3)
    assert not world.committed
    world.answer = lambda: None
    live(world)
    check(world, story, set())


@pytest.mark.parametrize(("drain_timeout_s", "requests"), [(25, 2), (20, 1)])
def test_a_stop_cuts_no_request_off(drain_timeout_s: int, requests: int) -> None:
    """None begins that may not be over within the time for draining: what it does would not be known, nor settled."""
    world = world_of(Story().tell(0, *_contacts(200)))
    world.latency = 20.0

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.gate.in_flight > 0)
        await passes(15)

    limits = {"drain_timeout_s": drain_timeout_s, "genesys_request_timeout_s": 20, "genesys_max_in_flight": 1}
    in_life(world, act, None, batch_max_records=10, **limits)
    assert len(world.requested) == requests
    assert world.committed == {P0: 10 * requests}


def test_a_stop_settles_what_has_its_outcome_though_the_time_is_over() -> None:
    """One request takes longer than there is time for; what was answered before is not done again."""
    story = Story().tell(0, *_contacts(20))
    world = world_of(story)

    class Slowing(MemorySink):
        async def upsert(self, *arguments: Any, **named: Any) -> Any:
            answer = await super().upsert(*arguments, **named)
            world.latency = 60.0
            return answer

    async def act(_: Life) -> None:
        await until(lambda: len(world.requested) == 2)

    in_life(world, act, sink=Slowing(world), batch_max_records=10, genesys_max_in_flight=1, settle_interval_ms=60_000)
    assert world.committed == {P0: 10}
    world.latency = 0.0
    live(world)
    check(world, story, set())


def test_a_failed_transaction_is_made_again_without_repeats() -> None:
    """Three failed settlements leave one audit event for each record."""
    story = Story().tell(0, *_contacts(20))
    world = world_of(story)

    async def act(life: Life) -> None:
        life.topics.failures = [TransientError("not enough replicas")] * 3
        await until(lambda: world.committed == {P0: 20})

    in_life(world, act)
    check(world, story, set())


def test_a_rebalance_postpones_settling_and_is_no_outage() -> None:
    """The group moved on before this member heard of it: settled a moment later, without alarm."""
    story = Story().tell(0, *_contacts(20))
    world = world_of(story)
    took: list[float] = []

    async def act(life: Life) -> None:
        loop = asyncio.get_running_loop()
        life.topics.failures = [Rebalancing("ILLEGAL_GENERATION")]
        await until(lambda: not life.topics.failures)
        refused_at = loop.time()
        await until(lambda: world.committed == {P0: 20})
        took.append(loop.time() - refused_at)

    with capture_logs() as logs:
        in_life(world, act)
    assert took[0] < 2 * REBALANCING_RETRY_S
    told = [(entry["log_level"], entry["event"]) for entry in logs if "settle" in entry["event"]]
    assert told == [("info", "settle_postponed")]
    check(world, story, set())


class _FullDisk(MemoryStore):
    """A store without room for its first writes."""

    left = 5

    async def write(self, *writes: StoreWrite) -> None:
        if self.left:
            self.left -= 1
            raise TransientError("no space left on device")
        await super().write(*writes)


@pytest.mark.parametrize("kept_waiting", [True, False])
def test_a_group_that_gives_out_nothing_yet_is_the_reason(*, kept_waiting: bool) -> None:
    """As after a kill, for as long as the session of the process before lasts; at an ordinary start nothing is said."""
    story = Story().tell(0, *_contacts(3))
    world = world_of(story)

    async def act(life: Life) -> None:
        life.source._events.get_nowait()  # what is this one's
        await passes(NO_PARTITIONS_AFTER_S / 2)
        assert life.pipeline.status()["reason"] is None
        await passes(NO_PARTITIONS_AFTER_S if kept_waiting else 0)
        assert life.pipeline.status()["state"] == "restoring"
        assert life.pipeline.status()["reason"] == (NO_PARTITIONS if kept_waiting else None)
        life.source.assign([P0])
        await until(lambda: world.committed == {P0: 3})
        assert life.pipeline.status()["reason"] is None
        await passes(NO_PARTITIONS_AFTER_S)

    with capture_logs() as logs:
        in_life(world, act)
    told = [(line["log_level"], line["reason"]) for line in logs if line["event"] == "waiting_for_partitions"]
    assert told == ([("info", NO_PARTITIONS)] if kept_waiting else [])


def test_trouble_with_what_went_with_its_partition_is_not_told_for_ever() -> None:
    """The next one to own it settles it; a standby has nothing to settle, perhaps for weeks."""
    world = world_of(Story().tell(0, *_contacts(3)).tell(1, *[Event(f"other-{n}", 1) for n in range(3)]))
    topics = MemoryTopics(world)
    topics.failures = [SourceUnavailable("brokers are away")] * 1000

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.degraded == "brokers are away")
        life.source.lose([P0])
        await passes(60)
        assert life.pipeline.degraded == "brokers are away"
        life.source.lose([P1])
        await passes(60)
        assert life.pipeline.degraded is None

    in_life(world, act, topics=topics)


def test_a_full_disk_stops_settling_and_loses_nothing() -> None:
    """While there is no room nothing more is settled and the state says so; with room it goes on by itself."""
    story = Story().tell(0, *_contacts(20))
    world = world_of(story)
    said: list[str | None] = []

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.degraded is not None)
        said.append(life.pipeline.degraded)
        assert not life.pipeline.settles
        await until(lambda: life.pipeline.degraded is None and world.committed == {P0: 20})
        assert life.pipeline.settles

    in_life(world, act, store=_FullDisk(world))
    assert said == ["no space left on device"]
    check(world, story, set())


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("settle", "brokers have not said for 60 s whether a settlement is made"),
        ("write", "the stores have not been written for 60 s"),
    ],
)
def test_a_settlement_without_an_end_is_told_although_nothing_fails(step: str, why: str) -> None:
    """Brokers that do not say whether it committed, and a volume that hangs, answer nothing, be it for hours."""
    story = Story().tell(0, *_contacts(3))
    world = world_of(story)
    topics, store = MemoryTopics(world), MemoryStore(world)
    answers = asyncio.Event()
    waiting = topics if step == "settle" else store
    goes_on = getattr(waiting, step)

    async def hang(*what: Any) -> Any:
        await answers.wait()
        return await goes_on(*what)

    setattr(waiting, step, hang)

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.ready)
        settles = []
        for _ in range(2):
            await passes(0.75 * HANGS_AFTER_S)
            settles.append(life.pipeline.settles)
        assert settles == [True, False]
        assert life.pipeline.status()["reason"] == why
        answers.set()
        await until(lambda: life.pipeline.degraded is None)

    with capture_logs() as logs:
        in_life(world, act, topics=topics, store=store)
    told = [(line["log_level"], line["error"]) for line in logs if line["event"] == "settlement_hangs"]
    assert told == [("error", why)]
    assert [line["event"] for line in logs].count("settles_again") == 1
    check(world, story, set())


def test_settlements_that_take_a_while_are_no_trouble_however_many_follow_each_other() -> None:
    """Each is counted by itself."""
    world = world_of(Story().tell(0, *_contacts(20)))
    world.poll_records = 1
    world.poll_s = HANGS_AFTER_S / 4

    class Slow(MemoryTopics):
        async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
            await passes(HANGS_AFTER_S / 2)
            return await super().settle(settlement)

    with capture_logs() as logs:
        live(world, topics=Slow(world))
    assert not [line for line in logs if line["event"] == "settlement_hangs"]


def test_a_full_disk_is_told_now_and_then_with_what_to_do_and_once_that_it_is_over() -> None:
    """A line each second would push all others out of sight."""
    world = world_of(Story().tell(0, *_contacts(3)))
    disk = _FullDisk(world)
    disk.left = 70
    with capture_logs() as logs:
        live(world, store=disk)
    told = [line for line in logs if line["event"] == "store_failed"]
    assert len(told) == 3
    assert all("make room in STATE_DIR" in line["remedy"] for line in told)
    assert [line["event"] for line in logs].count("settles_again") == 1


def test_trouble_whose_numbers_differ_each_time_is_told_now_and_then() -> None:
    """A file, a time or a broker in the text does not make it another one."""
    world = world_of(Story().tell(0, *_contacts(3)))
    times = [*range(70)]

    class Failing(MemoryTopics):
        async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
            if times:
                raise SourceUnavailable(f"timed out after {5000 + times.pop(0)} ms")
            return await super().settle(settlement)

    with capture_logs() as logs:
        live(world, topics=Failing(world))
    told = [line["error"] for line in logs if line["event"] == "settle_failed"]
    assert told == [f"timed out after {ms} ms" for ms in (5000, 5030, 5060)]


def test_another_trouble_is_told_at_once() -> None:
    """What it is may have changed, and with it what to do."""
    world = world_of(Story().tell(0, *_contacts(3)))

    troubles = ["brokers are away", "brokers are away", "an ACL is missing", "brokers are away"]

    class Failing(MemoryTopics):
        async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
            if troubles:
                raise SourceUnavailable(troubles.pop(0))
            return await super().settle(settlement)

    with capture_logs() as logs:
        live(world, topics=Failing(world))
    told = [line["error"] for line in logs if line["event"] == "settle_failed"]
    assert told == ["brokers are away", "an ACL is missing", "brokers are away"]


@pytest.mark.parametrize(("failures", "told"), [(1, 0), (10, 1)])
def test_it_is_told_once_that_genesys_answers_again(failures: int, told: int) -> None:
    """When it was away, and not after a single request that came to nothing."""
    world = world_of(Story().tell(0, *_contacts(50)))
    world.answer = outage(failures, SinkUnavailable("no answer"))
    with capture_logs() as logs:
        live(world)
    assert [line["event"] for line in logs].count("genesys_answers_again") == told


def test_a_hole_in_the_offsets_is_told_and_survived() -> None:
    """Offsets that do not follow on are reported once with both ends, and the records are processed."""
    world = world_of(Story().tell(0, *_contacts(2)))
    late = [replace(record, offset=record.offset + 5) for record in world.log[P0]]
    world.log[P0] = late

    async def main() -> Life:
        life = Life(world)
        running = asyncio.create_task(life.run(until_caught_up=False))
        await until(lambda: world.committed.get(P0) == 7)
        life.stop.set()
        await running
        return life

    with capture_logs() as logs:
        life = virtual_time.run(main())
    (told,) = [line for line in logs if line["event"] == "offsets_do_not_follow_on"]
    assert (told["partition"], told["expected"], told["seen"]) == (P0, 0, 5)
    assert life.telemetry.gaps == [P0]


def test_tombstones_delete() -> None:
    """A null value deletes the contact that its key names."""
    story = Story().tell(
        0, Event("contact-0", None), Event("contact-1", None), Event("contact-0", None, tombstone=True)
    )
    world = world_of(story)
    live(world)
    assert set(world.list) == {"contact-1"}
    assert world.events()[2]["operation"] == "delete"


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_bytes_that_are_no_change_event_cost_one_dead_letter_and_nothing_else(kind: str) -> None:
    """The record is rejected with its code, its bytes are in the dead letters, its neighbours are delivered."""
    value, reason = BAD_RECORDS[kind]
    world = world_of(Story().tell(0, *_contacts(1)))
    bad = Record(TOPIC, 0, 1, 0, b"contact-9", value, (("h", b"\xff"),))
    world.append([bad, Record(TOPIC, 0, 2, 0, b"contact-1", Event("contact-1", 1).value())])
    live(world)
    assert _outcomes(world) == ["delivered", "rejected", "delivered"]
    assert world.events()[1]["reasons"] == [reason]
    assert world.dead_letters == [(bad, reason)]


def test_a_record_event_names_the_trace_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks what became of a contact finds the request: that of the last one, where it took several."""

    @contextmanager
    def span(*_: object) -> Iterator[str]:
        yield f"{next(requests):032x}"

    requests = count(1)
    monkeypatch.setattr(SilentTelemetry, "batch_span", span)
    world = world_of(Story().tell(0, Event("contact-0", 1)))
    world.answer = outage(1, SinkUnavailable("no answer"))
    live(world)
    assert [event["traceId"] for event in world.events()] == [f"{2:032x}"]


def test_no_personal_data_is_in_audit_events() -> None:
    """Neither phone nor external id of any contact stands in an audit event."""
    world = world_of(
        Story().tell(0, *_contacts(5), Event("contact-7", 1, phone="+1 555 0199", reasons=("phone_not_e164",)))
    )
    live(world)
    everything = b"".join(key + value for key, value in world.audit)
    assert b"contact-" not in everything
    assert b"555" not in everything.replace(b"5555", b"")
