"""Runs pipelines on a world in memory, one life after the other."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from consumer.core.delivery import Throttle
from consumer.core.envelopes.choice import Envelopes
from consumer.formats import EnvelopeName, PerTopic
from consumer.model import TopicPartition
from consumer.pipeline.readers import envelopes_of
from consumer.pipeline.run import Pipeline
from consumer.ports import Breadcrumbs, Sink
from consumer.settings import Settings, load
from tests import virtual_time
from tests.memory_ports import (
    Killed,
    MemoryBreadcrumbs,
    MemorySchemas,
    MemorySink,
    MemorySource,
    MemoryStore,
    MemoryTopics,
    SilentTelemetry,
    World,
)
from tests.stories import Story

REQUIRED = {
    "KAFKA_BOOTSTRAP_SERVERS": "memory:9092",
    "GENESYS_OAUTH_CLIENT_ID": "id",
    "GENESYS_OAUTH_CLIENT_SECRET": "secret",
    "GENESYS_CONTACT_LIST": "list",
}
NATIVE = Envelopes.of(PerTopic(EnvelopeName.NATIVE, {}), {}, {})


def settings(**changed: object) -> Settings:
    """Settings for tests: the defaults, and what a test changes."""
    return load({**REQUIRED, **{name.upper(): str(value) for name, value in changed.items()}})


def _envelopes(chosen: Settings) -> Envelopes:
    """Those of the settings; a life begins thousands of times, most with the native one."""
    if chosen.source_envelope == NATIVE.names:
        return NATIVE
    return envelopes_of(chosen)


class Life:
    """One process on a world: its ports and its pipeline."""

    def __init__(
        self,
        world: World,
        schemas: MemorySchemas | None = None,
        *,
        topics: MemoryTopics | None = None,
        store: MemoryStore | None = None,
        sink: Sink | None = None,
        breadcrumbs: Breadcrumbs | None = None,
        **changed: object,
    ) -> None:
        self.world = world
        world.lives += 1
        self.source = MemorySource(world)
        self.topics = topics or MemoryTopics(world)
        self.store = store or MemoryStore(world)
        self.telemetry = SilentTelemetry()
        self.stop = asyncio.Event()
        chosen = settings(**changed)
        self.pipeline = Pipeline(
            settings=chosen,
            source=self.source,
            topics=self.topics,
            store=self.store,
            schemas=schemas or MemorySchemas(),
            envelopes=_envelopes(chosen),
            breadcrumbs=breadcrumbs or MemoryBreadcrumbs(),
            sink=sink or MemorySink(world),
            telemetry=self.telemetry,
            throttle=Throttle(chosen.genesys_requests_per_minute),
            key=b"key",
            times=virtual_time.times(),
        )

    async def run(self, *, until_caught_up: bool = True) -> None:
        """Live until everything is settled, or told to stop."""
        await self.pipeline.run(self.stop, until_caught_up=until_caught_up)


def live(world: World, schemas: MemorySchemas | None = None, **changed: Any) -> Life:
    """One whole life in virtual time."""

    async def main() -> Life:
        life = Life(world, schemas, **changed)
        await life.run()
        return life

    return virtual_time.run(main())


def world_of(story: Story) -> World:
    """A world whose topics hold a story."""
    world = World()
    world.append(story.records())
    return world


def in_life(
    world: World, act: Callable[[Life], Coroutine[Any, Any, None]], schemas: MemorySchemas | None = None, **changed: Any
) -> None:
    """Run a life that does not end by itself, and act beside it."""

    async def main() -> None:
        life = Life(world, schemas, **changed)
        running = asyncio.create_task(life.run(until_caught_up=False))
        try:
            await act(life)
        finally:
            life.stop.set()
            await running

    virtual_time.run(main())


def survive(world: World, die_at: int | None, *, after_effect: bool, **changed: Any) -> bool:
    """A life that dies at a step; whether it did."""
    world.steps, world.die_at, world.die_after_effect = 0, die_at, after_effect
    world.in_flight.clear()
    try:
        live(world, **changed)
    except BaseExceptionGroup as group:
        killed, rest = group.split(Killed)
        if rest is not None:
            raise rest from None
        return killed is not None
    except Killed:
        return True
    return False


def arrives(world: World, life: Life, story: Story) -> None:
    """Put on the topics what the story tells beyond what is there."""
    for key, told in story.events.items():
        known = len(world.log.get(key, ()))
        records = [record for record in story.records() if TopicPartition(record.topic, record.partition) == key]
        world.log[key] = [*world.log.get(key, ()), *records[known : len(told)]]
    life.source.wake()
