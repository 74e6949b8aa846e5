"""A TCP proxy that can be told to cut, refuse, delay or swallow what passes through it. Touches loopback ports."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

CHUNK_BYTES = 65_536

GIVEN_UP_FIRST_S = 0.2
"""By so much what a client has given up is ahead of what others wait for, once it is passed on after all."""

Change = Callable[[bytes], bytes]
"""Makes of a piece what is passed on."""


def _unchanged(piece: bytes) -> bytes:
    return piece


class Proxy:
    """Passes one port on to another, as well as it is told to.

    Attributes:
        delay_s: How long each piece waits before it is passed on.
        refuses: New connections are closed at once.
        swallows: Nothing is passed on, in either direction, and nothing is closed.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._served: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.delay_s = 0.0
        self.refuses = False

    @property
    def swallows(self) -> bool:
        return not self._passing.is_set()

    @swallows.setter
    def swallows(self, value: bool) -> None:
        (self._passing.clear if value else self._passing.set)()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=CHUNK_BYTES)

    async def stop(self) -> None:
        """Stop listening and cut everything."""
        assert self._server is not None
        self._server.close()
        self.cut()
        served = list(self._served)
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports end in the next turn of the loop

    def cut(self) -> int:
        """Close every connection, whatever is under way in it; how many ends there were."""
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers)

    def heal(self) -> None:
        """Pass everything on again."""
        self.delay_s, self.refuses, self.swallows = 0.0, False, False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        try:
            with suppress(asyncio.CancelledError):  # asyncio would log it
                await self._converse(reader, writer)
        finally:
            writer.close()
            self._served.discard(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port, limit=CHUNK_BYTES)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            request, answer = self._changes()
            await asyncio.gather(self._pass_on(reader, far_writer, request), self._pass_on(far_reader, writer, answer))
        finally:
            far_writer.close()
            self._writers -= {writer, far_writer}

    def _changes(self) -> tuple[Change, Change]:
        """What becomes of the pieces of a new connection, one way and the other."""
        return _unchanged, _unchanged

    async def _pass_again(self, reader: asyncio.StreamReader) -> None:
        """Come back when a piece is to be passed on, late.

        A request that nobody waits for any more arrives all the same, and is over when its end is seen. Who repeats it
        meanwhile can do nothing about that, so he arrives behind it: else both would be under way at once.
        """
        await self._passing.wait()
        if not reader.at_eof():
            await asyncio.sleep(GIVEN_UP_FIRST_S)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.swallows:
                    await self._pass_again(reader)
                writer.write(change(piece))
                await writer.drain()
        writer.close()
