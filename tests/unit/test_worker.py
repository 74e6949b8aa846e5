"""Calls that block keep nobody from ending."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import changelog_id, ensure
from consumer.adapters.worker import in_a_thread
from consumer.settings import Settings
from tests.kafka_clients import WITHIN_S
from tests.lives import settings

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("ask", [ensure, changelog_id])
async def test_who_is_told_to_stop_while_brokers_are_away_does_not_wait_for_them(
    ask: Callable[[Connection, Settings], Awaitable[object]],
) -> None:
    """The library waits for ten seconds or more, and the interpreter, at its end, for every thread but daemons."""
    chosen, before = settings(kafka_bootstrap_servers=NOBODY), set(threading.enumerate())
    asking = asyncio.ensure_future(ask(Connection.of(chosen), chosen))
    await asyncio.sleep(0)
    (thread,) = set(threading.enumerate()) - before
    asking.cancel()
    assert thread.daemon


def test_what_blocks_does_not_hold_up_the_end() -> None:
    """Whoever presses Ctrl-C need not wait until brokers that do not answer have had their time."""
    told, ended = threading.Event(), threading.Event()

    def call() -> None:
        told.wait(WITHIN_S)
        ended.set()

    async def given_up() -> None:
        blocking = asyncio.create_task(in_a_thread("test", call))
        await asyncio.sleep(0)
        blocking.cancel()
        with suppress(asyncio.CancelledError):
            await blocking

    asyncio.run(given_up())
    assert not ended.is_set()
    told.set()
