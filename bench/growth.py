"""What an event costs as the store grows, and as its records are spread over more partitions.

All stages in one process, as in `stages`: a poll's records are shared out among the partitions, each with a store of
its own that knows so many contacts before.
"""

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import events
from bench.stages import STORE_WRITE, Flow
from consumer.adapters.dedupe_store import RocksStore
from consumer.adapters.kafka.poller import MAX_POLL_RECORDS
from consumer.core import dedupe
from consumer.model import Record, State, TopicPartition
from consumer.pipeline.settle import MAX_RECORDS

SIZES = ((10_000, 4), (1_000_000, 4), (10_000_000, 4), (1_000_000, 1), (1_000_000, 16), (1_000_000, 64))
"""Keys in all stores together, and partitions."""

TOPIC = "crm.contacts.changes"
_KNOWN = dedupe.encode_state(State(bytes(32), 1, True, 0, 0, deleted=False), 0)


@dataclass(frozen=True)
class Growth:
    """CPU of all stages, of new contacts.

    Attributes:
        keys: Contacts that the stores knew before.
        partitions: That the records are spread over.
        us_per_event: CPU microseconds.
        times_first: The same as a multiple of the first row's.
    """

    keys: int
    partitions: int
    us_per_event: float
    times_first: float


def measure(count: int) -> list[Growth]:
    """Every size, with so many events."""
    gc.freeze()
    found = [Growth(*size, round(asyncio.run(_cost(*size, count)) / count * 1e6, 2), 1.0) for size in SIZES]
    return [replace(each, times_first=round(each.us_per_event / found[0].us_per_event, 2)) for each in found]


async def _cost(keys: int, partitions: int, count: int) -> float:
    """CPU seconds, without those of filling the stores."""
    places = [TopicPartition(TOPIC, number) for number in range(partitions)]
    with tempfile.TemporaryDirectory() as directory:
        store = RocksStore(Path(directory), "bench")
        for place in places:
            await store.open(place)
            await _fill(store, place, keys // partitions)
        flows = [
            Flow(records, store, place, _share(MAX_POLL_RECORDS, partitions))
            for place, records in _spread(places, count)
        ]
        started = time.process_time()
        for flow in flows:
            for stage in (flow.decode, flow.validate, flow.prepare, flow.admit, flow.batch, flow.accept, flow.audit):
                stage()
            await flow.remember(_share(MAX_RECORDS, partitions))
        took = time.process_time() - started
        await store.close_all()
    return took


def _share(records: int, partitions: int) -> int:
    """Records of one partition, when so many come together."""
    return max(1, records // partitions)


async def _fill(store: RocksStore, place: TopicPartition, keys: int) -> None:
    """Have a store know contacts that do not come; their identities are as evenly spread as hashes are."""
    for start in range(0, keys, STORE_WRITE):
        entries = [(os.urandom(dedupe.IDENTITY_BYTES), _KNOWN) for _ in range(min(STORE_WRITE, keys - start))]
        await store.write(place, entries, start)


def _spread(places: Sequence[TopicPartition], count: int) -> Iterator[tuple[TopicPartition, list[Record]]]:
    """The records of each partition."""
    made = list(events.records(events.all_new(count)))
    for number, place in enumerate(places):
        yield (
            place,
            [
                Record(*place, offset, events.FIRST_MOMENT_MS, key, value)
                for offset, (key, value) in enumerate(made[number :: len(places)])
            ],
        )
