"""Random lives on a world in memory, and what they leave compared with the model.

Partitions come, go and are lost; answers are lost; transactions and disks fail; processes die; then all is calm.
"""

import asyncio
import random
from collections import Counter
from functools import partial
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from consumer.errors import SinkUnavailable, SourceUnavailable, Throttled, TransientError
from consumer.model import Settlement, TopicPartition
from consumer.ports import StoreWrite, Sure, always
from tests import virtual_time
from tests.checker import check_without_outcomes
from tests.lives import Life
from tests.memory_ports import Killed, MemorySink, MemoryStore, MemoryTopics, World
from tests.stories import TOPIC, Event, Story
from tests.virtual_time import passes, until

PARTITIONS, CONTACTS, EVENTS = 3, 8, 90
POISON = "c-1"
pytestmark = pytest.mark.no_cover  # a story reaches lines by chance

CONFLICT = {"do_not_call": True, "reasons": ("consent_conflicts_with_do_not_call",)}
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "grant": (35, {}),
    "withdraw": (21, {"consent": False}),
    "delete": (8, {"delete": True}),
    "suppress": (10, CONFLICT),
    "rejected": (3, {"phone": "bad", "reasons": ("phone_not_e164",)}),
    "garbage": (3, {"garbage": b"\1x", "reasons": ("not_decodable",)}),
}
"""How often each kind of event comes, and what it says."""

ONLY: dict[str, Any] = {"consent": None, "do_not_call": None, "partial": True}
PARTS: dict[str, tuple[int, dict[str, Any]]] = {
    "phone": (30, ONLY),
    "revoked": (12, ONLY | {"consent": False, "phone": None}),
    "granted": (16, ONLY | {"consent": True}),
    "do-not-call": (8, ONLY | {"do_not_call": True, "phone": None}),
    "call": (12, ONLY | {"do_not_call": False, "phone": None}),
    "nothing": (4, ONLY | {"phone": None}),
    "rejected": (4, ONLY | {"phone": "bad", "reasons": ("phone_not_e164",)}),
    "rejected, revoked": (4, ONLY | {"phone": "bad", "consent": False, "reasons": ("phone_not_e164",)}),
}
"""Changes of which only a part is told."""


class Weather:
    """What goes wrong, by the dice, until it is calm.

    Attributes:
        dice: Of this campaign.
        calm: Nothing fails any more.
        shows: Readers see what a settlement has written that fails, as without transactions.
        epochs: How often each partition changed hands.
    """

    def __init__(self, seed: int, world: World) -> None:
        self.dice = random.Random(seed)
        self.calm = False
        self.shows = False
        self.epochs: Counter[TopicPartition] = Counter()
        self.world = world
        self.life: Life

    def fails(self, share: float) -> bool:
        return not self.calm and self.dice.random() < share

    def owns(self, partition: TopicPartition) -> bool:
        source = self.life.source
        return partition in source._positions or partition in source.leaving


class StormySink(MemorySink):
    """Slow or quick, throttled, out of reach before the effect or silent after it."""

    weather: Weather

    async def upsert(
        self, contacts: Any, sure: Sure = always, withdrawn: Any = (), granted: Any = (), **named: Any
    ) -> Any:
        return await self._stormy(partial(super().upsert, **named), contacts, sure, withdrawn, granted)

    async def delete(self, external_ids: Any, sure: Sure = always, **named: Any) -> Any:
        return await self._stormy(partial(super().delete, **named), external_ids, sure)

    async def amend(self, amendments: Any, sure: Sure = always, *more: Any, **named: Any) -> Any:
        return await self._stormy(partial(super().amend, **named), amendments, sure, *more)

    async def _stormy(self, request: Any, subject: Any, sure: Sure, *numbers: Any) -> Any:
        dice = self.weather.dice
        self.weather.world.latency = dice.choice([0.001, 0.01, 0.1, 1.0, 8.0])
        if self.weather.fails(0.1):
            raise Throttled("too many requests", dice.choice([None, 1, 7]))
        if self.weather.fails(0.1):
            await passes(self.weather.world.latency)
            raise SinkUnavailable("out of reach")
        answer = await request(subject, sure, *numbers)
        if self.weather.fails(0.2):
            raise SinkUnavailable("no answer, and applied")
        return answer


class StormyTopics(MemoryTopics):
    """Settlements take time and fail; one whose partitions changed hands meanwhile is fenced.

    Without transactions, one that fails may have been written: offsets are committed last, and the answer may be lost.
    """

    weather: Weather

    async def settle(self, settlement: Settlement) -> Any:
        weather = self.weather
        epochs = {key: weather.epochs[key] for key in settlement.offsets}
        await passes(weather.dice.choice([0.001, 0.01, 0.5, 3]))
        if weather.fails(0.15):
            raise TransientError("the transaction was aborted")
        if any(not weather.owns(key) or weather.epochs[key] != epoch for key, epoch in epochs.items()):
            raise SourceUnavailable("partitions moved away")
        if weather.shows and weather.fails(0.3):
            committed = settlement.offsets if weather.dice.random() < 0.5 else {}
            await super().settle(replace(settlement, offsets=committed))
            raise TransientError("no answer, and written")
        return await super().settle(settlement)


class StormyStore(MemoryStore):
    """One thread does it all, in order; the disk is slow and sometimes full."""

    weather: Weather

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._thread = asyncio.Lock()

    async def open(self, partition: TopicPartition) -> int:
        async with self._thread:
            await passes(self.weather.dice.choice([0.001, 0.3]))
            return await super().open(partition)

    async def write(self, *writes: StoreWrite) -> None:
        async with self._thread:
            await passes(self.weather.dice.choice([0.001, 0.2]))
            if self.weather.fails(0.15):
                raise TransientError("no space left")
            await super().write(*writes)

    async def close(self, *partitions: TopicPartition) -> None:
        async with self._thread:
            await super().close(*partitions)


def _tell(story: Story, dice: random.Random, kinds: dict[str, tuple[int, dict[str, Any]]]) -> None:
    """Events of few contacts, so that they meet; a fifth of them older than what came before, some told again."""
    versions = Counter(event.external_id for told in story.events.values() for event in told)
    for _ in range(EVENTS):
        number = dice.randrange(CONTACTS)
        name = f"c-{number}"
        (kind,) = dice.choices(list(kinds), [share for share, _ in kinds.values()])
        older = versions[name] > 1 and dice.random() < 0.2
        versions[name] += not older
        version = dice.randrange(1, versions[name]) if older else versions[name]
        said: dict[str, Any] = {"phone": f"+155501{number}{dice.choice('01')}"} | kinds[kind][1]
        event = Event(name, version, **said)
        story.tell(number % PARTITIONS, event)
        if dice.random() < 0.1:
            story.tell(number % PARTITIONS, event)


def _life(weather: Weather) -> Life:
    dice = weather.dice
    life = Life(
        weather.world,
        batch_max_records=dice.choice([2, 5, 100]),
        genesys_max_in_flight=dice.choice([1, 2, 4]),
        settle_interval_ms=dice.choice([1, 50]),
        batch_linger_ms=dice.choice([0, 20, 500]),
        read_ahead_records=100,
        drain_timeout_s=dice.choice([1, 30]),
        genesys_requests_per_minute=dice.choice([60, 1000]),
        genesys_dnc_list="do not call",
        genesys_dnc_release="true",
        kafka_guarantee="at_least_once" if weather.shows else "exactly_once",
    )
    life.source.size = dice.choice([1, 7, 40])
    weather.life = life
    weather.epochs.update(weather.world.log.keys())
    return life


async def _meddle(weather: Weather, seconds: float) -> None:
    """Revoke, lose and assign partitions for a while."""
    dice, source = weather.dice, weather.life.source
    end = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as revocations:
        while asyncio.get_running_loop().time() < end:
            await passes(dice.choice([0.01, 0.1, 1, 5]))
            key, act = dice.choice(list(weather.world.log)), dice.random()
            if key in source._positions and act < 0.2:
                weather.epochs[key] += 1
                source.lose([key])
            elif key in source._positions and act < 0.4:
                revocations.create_task(source.revoke([key]))
            elif not weather.owns(key) and act < 0.7:
                weather.epochs[key] += 1
                source.assign([key])


async def _stormy_life(weather: Weather, seconds: float) -> None:
    life = _life(weather)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(life.run(until_caught_up=False))
        await asyncio.wait({asyncio.create_task(_meddle(weather, seconds)), running}, timeout=10 * seconds)
        life.stop.set()


async def _last_life(weather: Weather, seconds: float) -> None:
    life = _life(weather)
    world, log = weather.world, weather.world.log
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(life.run(until_caught_up=False))
        await _meddle(weather, seconds)
        weather.calm = True
        away = [key for key in log if not weather.owns(key)]
        weather.epochs.update(away)
        life.source.assign(away)
        await until(lambda: world.committed == {key: len(records) for key, records in log.items()})
        life.stop.set()
    assert len(life.pipeline.lanes) == 0
    assert life.pipeline.gate.in_flight == 0


def _survive(weather: Weather, seconds: float) -> None:
    world = weather.world
    world.die_at = world.steps + weather.dice.randrange(1, 60) if weather.dice.random() < 0.7 else None
    world.die_after_effect = weather.dice.random() < 0.5
    try:
        virtual_time.run(_stormy_life(weather, seconds))
    except Killed:
        pass
    except BaseExceptionGroup as group:
        _, rest = group.split(Killed)
        if rest is not None:
            raise rest from None
    world.die_at = None
    world.in_flight.clear()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_goes_wrong_nothing_is_lost_repeated_or_left_callable(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to two lives in bad weather, and one that ends well: the rules hold on everything that is durable."""
    _play(seed, monkeypatch, Story(), KINDS)


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("seed", [*range(35), 118, 154, 214, 247])
def test_nor_when_events_tell_only_what_changed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lives, and every second event tells only a part of its contact, which was told as a whole before."""
    story = Story()
    for number in range(CONTACTS):
        story.tell(number % PARTITIONS, Event(f"c-{number}", 1))
    _play(seed, monkeypatch, story, KINDS | PARTS)


@pytest.mark.parametrize("seed", range(30))
def test_nor_without_transactions(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lives, and of settlements that fail some are seen: as who drops events of offsets told before has it.

    Where a process dies or a partition moves in between, events are made anew, behind those that were seen.
    """
    _play(seed, monkeypatch, Story(), KINDS, shows=True)


def _play(
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    story: Story,
    kinds: dict[str, tuple[int, dict[str, Any]]],
    *,
    shows: bool = False,
) -> None:
    dice = random.Random(seed)
    _tell(story, dice, kinds)
    world = World()
    world.append(story.records())
    world.poison = {POISON}
    weather = Weather(seed, world)
    weather.shows = shows
    for port in (StormySink, StormyTopics, StormyStore):
        monkeypatch.setattr(port, "weather", weather, raising=False)
        monkeypatch.setattr(f"tests.lives.Memory{port.__name__.removeprefix('Stormy')}", port)
    for _ in range(dice.randrange(3)):
        _survive(weather, dice.choice([1, 5, 30]))
    virtual_time.run(_last_life(weather, dice.choice([1, 5, 30])))
    if shows:
        world.audit = [*{orjson.loads(event[1])["eventId"]: event for event in reversed(world.audit)}.values()][::-1]
        world.dead_letters = [*{letter[0]: letter for letter in reversed(world.dead_letters)}.values()]
    check_without_outcomes(world, story, world.poison, chained=not shows)
    assert {key.topic for key in world.committed} == {TOPIC}
    withdrawn = {contact["phone"] for contact in world.list.values() if not contact["callable"]}
    assert withdrawn <= world.blocked, "the number of somebody who withdrew is not on the do-not-call list"
