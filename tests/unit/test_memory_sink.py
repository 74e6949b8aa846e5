"""The in-memory sink of the pipeline's tests keeps the contract that the one for Genesys keeps."""

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from consumer.ports import Sink
from tests.memory_ports import MemorySink, World
from tests.sink_contract import Held, SinkContract


class TestMemorySink(SinkContract):
    @asynccontextmanager
    async def listed(
        self,
        *,
        refused: Collection[str] = (),
        left_out: Collection[str] = (),
        in_use: Collection[str] = (),
        lag_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncIterator[tuple[Sink, Callable[[], Held]]]:
        """On a world of its own."""
        world = World()
        world.poison, world.left_out, world.in_use = {*refused}, {*left_out}, {*in_use}
        world.read_lag, world.clock = lag_s, clock

        def held() -> Held:
            return {name: (each["phone"], each["consent"], each["callable"]) for name, each in world.list.items()}

        yield MemorySink(world), held
