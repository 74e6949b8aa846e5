"""Loads that are stopped, revoked, frozen or repeated half way: nothing of theirs comes after what the stream sends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from consumer.command_ports import ImportStatus
from consumer.errors import SinkUnavailable, SourceUnavailable
from consumer.model import Record, TopicPartition
from consumer.pipeline.assignments import REVOKE_MARGIN_S
from consumer.pipeline.imports import UNSEEN_S
from consumer.ports import Lost, nothing
from tests import virtual_time
from tests.fills import Fill, MemoryRows, empty_world, partition_of, row
from tests.lives import Life
from tests.memory_ports import MemorySink, World
from tests.stories import TOPIC, Event
from tests.virtual_time import passes, until

LASTS_S = 2.0
SOON_S, LATE_S = 8.0, UNSEEN_S - 1
DELAYS_S = [SOON_S, LATE_S]
PARTITIONS = [TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)]

Body = Callable[[], AsyncIterator[bytes]]


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Genesys:
    """A list whose imports follow each other, each of which shows only some time after its file or the one before.

    Attributes:
        arrived: Contacts of each file.
        answers_lost: So many uploads arrive without an answer.
        outages: When the status is not told, from and until.
    """

    def __init__(self, world: World, delay_s: float) -> None:
        self._world = world
        self._delay_s = delay_s
        self._shown: list[tuple[float, float, int]] = []
        self.arrived: list[list[dict[str, Any]]] = []
        self.answers_lost = 0
        self.outages: list[tuple[float, float]] = []

    def fill(self, *names: str) -> Fill:
        """A load of these contacts, who may be called; each row is read by itself."""
        run = Fill(self._world, MemoryRows([row(name) for name in names], chunk=1))
        run.uploads.upload, run.uploads.import_status = self.upload, self.status  # type: ignore[method-assign]
        return run

    async def upload(self, size: int, body: Body) -> None:
        content = b"".join([chunk async for chunk in body()])
        if len(content) == size:
            self.receive(content)
        await passes(0.1)
        if self.answers_lost:
            self.answers_lost -= 1
            raise SinkUnavailable("no answer")

    def receive(self, content: bytes) -> None:
        """A whole file is here."""
        contacts = [orjson.loads(line) for line in content.splitlines()[1:]]
        begins = max([_now(), *(ends for _, ends, _ in self._shown)]) + self._delay_s
        self.arrived.append(contacts)
        self._shown.append((begins, begins + LASTS_S, len(contacts)))
        asyncio.get_running_loop().call_at(begins + LASTS_S, self._import, contacts)

    def _import(self, contacts: list[dict[str, Any]]) -> None:
        self._world.pending_import = (0, contacts)
        self._world.import_goes_on()

    async def status(self) -> ImportStatus:
        await passes(0.01)
        if any(begins <= _now() < ends for begins, ends in self.outages):
            raise SinkUnavailable("away")
        return self.last()

    def last(self) -> ImportStatus:
        """Of the import that began last."""
        begun = [each for each in self._shown if each[0] <= _now()]
        if not begun:
            return ImportStatus(under_way=False, failure="", total=0, completed=0)
        _, ends, total = begun[-1]
        return ImportStatus(_now() < ends, "", total, total if _now() >= ends else 0)

    async def stream(self) -> None:
        """Consumers are started: a withdraws consent, and b is deleted."""
        for event in (Event("a", None, consent=False), Event("b", None, delete=True)):
            number = partition_of(self._world, event.external_id)
            offset = len(self._world.log[TopicPartition(TOPIC, number)])
            record = Record(TOPIC, number, offset, event.occurred_at, event.external_id.encode(), event.value())
            self._world.append([record])
        await Life(self._world, sink=_Sink(self._world, self)).run()
        assert [event["outcome"] for event in self._world.events()][-2:] == ["delivered"] * 2

    async def check(self) -> None:
        """In the end the list is what the stream said last."""
        await passes(600)
        assert "b" not in self._world.list
        assert not any(contact["callable"] or contact["consent"] for contact in self._world.list.values())


class _Sink(MemorySink):
    """Knows of those imports."""

    def __init__(self, world: World, genesys: _Genesys) -> None:
        super().__init__(world)
        self._genesys = genesys

    async def is_importing(self) -> bool:
        await passes(0.01)
        return self._genesys.last().under_way


def _story(act: Callable[[World, _Genesys], Coroutine[Any, Any, None]], delay_s: float) -> None:
    async def main() -> None:
        world = empty_world()
        genesys = _Genesys(world, delay_s)
        await act(world, genesys)

    virtual_time.run(main())


async def _stopped(genesys: _Genesys) -> None:
    """A load that is told to stop as soon as its file is with Genesys."""
    before = len(genesys.arrived)
    loading = asyncio.create_task(genesys.fill("a", "b").first_fill.run())
    await until(lambda: len(genesys.arrived) > before)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading


async def _failure(loading: asyncio.Task[Any]) -> str:
    with pytest.raises(ExceptionGroup) as caught:
        await loading
    (error,) = caught.value.exceptions
    return str(error)


# -- imports that show late


@pytest.mark.parametrize("delay_s", DELAYS_S)
def test_consumers_that_start_when_a_load_was_stopped_come_after_its_import(delay_s: float) -> None:
    """It may not show for half a minute."""

    async def act(_: World, genesys: _Genesys) -> None:
        await _stopped(genesys)
        await genesys.stream()
        await genesys.check()

    _story(act, delay_s)


@pytest.mark.parametrize("delay_s", DELAYS_S)
def test_a_file_that_was_sent_twice_is_imported_twice_before_the_load_ends(delay_s: float) -> None:
    """The answer to the first was lost: its import is not taken for that of the second."""

    async def act(world: World, genesys: _Genesys) -> None:
        genesys.answers_lost = 1
        await genesys.fill("a", "b").first_fill.run()
        assert len(genesys.arrived) == 2
        assert world.list.keys() == {"a", "b"}
        await genesys.stream()
        await genesys.check()

    _story(act, delay_s)


def test_an_import_that_came_and_went_while_the_status_was_not_told_may_be_followed_by_another() -> None:
    """The file was sent twice, and of the first import nothing was seen."""

    async def act(_: World, genesys: _Genesys) -> None:
        genesys.answers_lost = 1
        loading = asyncio.create_task(genesys.fill("a", "b").first_fill.run())
        await until(lambda: len(genesys.arrived) == 2)
        genesys.outages = [(_now(), _now() + SOON_S + 20)]
        await loading
        await genesys.stream()
        await genesys.check()

    _story(act, LATE_S - 5)


@pytest.mark.parametrize("delay_s", DELAYS_S)
def test_a_load_that_follows_a_stopped_one_does_not_take_its_import_for_its_own(delay_s: float) -> None:
    """Both are over when it ends."""

    async def act(_: World, genesys: _Genesys) -> None:
        await _stopped(genesys)
        await genesys.fill("a", "b").first_fill.run()
        assert len(genesys.arrived) == 2
        await genesys.stream()
        await genesys.check()

    _story(act, delay_s)


def test_a_file_that_surely_did_not_arrive_is_not_waited_for() -> None:
    """Who could not be reached before it was whole has imported nothing: the next one's import shows what it is."""

    async def act(_: World, genesys: _Genesys) -> None:
        run, failures = genesys.fill("a", "b"), [SinkUnavailable("refused")] * 3

        async def upload(size: int, body: Body) -> None:
            if failures:
                raise failures.pop()
            await genesys.upload(size, body)

        run.uploads.upload = upload  # type: ignore[method-assign]
        begun = _now()
        await run.first_fill.run()
        assert len(genesys.arrived) == 1
        assert _now() - begun < UNSEEN_S

    _story(act, SOON_S)


# -- partitions that are taken away


class _Requests(MemorySink):
    """Whose requests are written at once, and done after some time, whether anybody still waits for them or not."""

    def __init__(self, world: World, takes_s: float) -> None:
        super().__init__(world)
        self.takes_s = takes_s
        self.written: list[float] = []
        self.done: list[float] = []

    async def upsert(self, contacts: Any, sure: Any = None, *more: Any, **named: Any) -> Any:
        assert sure()
        self.written.append(_now())
        await asyncio.shield(asyncio.create_task(self._apply(contacts)))
        return set()

    async def _apply(self, contacts: Any) -> None:
        await passes(self.takes_s)
        for body in map(orjson.loads, contacts):
            self._world.list[body["externalId"]] = {"callable": body["callable"], **body["data"]}
        self.done.append(_now())


async def _at_work(world: World, takes_s: float) -> tuple[Fill, _Requests, asyncio.Task[Any]]:
    """A load whose first of two requests is under way, with values that no file can have; one contact goes by file."""
    rows = [row("a", segment="x" * 513), row("b", segment="x" * 513), row("c")]
    one_by_one = {"batch_max_records": 1, "genesys_max_in_flight": 1}
    run = Fill(world, MemoryRows(rows), genesys_attribute_columns="segment", **one_by_one)
    sink = _Requests(world, takes_s)
    run.first_fill._requests.outbound.dispatcher._requests._sink = sink
    loading = asyncio.create_task(run.first_fill.run())
    await until(lambda: len(sink.written) > 0)
    return run, sink, loading


LIMIT_S = 20.0 + REVOKE_MARGIN_S
"""By the default of GENESYS_REQUEST_TIMEOUT_S."""


@pytest.mark.parametrize(("takes_s", "waits_s"), [(15.0, 15.0), (3600.0, LIMIT_S)], ids=["answered", "hanging"])
def test_partitions_are_let_go_only_when_no_request_is_under_way(takes_s: float, waits_s: float) -> None:
    """Or when it cannot be any more; and no other begins, nor is the file sent."""

    async def main() -> None:
        world = empty_world()
        run, sink, loading = await _at_work(world, takes_s)
        await run.source.revoke(PARTITIONS)
        assert _now() - sink.written[0] == pytest.approx(waits_s, abs=0.5)
        assert len(sink.done) == (takes_s <= waits_s)
        assert "stop the consumers" in await _failure(loading)
        assert len(sink.written) == 1
        assert run.uploads.files == []

    virtual_time.run(main())


@pytest.mark.parametrize(("takes_s", "waits_s"), [(15.0, 15.0), (3600.0, LIMIT_S)], ids=["answered", "hanging"])
def test_who_is_told_to_stop_ends_when_no_request_is_under_way(takes_s: float, waits_s: float) -> None:
    """Then it leaves the group, and the next owner sends nothing that this request could undo."""

    async def main() -> None:
        world = empty_world()
        run, sink, loading = await _at_work(world, takes_s)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert run.told[-1] == ("waiting for requests under way", 0, 1)
        assert _now() - sink.written[0] == pytest.approx(waits_s, abs=0.5)
        assert len(sink.written) == 1

    virtual_time.run(main())


def test_who_has_lost_his_partitions_does_not_wait_for_requests() -> None:
    """They are somebody else's already."""

    async def main() -> None:
        run, sink, loading = await _at_work(empty_world(), 15.0)
        run.source.lose(PARTITIONS)
        assert "stop the consumers" in await _failure(loading)
        assert _now() - sink.written[0] < 1

    virtual_time.run(main())


@pytest.mark.parametrize("answered", [True, False], ids=["the file is taken", "no answer"])
def test_partitions_are_let_go_when_what_may_have_arrived_is_imported(answered: bool) -> None:
    """Also while it is not known whether the file arrived, which is not sent again then."""

    async def act(world: World, genesys: _Genesys) -> None:
        genesys.answers_lost = 0 if answered else 1
        run = genesys.fill("a", "b")
        loading = asyncio.create_task(run.first_fill.run())
        await until(lambda: len(genesys.arrived) == 1)
        await passes(0.5)  # between the attempts, where there is another
        await run.source.revoke(PARTITIONS)
        assert world.list.keys() == {"a", "b"}
        assert "stop the consumers" in await _failure(loading)
        assert len(genesys.arrived) == 1

    _story(act, SOON_S)


def test_a_file_may_have_arrived_as_soon_as_its_last_bytes_are_written() -> None:
    """Whoever writes them may ask for more only later, or never: they are with Genesys by then."""

    async def act(world: World, genesys: _Genesys) -> None:
        run = genesys.fill("a", "b")

        async def upload(size: int, body: Body) -> None:
            content = b""
            async for chunk in body():
                content += chunk
                if len(content) == size:
                    genesys.receive(content)
                    await passes(1)
                    raise SinkUnavailable("broken off")

        run.uploads.upload = upload  # type: ignore[method-assign]
        loading = asyncio.create_task(run.first_fill.run())
        await until(lambda: len(genesys.arrived) == 1)
        await run.source.revoke(PARTITIONS)
        assert world.list.keys() == {"a", "b"}
        assert "stop the consumers" in await _failure(loading)

    _story(act, SOON_S)


def test_a_second_attempt_breaks_off_when_partitions_are_to_be_let_go() -> None:
    """The first may have arrived, which is waited for: the second must not."""

    async def act(world: World, genesys: _Genesys) -> None:
        genesys.answers_lost = 1
        run = genesys.fill("a", "b", "c", "d")
        revoking: list[asyncio.Task[None]] = []

        async def upload(size: int, body: Body) -> None:
            async def slowly() -> AsyncIterator[bytes]:
                async for chunk in body():
                    if genesys.arrived and not revoking:
                        revoking.append(asyncio.create_task(run.source.revoke(PARTITIONS)))
                        await passes(1)
                    yield chunk

            await genesys.upload(size, slowly)

        run.uploads.upload = upload  # type: ignore[method-assign]
        assert "stop the consumers" in await _failure(asyncio.create_task(run.first_fill.run()))
        await revoking[0]
        assert len(genesys.arrived) == 1
        assert len(world.list) == 4

    _story(act, SOON_S)


# -- a process that stands still


class _Frozen:
    """Stands still in the middle of a file; a body that breaks off is told as the HTTP library does.

    Attributes:
        sent: Bytes of each attempt.
        failures: Raised by the attempts after that, before any byte.
    """

    def __init__(self, run: Fill, genesys: _Genesys, stands_still: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._genesys = genesys
        self._stands_still = stands_still
        self.sent: list[int] = []
        self.failures: list[Exception] = []
        run.uploads.upload = self.upload  # type: ignore[method-assign]

    async def upload(self, size: int, body: Body) -> None:
        if self.sent and self.failures:
            raise self.failures.pop()
        content = b""
        try:
            async for chunk in body():
                content += chunk
                if content.count(b"\n") == 3 and not self.sent:
                    await self._stands_still()
        except SourceUnavailable:
            raise SinkUnavailable("broken off") from None
        finally:
            self.sent.append(len(content))
        self._genesys.receive(content)


def test_a_file_breaks_off_when_partitions_have_moved_away() -> None:
    """While it stood still somebody else took them, and sent what is newer."""

    async def act(_: World, genesys: _Genesys) -> None:
        run = genesys.fill("a", "b", "c", "d")

        async def stands_still() -> None:
            owned, run.source._positions = [*run.source._positions], {}
            await genesys.stream()
            run.source._events.put_nowait(Lost(owned, nothing))
            asyncio.get_running_loop().call_later(0.1, run.source.wake)

        frozen = _Frozen(run, genesys, stands_still)
        assert "stop the consumers" in await _failure(asyncio.create_task(run.first_fill.run()))
        assert len(frozen.sent) == 1
        assert genesys.arrived == []
        await genesys.check()

    _story(act, SOON_S)


def test_a_file_that_broke_off_is_sent_anew_where_partitions_are_still_ours() -> None:
    """Each attempt tells its own reason."""

    async def act(_: World, genesys: _Genesys) -> None:
        run = genesys.fill("a", "b", "c", "d")

        async def stands_still() -> None:
            run.source.sure = False
            asyncio.get_running_loop().call_later(5, setattr, run.source, "sure", True)

        frozen = _Frozen(run, genesys, stands_still)
        frozen.failures = [SinkUnavailable("away")]
        with capture_logs() as logs:
            await run.first_fill.run()
        waits = [line["error"] for line in logs if line["event"] == "load_waits"]
        assert waits.count("away") == 1
        assert all("may have moved away" in reason for reason in waits if reason != "away")
        assert len(frozen.sent) == 2
        assert len(genesys.arrived) == 1

    _story(act, SOON_S)
