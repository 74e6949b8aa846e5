"""The place between the poll thread and the event loop: commands go in, events come out, in order.

Answers for: order, and for how far the poll thread may run ahead of the pipeline. Touches no outside system.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from consumer.errors import ConsumerError
from consumer.ports import Polled, SourceEvent

MAX_UNTAKEN = 2
"""Polls that wait for the pipeline. Each holds up to a poll's worth of records."""


class Handoff:
    """Made on the event loop that takes the events."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[SourceEvent | ConsumerError] = asyncio.Queue()
        self._changed = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._untaken = 0

    # -- the event loop's side

    async def next(self) -> SourceEvent:
        """The next event; an error among the events is raised when its turn comes."""
        event = await self._events.get()
        if isinstance(event, ConsumerError):
            raise event
        if isinstance(event, Polled):
            with self._changed:
                self._untaken -= 1
                self._changed.notify()
        return event

    def command(self, command: Callable[[], None]) -> None:
        """Have the poll thread call this; it must not raise."""
        with self._changed:
            self._commands.append(command)
            self._changed.notify()

    def wake(self) -> None:
        """Make the poll thread look up if it waits."""
        with self._changed:
            self._changed.notify()

    # -- the poll thread's side

    def emit(self, event: SourceEvent | ConsumerError) -> None:
        """Pass an event on to the event loop."""
        if isinstance(event, Polled):
            with self._changed:
                self._untaken += 1
        self.call(self._events.put_nowait, event)

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Have the event loop call this, after the events so far."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(callback, *args)

    def serve(self) -> None:
        """Call the commands that came in, in order."""
        while self._commands:
            self._commands.popleft()()

    def wait_for_room(self, seconds: float) -> bool:
        """Wait until another poll may be passed on; a command ends the wait too."""
        return self.wait(lambda: self._untaken < MAX_UNTAKEN, seconds)

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait until this holds; a command ends the wait too. Says whether it holds."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or until(), seconds)
            return until()
