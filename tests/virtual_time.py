"""An event loop whose clock jumps to the next timer instead of waiting: an hour of backoff takes no time.

Tests that use it drive only in-memory ports; nothing may touch a socket or a thread.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from consumer.ports import TimeAndChance

T = TypeVar("T")

TURN_S = 1e-6
"""What a turn of the loop takes: time never stands still."""

START = 1000.0
"""What the clock says when a loop begins."""

EPOCH = 1_700_000_100.0
"""Seconds since the epoch when the clock stands at zero."""

MAX_VIRTUAL_S = 24 * 3600.0


class _Clock(selectors.SelectSelector):
    """A selector that lets time pass instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits, and no timer is set: a deadlock")
        self.now += max(TURN_S, timeout)
        if self.now > MAX_VIRTUAL_S:
            raise AssertionError("a day of virtual time has passed without an end")
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` is virtual."""

    def __init__(self) -> None:
        self._virtual = _Clock()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def times() -> TimeAndChance:
    """The clocks of the running loop, and dice that always say the same."""
    loop = asyncio.get_running_loop()
    return TimeAndChance(loop.time, lambda: EPOCH + loop.time(), lambda: 0.5)


async def passes(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, asked at every hundredth of the time waited so far; a virtual day without it fails."""
    begun = asyncio.get_running_loop().time()
    while not condition():  # noqa: ASYNC110 -- any state of the world may be asked for
        await asyncio.sleep(max(0.001, (asyncio.get_running_loop().time() - begun) / 100))


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
