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

    async def wait(self) -> None:
        """Wait for the next pulse: whoever has just looked misses none."""
        await self._next.wait()
