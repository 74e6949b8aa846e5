"""What the poll thread does in the library's callbacks, without brokers: how partitions are taken in an orderly way."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition as NativePartition
from structlog.testing import capture_logs

from consumer.adapters.kafka import reach
from consumer.adapters.kafka.connection import NO_EPOCH, Connection, native
from consumer.adapters.kafka.group_offsets import GroupMember, Mark
from consumer.adapters.kafka.handoff import Handoff
from consumer.adapters.kafka.poller import Poller
from consumer.errors import FatalError
from consumer.model import TopicPartition
from consumer.ports import Lost, Polled, Revoked, SourceEvent, Starting
from tests.lives import settings

WITHIN_S = 5
P0, P1 = TopicPartition("changes", 0), TopicPartition("changes", 1)


class _Client:
    """A group consumer that notes nothing and fetches nothing."""

    def incremental_assign(self, partitions: list[NativePartition]) -> None: ...

    def incremental_unassign(self, partitions: list[NativePartition]) -> None: ...

    def pause(self, partitions: list[NativePartition]) -> None: ...

    def consumer_group_metadata(self) -> bytes:
        return b""


def _poller(handoff: Handoff, request_s: int = 20, **properties: str) -> Poller:
    poller = Poller(
        Connection("127.0.0.1:1", {name.replace("_", "."): value for name, value in properties.items()}),
        settings(genesys_request_timeout_s=request_s),
        handoff,
        revoke_timeout_s=30.0,
        on_overtaken=lambda _: None,
        changelog_id="",
    )
    poller.ownership.use(_Client())  # type: ignore[arg-type]
    return poller


async def _next(handoff: Handoff, wanted: type[SourceEvent]) -> Any:
    async with asyncio.timeout(WITHIN_S):
        while not isinstance(event := await handoff.next(), wanted):
            pass
    return event


async def _revoked(act: Callable[[Poller], None]) -> None:
    """A member to which something happens, and whose partitions are then taken: it waits until they are released."""
    handoff = Handoff()
    poller = _poller(handoff)
    client: Any = None
    poller._lease.renew(time.monotonic())
    poller.ownership.partitions |= {P0, P1}
    act(poller)
    revoking = asyncio.create_task(asyncio.to_thread(poller._on_revoke, client, [native(P0), native(P1)]))
    revoked = await _next(handoff, Revoked)
    assert set(revoked.partitions) == {P0, P1}
    assert not revoking.done()
    revoked.release()
    await revoking
    poller.ownership.close()


async def test_partitions_are_taken_when_they_are_released() -> None:
    """The group waits meanwhile."""
    await _revoked(lambda _: None)


async def test_partitions_that_begin_anew_are_taken_when_they_are_released_too() -> None:
    """Their topic was made anew, or is gone: of the former one requests may be under way.

    Neither those of which something is under way, nor those of which only the beginning is not known yet.
    """

    def begin_anew(poller: Poller) -> None:
        poller.ownership.start_over([P0])
        poller.ownership.let_go([P1])
        poller.ownership.take([P1])

    await _revoked(begin_anew)


@pytest.mark.parametrize(
    ("request_s", "session_ms", "told"),
    [(20, None, False), (30, None, False), (31, None, True), (20, "29999", True), (20, "30000", False)],
)
async def test_requests_that_outlast_a_revocation_are_told_at_start(
    request_s: int, session_ms: str | None, *, told: bool
) -> None:
    """The new owner may have sent what is newer by the time such a one is done."""
    properties = {"session_timeout_ms": session_ms} if session_ms else {}
    with capture_logs() as logs:
        _poller(Handoff(), request_s, **properties)
    assert ("requests_outlast_revocations" in [line["event"] for line in logs]) is told


CONSUMER = {"group_protocol": "consumer"}


@pytest.mark.parametrize(
    ("request_s", "properties", "begins_within_s"),
    [
        (20, {}, 24),
        (20, {"heartbeat_interval_ms": "3000"}, 22),
        (20, CONSUMER, 20),
        (5, {}, 30),
        (20, {"session_timeout_ms": "90000"}, 60),
        (40, {}, 15),
        (20, {"session_timeout_ms": "30000", "heartbeat_interval_ms": "10000"}, 16),
    ],
)
async def test_requests_that_begin_are_over_before_the_session_is(
    request_s: int, properties: dict[str, str], begins_within_s: float
) -> None:
    """Who is cut off from the group goes on for a while: the new owner must find none of his requests under way."""
    poller = _poller(Handoff(), request_s, **properties)
    poller.ownership.partitions.add(P0)
    poller.ownership.publish()
    now = time.monotonic()
    poller._lease.renew(now - begins_within_s + WITHIN_S)
    assert poller.owns(P0)
    poller._lease.renew(now - begins_within_s)
    assert not poller.owns(P0)
    poller._lease.renew(now)
    poller.last_poll = now - begins_within_s
    assert not poller.owns(P0)
    poller.ownership.close()


class _Message:
    """A record of a partition, or an error."""

    def __init__(self, offset: int, error: KafkaError | None = None, epoch: int | None = None) -> None:
        self._offset, self._error, self._epoch = offset, error, epoch

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def leader_epoch(self) -> int | None:
        return self._epoch

    def topic(self) -> str:
        return P0.topic

    def partition(self) -> int:
        return P0.partition

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)

    def key(self) -> None: ...

    def value(self) -> None: ...

    def headers(self) -> None: ...


async def test_where_to_go_on_is_asked_behind_the_records_of_the_same_poll() -> None:
    """They are handed over. The library's error names no offset where the log was cut off."""
    handoff = Handoff()
    poller = _poller(handoff)
    poller.ownership.partitions.add(P0)
    poller.ownership.fetched.add(P0)
    poller.ownership.marks = {P0: Mark(3, "a", 0)}
    cut_off = _Message(-1001, KafkaError(KafkaError._AUTO_OFFSET_RESET))
    poller._hand_over([_Message(3, epoch=1), _Message(4, epoch=2), cut_off])  # type: ignore[list-item]
    assert [record.offset for record in (await _next(handoff, Polled)).records] == [3, 4]
    assert poller.ownership._starts.pending == {P0: Mark(5, "a", 2)}
    poller.ownership.close()


async def test_records_are_settled_with_the_epoch_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before anybody hears of them. An earlier one would tell of a log that was cut off where none was."""
    handoff = Handoff()
    poller = _poller(handoff)
    poller.ownership.partitions.add(P0)
    poller.ownership.fetched.add(P0)
    poller.ownership.marks = {P0: Mark(3, "a", 0)}
    poller.ownership.publish()
    emitted: list[GroupMember | None] = []
    monkeypatch.setattr(handoff, "emit", lambda _: emitted.append(poller.ownership.membership))
    end = _Message(7, KafkaError(KafkaError._PARTITION_EOF))
    poller._hand_over([_Message(3, epoch=1), _Message(4, epoch=2), end])  # type: ignore[list-item]
    assert emitted[0] is not None
    assert emitted[0].marks == {P0: Mark(5, "a", 2, 7)}
    poller._hand_over([_Message(7)])  # type: ignore[list-item]
    assert poller.ownership.marks[P0].epoch == NO_EPOCH
    poller.ownership.close()


@pytest.mark.parametrize(
    "failure", [FatalError("gone"), KafkaException(KafkaError(KafkaError._FATAL)), ZeroDivisionError()]
)
async def test_who_fails_leaves_the_group_once_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Not before: requests may be under way. A client that is thrown away as it is may hang the thread that does so."""
    left: list[bool] = []

    def fails(_: Poller) -> None:
        raise failure

    def refuses() -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))

    class Client(_Client):
        def subscribe(self, *_: object, **__: object) -> None: ...

        def close(self) -> None:
            left.append(True)

    monkeypatch.setattr(Connection, "consumer", lambda *_: Client())
    monkeypatch.setattr(Poller, "_turn", fails)
    handoff = Handoff()
    poller = _poller(handoff)
    running = asyncio.create_task(asyncio.to_thread(poller.run))
    with pytest.raises(FatalError):
        await _next(handoff, Revoked)
    handoff.command(refuses)
    assert not left
    assert not running.done()
    handoff.command(lambda: setattr(poller, "closing", True))
    async with asyncio.timeout(WITHIN_S):
        await running
    assert left == [True]


async def test_who_was_suspended_with_his_machine_begins_nothing_until_the_group_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the first moment on, before the poll thread has gone round: what waited to be sent is due by then."""
    suspended_s = 500.0
    clocks = {time.CLOCK_BOOTTIME: lambda: time.monotonic() + suspended_s}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: clocks[clock]())
    handoff = Handoff()
    poller = _poller(handoff)
    poller.ownership.partitions |= {P0}
    poller.ownership.publish()
    poller._lease.renew(time.monotonic())
    poller._went_round()
    assert [poller.owns(P0), poller.is_sure()] == [True, True]
    suspended_s += 60.0
    assert [poller.owns(P0), poller.is_sure()] == [False, False]
    poller._went_round()
    assert (await _next(handoff, Lost)).partitions == [P0]
    assert [poller.is_sure(), round(poller._silent_s())] == [False, 60]
    poller._lease.renew(time.monotonic())
    assert poller.is_sure()
    poller.ownership.close()


async def test_a_partition_whose_broker_is_not_reached_counts_as_starting_until_it_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Health, metric and status go by that. One that is paused is not asked for; of all this is told once."""
    monkeypatch.setattr(reach, "UNREACHED_AFTER_S", 0.0)
    handoff = Handoff()
    poller = _poller(handoff)
    ownership = poller.ownership
    ownership.partitions |= {P0, P1}
    ownership.fetched |= {P0, P1}
    ownership.pause([P1])
    told = orjson.dumps({"ts": 0, "cgrp": {"join_state": "steady"}, "brokers": {}, "topics": {}}).decode()
    with capture_logs() as logs:
        for _ in range(2):
            poller._on_statistics(told)
            ownership.tell_starting()
    assert (await _next(handoff, Starting)).partitions == {P0}
    assert [line["partitions"] for line in logs if line["event"] == "partitions_not_reached"] == [[P0]]
    ownership.let_go([P0])
    ownership.tell_starting()
    assert (await _next(handoff, Starting)).partitions == set()
    ownership.close()
