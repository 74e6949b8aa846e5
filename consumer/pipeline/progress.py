"""How one task of the pipeline learns that another one got something done."""

import asyncio


class Progress:
    """A pulse: whoever waits goes on at the next one, and looks for itself what has changed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def made(self) -> None:
        """Wake all who wait."""
        pulse, self._next = self._next, asyncio.Event()
        pulse.set()

    @property
    def next(self) -> asyncio.Event:
        """The next pulse, to take before looking at what may change."""
        return self._next

    async def wait(self) -> None:
        """Wait for the next pulse."""
        await self._next.wait()
