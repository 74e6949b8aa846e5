"""Loads files on a world in memory, one run after the other."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from msgspec.structs import asdict

from consumer.columns import VALUE_CHARACTERS
from consumer.command_ports import ImportStatus
from consumer.core.delivery import Throttle
from consumer.core.partitioner import PARTITIONERS
from consumer.errors import TransientError
from consumer.first_fill.run import FirstFill, Summary
from consumer.model import Contact, FileRow, TopicPartition
from tests import virtual_time
from tests.lives import settings
from tests.memory_ports import Killed, MemorySink, MemorySource, MemoryStore, MemoryTopics, SilentTelemetry, World
from tests.stories import TOPIC
from tests.virtual_time import passes

WRITTEN_MS = 1_700_000_000_000
"""When files of tests were last changed."""

IMPORT_LOOKS = 3
"""An import is done when it was asked for so often."""

Row = Mapping[str, object]


def row(external_id: str, **fields: object) -> dict[str, object]:
    """A row of a contact that may be called, but for what a test says."""
    return {"externalId": external_id, "phone": "+15550100", "consent": True, "doNotCall": False, **fields}


class MemoryRows:
    """A file: `consumer.command_ports.ContactRows`."""

    def __init__(self, rows: Sequence[Row], chunk: int = 3, modified_ms: int = WRITTEN_MS) -> None:
        raw = [orjson.dumps(each) for each in rows]
        self.sha256 = hashlib.sha256(b"\n".join(raw)).digest()
        self.modified_ms = modified_ms
        self._rows = [FileRow(number, *each) for number, each in enumerate(zip(raw, rows, strict=True), start=1)]
        self._chunk = chunk

    def chunks(self) -> Iterator[list[FileRow]]:
        for start in range(0, len(self._rows), self._chunk):
            yield self._rows[start : start + self._chunk]


class MemoryScratch:
    """`consumer.command_ports.Scratch`."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._entries.get(key) for key in keys]

    def write(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        self._entries.update(entries)


class MemoryUploads:
    """Imports into the world's list. A contact that is there keeps whether it may be called.

    Attributes:
        failures: Raised by the next uploads, before anything arrives.
        answer_lost: The next upload arrives, and its answer does not come.
        files: Lines of each file that arrived.
        status: What is told of the last import; None tells the truth.
    """

    header = b"header\n"

    def __init__(self, world: World) -> None:
        self._world = world
        self._imported = 0
        self.failures: list[Exception] = []
        self.answer_lost: TransientError | None = None
        self.files: list[list[dict[str, Any]]] = []
        self.status: ImportStatus | None = None

    def encode(self, contact: Contact) -> bytes | None:
        if not contact.callable or any(len(value) > VALUE_CHARACTERS for value in contact.attributes.values()):
            return None
        return orjson.dumps(asdict(contact)) + b"\n"

    async def upload(self, size: int, body: Callable[[], AsyncIterator[bytes]]) -> None:
        content = b"".join([chunk async for chunk in body()])
        if self.failures:
            raise self.failures.pop(0)
        assert len(content) == size
        assert content.startswith(self.header)
        lines = [orjson.loads(line) for line in content.splitlines()[1:]]
        await passes(0.5)
        with self._world.step():
            self.files.append(lines)
            self._world.pending_import = (IMPORT_LOOKS, lines)
        self._imported = len(lines)
        if self.answer_lost is not None:
            lost, self.answer_lost = self.answer_lost, None
            raise lost

    async def import_status(self) -> ImportStatus:
        await passes(0.01)
        with self._world.step():
            going_on = self._world.import_goes_on()
        done = 0 if going_on else self._imported
        return self.status or ImportStatus(under_way=going_on, failure="", total=self._imported, completed=done)


class Fill:
    """One run of a load on a world: its ports.

    Args:
        world: What outlives it.
        rows: The file.
        changed: Settings that are not the defaults.
    """

    def __init__(self, world: World, rows: MemoryRows, **changed: object) -> None:
        self.source = MemorySource(world)
        self.topics = MemoryTopics(world)
        self.store = MemoryStore(world)
        self.uploads = MemoryUploads(world)
        self.told: list[tuple[str, int, int | None]] = []
        chosen = settings(**changed)
        self.first_fill = FirstFill(
            settings=chosen,
            topic=sorted(world.log),
            source=self.source,
            topics=self.topics,
            store=self.store,
            scratch=MemoryScratch(),
            sink=MemorySink(world),
            uploads=self.uploads,
            rows=rows,
            telemetry=SilentTelemetry(),
            throttle=Throttle(chosen.genesys_requests_per_minute),
            partitioner=PARTITIONERS["murmur2"],
            key=b"key",
            tell=lambda *step: self.told.append(step),
            times=virtual_time.times(),
        )


def empty_world(partitions: int = 2) -> World:
    """A world with a source topic without records."""
    world = World()
    world.log = {TopicPartition(TOPIC, number): [] for number in range(partitions)}
    return world


def partition_of(world: World, external_id: str) -> int:
    """Where the stream has a contact."""
    return PARTITIONERS["murmur2"](external_id.encode(), len(world.log))


def fill(
    world: World, rows: Sequence[Row] | MemoryRows, act: Callable[[Fill], None] = lambda _: None, **changed: object
) -> Summary:
    """One whole run in virtual time; `act` may prepare its ports."""

    async def main() -> Summary:
        run = Fill(world, rows if isinstance(rows, MemoryRows) else MemoryRows(rows), **changed)
        act(run)
        return await run.first_fill.run()

    return virtual_time.run(main())


def survive(world: World, rows: Sequence[Row] | MemoryRows, die_at: int | None, *, after_effect: bool) -> bool:
    """A run that dies at a step; whether it did."""
    world.steps, world.die_at, world.die_after_effect = 0, die_at, after_effect
    world.in_flight.clear()
    try:
        fill(world, rows)
    except BaseExceptionGroup as group:
        killed, rest = group.split(Killed)
        if rest is not None:
            raise rest from None
        return killed is not None
    return False
