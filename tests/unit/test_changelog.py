"""What a reader of the changelog does while nothing comes."""

import gc
import itertools
import threading
import weakref
from typing import Any

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from consumer.adapters.kafka import changelog
from consumer.adapters.kafka.changelog import GIVES_UP_AFTER_S, POLL_S, SILENCE_S
from consumer.adapters.kafka.settling_producer import TRANSACTION_TIMEOUT_MS
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition
from consumer.ports import ChangelogChunk
from tests.lives import settings
from tests.scripted_client import Client, Clock
from tests.waiting import eventually

SOURCE = TopicPartition("contacts", 0)
END = 2
WITHIN_S = 20.0
SILENCE = ChangelogChunk([], 0, END)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time as the reader sees it, at a changelog of two entries."""
    clock = Clock()
    monkeypatch.setattr(changelog, "time", clock)
    monkeypatch.setattr(changelog, "_bounds", lambda *_: (0, END))
    return clock


def entry(offset: int) -> Message:
    """An entry of the source partition."""
    return Message(partition=0, offset=offset, key=changelog.prefix_of(SOURCE) + b"k", value=b"v")


def reader(client: Client) -> changelog._Reader:
    """At the beginning."""
    return changelog._Reader(client, None, settings(), SOURCE, 0)  # type: ignore[arg-type]


def test_who_hears_nothing_tells_so_and_gives_up(clock: Clock) -> None:
    """Each time the caller can go; in the end another client is to try, as this one may have lost the brokers."""
    subject = reader(Client(clock, itertools.repeat(None)))

    def listen() -> None:
        while clock.now < 2 * GIVES_UP_AFTER_S:
            assert subject.next() == SILENCE

    with capture_logs() as logs, pytest.raises(SourceUnavailable, match="nothing of the changelog came"):
        listen()
    assert clock.now == pytest.approx(GIVES_UP_AFTER_S, abs=2 * POLL_S)
    assert [line["event"] for line in logs] == ["waiting_for_changelog"] * int(GIVES_UP_AFTER_S / SILENCE_S - 1)


def test_the_transaction_of_a_dead_process_is_waited_for() -> None:
    """The brokers look every ten seconds for those whose time is over."""
    assert GIVES_UP_AFTER_S > TRANSACTION_TIMEOUT_MS / 1000 + 10


def test_progress_is_no_silence(clock: Clock) -> None:
    """However long the whole takes: what counts is the wait for what comes next."""
    silent = [None] * int(0.9 * GIVES_UP_AFTER_S / POLL_S)
    subject = reader(Client(clock, [*silent, entry(0), *silent, entry(1)]))
    chunks = [subject.next() for _ in range(2 * len(silent) + 2)]
    assert subject.finished
    assert [chunk for chunk in chunks if chunk.entries] == [
        ChangelogChunk([(b"k", b"v")], position, END) for position in (1, 2)
    ]


def test_what_the_disk_takes_is_no_silence(clock: Clock) -> None:
    """Between two calls the store is written, for however long."""
    subject = reader(Client(clock, itertools.repeat(None)))
    for _ in range(10):
        assert subject.next() == SILENCE
        clock.now += GIVES_UP_AFTER_S


async def test_a_client_that_is_given_up_ends_where_nobody_waits_for_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end may take long, and the error that tells of it is kept until the next attempt."""
    monkeypatch.setattr(changelog, "GIVES_UP_AFTER_S", POLL_S)
    gone: list[str] = []
    clients = [Client(clock, [None])]
    _ = weakref.ref(clients[0], lambda _: gone.append(threading.current_thread().name))
    connection: Any = type("Connection", (), {"reader": lambda *_: clients.pop()})()
    gc.disable()
    try:
        with pytest.raises(SourceUnavailable) as told:
            await anext(changelog.read(connection, None, settings(), SOURCE, 0))  # type: ignore[arg-type]
        await eventually(lambda: bool(gone), WITHIN_S)
        assert told.value.__traceback__ is not None
    finally:
        gc.enable()
    assert gone == ["kafka-changelog"]
