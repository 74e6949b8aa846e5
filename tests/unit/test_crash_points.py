"""Kills the pipeline before and after every call of a port, twice in a row, and lets the checker look at what is left.

Then breaks the order of effects on purpose: a checker that lets such a pipeline pass would prove nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core.batch import Lanes
from consumer.core.lane import Lane
from consumer.core.offsets import Tracker
from consumer.model import Settlement, Work
from consumer.pipeline.settle import Settler
from tests.checker import check
from tests.lives import live, survive
from tests.memory_ports import World
from tests.stories import Event, Story, random_story

pytestmark = pytest.mark.no_cover  # a story reaches lines by chance

SMALL: dict[str, Any] = {
    "batch_max_records": 5,
    "genesys_max_in_flight": 2,
    "settle_interval_ms": 10,
    "batch_linger_ms": 20,
}


def _world(story: Story, poison: set[str]) -> World:
    world = World()
    world.append(story.records())
    world.poison = poison
    return world


def _die_and_live_on(seed: int, deaths: Sequence[int], *, after_effect: bool) -> bool:
    """Tell a story through several deaths, and check; whether the first death took place at all."""
    story, poison = random_story(seed)
    world = _world(story, poison)
    died = survive(world, deaths[0], after_effect=after_effect, **SMALL)
    for death in deaths[1:]:
        survive(world, death, after_effect=after_effect, **SMALL)
    assert not survive(world, None, after_effect=False, **SMALL)
    check(world, story, poison)
    return died


def _every_death(seed: int) -> int:
    """Die at the first step, then at the second, and so on, until the story ends before; how many steps there were."""
    step = 1
    for after_effect in (False, True):
        step = 1
        while _die_and_live_on(seed, (step, step // 2 + 1), after_effect=after_effect):
            step += 1
    return step


@pytest.mark.parametrize("seed", range(4))
def test_rules_hold_when_killed_before_and_after_every_port_call(seed: int) -> None:
    """Each offset has one audit event, the list is the model's, nothing is lost, wherever the process dies twice."""
    assert _every_death(seed) > 20


@pytest.mark.parametrize("seed", range(10, 30))
def test_rules_hold_without_a_crash(seed: int) -> None:
    """A story told without interruption leaves what the model says, and one event of each batch."""
    story, poison = random_story(seed, contacts=30, events=300, partitions=3)
    world = _world(story, poison)
    live(world, **SMALL)
    check(world, story, poison)
    batches = [event["batchId"] for event in world.events("batch")]
    assert sorted(batches) == sorted({event["batchId"] for event in world.events()} - {None})


def _settle_offsets_first(patch: pytest.MonkeyPatch) -> None:
    """Commit the offsets, and only then write the audit events."""
    whole = Settler._settlement

    async def settle(self: Settler, shares: Sequence[Any]) -> None:
        settlement = whole(self, shares, [])
        await self._topics.settle(Settlement([], [], [], settlement.offsets))
        positions = await self._topics.settle(replace(settlement, offsets={}))
        await self._write(shares, positions)
        for share in shares:
            self._forget(share)
        self._progress.made()

    patch.setattr(Settler, "_settle", settle)


def _write_store_first(patch: pytest.MonkeyPatch) -> None:
    """Write the store, and only then make the transaction."""

    async def settle(self: Settler, shares: Sequence[Any]) -> None:
        for share in shares:
            held = self._store._world.changelog[share.partition.key]  # type: ignore[attr-defined]
            await self._write([share], {share.partition.key: len(held) + len(share.entries)})
        await self._topics.settle(self._settlement(shares, []))
        for share in shares:
            self._forget(share)
        self._progress.made()

    patch.setattr(Settler, "_settle", settle)


def _settle_past_holes(patch: pytest.MonkeyPatch) -> None:
    """Commit up to the highest decided record, whatever is missing before it."""

    def decided(self: Tracker, limit: int) -> list[Work]:
        return [work for work in self._works if work.outcome is not None][:limit]

    def settle(self: Tracker, works: Sequence[Work]) -> None:
        for work in works:
            self._works.remove(work)
            self.committable = max(self.committable, work.record.offset + 1)

    patch.setattr(Tracker, "decided", decided)
    patch.setattr(Tracker, "settle", settle)


def _forget_what_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    """Judge a change as if no request with its contact were under way."""
    get = Lanes.get

    def unsent(self: Lanes, identity: bytes) -> Lane | None:
        lane = get(self, identity)
        return None if lane is None or lane.sent else lane

    def close(self: Lanes, lane: Lane) -> list[Work]:
        self._lanes.pop(lane.change.identity, None)
        return []

    patch.setattr(Lanes, "get", unsent)
    patch.setattr(Lanes, "close", close)


BREAKAGES: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    _settle_offsets_first: "missing: ",
    _write_store_first: "the chain of ",
    _settle_past_holes: "missing: ",
    _forget_what_is_in_flight: "contacts in two requests at once: ",
}
"""What is broken, and what must be said of it: a pipeline that only stands still, say, proves nothing."""


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_a_broken_order_of_effects_is_caught(
    breakage: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The campaign fails for a pipeline whose order of effects was broken on purpose, and says what is wrong."""
    breakage(monkeypatch)
    with pytest.raises((AssertionError, BaseExceptionGroup)) as caught:  # noqa: PT012  -- the campaign is one statement
        for seed in range(4):
            _every_death(seed)
    told = [str(error) for error in _errors(caught.value)]
    assert any(text.startswith(BREAKAGES[breakage]) for text in told), told


def _errors(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or those of a group."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _errors(each)


def _withdrawal_behind_a_backlog() -> World:
    """A hundred grants are delivered; then a hundred changes arrive, and at their very end one withdrawal."""
    story = Story()
    story.tell(0, *(Event(f"contact-{n}", 1) for n in range(100)))
    world = _world(story, set())
    live(world)
    story.tell(0, *(Event(f"contact-{n}", 2, phone="+15550199") for n in range(1, 100)))
    story.tell(0, Event("contact-0", 2, consent=False))
    world.log = {}
    world.append(story.records())
    world.sent.clear()
    world.latency = 1.0
    live(world, batch_max_records=10, genesys_max_in_flight=1)
    check(world, story, set())
    return world


def _requests_before(world: World, external_id: str) -> int:
    return next(n for n, (_, names) in enumerate(world.sent) if external_id in names)


def test_a_withdrawal_goes_ahead_of_everything_that_waits() -> None:
    """A withdrawal at the end of a backlog is in the next request that starts once it was read."""
    assert _requests_before(_withdrawal_behind_a_backlog(), "contact-0") <= 1


def test_a_withdrawal_without_priority_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for a pipeline that lets withdrawals wait in line."""
    enqueue = Lanes._enqueue

    def patient(self: Lanes, lane: Lane, *, first: bool = False) -> None:
        lane.urgent = False
        enqueue(self, lane, first=first)

    monkeypatch.setattr(Lanes, "_enqueue", patient)
    assert _requests_before(_withdrawal_behind_a_backlog(), "contact-0") > 1
