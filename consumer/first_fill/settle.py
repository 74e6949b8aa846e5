"""Makes the outcomes of rows visible, in their order: some thousand rows in a transaction.

A transaction holds the rows' audit events, their dead letters, the states of their contacts, how far the file is
settled, and once more the committed offsets of the source topic: only with these do the brokers refuse somebody who no
longer owns its partitions. Then the stores are written, with the changelog positions that they reflect.

To the audit the file is a source topic of its own, `load-<id>`, with one partition and its rows as offsets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import orjson
from msgspec import Struct

from consumer.command_ports import ContactRows
from consumer.core import dedupe, state_bytes
from consumer.core.audit import AuditEvent, Auditor
from consumer.core.dead_letters import letters_of
from consumer.first_fill.candidates import Candidate
from consumer.first_fill.patience import insist
from consumer.first_fill.plan import Choice, Fate, Plan
from consumer.first_fill.upload import Tell
from consumer.model import (
    GIVEN_UP,
    Assignment,
    ChainHead,
    Operation,
    Outcome,
    Record,
    Settlement,
    TopicPartition,
    Work,
)
from consumer.pipeline.settle import IMPORT_KEY
from consumer.ports import EventTopics, Store

TRANSACTION_ROWS = 5_000
TRANSACTION_BYTES = 16 << 20
"""Of rows as they stand in the file, beside what one chunk of them adds."""

_OUTCOMES = {Fate.REJECTED: Outcome.REJECTED, Fate.STALE: Outcome.STALE, Fate.DUPLICATE: Outcome.DUPLICATE}

Entry = tuple[TopicPartition, bytes, bytes | None]


class Settled(Struct, frozen=True):
    """How far a file is settled.

    Attributes:
        rows: So many, from the first on.
        head: End of its chain of audit events.
    """

    rows: int = 0
    head: ChainHead = ChainHead()


class Load(Struct, frozen=True):
    """One file for one contact list.

    Attributes:
        name: What the audit calls it, a source topic that there is not.
        begun_ms: When this run began, milliseconds since the epoch.
        batch_id: Of the contacts that are uploaded.
    """

    name: str
    begun_ms: int
    batch_id: str

    @property
    def key(self) -> bytes:
        """Store key of how far it is settled; shorter than an identity."""
        return self.name.encode()

    def record(self, candidate: Candidate) -> Record:
        """A row as the record of an audit event and of a dead letter."""
        key = candidate.external_id.encode() if candidate.external_id else None
        return Record(self.name, 0, candidate.row.number, self.begun_ms, key, candidate.row.raw)


def how_far(store: Store, home: TopicPartition, load: Load) -> Settled:
    """How far runs before this one settled the file, as the store of the first partition tells."""
    (raw,) = store.read(home, [load.key])
    if raw is None:
        return Settled()
    rows, seq, digest = orjson.loads(raw)
    return Settled(rows, ChainHead(seq, digest))


class Settling:
    """Settles the rows of a load.

    Args:
        load: What is loaded.
        rows: The file.
        plan: What became of its rows.
        settled: How far it is settled already.
        auditor: Writes their events.
        topics: The output topics.
        store: What was delivered.
        offsets: The committed offsets of all partitions of the source topic.
        partition_of: Where the state of an external id is.
        now: Seconds since the epoch.
        tell: Told of progress.

    Attributes:
        outcomes: Of rows that this run settled.
        reasons: Why some of them were rejected or refused.
    """

    def __init__(
        self,
        *,
        load: Load,
        rows: ContactRows,
        plan: Plan,
        settled: Settled,
        auditor: Auditor,
        topics: EventTopics,
        store: Store,
        offsets: Mapping[TopicPartition, int],
        partition_of: Callable[[str], TopicPartition],
        now: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._load = load
        self._rows = rows
        self._plan = plan
        self._auditor = auditor
        self._topics = topics
        self._store = store
        self._offsets = dict(offsets)
        self._home = min(self._offsets)
        self._partition_of = partition_of
        self._now = now
        self._tell = tell
        self._row_assignment = Assignment(TopicPartition(load.name, 0))
        self._settled = settled
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.reasons: dict[str, int] = {}

    async def mark_import(self) -> None:
        """From here on a file may be on its way into the list."""
        entries = [(partition, IMPORT_KEY, self._load.key) for partition in self._offsets]
        await self._make_visible(Settlement((), (), entries, self._offsets))

    async def run(self, batch_events: Sequence[AuditEvent]) -> None:
        """Settle all rows that are not; the events of batches go with the first of them.

        The mark of an import goes with the last: until then there are contacts in the list of which no state tells.
        """
        works: list[Work] = []
        entries: list[Entry] = []
        for chunk, rows in enumerate(self._rows.chunks()):
            for candidate, fate, choice in self._plan.fates(chunk, rows):
                works.append(self._work(candidate, fate, choice))
                entries += self._state(candidate, choice)
            if len(works) >= TRANSACTION_ROWS or _bytes(works) >= TRANSACTION_BYTES:
                await self._settle(works, entries, batch_events)
                works, entries, batch_events = [], [], ()
        entries += [(partition, IMPORT_KEY, None) for partition in self._offsets if self._has_mark(partition)]
        if works or batch_events or entries:
            await self._settle(works, entries, batch_events)

    def _has_mark(self, partition: TopicPartition) -> bool:
        """Whether an import was marked, by this run or by one that was stopped."""
        return self._store.read(partition, [IMPORT_KEY]) != [None]

    def _work(self, candidate: Candidate, fate: Fate, choice: Choice | None) -> Work:
        work = Work(self._load.record(candidate), self._row_assignment, candidate.external_id)
        work.reasons, work.detail = candidate.reasons, candidate.detail
        if fate is not Fate.CHOSEN:
            work.outcome = _OUTCOMES[fate]
        elif choice is None:
            work.outcome = Outcome.REJECTED if candidate.reasons else Outcome.SUPERSEDED
        elif choice.result is None:
            work.outcome, work.operation, work.batch_id = Outcome.DELIVERED, Operation.UPSERT, self._load.batch_id
        else:
            result = choice.result
            work.outcome, work.operation, work.reasons = result.outcome, result.operation, result.reasons
            work.batch_id, work.trace_id, work.detail = result.batch_id, result.trace_id, result.detail
        return work

    def _state(self, candidate: Candidate, choice: Choice | None) -> list[Entry]:
        """What is remembered of a row's contact: that it came from a file, whatever row it was."""
        if choice is None or choice.state is None or candidate.change is None or candidate.external_id is None:
            return []
        state = dedupe.from_a_file(state_bytes.decode(choice.state))
        raw = state_bytes.encode(state, int(self._now() * 1000))
        return [(self._partition_of(candidate.external_id), candidate.change.identity, raw)]

    async def _settle(self, works: Sequence[Work], entries: Sequence[Entry], batches: Sequence[AuditEvent]) -> None:
        now = self._now()
        events, head = self._auditor.records(works, self._settled.head, now)
        rows = works[-1].record.offset if works else self._settled.rows
        progress = (self._home, self._load.key, orjson.dumps([rows, head.seq, head.hash]))
        letters = letters_of(works, int(now * 1000))
        settlement = Settlement([*batches, *events], letters, [*entries, progress], self._offsets)
        await self._make_visible(settlement)
        self._settled = Settled(rows, head)
        self._count(works)
        self._tell("settling", rows, self._plan.rows)

    async def _make_visible(self, settlement: Settlement) -> None:
        """The transaction, then the stores."""
        positions = await insist(partial(self._topics.settle, settlement))
        by_partition: dict[TopicPartition, list[tuple[bytes, bytes | None]]] = {}
        for partition, key, value in settlement.changelog:
            by_partition.setdefault(partition, []).append((key, value))
        for partition, written in by_partition.items():
            await insist(partial(self._store.write, (partition, written, positions[partition])))

    def _count(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.outcome is not None:
                self.outcomes[work.outcome] += 1
            if work.outcome in GIVEN_UP:
                for reason in map(str, work.reasons):
                    self.reasons[reason] = self.reasons.get(reason, 0) + 1


def _bytes(works: Sequence[Work]) -> int:
    return sum(len(work.record.value or b"") for work in works)
