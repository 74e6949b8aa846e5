"""Makes outcomes visible. The order of effects, and what a crash leaves, is written here and nowhere else.

1. Genesys has answered (`dispatch`). Crash here: the records come again, are judged as new, and the same upsert is
   repeated; the contact id is derived from the CRM's id, so it does no harm.
2. One Kafka transaction: record and batch audit events, dead letters, changelog, source offsets. Crash before its
   commit: nothing of it is visible. After: it is the truth.
3. RocksDB is written, with the changelog position that it reflects. Crash before: the store replays the changelog
   from its own position when the partition is assigned again.
4. Only now the works are forgotten: judging saw their states all along, in the overlay.

Of each partition the works are settled from the first on and without a hole, so that the committed offset never passes
a record without outcome.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from consumer.core import audit, deleted, offsets, state_bytes
from consumer.core.audit import AuditEvent, Auditor
from consumer.core.dead_letters import letters_of
from consumer.core.seldom import SAME_EVERY_S, kind_of
from consumer.errors import Rebalancing, TransientError
from consumer.model import ChainHead, Settlement, TopicPartition, Work
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.rejections import Rejections
from consumer.pipeline.reports import Reports
from consumer.ports import EventTopics, SettledRecord, Store, Telemetry, TimeAndChance
from consumer.settings import Settings

log = structlog.get_logger(__name__)

MAX_RECORDS = 10_000
"""Records in a transaction, of which each assigned partition may have an equal share."""

CHAIN_KEY = b"chain"
"""Store key of the end of a partition's chain of audit events; contacts have identities of 32 bytes."""

EPOCHS_KEY = b"epochs"
"""Store key of the epochs of a partition's source, where its versions are positions in a log."""

DELETED_KEY = b"deleted"
"""Store key of the last settled record of a partition, while that is a delete."""

SETTLED_KEY = b"settled"
"""Store key of the offset up to which a partition is settled: brokers forget that of a group that was away for long."""

IMPORT_KEY = b"import"
"""Store key of a mark that stands while a file may be on its way into the list: set before, removed after."""

_RETRY_S = 1.0
_GOES_ON = "nothing is lost; tried again until it works"
_MAKE_ROOM = f"make room in STATE_DIR, or grow its volume: {_GOES_ON}"

CLOCK_WRONG_MS = 24 * 3600 * 1000
"""A clock that is behind by more is taken for wrong. By less, it is as likely that of whoever appended the record."""

HANGS_AFTER_S = 60.0
"""A step that has not ended by then is told: all before a commit is given up sooner, a commit and a write never are."""

REBALANCING_RETRY_S = 0.2
"""Partitions move within moments; what was put off must not wait for longer than that."""

_BROKERS_HANG = f"brokers have not said for {HANGS_AFTER_S:.0f} s whether a settlement is made"
_VOLUME_HANGS = f"the stores have not been written for {HANGS_AFTER_S:.0f} s"
_SEE_BROKERS = f"look at the transaction coordinator's broker: {_GOES_ON}"
_SEE_VOLUME = "see whether the volume of STATE_DIR answers, and restart; nothing is lost, the changelog has all of it"

StoreEntry = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class _Share:
    """What one partition brings into a settlement."""

    partition: Partition
    works: Sequence[Work]
    events: Sequence[AuditEvent]
    head: ChainHead
    entries: Sequence[StoreEntry]
    expired: Collection[bytes]

    @property
    def next_offset(self) -> int:
        """Where its source goes on. Without works it is said again: only with an offset is a former owner refused."""
        return _next_offset(self.partition, self.works)


class Settler:
    """Settles decided works, at most one transaction at a time.

    Args:
        settings: Times, and the guarantee.
        partitions: The assigned ones.
        topics: The output topics.
        store: What was delivered.
        telemetry: Told of what settled.
        auditor: Writes record events.
        reports: Have the events of finished batches; told which of them are settled.
        progress: Told of each settlement.
        times: Clocks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        partitions: Partitions,
        topics: EventTopics,
        store: Store,
        telemetry: Telemetry,
        auditor: Auditor,
        reports: Reports,
        progress: Progress,
        times: TimeAndChance,
    ) -> None:
        self._partitions = partitions
        self._topics = topics
        self._store = store
        self._telemetry = telemetry
        self._auditor = auditor
        self._reports = reports
        self._interval_s = settings.settle_interval_ms / 1000
        self._forgets = settings.forgets
        self._repeats = settings.kafka_guarantee == "at_least_once"  # readers may see what failed
        self._now, self._clock = times.now, times.clock
        self._progress = progress
        self._rejections = Rejections(times.clock)
        self._one_at_a_time = asyncio.Lock()
        self._decided = asyncio.Event()
        self._limit = MAX_RECORDS  # fewer after a failure: what brokers do not take in time is not to be as much again
        self.degraded: str | None = None
        self._told: tuple[str, str] | None = None
        self._tell_at = 0.0

    def wake(self) -> None:
        """Works got their outcome."""
        self._decided.set()

    async def run(self) -> None:
        """Settle in the set interval, until cancelled."""
        while True:
            await self._decided.wait()
            await asyncio.sleep(self._interval_s)
            self._decided.clear()
            await self.settle(self._partitions.values())

    async def settle(self, partitions: Collection[Partition]) -> None:
        """Settle what is decided of these partitions now, however long the other side takes.

        Others get their turn between two transactions: where one partition is read on and on, another may be leaving.
        """
        left = True
        while left:
            async with self._one_at_a_time:
                left = await self._settle(self._shares(partitions))

    async def rest(self) -> None:
        """Wait until no settlement is under way."""
        async with self._one_at_a_time:
            pass

    def _shares(self, partitions: Collection[Partition]) -> list[_Share]:
        """What is to be settled now; nothing of a partition whose chain's end is not read yet: it would begin anew."""
        now = self._now()
        limit = self._most_of_one
        return [
            self._share(partition, works, now)
            for partition in partitions
            if partition.assignment.alive
            and partition.restored
            and ((works := partition.tracker.decided(limit)) or partition.expired)
        ]

    @property
    def _most_of_one(self) -> int:
        return max(1, self._limit // max(1, len(self._partitions)))

    def _share(self, partition: Partition, works: Sequence[Work], now: float) -> _Share:
        events, head = self._events(partition, works, now)
        entries = self._entries(partition, works, int(now * 1000))
        forgotten = [(identity, None) for identity in self._to_forget(partition)]
        ends = self._ends(partition, works, head)
        return _Share(partition, works, events, head, [*entries, *forgotten, *ends], list(partition.expired))

    @staticmethod
    def _ends(partition: Partition, works: Sequence[Work], head: ChainHead) -> list[StoreEntry]:
        """What whoever goes on behind these works has to know of them."""
        settled = offsets.encode_settled(_passed(partition, works), partition.topic_id)
        ends: list[StoreEntry] = [(CHAIN_KEY, audit.encode_head(head)), (SETTLED_KEY, settled)]
        if partition.epochs.known:  # they may be ahead of the works: those come again, and begin nothing again
            ends.append((EPOCHS_KEY, partition.epochs.encode()))
        last = partition.deletes.get(works[-1].record.offset) if works else None
        if last is not None or (works and partition.ends_in_delete):
            ends.append((DELETED_KEY, deleted.encode(last)))
        return ends

    def _events(self, partition: Partition, works: Sequence[Work], now: float) -> tuple[list[AuditEvent], ChainHead]:
        """Events of these works; those that may have been told already are the same again, or the chain would fork."""
        exposed = partition.exposed[: len(works)]
        events, head = self._auditor.records(works[len(exposed) :], audit.head_behind(partition.head, exposed), now)
        return [*exposed, *events], head

    def _entries(self, partition: Partition, works: Sequence[Work], now_ms: int) -> list[StoreEntry]:
        """States as they are to be remembered."""
        parts = {part.change.identity: part for part in _parts(works) if part.change and part.state}
        moments = self._moments(partition, parts, now_ms) if self._forgets and parts else {}
        return [
            (identity, state_bytes.encode(part.state, moments.get(identity, now_ms)))
            for identity, part in parts.items()
            if part.state
        ]

    def _moments(self, partition: Partition, parts: Mapping[bytes, Work], now_ms: int) -> Mapping[bytes, int]:
        """When these count as settled if not now, by which `reconcile` tells which partition had the last word.

        Only a clock that is behind by far would have them forgotten early: then not before their record was appended,
        nor before they were settled last.
        """
        current = self._store.read(partition.key, list(parts))
        before = {key: state_bytes.settled_ms(raw) for key, raw in zip(parts, current, strict=True) if raw}
        latest = {key: max(part.record.timestamp_ms, before.get(key, 0)) for key, part in parts.items()}
        return {key: latest_ms for key, latest_ms in latest.items() if latest_ms - now_ms > CLOCK_WRONG_MS}

    def _to_forget(self, partition: Partition) -> list[bytes]:
        """Expired entries that are still as they were found, of contacts about which nothing new is decided."""
        expired = partition.expired
        identities = [identity for identity in expired if identity not in partition.overlay]
        current = self._store.read(partition.key, identities) if identities else []
        return [identity for identity, raw in zip(identities, current, strict=True) if raw == expired[identity]]

    async def _settle(self, shares: Sequence[_Share]) -> bool:
        """The order of effects; a step that fails for now is taken again before the next. Whether there is more."""
        if not shares:
            self._see_whether_it_is_left()
            return False
        started = self._clock()
        more = any(len(share.works) == self._most_of_one for share in shares)
        batch_events = list(self._reports.events)
        with self._telemetry.settle_span(sum(len(share.works) for share in shares)):
            try:
                with self._told_when_long(_BROKERS_HANG, _SEE_BROKERS):
                    positions = await self._topics.settle(self._settlement(shares, batch_events))
            except TransientError as error:
                self._keep(shares)
                await self._try_later(error)
                return True
            self._limit = min(MAX_RECORDS, 2 * self._limit)
            self._reports.settled(len(batch_events))
            await self._write(shares, positions)
            for share in shares:
                self._forget(share)
                if share.works:
                    share.partition.since = self._clock()
        self._is_over()
        self._telemetry.settled(_settled(shares), self._now(), self._clock() - started)
        for share in shares:
            self._rejections.note(share.partition.key.topic, share.works)
        self._progress.made()
        return more

    def _see_whether_it_is_left(self) -> None:
        """What could not be settled may have gone with its partition: then nobody waits for it any more."""
        if self.degraded is not None and not self._shares(self._partitions.values()):
            self.degraded = self._told = None

    def _keep(self, shares: Sequence[_Share]) -> None:
        """Remember what readers may have seen of a settlement that failed."""
        for share in shares if self._repeats else ():
            exposed = share.partition.exposed
            exposed += share.events[len(exposed) :]
            share.partition.ends_in_delete |= DELETED_KEY in dict(share.entries)

    async def _try_later(self, error: TransientError) -> None:
        """Wait until it is worth another try."""
        if isinstance(error, Rebalancing):
            log.info("settle_postponed", error=str(error), remedy="made again in a moment")
            await asyncio.sleep(REBALANCING_RETRY_S)
        else:
            self._limit = max(1, self._limit // 2)
            await self._wait("settle_failed", error, _GOES_ON)

    def _settlement(self, shares: Sequence[_Share], batch_events: Sequence[AuditEvent]) -> Settlement:
        now_ms = int(self._now() * 1000)
        return Settlement(
            audit=[event for share in shares for event in share.events] + list(batch_events),
            dead_letters=letters_of((work for share in shares for work in share.works), now_ms),
            changelog=[(share.partition.key, key, value) for share in shares for key, value in share.entries],
            offsets={share.partition.key: share.next_offset for share in shares},
        )

    async def _write(self, shares: Sequence[_Share], positions: Mapping[TopicPartition, int]) -> None:
        """Bring the stores to the changelog's positions: without that, nothing more is settled."""
        while owned := [share for share in shares if share.partition.assignment.alive]:
            writes = [(share.partition.key, share.entries, positions[share.partition.key]) for share in owned]
            try:
                with self._told_when_long(_VOLUME_HANGS, _SEE_VOLUME):
                    await self._store.write(*writes)
            except TransientError as error:
                await self._wait("store_failed", error, _MAKE_ROOM)
            else:
                return

    async def _wait(self, event: str, error: TransientError, remedy: str) -> None:
        """Try again in a moment; what is the trouble is told when it begins, and then now and then."""
        now, kind = self._clock(), (event, kind_of(error))
        self.degraded = str(error)
        if kind != self._told or now >= self._tell_at:
            self._told, self._tell_at = kind, now + SAME_EVERY_S
            log.error(event, error=str(error), remedy=remedy)
        await asyncio.sleep(error.retry_after or _RETRY_S)

    @contextmanager
    def _told_when_long(self, error: str, remedy: str) -> Iterator[None]:
        """What neither fails nor ends would look as if all went well."""
        told = asyncio.get_running_loop().call_later(HANGS_AFTER_S, self._hangs, error, remedy)
        try:
            yield
        finally:
            told.cancel()

    def _hangs(self, error: str, remedy: str) -> None:
        self.degraded = error
        log.error("settlement_hangs", error=error, remedy=remedy)

    def _is_over(self) -> None:
        if self.degraded is not None:
            log.info("settles_again")
        self.degraded = self._told = None

    @staticmethod
    def _forget(share: _Share) -> None:
        partition = share.partition
        partition.tracker.settle(share.works)
        _forget_deletes(partition, share.works)
        partition.head = share.head
        del partition.exposed[: len(share.works)]
        for identity in share.expired:
            del partition.expired[identity]
        for part in _parts(share.works):
            if part.change and part.state and partition.overlay.get(part.change.identity) is part.state:
                del partition.overlay[part.change.identity]


def _forget_deletes(partition: Partition, works: Sequence[Work]) -> None:
    if works and (partition.deletes or partition.ends_in_delete):
        last = works[-1].record.offset
        partition.ends_in_delete = last in partition.deletes
        partition.deletes = {offset: each for offset, each in partition.deletes.items() if offset > last}


def _next_offset(partition: Partition, works: Sequence[Work]) -> int:
    """Where the source of a partition goes on once these are settled."""
    return works[-1].record.offset + 1 if works else partition.tracker.committable


def _passed(partition: Partition, works: Sequence[Work]) -> int:
    """Up to where nothing is left of a partition once these are settled: what ends transactions has offsets too."""
    next_offset = _next_offset(partition, works)
    return next_offset if partition.unsettled > len(works) else max(next_offset, partition.reached)


def _parts(works: Sequence[Work]) -> list[Work]:
    """The works that concern one contact each."""
    return [part for work in works for part in (work.parts or (work,))]


def _settled(shares: Sequence[_Share]) -> list[SettledRecord]:
    return [
        SettledRecord(
            work.outcome,
            work.reasons,
            work.record.timestamp_ms,
            work.applied_at,
            _withdraws(work),
        )
        for share in shares
        for work in share.works
        if work.outcome is not None
    ]


def _withdraws(work: Work) -> bool:
    return any(map(_withdraws, work.parts)) if work.change is None else work.change.withdrawal
