"""The simulator alone, as a command: serves until it is told to stop."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault


async def serve(port: int, rate_limit: int | None, faults: Sequence[str], clients: Sequence[str]) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT.

    Args:
        port: Port; 0 takes a free one.
        rate_limit: Requests per token and minute; None is without limit.
        faults: As `Fault.parse` reads them.
        clients: `ID:SECRET` of the clients that get a token; none: all do.

    Raises:
        ValueError: A fault or a client is not understood, or the port cannot be had.
    """
    pairs = [client.partition(":") for client in clients]
    if not all(name and secret for name, _, secret in pairs):
        raise ValueError("--client takes ID:SECRET")
    simulator = Simulator(
        clients={name: secret for name, _, secret in pairs} or None,
        requests_per_minute=rate_limit,
        faults=[Fault.parse(fault) for fault in faults],
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await simulator.start(port=port)
    except OSError as error:
        raise ValueError(f"--port {port}: {error.strerror}") from None
    sys.stdout.write(
        f"Genesys Cloud, simulated, at {simulator.url}\n"
        f"  GENESYS_LOGIN_URL={simulator.url} GENESYS_API_URL={simulator.url} GENESYS_UPLOAD_URL={simulator.url}\n"
        f"  lists: {simulator.url}/simulator/lists, for people: {simulator.url}/\n"
    )
    sys.stdout.flush()
    await stop.wait()
    await simulator.stop()
