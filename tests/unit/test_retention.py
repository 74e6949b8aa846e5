"""What is forgotten after the set time, what is not, and what that leaves behind."""

import hashlib
from collections.abc import Callable, Collection
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from consumer.core import state_bytes
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition
from consumer.pipeline import retention
from consumer.pipeline.settle import CHAIN_KEY, DELETED_KEY, SETTLED_KEY
from tests import virtual_time
from tests.checker import check_without_outcomes
from tests.lives import Life, in_life, live, survive, world_of
from tests.memory_ports import World
from tests.stories import TOPIC, Event, Story, partly
from tests.virtual_time import passes, until

P0 = TopicPartition(TOPIC, 0)
DAY_MS = 86_400_000
DAYS = 30


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks every second: an hour of virtual time has millions of turns."""
    monkeypatch.setattr(retention, "WALK_EVERY_S", 1.0)
    monkeypatch.setattr(retention, "LOOK_EVERY_S", 1.0)


def identity(name: str) -> bytes:
    """The key of a contact in the store."""
    return hashlib.sha256(name.encode()).digest()


def aged(world: World, names: Collection[str], days: int = DAYS + 1) -> None:
    """Let what was settled of these contacts be so many days older, in the store and in the changelog."""
    keys = set(map(identity, names))

    def older(raw: bytes) -> bytes:
        return state_bytes.encode(state_bytes.decode(raw), state_bytes.settled_ms(raw) - days * DAY_MS)

    entries, position = world.stores[P0]
    world.stores[P0] = ({key: older(raw) if key in keys else raw for key, raw in entries.items()}, position)
    world.changelog[P0] = [
        (key, older(raw) if raw is not None and key in keys else raw) for key, raw in world.changelog[P0]
    ]


def remembered(world: World) -> set[bytes]:
    """Whose state the store holds."""
    return set(world.stores[P0][0]) - {CHAIN_KEY, DELETED_KEY, SETTLED_KEY}


def delivered(*names: str) -> tuple[Story, World]:
    """A world in which these contacts were delivered."""
    story = Story().tell(0, *(Event(name, 1) for name in names))
    world = world_of(story)
    live(world)
    return story, world


def test_by_default_nothing_is_forgotten() -> None:
    """A state of any age stays, and still tells a duplicate."""
    _, world = delivered("old")
    aged(world, ["old"], days=10_000)
    in_life(world, lambda _: passes(10))
    assert remembered(world) == {identity("old")}


def test_what_turned_an_older_change_away_is_kept_for_as_long_as_that_may_come_again() -> None:
    """The topic has the late grant for longer than the withdrawal: read again, it must meet it."""
    withdrawn = Event("late", 10, consent=False)
    story = Story().tell(0, withdrawn)
    world = world_of(story)
    live(world, state_retention_days=DAYS)
    aged(world, ["late"], days=DAYS - 10)
    world.append(story.tell(0, Event("late", 9)).records()[1:])
    live(world, state_retention_days=DAYS)
    aged(world, ["late"], days=20)
    in_life(world, lambda _: passes(10), state_retention_days=DAYS)
    world.committed[P0] = 1
    live(world, state_retention_days=DAYS)
    assert [event["outcome"] for event in world.events()] == ["delivered", "stale", "stale"]
    assert world.list["late"]["callable"] is False


def test_what_is_old_is_forgotten_in_store_and_changelog_alike() -> None:
    """Only what is older goes; the end of the chain stays; a reader of the changelog sees the same."""
    story, world = delivered("old", "young")
    aged(world, ["old"])
    aged(world, ["young"], days=DAYS - 1)
    in_life(world, lambda _: until(lambda: len(remembered(world)) == 1), state_retention_days=DAYS)
    assert remembered(world) == {identity("young")}
    assert world.changelog[P0][-3:][0] == (identity("old"), None)
    assert CHAIN_KEY in world.stores[P0][0]
    check_without_outcomes(world, story, set())


def test_a_partition_that_stays_for_minutes_is_walked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once when its store stands, and then every hour: where partitions move often, each would have begun anew."""
    monkeypatch.undo()
    story, world = delivered("old", "older")
    aged(world, ["old"])

    async def act(_: Life) -> None:
        await passes(3 * retention.LOOK_EVERY_S)
        assert remembered(world) == {identity("older")}
        aged(world, ["older"])
        await passes(retention.WALK_EVERY_S / 2)
        assert remembered(world) == {identity("older")}
        await until(lambda: not remembered(world))

    in_life(world, act, state_retention_days=DAYS)
    check_without_outcomes(world, story, set())


def test_a_contact_that_was_forgotten_is_new() -> None:
    """The same content again is sent again, as if it had never been."""
    story, world = delivered("old")
    aged(world, ["old"])
    in_life(world, lambda _: until(lambda: not remembered(world)), state_retention_days=DAYS)
    world.append(story.tell(0, Event("old", 1)).records()[1:])
    live(world)
    assert [event["outcome"] for event in world.events()] == ["delivered", "delivered"]


def test_a_deleted_contact_is_forgotten_too() -> None:
    """The marker that stops late updates has its time like everything else."""
    story, world = delivered("gone")
    world.append(story.tell(0, Event("gone", 2, delete=True)).records()[1:])
    live(world)
    aged(world, ["gone"])
    in_life(world, lambda _: until(lambda: not remembered(world)), state_retention_days=DAYS)
    assert remembered(world) == set()


def test_who_withdrew_is_forgotten_too() -> None:
    """Genesys has the flags, and lets nobody call: what was kept for good would grow with all who ever withdrew."""
    world = world_of(Story().tell(0, Event("withdrawn", 1, consent=False)))
    live(world, state_retention_days=DAYS)
    aged(world, ["withdrawn"])
    in_life(world, lambda _: passes(10), state_retention_days=DAYS)
    assert remembered(world) == set()
    assert world.list["withdrawn"]["callable"] is False


def test_a_duplicate_of_a_higher_version_begins_the_time_anew() -> None:
    """Whatever is written of a contact says that it is still there."""
    story, world = delivered("seen")
    aged(world, ["seen"])
    world.append(story.tell(0, Event("seen", 2)).records()[1:])
    live(world)
    in_life(world, lambda _: passes(10), state_retention_days=DAYS)
    assert remembered(world) == {identity("seen")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of what lives next: so many days behind."""
    right = virtual_time.EPOCH
    return lambda days: monkeypatch.setattr(virtual_time, "EPOCH", right - days * DAY_MS / 1000)


def test_what_a_clock_that_was_behind_settled_is_kept_as_long(clock: Callable[[float], None]) -> None:
    """As of a machine that starts without its time: Kafka knows better when the record came."""
    story = Story().tell(0, Event("early", 10, consent=False))
    world = world_of(story)
    clock(10_000)
    live(world, state_retention_days=DAYS)
    clock(0)
    in_life(world, lambda _: passes(10), state_retention_days=DAYS)
    assert remembered(world) == {identity("early")}


def test_of_two_clocks_less_than_a_day_apart_ours_tells_when_something_was_settled(
    clock: Callable[[float], None],
) -> None:
    """It is as likely that of the producer which is ahead; `reconcile` tells by ours who had the last word."""
    world = world_of(Story().tell(0, Event("early", 10, consent=False)))
    (record,) = world.log[P0]
    clock(0.9)
    live(world, state_retention_days=DAYS)
    settled_ms = state_bytes.settled_ms(world.stores[P0][0][identity("early")])
    assert 0.8 * DAY_MS < record.timestamp_ms - settled_ms < DAY_MS


def test_a_clock_that_is_behind_makes_nothing_older(clock: Callable[[float], None]) -> None:
    """A grant of long ago is read again and turned away: what did that is remembered for no shorter."""
    story = Story().tell(0, Event("known", 10, consent=False), Event("known", 9))
    world = world_of(story)
    world.log[P0] = [replace(record, timestamp_ms=record.timestamp_ms - 2 * DAYS * DAY_MS) for record in world.log[P0]]
    live(world, state_retention_days=DAYS)
    world.committed[P0] = 1
    clock(DAYS + 1)
    live(world, state_retention_days=DAYS)
    clock(0)
    in_life(world, lambda _: passes(10), state_retention_days=DAYS)
    assert [event["outcome"] for event in world.events()] == ["delivered", "stale", "stale"]
    assert remembered(world) == {identity("known")}


def test_a_contact_with_news_is_not_forgotten() -> None:
    """What is decided between the find and the settlement counts: the entry is not what it was."""
    story, world = delivered("busy")
    aged(world, ["busy"])
    entries, _ = world.stores[P0]

    async def act(life: Life) -> None:
        await until(lambda: P0 in life.pipeline.partitions and life.pipeline.partitions[P0].restored)
        partition = life.pipeline.partitions[P0]
        world.append(story.tell(0, Event("busy", 2, phone="+15550199")).records()[1:])
        life.source.wake()
        await until(lambda: bool(partition.overlay))
        partition.expired = {identity("busy"): entries[identity("busy")]}
        await until(lambda: world.committed[P0] == 2)
        partition.expired = {identity("busy"): entries[identity("busy")]}
        life.pipeline._settler.wake()
        await until(lambda: not partition.expired)
        await passes(1)

    in_life(world, act)
    assert remembered(world) == {identity("busy")}


def test_while_nothing_can_be_settled_no_more_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found waits for the brokers, in bounds; then it is forgotten, and all the rest."""
    monkeypatch.setattr(retention, "SLICE", 2)
    monkeypatch.setattr(retention, "MOST", 4)
    names = [f"old-{number}" for number in range(20)]
    _, world = delivered(*names)
    aged(world, names)

    async def act(life: Life) -> None:
        life.topics.failures = [SourceUnavailable("down") for _ in range(5)]
        await until(lambda: len(life.topics.failures) == 1)
        assert len(life.pipeline.partitions[P0].expired) == 4
        await until(lambda: not remembered(world))

    in_life(world, act, state_retention_days=DAYS)
    assert remembered(world) == set()


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_crash_on_the_way_leaves_store_and_changelog_equal_in_the_end(after_effect: bool) -> None:
    """Killed at any step of a life that forgets, the next life makes good what is missing."""
    step, dies = 1, True
    while dies:
        story, world = delivered("old", "young")
        aged(world, ["old"])
        world.append(story.tell(0, Event("late", 1)).records()[2:])
        dies = survive(world, step, after_effect=after_effect, state_retention_days=DAYS)
        world.die_at = None
        in_life(world, lambda _: until(lambda: identity("old") not in remembered(world)), state_retention_days=DAYS)  # noqa: B023 -- used at once
        assert [orjson.loads(value)["seq"] for _, value in world.audit if b'"record"' in value] == [0, 1, 2]
        check_without_outcomes(world, story, set())
        step += 1


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(
    "bad", [{"consent": None}, {"phone": "12", "consent": False}], ids=["precaution", "suppressed"]
)
def test_who_is_not_callable_whatever_his_flags_say_is_not_forgotten(bad: dict[str, Any]) -> None:
    """A change that grants nothing would let the person be called, where the flags in Genesys do."""
    unreadable = Event("c", 2, **bad, reasons=("any",))
    story = Story().tell(0, Event("c", 1), unreadable, Event("other", 1), partly("c", 3, phone="+15550199"))
    world = World()
    for record in story.records()[:3]:
        world.append([record])
        live(world)
    aged(world, ["c", "other"])
    in_life(world, lambda _: until(lambda: identity("other") not in remembered(world)), state_retention_days=DAYS)
    world.list["c"]["consent"] = True
    world.append(story.records()[3:])
    live(world)
    assert (world.list["c"]["callable"], world.list["c"]["phone"]) == (False, "+15550199")


def test_a_withdrawal_of_who_was_forgotten_reaches_genesys() -> None:
    """Nothing is known of the contact, which may be in the list all the same."""
    story, world = delivered("old")
    aged(world, ["old"])
    in_life(world, lambda _: until(lambda: not remembered(world)), state_retention_days=DAYS)
    story.tell(0, Event("old", 2, consent=False, phone="12", reasons=("phone_not_e164",)))
    world.append(story.records()[1:])
    live(world, state_retention_days=DAYS)
    assert world.list["old"]["callable"] is False


@pytest.mark.usefixtures("partial_events")
def test_who_withdrew_is_not_forgotten_when_a_change_without_flags_was_given_up() -> None:
    """Nobody knows what is there then, but that he is not to be called."""
    events = [Event("c", 1), Event("c", 2, consent=False), partly("c", 3, phone="+15550177"), Event("other", 1)]
    story = Story().tell(0, *events, partly("c", 4, phone="+15550199"))
    world = World()
    for number, record in enumerate(story.records()[:4]):
        world.poison = {"c"} if number == 2 else set()
        world.append([record])
        live(world)
        world.list["c"]["consent"] = True
    aged(world, ["c", "other"])
    in_life(world, lambda _: until(lambda: identity("other") not in remembered(world)), state_retention_days=DAYS)
    world.append(story.records()[4:])
    live(world)
    assert world.list["c"]["callable"] is False
