"""Calls that block keep nobody from ending."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import changelog_id, ensure
from consumer.settings import Settings
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
