"""Contacts that the store of a partition does not know, and whom Genesys may have all the same.

Partitions were added, and the key leads elsewhere now; the group has another name; the changelog is lost; or records of
two topics tell of one contact.
"""

from typing import Any

import pytest

from consumer.errors import SinkUnavailable
from consumer.model import Record, TopicPartition
from tests.lives import Life, arrives, in_life, live
from tests.memory_ports import World, outage
from tests.stories import TOPIC, Event, Story, partly
from tests.virtual_time import passes, until

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
BAD: dict[str, Any] = {"phone": "bad", "reasons": ("phone_not_e164",)}
WITHDRAWS = pytest.mark.parametrize("withdrawal", [{"consent": False}, {"do_not_call": True}], ids=["consent", "dnc"])


def told(world: World, key: TopicPartition, *events: Event, **settings: Any) -> World:
    """Each event comes at the end of a partition, and is settled before the next one."""
    for event in events:
        world.append([next_record(world, key, event)])
        live(world, **settings)
    return world


def next_record(world: World, key: TopicPartition, event: Event) -> Record:
    """The record of an event that comes at the end of a partition."""
    offset = len(world.log.get(key, ()))
    return Story().tell(key.partition, *[event] * (offset + 1)).records()[offset]


def last(world: World) -> tuple[str, str | None]:
    """Outcome and operation of the last record."""
    return world.events()[-1]["outcome"], world.events()[-1]["operation"]


@WITHDRAWS
def test_a_rejected_withdrawal_suppresses_who_was_delivered_from_another_partition(withdrawal: dict[str, Any]) -> None:
    """The key leads elsewhere since partitions were added: nobody knows the contact there, and he is not called."""
    world = told(World(), P0, Event("c", 1))
    told(world, P1, Event("c", 2, **withdrawal, **BAD))
    assert world.list["c"]["callable"] is False
    assert last(world) == ("rejected", "suppress")


def test_a_rejected_withdrawal_suppresses_who_was_delivered_by_another_group() -> None:
    """So it is with a changelog that is lost."""
    world = told(World(), P0, Event("c", 1))
    world.changelog.clear()
    world.stores.clear()
    told(world, P0, Event("c", 2, consent=False, **BAD))
    assert world.list["c"]["callable"] is False


def test_a_rejected_withdrawal_of_who_is_not_in_genesys_is_asked_for_once_and_noted() -> None:
    """No contact is made, nothing was done, and no older grant comes after it."""
    world = told(World(), P0, Event("c", 2, consent=False, **BAD))
    assert (world.requested, world.list, last(world)) == ([("c",)], {}, ("rejected", None))
    told(world, P0, Event("c", 1))
    assert (world.requested, world.list, last(world)) == ([("c",)], {}, ("stale", None))


NOTED = Event("c", 1, consent=False, **BAD)


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    "withdrawal",
    [Event("c", 3, do_not_call=True, **BAD), partly("c", 3, do_not_call=True)],
    ids=["rejected", "partial"],
)
def test_who_was_only_noted_is_asked_for_at_each_further_withdrawal(withdrawal: Event) -> None:
    """Another topic has delivered him since the first one, of whom nobody knew then."""
    world = told(World(), P1, NOTED)
    told(world, P0, Event("c", 2))
    told(world, P1, withdrawal)
    assert world.list["c"]["callable"] is False
    assert last(world)[1] in {"suppress", "upsert"}


@pytest.mark.usefixtures("partial_events")
def test_who_was_only_noted_is_asked_for_also_by_what_withdraws_nothing() -> None:
    """It is sent as not callable, as the withdrawal says that was noted."""
    world = told(World(), P1, NOTED)
    told(world, P0, Event("c", 2))
    told(world, P1, partly("c", 3, phone="+15550199"))
    assert (world.list["c"]["phone"], world.list["c"]["callable"]) == ("+15550199", False)


def test_who_was_only_noted_and_is_still_not_in_genesys_is_noted_again() -> None:
    """Nothing was done, and a repeat is not asked for."""
    world = told(World(), P0, NOTED, Event("c", 2, do_not_call=True, **BAD))
    assert (world.requested, world.list, last(world)) == ([("c",)] * 2, {}, ("rejected", None))
    told(world, P0, Event("c", 3, do_not_call=True, **BAD))
    assert (len(world.requested), last(world)) == (2, ("rejected", None))


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    "withdrawal", [Event("c", 3, consent=False, **BAD), partly("c", 3, consent=False)], ids=["rejected", "partial"]
)
def test_who_was_deleted_is_not_asked_for(withdrawal: Event) -> None:
    """A read that lags would show him, and he would be there again."""
    world = told(World(), P0, Event("c", 1), Event("c", 2, delete=True))
    before = len(world.requested)
    told(world, P0, withdrawal)
    assert (len(world.requested), world.list, last(world)[1]) == (before, {}, None)


def test_rejected_withdrawals_of_many_who_are_unknown_take_a_read_for_fifty_of_them() -> None:
    """As when a migration goes wrong."""
    world = World()
    world.poll_records = 500
    world.append(Story().tell(0, *(Event(f"c{n}", 1, consent=False, **BAD) for n in range(500))).records())
    live(world)
    assert [len(names) for names in world.requested] == [50] * 10


# -- precautions


UNREADABLE: dict[str, Any] = {"consent": None, "reasons": ("consent_not_boolean",)}


def precaution_elsewhere() -> World:
    """Genesys has a contact that is not callable as a precaution, and the partition of its key does not know him."""
    world = told(World(), P0, Event("c", 1), Event("c", 2, **UNREADABLE))
    assert (world.list["c"]["consent"], world.list["c"]["callable"]) == (True, False)
    return world


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    "part", [{"phone": "+15550199"}, {"consent": True}, {"do_not_call": False}], ids=["no flag", "consent", "dnc"]
)
def test_a_precaution_holds_where_nobody_knows_why(part: dict[str, Any]) -> None:
    """The key moved: Genesys shows that somebody is not to be called although his flags let him be."""
    world = told(precaution_elsewhere(), P1, partly("c", 3, **part))
    assert world.list["c"]["callable"] is False
    told(world, P1, partly("c", 4, phone="+15550177"))
    assert (world.list["c"]["callable"], world.list["c"]["phone"]) == (False, "+15550177")


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    "parts",
    [
        [partly("c", 3, consent=True, do_not_call=False)],
        [partly("c", 3, consent=True), partly("c", 4, do_not_call=False)],
        [Event("c", 3)],
    ],
    ids=["both flags", "one after the other", "whole"],
)
def test_who_tells_both_flags_ends_a_precaution_that_nobody_knows(parts: list[Event]) -> None:
    """As he ends one that is known."""
    world = told(precaution_elsewhere(), P1, *parts)
    assert world.list["c"]["callable"] is True


@pytest.mark.usefixtures("partial_events")
def test_a_withdrawal_beside_a_precaution_that_nobody_knows_takes_nothing_of_it_back() -> None:
    """The withdrawn flag alone, granted again, lets nobody call."""
    world = told(precaution_elsewhere(), P1, Event("c", 3, do_not_call=True, **BAD), partly("c", 4, do_not_call=False))
    assert world.list["c"]["callable"] is False
    told(world, P1, partly("c", 5, consent=True))
    assert world.list["c"]["callable"] is True


@pytest.mark.usefixtures("partial_events")
def test_a_precaution_that_nobody_knows_outlives_a_change_that_is_given_up() -> None:
    """What is given up tells nothing of whether the contact was callable."""
    world = precaution_elsewhere()
    world.poison = {"c"}
    told(world, P1, partly("c", 3, phone="+15550199"))
    assert last(world)[0] == "undeliverable"
    world.poison = set()
    told(world, P1, partly("c", 4, phone="+15550177"))
    assert (world.list["c"]["callable"], world.list["c"]["phone"]) == (False, "+15550177")


@pytest.mark.usefixtures("partial_events")
def test_a_withdrawn_flag_that_is_granted_again_where_nobody_knows_the_contact_lets_him_be_called() -> None:
    """The flags in Genesys say why he was not callable."""
    world = told(World(), P0, Event("c", 1), Event("c", 2, consent=False))
    told(world, P1, partly("c", 3, consent=True))
    assert world.list["c"]["callable"] is True


# -- a contact that is under way from two partitions


def in_turn(world: World, *events: tuple[TopicPartition, Event]) -> None:
    """Each event comes before the one before it is sent."""

    async def act(life: Life) -> None:
        await until(lambda: life.pipeline.ready)
        for key, event in events:
            world.append([next_record(world, key, event)])
            life.source.wake()
            await passes(0.05)
        await until(lambda: all(world.committed.get(key) == len(log) for key, log in world.log.items()))

    world.log = {P0: [], P1: [], **world.log}
    in_life(world, act)


def callable_in_requests(world: World) -> list[bool]:
    """Whether upserts of the contact make it callable, each when it is sent."""
    asked: list[bool] = []
    world.on_upsert = lambda bodies: asked.extend(body["callable"] for body in bodies if body["externalId"] == "c")
    return asked


def test_a_withdrawal_from_another_partition_is_not_taken_for_older_by_its_offset() -> None:
    """Offsets of two partitions say nothing of each other: what it waits behind is sent as not callable."""
    world = World()
    asked = callable_in_requests(world)
    before = [Event(f"other-{n}", None) for n in range(5)]
    story = Story().tell(0, *before, Event("c", None))
    world.append(story.tell(1, Event("c", None, consent=False, occurred_at=1)).records())
    live(world)
    assert asked == [False, False]


def test_a_withdrawal_is_not_compared_with_what_waits_from_another_partition() -> None:
    """It is the newer one in its own, and the one that waits there has the higher offset."""
    world = World()
    asked = callable_in_requests(world)
    told(world, P1, *(Event(f"other-{n}", None) for n in range(5)))
    in_turn(
        world,
        (P0, Event("c", None)),
        (P1, Event("c", None, phone="+15550199")),
        (P0, Event("c", None, consent=False)),
    )
    assert asked[0] is False


def test_a_withdrawal_that_is_older_in_its_partition_holds_back_nobody_elses_grant() -> None:
    """It is newer than what is under way, and stale where it stands: nothing would make the contact callable again."""
    world = told(World(), P1, Event("c", 7))
    asked = callable_in_requests(world)
    in_turn(world, (P0, Event("c", 3, phone="+15550199")), (P1, Event("c", 5, consent=False)))
    assert asked == [True]
    assert world.list["c"]["callable"] is True


def test_a_change_from_another_partition_is_judged_by_what_is_known_there() -> None:
    """It is newer than what is under way, and older than the withdrawal that its own partition has delivered."""
    world = told(World(), P1, Event("c", 7, consent=False))
    story = Story().tell(1, Event("c", 7, consent=False)).tell(0, Event("c", 3, consent=False))

    async def act(life: Life) -> None:
        world.answer = outage(2, SinkUnavailable("not now"))
        arrives(world, life, story)
        await until(lambda: len(world.requested) == 2)
        arrives(world, life, story.tell(1, Event("c", 5)))
        await until(lambda: world.committed == {P0: 1, P1: 2})

    world.log[P0] = []
    in_life(world, act)
    assert world.list["c"]["callable"] is False
    assert [event["outcome"] for event in world.events() if event["source"]["offset"] == 1] == ["stale"]
