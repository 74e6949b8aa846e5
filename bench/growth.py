"""What an event costs as the store grows.

All stages in one process, as in `stages`: a poll's records are shared out among the partitions, each with a store of
its own that knows so many contacts before. Events are of contacts that the stores do not know, which Bloom filters
answer, and of such that they know, which are read. RocksDB compacts what it was filled with before the clock starts;
what that costs is told by itself, since every contact has to pay for it once.
"""

import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from bench import events
from bench.stages import RUNS, STORE_WRITE, Flow
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.kafka.poller import MAX_POLL_RECORDS
from consumer.core import fingerprints, state_bytes
from consumer.model import Record, State, TopicPartition
from consumer.pipeline.settle import MAX_RECORDS

SIZES = (10_000, 1_000_000, 10_000_000)
"""Keys in all stores together."""

PARTITIONS = 4
CHANGED = SIZES[0]
"""Most known contacts that change in a turn: all that the smallest stores know; of larger ones others in each turn."""

FIRST_KNOWN = 10**9
"""The number of the first contact that the stores know and that comes."""

TOPIC = "crm.contacts.changes"
QUIET_S = 1.0
"""A process that takes no CPU for so long has compacted."""

_KNOWN = state_bytes.encode(State(bytes(32), 1, True, 0, 0, deleted=False), 0)


@dataclass(frozen=True)
class Growth:
    """CPU of all stages.

    Attributes:
        contacts: That change: `new` or `known` to the stores.
        keys: Contacts that the stores knew before the first turn.
        us_per_event: CPU microseconds.
        times_first: The same as a multiple of that of the smallest stores.
        stored_us_per_key: CPU microseconds of writing the keys into the stores, flushes and compaction included.
    """

    contacts: str
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
        self.us: dict[str, list[float]] = defaultdict(list)

    async def fill(self) -> None:
        """Have the stores know contacts, of which a part will change."""
        started = time.process_time()
        for place in self.places:
            await self.store.open(place)
            await _fill(self.store, place, self.keys // len(self.places))
        _wait_for_compaction()
        self.stored_s = time.process_time() - started

    def changed(self, turn: int, count: int) -> list[tuple[bytes, bytes]]:
        """Records of known contacts, each another one; the next turn has others, or changes them once more."""
        numbers = (FIRST_KNOWN + (turn * count + number) % self.keys for number in range(count))
        said = {"version": turn + 2, "email": f"turn.{turn}@example.org"}
        return list(events.records(events.event(number, **said) for number in numbers))

    async def take(self, contacts: str, made: Sequence[tuple[bytes, bytes]]) -> None:
        """One turn: events of contacts that are all new or all known, through all stages."""
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
        self.us[contacts].append((time.process_time() - started) / len(made) * 1e6)
        judged = [lane.base is not None for flow in flows for batch in flow.batches for lane in batch.lanes]
        if judged != [contacts == "known"] * len(made):
            raise RuntimeError(f"of {len(made)} changes of {contacts} contacts {sum(judged)} were told from new ones")

    async def _remember(self, flows: Sequence[Flow], at_once: int) -> None:
        """Write what settles together at once, as the program does."""
        told = [(flow.partition.key, flow.entries()) for flow in flows]
        for start in range(0, max(len(entries) for _, entries in told), at_once):
            await self.store.write(*((place, entries[start : start + at_once], start) for place, entries in told))

    def found(self, contacts: str) -> Growth:
        """The median of the turns."""
        us = round(statistics.median(self.us[contacts]), 2)
        return Growth(contacts, self.keys, us, 1.0, round(self.stored_s / self.keys * 1e6, 2))


def measure(count: int) -> list[Growth]:
    """Every size, with so many new contacts a turn; the sizes take turns, so that each meets the noise of all times."""
    gc.freeze()
    return [each for contacts in asyncio.run(_measure(count)) for each in _beside_the_first(contacts)]


def _beside_the_first(found: Sequence[Growth]) -> list[Growth]:
    return [replace(each, times_first=round(each.us_per_event / found[0].us_per_event, 2)) for each in found]


async def _measure(count: int) -> list[list[Growth]]:
    """By contacts, then by size."""
    made = list(events.records(events.all_new(count * RUNS)))
    with tempfile.TemporaryDirectory() as directory:
        sizes = [_Stores(size, Path(directory, str(number))) for number, size in enumerate(SIZES)]
        for each in sizes:
            await each.fill()
        for turn in range(RUNS):
            for each in sizes:
                await each.take("new", made[turn * count : (turn + 1) * count])
                await each.take("known", each.changed(turn, min(count, CHANGED)))
        for each in sizes:
            await each.store.close_all()
    return [[each.found(contacts) for each in sizes] for contacts in ("new", "known")]


def _wait_for_compaction() -> None:
    before = -1.0
    while time.process_time() - before > QUIET_S / 100:
        before = time.process_time()
        time.sleep(QUIET_S)


async def _fill(store: RocksStore, place: TopicPartition, keys: int) -> None:
    """Have a store know those of the first contacts that come to its partition, and others that never do."""
    identities = _identities(place.partition, keys)
    for start in range(0, keys, STORE_WRITE):
        await store.write((place, [(each, _KNOWN) for each in islice(identities, STORE_WRITE)], start))


def _identities(partition: int, keys: int) -> Iterator[bytes]:
    """So many; they are as evenly spread as hashes are."""
    known = min(keys, CHANGED * RUNS // PARTITIONS)
    for number in range(known):
        yield fingerprints.identity(events.event(FIRST_KNOWN + number * PARTITIONS + partition)["externalId"])
    for _ in range(keys - known):
        yield os.urandom(fingerprints.IDENTITY_BYTES)


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
