"""Events that tell only what changed, from the record to the contact in Genesys."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.core import fingerprints, state_bytes
from consumer.core.contact_id import contact_id
from consumer.core.reconcile import Standing, standing
from consumer.errors import SinkUnavailable, TooLarge
from consumer.model import ExportedContact, TopicPartition
from consumer.pipeline.often import AT_ONCE
from tests.checker import check_without_outcomes
from tests.lives import Life, in_life, live, survive, world_of
from tests.memory_ports import MemorySink, World, outage
from tests.stories import TOPIC, Event, Story, partly
from tests.virtual_time import passes, until

pytestmark = pytest.mark.usefixtures("partial_events")

P0 = TopicPartition(TOPIC, 0)
CONFLICT = ("consent_conflicts_with_do_not_call",)
SUPPRESSING = {"phone": "bad", "do_not_call": True, "reasons": ("phone_not_e164",)}
OLD, NEW = "+15550100", "+15550199"


def one_after_the_other(*events: Event) -> World:
    """Each event is settled before the next one comes."""
    world = World()
    for record in Story().tell(0, *events).records():
        world.append([record])
        live(world)
    return world


def outcomes(world: World) -> list[Any]:
    """Outcomes in the order of the audit topic."""
    return [event["outcome"] for event in world.events()]


def arrives(world: World, life: Life, story: Story) -> None:
    """Put on the topic what the story tells beyond what is there."""
    world.append(story.records()[len(world.log[P0]) :])
    life.source.wake()


def next_comes(world: World, event: Event) -> World:
    """One more event on the topic."""
    offset = len(world.log.get(P0, ()))
    story = Story().tell(0, *[event] * (offset + 1))
    world.append(story.records()[offset:])
    live(world)
    return world


# -- what is sent


def test_what_changed_is_merged_with_what_genesys_has() -> None:
    """The other fields stay; to the outside it is an upsert like any other."""
    world = one_after_the_other(Event("c", 1, phone=OLD), partly("c", 2, phone=NEW))
    assert (world.list["c"]["phone"], world.list["c"]["consent"], world.list["c"]["callable"]) == (NEW, True, True)
    assert outcomes(world) == ["delivered", "delivered"]
    assert world.events()[-1]["operation"] == "upsert"


def test_what_genesys_has_already_is_not_sent() -> None:
    """It is a duplicate; its version counts all the same."""
    world = one_after_the_other(
        Event("c", 1, phone=OLD), partly("c", 3, phone=OLD), Event("c", 2, phone=NEW), Event("c", 4, phone=NEW)
    )
    assert outcomes(world) == ["delivered", "duplicate", "stale", "delivered"]
    assert world.events()[1]["operation"] is None


def test_a_whole_event_that_says_what_was_merged_is_a_duplicate() -> None:
    """The store remembers the merged content."""
    world = one_after_the_other(Event("c", 1, phone=OLD), partly("c", 2, phone=NEW), Event("c", 3, phone=NEW))
    assert outcomes(world) == ["delivered", "delivered", "duplicate"]


def test_an_event_about_other_fields_alone_costs_no_request() -> None:
    """Most updates of a CRM change nothing that the list has; what is older and whole is not made stale by them."""
    world = one_after_the_other(Event("c", 1), partly("c", 3), Event("c", 2, phone=NEW))
    assert outcomes(world) == ["delivered", "duplicate", "delivered"]
    assert [effect for effect, _ in world.sent] == ["upsert", "upsert"]


def test_fifty_contacts_are_read_and_sent_together() -> None:
    """Parts of contacts wait for each other as whole ones do, up to what Genesys lets be read at once."""
    story = Story().tell(0, *(Event(f"c-{n}", 1) for n in range(120)))
    world = world_of(story)
    live(world)
    world.append(story.tell(0, *(partly(f"c-{n}", 2, phone=NEW) for n in range(120))).records()[120:])
    world.sent.clear()
    live(world)
    assert [(effect, len(names)) for effect, names in world.sent] == [("amend", 50), ("amend", 50), ("amend", 20)]
    assert {contact["phone"] for contact in world.list.values()} == {NEW}


# -- withdrawals


@pytest.mark.parametrize("said", [{"consent": False}, {"do_not_call": True}], ids=str)
def test_a_part_that_withdraws_goes_first_and_is_sent_in_any_case(said: dict[str, bool]) -> None:
    """Ahead of what came before it, without linger, and also where Genesys seems to have it: reads may lag."""
    story = Story().tell(0, Event("c", 1))
    world = world_of(story)
    live(world)
    world.append(story.tell(0, *(Event(f"n-{n}", 1) for n in range(150)), partly("c", 2, **said)).records()[1:])
    world.sent.clear()
    live(world, genesys_max_in_flight=1, read_ahead_records=1000)
    assert ("amend", ("c",)) in world.sent[:2]
    assert world.list["c"]["callable"] is False
    assert world.blocked == {OLD}
    world.append(story.tell(0, partly("c", 3, **said)).records()[152:])
    live(world)
    assert outcomes(world)[-1] == "delivered"


def test_before_a_part_that_withdraws_nothing_goes_out_as_callable() -> None:
    """Neither the whole contact nor the part that waits ahead of it, and the contact stays so to the end."""
    story = Story().tell(0, Event("c", 1, consent=False))
    world = world_of(story)
    live(world)
    story.tell(0, partly("c", 2, consent=True), partly("c", 3, do_not_call=True))
    story.tell(0, Event("d", 1), partly("d", 2, consent=False))
    world.append(story.records()[1:])
    seen: list[object] = []
    world.answer = lambda: seen.extend(body["callable"] for body in world.list.values())
    live(world)
    check_without_outcomes(world, story, set())
    assert True not in seen
    assert (world.list["c"]["consent"], world.list["c"]["do_not_call"]) == (True, True)


def test_before_a_part_that_withdraws_nothing_a_grant_goes_out_as_it_is() -> None:
    """Nor ahead of others."""
    world = world_of(Story().tell(0, Event("d", 1), Event("c", 1), partly("c", 2, phone=NEW)))
    seen: list[tuple[str, bool]] = []
    world.on_upsert = lambda bodies: seen.extend((body["externalId"], body["callable"]) for body in bodies)
    live(world)
    assert (seen, world.list["c"]["phone"]) == ([("d", True), ("c", True)], NEW)


@pytest.mark.parametrize(
    ("before", "part", "callable_"),
    [
        ({"consent": False}, {"consent": True}, True),
        ({"do_not_call": True, "consent": False}, {"consent": True}, False),
        ({"consent": False}, {"do_not_call": False}, False),
        ({"consent": False}, {"phone": NEW}, False),
    ],
    ids=str,
)
def test_a_contact_is_callable_with_consent_and_without_do_not_call(
    before: dict[str, Any], part: dict[str, Any], *, callable_: bool
) -> None:
    """Both of the merged contact: what an event does not carry holds on, and do-not-call wins."""
    world = one_after_the_other(Event("c", 1, **before), partly("c", 2, **part))
    assert world.list["c"]["callable"] is callable_
    assert outcomes(world)[-1] in {"delivered", "duplicate"}


def test_a_part_that_our_rules_reject_suppresses_if_it_withdraws() -> None:
    """A bad number beside a withdrawn consent: rejected, and nobody calls."""
    bad = partly("c", 2, phone="bad", consent=False, reasons=("phone_not_e164",))
    world = one_after_the_other(Event("c", 1), bad)
    assert outcomes(world) == ["delivered", "rejected"]
    assert (world.list["c"]["callable"], world.list["c"]["phone"]) == (False, OLD)


@pytest.mark.parametrize(
    "parts",
    [
        [{"phone": NEW}],
        [{"consent": True}],
        [{"do_not_call": False}, {"phone": NEW}],
        [SUPPRESSING, {"do_not_call": False}],
    ],
    ids=str,
)
def test_a_part_does_not_end_a_precaution(parts: Sequence[dict[str, Any]]) -> None:
    """A record that nobody could decode may have withdrawn: a part that does not tell both flags proves nothing."""
    undecodable = Event("c", 2, garbage=b"\1x", reasons=("not_decodable",))
    story = Story().tell(0, Event("c", 1), undecodable, *(partly("c", 3 + n, **part) for n, part in enumerate(parts)))
    story.tell(0, partly("c", 8, consent=True, do_not_call=False))
    world = World()
    callable_ = []
    for record in story.records():
        world.append([record])
        live(world, suppress_undecodable="true")
        callable_.append(world.list["c"]["callable"])
    assert callable_ == [True, *[False] * (len(parts) + 1), True]


@pytest.mark.parametrize("part", [{"consent": True}, {"do_not_call": False}, {"phone": NEW}], ids=str)
def test_a_part_does_not_end_a_gap(part: dict[str, Any]) -> None:
    """What was missed may have been either flag: only who tells both says who may be called."""
    gap = Event("c", 2, delete=True, occurred_at=-1, reasons=("resync_needed",))
    world = one_after_the_other(Event("c", 1), gap)
    assert outcomes(world)[-1] == "rejected"
    next_comes(world, partly("c", 3, **part))
    assert world.list["c"]["callable"] is False
    next_comes(world, partly("c", 4, consent=True, do_not_call=False))
    assert world.list["c"]["callable"] is True


def test_a_part_that_withdraws_and_is_refused_is_carried_out_as_a_delete() -> None:
    """As with whole contacts."""
    world = one_after_the_other(Event("c", 1))
    world.poison = {"c"}
    world.append(Story().tell(0, Event("c", 1), partly("c", 2, consent=False)).records()[1:])
    live(world)
    assert (world.list, outcomes(world)[-1], world.events()[-1]["operation"]) == ({}, "delivered", "delete")


# -- the order of changes


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Event("c", 3), partly("c", 2, phone=NEW)], "stale"),
        ([Event("c", 3), partly("c", 2, consent=False)], "stale"),
        ([Event("c", 3, consent=False), partly("c", 2, consent=True)], "stale"),
        ([Event("c", 3, consent=False), partly("c", None, consent=True)], "stale"),
        ([Event("c", 3), partly("c", None, consent=False)], "delivered"),
        ([Event("c", 1), partly("c", 3, phone=NEW), Event("c", 2, phone=OLD)], "stale"),
        ([Event("c", None), partly("c", None, phone=NEW)], "delivered"),
    ],
    ids=str,
)
def test_parts_keep_to_the_order_of_versions(events: Sequence[Event], expected: str) -> None:
    """What is older is stale; where the order cannot be told a withdrawal applies and a grant needs the later time."""
    assert outcomes(one_after_the_other(*events))[-1] == expected


def test_a_grant_of_unknown_order_needs_the_later_time() -> None:
    """Then it applies."""
    later = partly("c", None, consent=True, occurred_at=1_700_000_000_001)
    world = one_after_the_other(Event("c", 3, consent=False), later)
    assert (outcomes(world)[-1], world.list["c"]["callable"]) == ("delivered", True)


def test_a_part_never_takes_the_place_of_what_is_not_sent() -> None:
    """Whole, part, part, in one batch: nothing of them is lost."""
    story = Story().tell(0, Event("c", 1, consent=False), partly("c", 2, phone=NEW), partly("c", 3, consent=True))
    world = world_of(story)
    live(world)
    check_without_outcomes(world, story, set())
    assert (world.list["c"]["phone"], world.list["c"]["callable"]) == (NEW, True)


def test_a_whole_contact_takes_the_place_of_a_part_that_is_not_sent() -> None:
    """It says all that the part said, and more."""
    world = one_after_the_other(Event("c", 1))
    story = Story().tell(0, Event("c", 1), partly("c", 2, consent=False), Event("c", 3, phone=NEW))
    world.append(story.records()[1:])
    live(world)
    check_without_outcomes(world, story, set())
    assert outcomes(world) == ["delivered", "superseded", "delivered"]


def test_parts_survive_every_crash() -> None:
    """Killed before and after every call of a port: the list is the model's, each offset has one audit event."""
    story = Story().tell(0, Event("c", 1), partly("c", 2, phone=NEW), partly("c", 3, consent=False))
    story.tell(0, Event("d", 1, consent=False), partly("d", 2, consent=True), Event("d", 3, delete=True))
    story.tell(0, partly("d", 4, phone=NEW), partly("c", 4, consent=True), partly("c", 3, phone="+15550111"))
    for after_effect in (False, True):
        step = 1
        while _dies_and_lives_on(story, step, after_effect=after_effect):
            step += 1
        assert step > 10


def _dies_and_lives_on(story: Story, step: int, *, after_effect: bool) -> bool:
    world = world_of(story)
    died = survive(world, step, after_effect=after_effect, settle_interval_ms=1, batch_linger_ms=1)
    assert not survive(world, None, after_effect=False)
    check_without_outcomes(world, story, set())
    return died


def test_a_part_whose_answer_was_lost_is_applied_again() -> None:
    """Nobody can tell whether it was; the second time changes nothing."""
    story = Story().tell(0, Event("c", 1))
    world = world_of(story)
    live(world)

    async def act(life: Life) -> None:
        world.answer_lost = True
        arrives(world, life, story.tell(0, partly("c", 2, phone=NEW)))
        await until(lambda: life.telemetry.retries["unavailable"] > 0)
        world.answer_lost = False
        await until(lambda: world.committed[P0] == 2)

    in_life(world, act)
    check_without_outcomes(world, story, set())
    assert world.list["c"]["phone"] == NEW


@pytest.mark.parametrize(
    ("before", "granted"),
    [({"consent": False}, {"consent": True}), ({"consent": False, "do_not_call": True}, {"do_not_call": False})],
    ids=str,
)
def test_a_granting_part_whose_answer_was_lost_is_known_by_what_it_made(
    before: dict[str, Any], granted: dict[str, Any]
) -> None:
    """Genesys shows what was delivered last but for the flag that it told: that is no read that lags, to wait for."""
    story = Story().tell(0, Event("c", 1, **before))
    world = world_of(story)
    live(world)
    after: list[int] = []

    async def act(life: Life) -> None:
        world.answer_lost = True
        arrives(world, life, story.tell(0, partly("c", 2, **granted)))
        await until(lambda: life.telemetry.retries["unavailable"] > 0)
        world.answer_lost = False
        after.append(len(world.sent))
        await until(lambda: world.committed[P0] == 2)

    in_life(world, act)
    check_without_outcomes(world, story, set())
    assert [effect for effect, _ in world.sent[after[0] :]] == ["amend"]


# -- reads that lag


@pytest.mark.parametrize("withdrawal", [{"consent": False}, {"do_not_call": True, "reasons": CONFLICT}], ids=str)
def test_a_read_that_lags_does_not_undo_a_withdrawal(withdrawal: dict[str, Any]) -> None:
    """What is shown is not what was delivered last: it is looked for again, and never sent as it was before."""
    world = one_after_the_other(Event("c", 1))
    before = dict(world.list["c"])
    story = Story().tell(0, Event("c", 1), Event("c", 2, **withdrawal))
    world.append(story.records()[1:])
    live(world)
    world.append(story.tell(0, partly("c", 3, phone=NEW)).records()[2:])
    world.lagging = {"c": before}
    seen = _callable_while_reads_lag(world)
    check_without_outcomes(world, story, set())
    assert (seen, world.list["c"]["callable"], world.list["c"]["phone"]) == (False, False, NEW)


def _callable_while_reads_lag(world: World) -> bool:
    """Whether the contact is callable behind an amendment whose read lags; then reads do so no more."""
    seen: list[bool] = []

    async def act(_: Life) -> None:
        await until(lambda: world.sent[-1] == ("amend", ("c",)))
        await passes(5)
        seen.append(world.list["c"]["callable"] is True)
        world.lagging = {}
        await until(lambda: world.committed == {P0: 3})

    in_life(world, act)
    return seen[0]


@pytest.mark.parametrize(
    ("granted", "shown"), [({"consent": True}, (True, True)), ({"do_not_call": False}, (False, False))]
)
def test_a_read_that_lags_does_not_undo_a_withdrawal_by_the_flag_that_is_not_granted(
    granted: dict[str, Any], shown: tuple[bool, bool]
) -> None:
    """What is shown has the granted flag as it is to be, as it was before both were withdrawn: no answer was lost."""
    world = one_after_the_other(Event("c", 1))
    before = dict(world.list["c"])
    story = Story().tell(0, Event("c", 1), Event("c", 2, consent=False, do_not_call=True))
    world.append(story.records()[1:])
    live(world)
    world.append(story.tell(0, partly("c", 3, **granted)).records()[2:])
    world.lagging = {"c": before}
    seen = _callable_while_reads_lag(world)
    assert not seen
    assert not world.list["c"]["callable"]
    assert (world.list["c"]["consent"], world.list["c"]["do_not_call"]) == shown


def test_what_somebody_changed_in_genesys_is_taken_in_the_end() -> None:
    """It is looked at three times, since nobody can tell it from a read that lags; then it is amended as it is."""
    world = one_after_the_other(Event("c", 1))
    world.list["c"]["email"] = "changed@example.com"
    next_comes(world, partly("c", 2, phone=NEW))
    assert (world.list["c"]["email"], world.list["c"]["phone"]) == ("changed@example.com", NEW)
    assert [effect for effect, _ in world.sent] == ["upsert", "amend", "amend", "amend"]


def test_a_withdrawal_does_not_wait_for_a_read_that_lags() -> None:
    """Whatever is shown: afterwards nobody calls."""
    world = one_after_the_other(Event("c", 1))
    world.lagging = {"c": world.list["c"] | {"phone": "+15550133"}}
    next_comes(world, partly("c", 2, consent=False))
    assert (world.list["c"]["callable"], len(world.sent)) == (False, 2)


@pytest.mark.parametrize("second", [{"consent": False}, SUPPRESSING | {"consent": False, "do_not_call": None}])
def test_of_two_withdrawals_none_is_lost_to_a_read_that_lags(second: dict[str, Any]) -> None:
    """The second does not wait until the first is shown: from then on only who tells both flags lets anybody call."""
    world = one_after_the_other(Event("c", 1))
    before = dict(world.list["c"])
    next_comes(world, partly("c", 2, do_not_call=True))
    world.lagging = {"c": before}
    next_comes(world, partly("c", 3, **second))
    world.lagging = {}
    assert world.list["c"]["callable"] is False
    next_comes(world, partly("c", 4, consent=True))
    assert world.list["c"]["callable"] is False
    next_comes(world, partly("c", 5, consent=True, do_not_call=False))
    assert world.list["c"]["callable"] is True


@pytest.mark.parametrize("is_under_way", [False, True], ids=["kept back", "under way"])
def test_a_withdrawal_does_not_wait_behind_a_part_that_is_looked_at_again(*, is_under_way: bool) -> None:
    """The part goes ahead of it as not callable, whatever is shown."""
    world = one_after_the_other(Event("c", 1))
    world.list["c"]["email"] = "changed@example.com"
    story = Story().tell(0, Event("c", 1), partly("c", 2, phone=NEW))
    world.append(story.records()[1:])
    world.latency = 0.5

    async def act(life: Life) -> None:
        await until(lambda: (world.requested if is_under_way else world.sent)[1:] != [])
        arrives(world, life, story.tell(0, partly("c", 3, consent=False)))
        await passes(4)
        assert world.committed == {P0: 3}

    in_life(world, act)
    assert (world.list["c"]["callable"], world.list["c"]["phone"]) == (False, NEW)


# -- contacts that are not there


UNKNOWN: list[tuple[str, Callable[[], World]]] = [
    ("never delivered", World),
    ("deleted", lambda: one_after_the_other(Event("c", 1), Event("c", 2, delete=True))),
]


@pytest.mark.parametrize("made", [made for _, made in UNKNOWN], ids=[name for name, _ in UNKNOWN])
def test_a_part_cannot_make_a_contact(made: Callable[[], World]) -> None:
    """It is dead-lettered, with what to do; nothing is remembered of it, so the whole contact is delivered."""
    world = next_comes(made(), partly("c", 5, consent=True))
    assert (outcomes(world)[-1], world.list) == ("undeliverable", {})
    assert world.events()[-1]["reasons"] == ["genesys:contact.not.found"]
    assert world.dead_letters[-1][1] == "genesys:contact.not.found"
    next_comes(world, Event("c", 5))
    assert (outcomes(world)[-1], world.list["c"]["callable"]) == ("delivered", True)


@pytest.mark.parametrize("made", [made for _, made in UNKNOWN], ids=[name for name, _ in UNKNOWN])
def test_a_withdrawal_from_a_contact_that_is_not_there_is_noted(made: Callable[[], World]) -> None:
    """Nobody can call it; no older grant comes after it, and no dead letter is written."""
    world = next_comes(made(), partly("c", 5, consent=False))
    assert (outcomes(world)[-1], world.events()[-1]["operation"]) == ("delivered", None)
    next_comes(world, Event("c", 4))
    assert (outcomes(world)[-1], world.list, world.dead_letters) == ("stale", {}, [])


def test_so_is_one_from_a_contact_that_somebody_took_out_of_the_list() -> None:
    """Nothing was done to it, and the audit says so."""
    world = one_after_the_other(Event("c", 1))
    del world.list["c"]
    next_comes(world, partly("c", 2, consent=False))
    assert (outcomes(world)[-1], world.events()[-1]["operation"]) == ("delivered", None)
    next_comes(world, Event("c", 1, phone=NEW))
    assert (outcomes(world)[-1], world.list) == ("stale", {})


def test_a_part_looks_three_times_for_a_contact_that_was_never_delivered() -> None:
    """An import may have made it, or Genesys does not show yet what it accepted."""
    world = World()
    world.list["c"] = {
        "external_id": "c",
        "phone": OLD,
        "email": "",
        "consent": True,
        "do_not_call": False,
        "attributes": {},
        "callable": True,
    }
    world.unseen = {"c"}
    world.append(Story().tell(0, partly("c", 2, phone=NEW)).records())

    async def act(_: Life) -> None:
        await until(lambda: len(world.sent) == 2)
        assert world.committed == {}
        world.unseen = set()
        await until(lambda: world.committed == {P0: 1})

    with capture_logs() as logs:
        in_life(world, act)
    assert world.list["c"]["phone"] == NEW
    assert [entry["event"] for entry in logs].count("contact_not_shown") == 2
    assert "contact_unknown" not in [entry["event"] for entry in logs]


def test_contacts_that_are_not_shown_do_not_fill_the_log() -> None:
    """Where reads lag it is each of a first fill; they are looked for all the same, and their number is told."""
    story = Story().tell(0, *[partly(f"c-{n}", 1, phone=NEW) for n in range(50)])
    world = world_of(story)
    with capture_logs() as logs:
        live(world)
    told = [entry for entry in logs if entry["event"] == "contact_not_shown"]
    assert len(told) + sum(entry.get("left_out", 0) for entry in told) < 2 * 50
    assert len(told) == AT_ONCE
    assert outcomes(world) == ["undeliverable"] * 50


def test_a_deleted_contact_is_not_looked_for() -> None:
    """What Genesys still shows of it must not bring the person back."""
    world = one_after_the_other(Event("c", 1), Event("c", 2, delete=True))
    world.sent.clear()
    next_comes(world, partly("c", 3, consent=True))
    assert world.sent == []


def test_a_whole_contact_takes_the_place_of_a_part_that_is_looked_for() -> None:
    """It does not wait for what cannot be delivered anyway."""
    story = Story().tell(0, partly("c", 1, phone=NEW))
    world = world_of(story)

    async def act(life: Life) -> None:
        await until(lambda: len(world.sent) == 1)
        arrives(world, life, story.tell(0, Event("c", 2)))
        await passes(3)
        assert outcomes(world) == ["superseded", "delivered"]
        await passes(60)

    in_life(world, act)
    assert [effect for effect, _ in world.sent] == ["amend", "upsert"]


# -- refusals


def test_a_refused_part_is_undeliverable_and_its_neighbours_are_not() -> None:
    """The batch is searched for who is to blame, as with whole contacts."""
    story = Story().tell(0, *(Event(f"c-{n}", 1) for n in range(20)))
    world = world_of(story)
    live(world)
    world.poison = {"c-7"}
    world.append(story.tell(0, *(partly(f"c-{n}", 2, phone=NEW) for n in range(20))).records()[20:])
    live(world)
    assert [event["outcome"] for event in world.events()].count("undeliverable") == 1
    assert sum(contact["phone"] == NEW for contact in world.list.values()) == 19
    assert world.events()[27]["operation"] == "upsert"


def test_parts_that_make_too_large_a_request_are_sent_in_halves() -> None:
    """How many bytes the merged contacts have shows only when they are sent; whole contacts keep their batches."""
    story = Story().tell(0, *(Event(f"c-{n}", 1) for n in range(40)))
    world = world_of(story)
    live(world)
    world.sent.clear()
    world.append(story.tell(0, *(partly(f"c-{n}", 2, phone=NEW) for n in range(40))).records()[40:])

    def answer() -> None:
        if len(world.requested[-1]) > 20:
            raise TooLarge(512_000)

    world.answer = answer
    life = live(world)
    assert [len(names) for _, names in world.sent] == [20, 20]
    assert life.pipeline.lanes._max_bytes == 500_000


def test_an_outage_between_parts_loses_nothing() -> None:
    """They are queued again, and what arrives meanwhile waits behind them."""
    story = Story().tell(0, Event("c", 1))
    world = world_of(story)
    live(world)
    story.tell(0, *(partly("c", n, phone=f"+1555020{n}") for n in range(2, 9)), partly("c", 9, consent=False))
    world.append(story.records()[1:])
    world.answer = outage(5, SinkUnavailable("down"))
    live(world)
    check_without_outcomes(world, story, set())
    assert (world.list["c"]["phone"], world.list["c"]["callable"]) == ("+15550208", False)


# -- who withdrew stays withdrawn


@pytest.mark.parametrize(
    ("first", "second", "grant"),
    [
        ({"consent": False}, {"do_not_call": True}, {"consent": True}),
        ({"do_not_call": True}, {"consent": False}, {"do_not_call": False}),
    ],
)
def test_each_flag_that_rejected_records_withdraw_counts(
    first: dict[str, bool], second: dict[str, bool], grant: dict[str, bool]
) -> None:
    """The second is no duplicate of the first: who grants one flag has not granted the other."""
    bad = {"phone": "bad", "reasons": ("phone_not_e164",)}
    world = one_after_the_other(
        Event("c", 1), partly("c", 2, **first, **bad), partly("c", 3, **second, **bad), partly("c", 4, **grant)
    )
    assert outcomes(world) == ["delivered", "rejected", "rejected", "delivered"]
    assert world.list["c"]["callable"] is False
    both = one_after_the_other(
        Event("c", 1), partly("c", 2, **first, **bad), partly("c", 3, **second, **bad), partly("c", 4, **grant),
        partly("c", 5, consent=True, do_not_call=False),
    )  # fmt: skip
    assert both.list["c"]["callable"] is True


def standing_of(world: World, external_id: str) -> Standing:
    """What `reconcile` says of a contact."""
    row = world.list[external_id]
    flags = [str(row[flag]).lower() for flag in ("consent", "do_not_call")]
    values = (external_id, str(row["phone"]), str(row["email"]), *flags)
    raw = world.stores[P0][0][fingerprints.identity(external_id)]
    exported = ExportedContact(contact_id(external_id), bool(row["callable"]), values)
    return standing(exported, state_bytes.decode(raw), MemorySink.contact_list_id, ())


def test_a_change_that_tells_no_flag_calls_nobody_who_withdrew() -> None:
    """Also where somebody has set the flags in Genesys: the CRM did not."""
    world = one_after_the_other(Event("c", 1), Event("c", 2, consent=False))
    world.list["c"] |= {"consent": True, "callable": True}
    next_comes(world, partly("c", 3, phone=NEW))
    assert (world.list["c"]["phone"], world.list["c"]["callable"]) == (NEW, False)
    assert standing_of(world, "c") is Standing.IN_STEP
    world.list["c"]["callable"] = True
    assert standing_of(world, "c") is Standing.CALLABLE
    world.list["c"]["callable"] = True
    next_comes(world, partly("c", 4, phone=OLD))
    assert (world.list["c"]["phone"], world.list["c"]["callable"]) == (OLD, False)
    next_comes(world, partly("c", 5, consent=True))
    assert world.list["c"]["callable"] is True


def test_a_whole_grant_of_what_somebody_else_set_is_no_repeat() -> None:
    """Genesys has that content already, and the contact is not callable: the CRM says now that it is."""
    world = one_after_the_other(Event("c", 1, phone=OLD), Event("c", 2, phone=OLD, consent=False))
    world.list["c"] |= {"consent": True, "callable": True}
    next_comes(world, partly("c", 3, phone=NEW))
    next_comes(world, Event("c", 4, phone=NEW))
    assert outcomes(world)[-1] == "delivered"
    assert world.list["c"]["callable"] is True


def test_a_withdrawal_that_was_applied_unheard_keeps_the_other_flag_as_it_is_known() -> None:
    """Genesys shows what it made of the contact: no lagging read, and each flag may be granted by itself."""
    world = one_after_the_other(Event("c", 1, consent=False))

    async def act(life: Life) -> None:
        world.answer_lost = True
        arrives(world, life, Story().tell(0, *[partly("c", 2, do_not_call=True)] * 2))
        await until(lambda: world.list["c"]["do_not_call"] is True)
        await passes(1)
        world.answer_lost = False
        await until(lambda: world.committed[P0] == 2)

    in_life(world, act)
    next_comes(world, partly("c", 3, do_not_call=False))
    next_comes(world, partly("c", 4, consent=True))
    assert outcomes(world) == ["delivered"] * 4
    assert world.list["c"]["callable"] is True


UNREADABLE = Event("c", 2, consent=None, reasons=("consent_not_boolean",))


@pytest.mark.parametrize(
    ("told", "callable_"),
    [
        ({"phone": "+15550199"}, False),
        ({"do_not_call": False}, False),
        ({"consent": True}, True),
        ({"consent": True, "do_not_call": False}, True),
    ],
    ids=str,
)
def test_who_tells_a_flag_that_nobody_can_read_is_not_callable_until_it_is_told(
    told: dict[str, Any], callable_: bool
) -> None:
    """A consent that was taken away is no consent, and do-not-call is what it was."""
    world = one_after_the_other(Event("c", 1), UNREADABLE)
    assert (world.list["c"]["callable"], world.list["c"]["consent"]) == (False, True)
    assert (world.events()[-1]["outcome"], world.events()[-1]["operation"]) == ("rejected", "suppress")
    world = one_after_the_other(Event("c", 1), UNREADABLE, partly("c", 3, **told))
    assert world.list["c"]["callable"] is callable_
    world = one_after_the_other(Event("c", 1), UNREADABLE, partly("c", 3, **told), Event("c", 4))
    assert world.list["c"]["callable"] is True


@pytest.mark.parametrize(
    ("unreadable", "withdrawn", "granted"),
    [
        ({"consent": None}, {"consent": None, "do_not_call": True}, {"consent": True}),
        ({"do_not_call": None}, {"consent": False, "do_not_call": None}, {"do_not_call": False}),
    ],
    ids=["do-not-call", "consent"],
)
def test_a_withdrawal_beside_a_flag_that_nobody_can_read_is_no_repeat_of_that(
    unreadable: dict[str, Any], withdrawn: dict[str, Any], granted: dict[str, Any]
) -> None:
    """Genesys must have it: else the next grant of the other flag would let the person be called."""
    bad = [Event("c", n, **flags, reasons=("any",)) for n, flags in ((2, unreadable), (3, withdrawn))]
    world = one_after_the_other(Event("c", 1), *bad, partly("c", 4, **granted))
    assert [event["operation"] for event in world.events()][1:3] == ["suppress", "suppress"]
    assert world.list["c"]["callable"] is False


# -- who grants again is called again


def rejected(version: int, **more: Any) -> Event:
    """A record that our rules reject, and which sets do-not-call."""
    return Event("c", version, do_not_call=True, reasons=CONFLICT, **more)


STOP = {"do_not_call": True}
TWICE = {
    "parts by consent": [Event("c", 1, consent=False), partly("c", 2, phone=NEW, consent=False)],
    "parts by do-not-call": [Event("c", 1), partly("c", 2, **STOP), partly("c", 3, phone=NEW, **STOP)],
    "the same rejected record": [Event("c", 1), rejected(2), rejected(2)],
    "a newer rejected record": [Event("c", 1), rejected(2), rejected(3, phone=NEW)],
    "a part behind a rejected record": [Event("c", 1), rejected(2), partly("c", 3, **STOP)],
    "a rejected record behind a part": [Event("c", 1), partly("c", 2, **STOP), rejected(3)],
}  # fmt: skip
BACK = {"consent": True, "do_not_call": False}


@pytest.mark.parametrize("told", TWICE.values(), ids=TWICE)
def test_who_withdrew_twice_by_one_flag_is_called_once_it_is_granted_wherever_the_process_died(
    told: Sequence[Event],
) -> None:
    """The other flag was never withdrawn: what is read back, perhaps the change's own effect, hides nothing."""
    by = "consent" if told[-1].consent is False else "do_not_call"
    grant = partly("c", 9, **{by: BACK[by]})
    steps = [_steps_of(told, grant, after_effect=after_effect) for after_effect in (False, True)]
    assert min(steps) > 3


def _steps_of(told: Sequence[Event], grant: Event, *, after_effect: bool) -> int:
    """At how many steps of the last withdrawal the process can die; the grant behind it counts in any case."""
    step, died = 0, True
    while died:
        step += 1
        world = one_after_the_other(*told[:-1])
        world.append(Story().tell(0, *told).records()[len(told) - 1 :])
        died = survive(world, step, after_effect=after_effect, genesys_dnc_list="do not call")
        world.die_at = None
        next_comes(world, grant)
        assert world.list["c"]["callable"] is True
    return step


def test_nor_is_a_withdrawal_forgotten_that_somebody_took_back_in_genesys() -> None:
    """The second rejected record is read back with a consent that the CRM did not give: that is no grant."""
    world = one_after_the_other(Event("c", 1, consent=False), rejected(2))
    world.list["c"]["consent"] = True
    world.append(Story().tell(0, *[rejected(3)] * 3).records()[2:])
    live(world, genesys_dnc_list="do not call")
    next_comes(world, partly("c", 4, do_not_call=False))
    assert world.list["c"]["callable"] is False
    next_comes(world, partly("c", 5, consent=True))
    assert world.list["c"]["callable"] is True


def test_who_was_taken_out_of_calling_in_genesys_stays_so_until_the_crm_tells_that_flag() -> None:
    """A withdrawal by the other flag keeps it, and so does the grant behind that."""
    world = one_after_the_other(Event("c", 1, consent=False))
    world.list["c"]["do_not_call"] = True
    next_comes(world, partly("c", 2, phone=NEW, consent=False))
    next_comes(world, partly("c", 3, consent=True))
    assert (world.list["c"]["callable"], world.list["c"]["do_not_call"]) == (False, True)
    next_comes(world, partly("c", 4, do_not_call=False))
    assert world.list["c"]["callable"] is True
