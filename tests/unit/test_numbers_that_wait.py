"""A withdrawal brings a number for the do-not-call list, and waits: what comes behind it does not take that away."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.errors import ConsumerError, FatalError, SinkUnavailable, Throttled, Withheld
from consumer.model import Amendment, Contact, TopicPartition
from consumer.ports import Amended, Sure, always
from tests.lives import Life, arrives, in_life, live, world_of
from tests.memory_ports import MemorySink, World
from tests.stories import TOPIC, Event, Story, partly
from tests.virtual_time import passes, until

P0 = TopicPartition(TOPIC, 0)
OLD, NEW = "+15550111", "+15550122"
DNC: dict[str, Any] = {"genesys_dnc_list": "do not call"}
WITHDRAWN = Event("c", 2, phone=OLD, consent=False)


def known() -> World:
    """Somebody was delivered, and may be called."""
    world = world_of(Story().tell(0, Event("c", 1, phone=OLD)))
    live(world, **DNC)
    return world


def backlog(world: World, *events: Event, **settings: Any) -> list[str]:
    """Events that come all at once; their outcomes."""
    before = len(world.log[P0])
    world.append(Story().tell(0, *[events[0]] * before, *events).records()[before:])
    live(world, **settings)
    return [event["outcome"] for event in world.events()[before:]]


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("withdrawal", [WITHDRAWN, partly("c", 2, consent=False)], ids=["whole", "part"])
@pytest.mark.parametrize(
    ("later", "numbers"),
    [
        (Event("c", 3, delete=True), {OLD}),
        (Event("c", 3, phone=NEW, consent=False), {OLD, NEW}),
        (Event("c", 3, phone=None, consent=False), {OLD}),
        (Event("c", 3, phone=NEW), {OLD}),
    ],
    ids=["delete", "another number", "no number", "grant"],
)
def test_the_number_is_on_the_list_whatever_comes_behind(withdrawal: Event, later: Event, numbers: set[str]) -> None:
    """In a backlog: both are told, one after the other."""
    world = known()
    assert backlog(world, withdrawal, later, **DNC) == ["delivered", "delivered"]
    assert numbers <= world.blocked
    assert ("c" in world.list) is not later.delete
    assert later.delete or world.list["c"]["phone"] == (later.phone or "")


def test_so_is_the_number_that_genesys_alone_knows() -> None:
    """With the contact it would be gone."""
    events = Event("c", 2, phone=None, consent=False), Event("c", 3, delete=True)
    assert backlog(known(), *events, **DNC) == ["delivered", "delivered"]


@pytest.mark.parametrize("later", [Event("c", 3, delete=True), Event("c", 3, phone=OLD)], ids=["delete", "grant"])
def test_so_is_the_number_of_a_rejected_record(later: Event) -> None:
    """It suppresses first, whoever comes behind."""
    world = known()
    outcomes = backlog(world, Event("c", 2, phone=NEW, do_not_call=True, reasons=(CONFLICT,)), later, **DNC)
    assert (outcomes, world.events()[-2]["operation"]) == (["rejected", "delivered"], "suppress")
    assert NEW in world.blocked


def test_a_grant_has_no_number_to_lose() -> None:
    """Another number takes its place."""
    assert backlog(known(), Event("c", 2, phone=NEW), Event("c", 3, phone=OLD), **DNC) == ["superseded", "delivered"]


def test_a_delete_has_no_number_to_lose() -> None:
    """Who comes again takes its place."""
    assert backlog(known(), Event("c", 2, delete=True), Event("c", 3), **DNC) == ["superseded", "delivered"]


@pytest.mark.parametrize("later", [{}, {"consent": False, "do_not_call": True}], ids=["grant", "withdrawal"])
def test_who_brings_the_same_number_takes_the_place(later: dict[str, Any]) -> None:
    """The last write wins: a withdrawal takes it to the list, and a grant needs it not to be there."""
    world = known()
    assert backlog(world, WITHDRAWN, Event("c", 3, phone=OLD, **later), **DNC) == ["superseded", "delivered"]
    assert world.blocked == ({OLD} if later else set())


def test_without_a_list_the_last_write_wins() -> None:
    """There is no number to lose."""
    world = known()
    outcomes = backlog(world, WITHDRAWN, Event("c", 3, phone=NEW, consent=False), Event("c", 4, delete=True))
    assert outcomes == ["superseded", "superseded", "delivered"]


def test_a_delete_behind_goes_ahead_of_what_withdraws_nothing() -> None:
    """In the next request, before a long backlog of others."""
    world = known()
    world.poll_records, before = 500, len(world.requested)
    others = [Event(f"other-{n}", 1) for n in range(300)]
    backlog(world, *others, WITHDRAWN, Event("c", 3, delete=True), **DNC, genesys_max_in_flight=1)
    first, second, *_ = [n for n, names in enumerate(world.requested[before:]) if "c" in names]
    assert second == first + 1 < 3


class _Away(MemorySink):
    """The do-not-call list takes no numbers; who needs it is not callable."""

    cause: ConsumerError | None = SinkUnavailable("the list is away")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._held = world.list

    async def upsert(
        self, contacts: Any, sure: Any = None, withdrawn: Any = (), *more: Any, asks: bool = True, **named: Any
    ) -> Collection[str]:
        cause = self.cause if asks else SinkUnavailable("others wait for it")
        if cause is None or not withdrawn:
            return await super().upsert(contacts, sure, withdrawn, *more, **named)
        for each in withdrawn:
            self._held[each.external_id]["callable"] = False
        raise Withheld(cause, {each.external_id for each in withdrawn}, asked=asks)


@pytest.mark.parametrize("cause", [SinkUnavailable("away"), FatalError("no permission")], ids=["now", "for good"])
def test_a_delete_waits_with_a_withdrawal_for_the_list(cause: ConsumerError) -> None:
    """Nobody is callable meanwhile, others go on, and once the list takes numbers the contact is gone."""
    world = known()
    story = Story().tell(0, Event("c", 1, phone=OLD), WITHDRAWN)
    sink = _Away(world)
    sink.cause = cause

    async def act(life: Life) -> None:
        arrives(world, life, story)
        await until(lambda: world.list["c"]["callable"] is False)
        arrives(world, life, story.tell(0, Event("c", 3, delete=True), Event("other", 1)))
        await until(lambda: "other" in world.list)
        await passes(600)
        assert "c" in world.list
        sink.cause = None
        await until(lambda: world.committed == {P0: 4})

    in_life(world, act, sink=sink, **DNC)
    assert (world.blocked, "c" in world.list) == ({OLD}, False)


class _SlowlyAway(_Away):
    """What it says takes a second."""

    async def upsert(self, *told: Any, **named: Any) -> Collection[str]:
        await passes(1)
        return await super().upsert(*told, **named)


def test_a_grant_beside_those_who_wait_gives_its_place_to_a_withdrawal_that_came_meanwhile() -> None:
    """It is sent again without them: nothing goes out as callable by then."""
    story = Story().tell(0, Event("c", 1, phone=OLD), Event("other", 1))
    world = world_of(story)
    live(world, **DNC)
    story.tell(0, WITHDRAWN, Event("other", 2, phone=NEW))
    sink, seen = _SlowlyAway(world), list[bool]()
    world.on_upsert = lambda bodies: seen.extend(body["callable"] for body in bodies if body["externalId"] == "other")

    async def act(life: Life) -> None:
        arrives(world, life, story)
        await until(lambda: life.pipeline.gate.in_flight == 1)
        arrives(world, life, story.tell(0, Event("other", 3, phone=NEW, consent=False)))
        await passes(600)
        sink.cause = None
        await until(lambda: world.committed == {P0: 5})

    in_life(world, act, sink=sink, **DNC)
    assert seen == [False]


def test_a_run_that_is_to_end_does_not_wait_for_them() -> None:
    """Where the list refuses for good it ends, and both come again with the next start."""
    world = known()
    sink = _Away(world)
    sink.cause = FatalError("no permission")
    world.append(Story().tell(0, WITHDRAWN, WITHDRAWN, Event("c", 3, delete=True)).records()[1:])
    with pytest.raises(FatalError, match="no permission"):
        live(world, sink=sink, **DNC)
    assert (world.committed, world.list["c"]["callable"]) == ({P0: 1}, False)
    live(world, **DNC)
    assert (world.committed, world.blocked, world.list) == ({P0: 3}, {OLD}, {})


@pytest.mark.parametrize("cause", [SinkUnavailable("503"), Throttled("busy", 1.0)], ids=["unanswered", "busy"])
def test_a_withdrawal_that_came_to_nothing_gives_its_place_to_a_delete(cause: ConsumerError) -> None:
    """Upserts alone may come to nothing, and the contact is callable meanwhile: that is worse than a missing number."""
    world = known()
    story = Story().tell(0, Event("c", 1, phone=OLD), WITHDRAWN)

    def fail(_: object) -> None:
        raise cause

    async def act(life: Life) -> None:
        world.on_upsert = fail
        arrives(world, life, story)
        await passes(5)
        arrives(world, life, story.tell(0, Event("c", 3, delete=True)))
        await passes(40)
        assert "c" not in world.list

    in_life(world, act, **DNC)


@pytest.mark.usefixtures("partial_events")
def test_a_withdrawal_of_who_is_not_shown_gives_its_place_to_a_delete() -> None:
    """Reads lag, and the contact is callable meanwhile."""
    world = known()
    story = Story().tell(0, Event("c", 1, phone=OLD), partly("c", 2, consent=False))
    world.unseen = {"c"}

    async def act(life: Life) -> None:
        arrives(world, life, story)
        await passes(2)
        arrives(world, life, story.tell(0, Event("c", 3, delete=True)))
        await passes(2)
        assert "c" not in world.list

    in_life(world, act, **DNC)


def test_a_withdrawal_that_is_to_be_told_once_more_gives_its_place_to_a_delete() -> None:
    """Its number is on the list."""
    world = known()
    story = Story().tell(0, Event("c", 1, phone=OLD), Event("c", 2, phone=NEW))

    def fail(_: object) -> None:
        raise SinkUnavailable("no answer in time")

    async def act(life: Life) -> None:
        world.on_upsert = fail
        arrives(world, life, story)
        await until(lambda: life.telemetry.retries["unavailable"] == 1)
        world.on_upsert = lambda _: None
        arrives(world, life, story.tell(0, Event("c", 3, phone=NEW, consent=False)))
        await until(lambda: NEW in world.blocked)
        await passes(2)
        arrives(world, life, story.tell(0, Event("c", 4, delete=True)))
        await passes(2)
        assert "c" not in world.list

    in_life(world, act, **DNC)


CONFLICT = "consent_conflicts_with_do_not_call"
UNREADABLE: dict[str, Any] = {"consent": None, "reasons": ("consent_not_boolean",)}


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    ("withdrawal", "settings", "by_hand"),
    [
        (Event("c", 2, phone=None, consent=False), DNC, True),
        (Event("c", 2, phone="bad", consent=False, reasons=("phone_not_e164",)), DNC, True),
        (partly("c", 2, consent=False), DNC, True),
        (WITHDRAWN, DNC, False),
        (Event("c", 2, **UNREADABLE), DNC, False),
        (Event("c", 2, phone=None, consent=False), {}, False),
    ],
    ids=["no number", "rejected", "part", "number", "precaution", "no list"],
)
def test_who_is_deleted_before_genesys_told_his_number_is_for_somebody_to_put_on_the_list(
    withdrawal: Event, settings: dict[str, Any], by_hand: bool
) -> None:
    """Nobody else knows it by then but the CRM."""
    world = known()
    story = Story().tell(0, Event("c", 1, phone=OLD), withdrawal)
    world.unanswered = {"c"}

    async def act(life: Life) -> None:
        arrives(world, life, story)
        for n in range(40):
            arrives(world, life, story.tell(0, Event(f"other-{n}", 1)))
            await passes(2)
        assert "c" not in world.list
        assert life.telemetry.refused_withdrawals == {"contact": 1}

    with capture_logs() as logs:
        in_life(world, act, **settings)
    (refused,) = [line for line in logs if line["event"] == "withdrawal_refused"]
    assert ("put it there by hand" in refused["remedy"]) is by_hand


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    ("withdrawal", "outcome", "reasons"),
    [
        (WITHDRAWN, "delivered", []),
        (Event("c", 2, phone=OLD, do_not_call=True, reasons=(CONFLICT,)), "rejected", [CONFLICT]),
        (partly("c", 2, consent=False), "delivered", []),
    ],
    ids=["whole", "rejected", "part"],
)
def test_whose_number_the_list_refuses_is_told(withdrawal: Event, outcome: str, reasons: list[str]) -> None:
    """By the position of his record in the log, once, and by Genesys' code in its audit event; he is not callable."""
    world = known()
    world.refused_numbers = {OLD}
    story = Story().tell(0, Event("c", 1, phone=OLD), withdrawal, Event("other", 1, phone=NEW, consent=False))

    async def act(life: Life) -> None:
        world.answer_lost = True
        arrives(world, life, story)
        await until(lambda: life.telemetry.retries["unavailable"] == 2)
        world.answer_lost = False
        await until(lambda: world.committed == {P0: 3})
        assert life.telemetry.refused_withdrawals == {"number": 1}

    with capture_logs() as logs:
        in_life(world, act, **DNC)
    assert (world.list["c"]["callable"], world.blocked) == (False, {NEW})
    told = [(each["outcome"], each["reasons"]) for each in world.events()]
    assert told[-2:] == [(outcome, [*reasons, "genesys:invalid.value"]), ("delivered", [])]
    (line,) = [line for line in logs if line["event"] == "number_refused"]
    assert (line["code"], line["record"]) == ("invalid.value", f"{TOPIC}/0/1")


def test_so_is_that_of_who_withdraws_by_his_first_change() -> None:
    """Nothing is known of him before."""
    world = world_of(Story().tell(0, WITHDRAWN))
    world.refused_numbers = {OLD}
    life = live(world, **DNC)
    assert life.telemetry.refused_withdrawals == {"number": 1}
    assert [each["reasons"] for each in world.events()] == [["genesys:invalid.value"]]


def test_a_refused_number_alarms_once() -> None:
    """Whoever put it on the list by hand can do no more, and it is asked for with each later change of that person."""
    world = known()
    world.refused_numbers = {OLD}
    story = Story().tell(0, Event("c", 1, phone=OLD), WITHDRAWN)

    async def act(life: Life) -> None:
        arrives(world, life, story)
        await until(lambda: world.committed == {P0: 2})
        arrives(world, life, story.tell(0, Event("c", 3, phone=OLD, consent=False, do_not_call=True)))
        await until(lambda: world.committed == {P0: 3})
        assert life.telemetry.refused_withdrawals == {"number": 1}

    in_life(world, act, **DNC)
    assert [each["reasons"] for each in world.events()][-2:] == [["genesys:invalid.value"]] * 2


class _TakesNoNumbers(MemorySink):
    """One without its do-not-call list: of a request with somebody who is not callable then, no more is done."""

    async def amend(
        self, amendments: Sequence[Amendment], sure: Sure = always, *told: Any, **named: Any
    ) -> Mapping[str, Amended]:
        waiting = {each.external_id for each in amendments if not each.onto(self._shown(each)).callable}
        if waiting:
            async with self._request("held", sorted(waiting), sure):
                raise Withheld(SinkUnavailable("away"), waiting, asked=named["asks"])
        return await super().amend(amendments, sure, *told, **named)

    def _shown(self, amendment: Amendment) -> Contact:
        held = self._world.list[amendment.external_id]
        return Contact(**{name: value for name, value in held.items() if name != "callable"})  # type: ignore[arg-type]


@pytest.mark.usefixtures("partial_events")
def test_a_partial_grant_does_not_go_with_one_after_the_other_of_those_who_need_the_list() -> None:
    """Which of them do shows only when they are read: those who may not be called, whatever else is told of them."""
    people = [f"contact-{n}" for n in range(100)]
    story = Story().tell(0, *(Event(each, 1, consent=False) for each in people)).tell(1, Event("c", 1, consent=False))
    world = world_of(story)
    live(world, **DNC)
    world.latency = 0.3

    async def act(life: Life) -> None:
        for n, each in enumerate(people):
            if n == 20:
                story.tell(1, partly("c", 2, consent=True))
            arrives(world, life, story.tell(0, partly(each, 2, phone=NEW)))
            await passes(0.2)
            assert n < 40 or world.list["c"]["callable"]

    in_life(world, act, sink=_TakesNoNumbers(world), **DNC)
