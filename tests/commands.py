"""Commands of the program as processes: their settings, on a broker and a simulated Genesys, and what they answer."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from consumer.simulator.app import Simulator
from tests.kafka_clients import environ as kafka_environ


def environ(bootstrap: str, topic: str, simulator: Simulator, state: Path, **more: str) -> dict[str, str]:
    """Settings for one source topic and the list `list`; every other name is derived from the topic's."""
    return {
        **kafka_environ(bootstrap, topic),
        "GENESYS_LOGIN_URL": simulator.url,
        "GENESYS_API_URL": simulator.url,
        "STATE_DIR": str(state),
        "HTTP_ADDRESS": "127.0.0.1:0",
        **more,
    }


@asynccontextmanager
async def started(
    settings: Mapping[str, str], *arguments: str, stdout: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command with no settings but these; killed at the end, if it runs still."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "GENESYS_", "OTEL_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", *arguments,
        env={**kept, **settings}, stdout=stdout, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(settings: Mapping[str, str], *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error of a command."""
    async with started(settings, *arguments) as process:
        out, error = await process.communicate()
        return process.returncode, out.decode(), error.decode()
