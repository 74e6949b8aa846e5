"""What each stage costs in CPU per event, beside its floor: the bare calls of the C libraries that it stands on.

All in one process on all-new events, in the chunks of the pipeline. The network is left out: the end-to-end benchmark
has it.
"""

import asyncio
import gc
import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar, cast

import fastavro
import orjson
from rocksdict import Options, Rdict, WriteBatch

from bench import events
from bench.sink import LIST_ID
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import columns
from consumer.adapters.genesys.sink import GenesysSink
from consumer.core import changes, state_bytes
from consumer.core.audit import Auditor
from consumer.core.batch import Lanes
from consumer.core.decode import Reader, ReaderName, decode
from consumer.core.envelopes.native import native
from consumer.core.framing import form
from consumer.core.lane import Batch
from consumer.core.offsets import Tracker
from consumer.core.validate import validate
from consumer.errors import DecodeError
from consumer.formats import Framing, KeyFormat
from consumer.model import Assignment, ChainHead, Change, ChangeEvent, Contact, Record, TopicPartition, Work
from consumer.pipeline.admission import Admission
from consumer.pipeline.intake import CHUNK
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.readers import make_reader
from consumer.pipeline.reports import Reports
from consumer.settings import Settings, load, packaged_schemas

SOURCE = TopicPartition("crm.contacts.changes", 0)
FORM = form(SOURCE.topic, Framing.CONFLUENT, KeyFormat.STRING)
SCHEMA = (packaged_schemas() / "crm_contact_change.avsc").read_text()
STORE_WRITE = 5_000
NOW = 1_800_000_000.0
RUNS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """The cost of a stage, CPU microseconds per event.

    Attributes:
        name: Of the stage.
        us: Ours.
        floor_us: Of the bare library calls; 0 where the stage is ours alone.
        times_floor: Ours as a multiple of it.
    """

    name: str
    us: float
    floor_us: float
    times_floor: float | None

    @classmethod
    def of(cls, name: str, us: float, floor_us: float) -> Self:
        """The figures, rounded, with their ratio."""
        return cls(name, round(us, 2), round(floor_us, 2), round(us / floor_us, 2) if floor_us else None)


class Flow:
    """One pass of all events through the stages; each method is one of them, and leaves what the next one takes."""

    def __init__(
        self, records: Sequence[Record], store: RocksStore, source: TopicPartition = SOURCE, poll: int = CHUNK
    ) -> None:
        sink = GenesysSink(cast("Client", None), LIST_ID, columns(_settings()))
        self.records = records
        self.store = store
        self.readers: dict[ReaderName, Reader | DecodeError] = {1: make_reader(SCHEMA, native)}
        self.chunk = min(CHUNK, poll)
        assignment = Assignment(source)
        self.tracker = Tracker(assignment, 0)
        self.partitions = Partitions()
        self.partition = Partition(assignment, self.tracker, len(records))
        self.partitions[source] = self.partition
        self.lanes = Lanes(100, 500_000, 0.0, sink.encode)
        self.auditor = Auditor(LIST_ID, b"k" * 32)
        self.admission = Admission(
            partitions=self.partitions,
            lanes=self.lanes,
            store=store,
            reports=Reports(self.auditor, lambda: NOW),
            blocks=False,
            forgets=False,
            contact_list_id=LIST_ID,
            clock=lambda: 0.0,
            decided=lambda: None,
        )
        self.events: list[ChangeEvent] = []
        self.contacts: list[Contact] = []
        self.works: list[Work] = []
        self.batches: list[Batch] = []

    def decode(self) -> None:
        for chunk in _chunks(self.records, self.chunk):
            self.events += cast("list[ChangeEvent]", decode(chunk, self.readers, FORM).results)

    def validate(self) -> None:
        self.contacts = cast("list[Contact]", validate(self.events, ()))

    def prepare(self) -> None:
        self.works = self.tracker.add(self.records)
        for work, event, contact in zip(self.works, self.events, self.contacts, strict=True):
            work.external_id = contact.external_id
            work.change = changes.to_change(event, contact, work.record.offset, LIST_ID)

    def admit(self) -> None:
        for chunk in _chunks(self.works, self.chunk):
            self.admission.admit(self.partition, chunk)

    def batch(self) -> None:
        while batch := self.lanes.take(1.0, 100):
            self.batches.append(batch)

    def accept(self) -> None:
        for batch in self.batches:
            for lane in batch.lanes:
                self.admission.accept(lane, applied_at=NOW)

    def audit(self) -> None:
        self.auditor.records(self.works, ChainHead(), NOW)

    async def remember(self) -> None:
        for position, chunk in enumerate(_chunks(self.entries(), STORE_WRITE)):
            await self.store.write((self.partition.key, chunk, position))

    def entries(self) -> list[tuple[bytes, bytes]]:
        """What the store is to hold of the contacts."""
        return [
            (_change(work).identity, state_bytes.encode(work.state, int(NOW * 1000)))
            for work in self.works
            if work.state
        ]


def measure(count: int) -> list[Stage]:
    """Medians of some runs over so many events, by stage and for all of them."""
    records = _records(count)
    gc.freeze()  # as the program does
    runs = [asyncio.run(_run(records)) | _floors(records) for _ in range(RUNS)]
    us = {name: statistics.median(run[name] for run in runs) / count * 1e6 for name in runs[0]}
    names = ("decode", "validate", "prepare", "admit", "batch", "accept", "audit", "remember")
    costs = [Stage.of(name, us[name], us.get(f"{name} floor", 0.0)) for name in names]
    return [*costs, Stage.of("all stages", sum(each.us for each in costs), sum(each.floor_us for each in costs))]


async def _run(records: Sequence[Record]) -> dict[str, float]:
    """CPU seconds by stage."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        store = RocksStore(Path(directory), "bench")
        await store.open(SOURCE)
        flow = Flow(records, store)
        for stage in (flow.decode, flow.validate, flow.prepare, flow.admit, flow.batch, flow.accept, flow.audit):
            seconds[stage.__name__] = _seconds(stage)
        started = time.process_time()
        await flow.remember()
        seconds["remember"] = time.process_time() - started
        await store.close_all()
    return seconds


def _floors(records: Sequence[Record]) -> dict[str, float]:
    """CPU seconds of the bare library calls."""
    schema = fastavro.parse_schema(orjson.loads(SCHEMA))
    bodies = [(record.value or b"")[5:] for record in records]
    fields = [fastavro.schemaless_reader(io.BytesIO(body), schema, None) for body in bodies]
    keys = [hashlib.sha256(record.key or b"").digest() for record in records]
    with tempfile.TemporaryDirectory() as directory:
        db = Rdict(directory, Options(raw_mode=True))
        floors = {
            "decode floor": lambda: [fastavro.schemaless_reader(io.BytesIO(body), schema, None) for body in bodies],
            "prepare floor": lambda: [hashlib.sha256(body).digest() for body in bodies],
            "admit floor": lambda: [db.get(list(chunk)) for chunk in _chunks(keys, CHUNK)],
            "batch floor": lambda: [orjson.dumps(each) for each in fields],
            "audit floor": lambda: [hashlib.sha256(orjson.dumps(each)).hexdigest() for each in fields],
            "remember floor": lambda: _write(db, keys),
        }
        seconds = {name: _seconds(floor) for name, floor in floors.items()}
        db.close()
    return seconds


def _write(db: Rdict, keys: Sequence[bytes]) -> None:
    for chunk in _chunks(keys, STORE_WRITE):
        batch = WriteBatch(raw_mode=True)
        for key in chunk:
            batch.put(key, key + key)
        db.write(batch)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _records(count: int) -> list[Record]:
    return [
        Record(*SOURCE, offset, 1_767_225_600_000 + offset, key, value)
        for offset, (key, value) in enumerate(events.records(events.all_new(count)))
    ]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _change(work: Work) -> Change:
    return cast("Change", work.change)


def _settings() -> Settings:
    named = (
        "KAFKA_BOOTSTRAP_SERVERS",
        "GENESYS_OAUTH_CLIENT_ID",
        "GENESYS_OAUTH_CLIENT_SECRET",
        "GENESYS_CONTACT_LIST",
    )
    return load(dict.fromkeys(named, "bench"))
