"""What an event costs as the store grows.

All stages in one process, as in `stages`: a poll's records are shared out among the partitions, each with a store of
its own that knows so many contacts before. RocksDB compacts what it was filled with before the clock starts; what that
costs is told by itself, since every contact has to pay for it once.
"""

import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import events
from bench.stages import RUNS, STORE_WRITE, Flow
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.kafka.poller import MAX_POLL_RECORDS
from consumer.core import changes, state_bytes
from consumer.model import Record, State, TopicPartition
from consumer.pipeline.settle import MAX_RECORDS

SIZES = (10_000, 1_000_000, 10_000_000)
"""Keys in all stores together."""

PARTITIONS = 4

TOPIC = "crm.contacts.changes"
QUIET_S = 1.0
"""A process that takes no CPU for so long has compacted."""

_KNOWN = state_bytes.encode(State(bytes(32), 1, True, 0, 0, deleted=False), 0)


@dataclass(frozen=True)
class Growth:
    """CPU of all stages, of new contacts.

    Attributes:
        keys: Contacts that the stores knew before.
        us_per_event: CPU microseconds.
        times_first: The same as a multiple of the first row's.
        stored_us_per_key: CPU microseconds of writing the keys into the stores, flushes and compaction included.
    """

    keys: int
    us_per_event: float
    times_first: float
    stored_us_per_key: float


class _Stores:
    """The stores of one size, which stay open between the turns."""

    def __init__(self, keys: int, directory: Path) -> None:
        self.keys = keys
        self.places = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        self.store = RocksStore(directory, "bench")
        self.stored_s = 0.0
        self.seconds: list[float] = []

    async def fill(self) -> None:
        """Have the stores know contacts that do not come."""
        started = time.process_time()
        for place in self.places:
            await self.store.open(place)
            await _fill(self.store, place, self.keys // len(self.places))
        _wait_for_compaction()
        self.stored_s = time.process_time() - started

    async def take(self, made: Sequence[tuple[bytes, bytes]]) -> None:
        """One turn: events of new contacts, through all stages."""
        flows = [
            Flow(records, self.store, place, MAX_POLL_RECORDS // PARTITIONS)
            for place, records in _spread(self.places, made)
        ]
        gc.collect()
        started = time.process_time()
        for flow in flows:
            for stage in (flow.decode, flow.validate, flow.prepare, flow.admit, flow.batch, flow.accept, flow.audit):
                stage()
        await self._remember(flows, MAX_RECORDS // PARTITIONS)
        self.seconds.append(time.process_time() - started)

    async def _remember(self, flows: Sequence[Flow], at_once: int) -> None:
        """Write what settles together at once, as the program does."""
        told = [(flow.partition.key, flow.entries()) for flow in flows]
        for start in range(0, max(len(entries) for _, entries in told), at_once):
            await self.store.write(*((place, entries[start : start + at_once], start) for place, entries in told))

    def found(self, count: int) -> Growth:
        """The median of the turns."""
        us = _us(statistics.median(self.seconds), count)
        return Growth(self.keys, us, 1.0, _us(self.stored_s, self.keys))


def measure(count: int) -> list[Growth]:
    """Every size, with so many events a turn; the sizes take turns, so that each meets the noise of all times."""
    gc.freeze()
    found = asyncio.run(_measure(count))
    return [replace(each, times_first=round(each.us_per_event / found[0].us_per_event, 2)) for each in found]


async def _measure(count: int) -> list[Growth]:
    made = list(events.records(events.all_new(count * RUNS)))
    with tempfile.TemporaryDirectory() as directory:
        sizes = [_Stores(size, Path(directory, str(number))) for number, size in enumerate(SIZES)]
        for each in sizes:
            await each.fill()
        for start in range(0, len(made), count):
            for each in sizes:
                await each.take(made[start : start + count])
        for each in sizes:
            await each.store.close_all()
    return [each.found(count) for each in sizes]


def _us(seconds: float, count: int) -> float:
    return round(seconds / count * 1e6, 2)


def _wait_for_compaction() -> None:
    before = -1.0
    while time.process_time() - before > QUIET_S / 100:
        before = time.process_time()
        time.sleep(QUIET_S)


async def _fill(store: RocksStore, place: TopicPartition, keys: int) -> None:
    """Have a store know contacts that do not come; their identities are as evenly spread as hashes are."""
    for start in range(0, keys, STORE_WRITE):
        entries = [(os.urandom(changes.IDENTITY_BYTES), _KNOWN) for _ in range(min(STORE_WRITE, keys - start))]
        await store.write((place, entries, start))


def _spread(
    places: Sequence[TopicPartition], made: Sequence[tuple[bytes, bytes]]
) -> Iterator[tuple[TopicPartition, list[Record]]]:
    """The records of each partition, by key and value."""
    for number, place in enumerate(places):
        yield (
            place,
            [
                Record(*place, offset, events.FIRST_MOMENT_MS, key, value)
                for offset, (key, value) in enumerate(made[number :: len(places)])
            ],
        )
