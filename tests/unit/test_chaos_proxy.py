"""The proxy between the consumers of a round of chaos and what they talk to."""

import asyncio

from tests.chaos.proxy import Proxy
from tests.waiting import eventually


class Watched(Proxy):
    """Tells what it has yet to pass on."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.late: list[asyncio.StreamReader] = []

    async def _pass_again(self, reader: asyncio.StreamReader) -> None:
        self.late.append(reader)
        await super()._pass_again(reader)


async def test_what_was_given_up_while_all_was_swallowed_is_over_before_what_repeats_it_arrives() -> None:
    """Whichever of them was sent first."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(100):
            seen.append(piece.decode())
        seen.append("end")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Watched(server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        proxy.swallows = True
        (_, kept), (_, given_up) = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(2)]
        kept.write(b"again")
        given_up.write(b"late")
        given_up.close()
        await eventually(lambda: len(proxy.late) == 2 and any(reader.at_eof() for reader in proxy.late), 10)
        assert seen == []
        proxy.swallows = False
        await eventually(lambda: "again" in seen, 10)
        assert seen == ["late", "end", "again"]
        kept.close()
    finally:
        await proxy.stop()
        server.close()
