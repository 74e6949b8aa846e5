"""The life of the pipeline: partitions come and go, the end is orderly.

A partition that is assigned gets its store brought up to the changelog before its first record is judged. One that is
revoked takes in nothing more, waits for the requests under way, settles, and lets go; one that is lost is forgotten at
once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress

import structlog

from consumer.core.audit import Auditor
from consumer.core.delivery import Breaker, Throttle
from consumer.core.envelopes.choice import Envelopes
from consumer.core.offsets import Tracker, decode_settled
from consumer.errors import FatalError
from consumer.model import Assignment, TopicPartition
from consumer.pipeline.feed import Feed
from consumer.pipeline.fuses import Fuses
from consumer.pipeline.intake import Intake
from consumer.pipeline.outbound import Outbound
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.quarantine import Quarantine
from consumer.pipeline.readers import Readers, readers_of
from consumer.pipeline.reports import Reports
from consumer.pipeline.restore import Restorer
from consumer.pipeline.retention import Retention
from consumer.pipeline.settle import SETTLED_KEY, Settler
from consumer.ports import (
    Assigned,
    Breadcrumbs,
    EventTopics,
    Grown,
    Lost,
    Polled,
    Revoked,
    Schemas,
    Sink,
    Source,
    Starting,
    Store,
    Telemetry,
    TimeAndChance,
)
from consumer.settings import Settings

log = structlog.get_logger(__name__)

LONG_WAIT_S = 30.0
"""A wait that Genesys asks for is usual up to this."""

REVOKE_MARGIN_S = 5
"""What a revocation may take beyond the time limit of a request."""

DRAIN_MARGIN_S = 4
"""What settling may take beyond the time for draining, of the 40 s that a pod is given for this and for every close."""

NO_PARTITIONS_AFTER_S = 5.0
"""A group that is at rest gives out partitions sooner."""

NO_PARTITIONS = "the group has not given out partitions yet: up to the session time-out after a process was killed"


class Pipeline:
    """From records to settled outcomes.

    Args:
        settings: Sizes and times.
        source: The group consumer.
        topics: The output topics.
        store: What was delivered.
        schemas: Where writer schemas come from.
        envelopes: What stands around a contact in a record.
        breadcrumbs: What is being decoded, and on what others died.
        sink: Genesys.
        telemetry: Spans and metrics.
        throttle: The limit of requests to Genesys.
        key: Key of the pseudonyms.
        times: Clocks, and dice for jitter.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        source: Source,
        topics: EventTopics,
        store: Store,
        schemas: Schemas,
        envelopes: Envelopes,
        breadcrumbs: Breadcrumbs,
        sink: Sink,
        telemetry: Telemetry,
        throttle: Throttle,
        key: bytes,
        times: TimeAndChance,
    ) -> None:
        self._settings, self._source, self._store = settings, source, store
        self._telemetry, self._times = telemetry, times
        self._contact_list_id = sink.contact_list_id
        self.partitions = Partitions()
        self.fuses = Fuses(settings, self.partitions, source)
        self._progress = Progress()
        auditor = Auditor(sink.contact_list_id, key)
        reports = Reports(auditor, times.now)
        outbound = Outbound(
            settings,
            partitions=self.partitions,
            store=store,
            sink=sink,
            owns=source.owns,
            reports=reports,
            telemetry=telemetry,
            throttle=throttle,
            decided=self._on_decided,
            progress=self._progress,
            times=times,
        )
        self.lanes, self.gate = outbound.lanes, outbound.gate
        self._admission, self._dispatcher = outbound.admission, outbound.dispatcher
        readers = readers_of(settings, envelopes, schemas, sink.contact_list_id, clock=times.clock, spawn=self._spawn)
        self._feed = self._make_feed(self._make_intake(readers, Quarantine(breadcrumbs), sink.contact_list_id))
        self._settler = self._make_settler(topics, auditor, reports)
        self._restorer = Restorer(topics, store, sink, telemetry, times.clock)
        self._retention = self._make_retention()
        self._tasks = asyncio.TaskGroup()
        self._spawned: set[asyncio.Task[None]] = set()
        self._member = self._is_late = False

    def _make_intake(self, readers: Callable[[str], Readers], quarantine: Quarantine, contact_list_id: str) -> Intake:
        return Intake(
            self._settings,
            readers=readers,
            quarantine=quarantine,
            admission=self._admission,
            telemetry=self._telemetry,
            contact_list_id=contact_list_id,
            saturated=self.gate.saturated,
        )

    def _make_feed(self, intake: Intake) -> Feed:
        return Feed(
            self._settings,
            partitions=self.partitions,
            source=self._source,
            intake=intake,
            fuses=self.fuses,
            telemetry=self._telemetry,
            progress=self._progress,
            spawn=self._spawn,
            clock=self._times.clock,
        )

    def _make_settler(self, topics: EventTopics, auditor: Auditor, reports: Reports) -> Settler:
        return Settler(
            self._settings,
            partitions=self.partitions,
            topics=topics,
            store=self._store,
            telemetry=self._telemetry,
            auditor=auditor,
            reports=reports,
            progress=self._progress,
            times=self._times,
        )

    def _make_retention(self) -> Retention:
        return Retention(
            self._settings,
            partitions=self.partitions,
            store=self._store,
            contact_list_id=self._contact_list_id,
            times=self._times,
            found=self._settler.wake,
        )

    # -- what health and the status page ask

    @property
    def ready(self) -> bool:
        """Whether this is a member of the group, possibly one without partitions, and all that it has is restored."""
        assigned = self._member and not self.partitions.starting
        return assigned and all(partition.restored for partition in self.partitions.values())

    @property
    def breaker(self) -> Breaker:
        """State of the breaker."""
        return self.gate.breaker(self._times.clock())

    @property
    def genesys_answers(self) -> bool:
        """Whether the last requests were answered."""
        return self.breaker is Breaker.CLOSED

    @property
    def requests_allowed(self) -> float:
        """Requests that the client-side limit allows at once; what follows on from one may be owed."""
        return max(0.0, self.gate.tokens(self._times.clock()))

    @property
    def degraded(self) -> str | None:
        """Why work does not go on at its pace, None when it does."""
        reasons = (
            self._settler.degraded,
            None if self._source.connected else "no broker answers",
            *(f"source topic {topic} is gone" for topic in sorted(self._source.missing)),
            self.fuses.reason,
            self._genesys_waits,
            self._dispatcher.waits_for,
            self.partitions.waiting,
        )
        return "; ".join(filter(None, reasons)) or None

    @property
    def _genesys_waits(self) -> str | None:
        if not self.genesys_answers:
            return "Genesys does not answer"
        wait_s = self.gate.asked_to_wait(self._times.clock())
        return f"Genesys asks to wait for {wait_s:.0f} s" if wait_s > LONG_WAIT_S else None

    def stalled(self) -> Mapping[TopicPartition, float]:
        """For how long partitions have settled nothing although something waits in them, seconds."""
        return self.partitions.stalled(self._times.clock())

    def status(self) -> dict[str, object]:
        """What the status page shows of the pipeline."""
        return {
            "state": "degraded" if self.degraded else "running" if self.ready else "restoring",
            "reason": self.degraded or (NO_PARTITIONS if self._waits_for_group else None),
            "breaker": self.breaker.name.lower().replace("_", "-"),
            "requests_in_flight": self.gate.in_flight,
            "contacts_under_way": len(self.lanes),
            "records_held": self.partitions.unsettled,
            "partitions": self.partitions.status(),
        }

    # -- life

    async def run(self, stop: asyncio.Event, *, until_caught_up: bool = False) -> None:
        """Work until told to stop, or until everything that stood there at start is settled; then drain.

        Raises:
            ExceptionGroup: Holding the `FatalError` that made it stop.
            FatalError: All is settled that could be; a fuse keeps the rest from it, or a contact without a usable
                answer, or the do-not-call list does, and who waits for that is not callable.
        """
        async with self._tasks:
            for work in (self._take_events, self._dispatcher.run, self._settler.run, self._feed.balance):
                self._spawn(work())
            self._spawn(self._tell_no_partitions())
            if self._settings.forgets:
                self._spawn(self._retention.run())
            await self._ended(stop, until_caught_up=until_caught_up)
            await self._drain()
            for task in self._spawned:
                task.cancel()
        await self._close()
        if until_caught_up and not stop.is_set() and (left := self._left()):
            raise FatalError(left)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        """Let work go on beside the rest until it ends or the pipeline does; if it fails, all fails."""
        task = self._tasks.create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    async def _ended(self, stop: asyncio.Event, *, until_caught_up: bool) -> None:
        """Wait for the reason to end."""
        if not until_caught_up:
            await stop.wait()
            return
        reasons = [asyncio.create_task(stop.wait()), asyncio.create_task(self._nothing_left())]
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            for reason in done:
                reason.result()
        finally:
            for reason in reasons:
                reason.cancel()

    async def _nothing_left(self) -> bool:
        """Come back when all is settled, or nothing is left to do until somebody does something."""
        while not (self._caught_up() or self._waits_in_vain()):
            await self._progress.wait()
        return True

    def _caught_up(self) -> bool:
        return self.ready and all(partition.caught_up for partition in self.partitions.values())

    def _waits_in_vain(self) -> bool:
        """Whether nothing is left to do until somebody does something."""
        taken_in = all(partition.taken_in or partition.held_back for partition in self.partitions.values())
        return self.ready and taken_in and self._dispatcher.in_vain

    def _left(self) -> str | None:
        """Why not all is settled that could be read; None if it is."""
        if self._dispatcher.in_vain:
            return self._dispatcher.waits_for
        return self.fuses.reason if self.fuses.tripped else None

    async def _drain(self) -> None:
        """Send what waits, finish what is in flight, and settle it.

        No request begins that might not be over within the time for all this: it would be cut off.
        """
        self.lanes.draining = True
        self._feed.end()
        deadline_s, request_s = self._settings.drain_timeout_s, self._settings.genesys_request_timeout_s
        if deadline_s > request_s:
            self._dispatcher.wake()
            await self._wait_while(self._under_way, deadline_s - request_s)
        self._dispatcher.end()
        partitions = list(self.partitions.values())
        await self._finish(partitions, self._requests_under_way, min(request_s, deadline_s), DRAIN_MARGIN_S)

    def _under_way(self) -> bool:
        """Whether contacts are on their way, and not all of them in vain."""
        return len(self.lanes) > 0 and not self._dispatcher.in_vain

    def _requests_under_way(self) -> bool:
        return self.gate.in_flight > 0

    async def _finish(
        self, partitions: Sequence[Partition], under_way: Callable[[], bool], within_s: float, margin_s: float
    ) -> None:
        """Wait until nothing of these is under way, or for so many seconds; then settle what has its outcome.

        That is waited for until the margin has passed as well. A settlement is never cancelled: whether its transaction
        committed must be known before the next one.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s + margin_s):
                await self._wait_while(under_way, within_s)
                settled = asyncio.Event()
                self._spawn(self._settle(partitions, settled))
                await settled.wait()

    async def _wait_while(self, under_way: Callable[[], bool], within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while under_way():
                    await self._progress.wait()

    async def _settle(self, partitions: Sequence[Partition], settled: asyncio.Event) -> None:
        await self._settler.settle(partitions)
        settled.set()

    async def _close(self) -> None:
        for partition in self.partitions.values():
            partition.assignment.alive = False
            await self._store.close(partition.key)

    def _on_decided(self) -> None:
        self._settler.wake()
        self._dispatcher.wake()

    # -- what comes from the source

    async def _take_events(self) -> None:
        while True:
            match await self._source.next():
                case Polled(records, ends):
                    await self._feed.take(records, ends)
                case Grown() | Starting() as told:
                    self._note(told)
                case Assigned() as assigned:
                    self._assign(assigned)
                case Revoked(partitions, release):
                    self._spawn(self._revoke(partitions, release))
                case Lost(partitions, forgotten):
                    await self._lose([self.partitions[key] for key in partitions if key in self.partitions])
                    self._spawn(self._tell_forgotten(forgotten))
            self._progress.made()

    def _note(self, told: Grown | Starting) -> None:
        if isinstance(told, Starting):
            self.partitions.note_starting(told.partitions, self._times.clock())
        else:
            for key in told.ends.keys() & self.partitions.keys():
                partition = self.partitions[key]
                if partition.idle:  # what has come waits from now on, also where it is not fetched
                    partition.since = self._times.clock()
                partition.latest = told.ends[key]

    # -- ownership

    @property
    def _waits_for_group(self) -> bool:
        return self._is_late and not (self._member or self.partitions.starting)

    async def _tell_no_partitions(self) -> None:
        """Say why nothing happens after a start: the group may wait for a process that was killed."""
        await asyncio.sleep(NO_PARTITIONS_AFTER_S)
        self._is_late = True
        if self._waits_for_group:
            log.info("waiting_for_partitions", reason=NO_PARTITIONS)

    def _assign(self, assigned: Assigned) -> None:
        self._member = True
        for key, position in assigned.positions.items():
            assignment = Assignment(key)
            partition = Partition(
                assignment,
                Tracker(assignment, position),
                assigned.ends.get(key, position),
                assigned.topic_ids.get(key, ""),
                fuse=self.fuses.of(key.topic),
            )
            partition.since = self._times.clock()
            self.partitions[key] = partition
            log.info("assigned", partition=key, offset=position)
            self._spawn(self._restore(partition))

    async def _restore(self, partition: Partition) -> None:
        """Have its store stand; then its records may be judged."""
        await self._restorer.restore(partition)
        self._recall(partition)
        await self._feed.unblock(partition, None)

    def _recall(self, partition: Partition) -> None:
        """Tell the source up to where it was settled, as its store has it."""
        if partition.stays() and (raw := self._store.read(partition.key, [SETTLED_KEY])[0]) is not None:
            self._source.recall(partition.key, *decode_settled(raw))

    async def _revoke(self, keys: Sequence[TopicPartition], release: Callable[[], None]) -> None:
        """Let go of partitions in an orderly way, within a deadline longer than any request may take.

        Of those that have just begun anew, or are about to, there may be requests under way from before.
        """
        leaving = [self.partitions[key] for key in keys if key in self.partitions]
        for partition in leaving:
            partition.closing = True
        for partition in leaving:
            self._admission.drop(partition.assignment)
        concerned = self.lanes.under_way(keys) | {partition.assignment for partition in leaving}
        await self._finish(
            leaving,
            lambda: any(map(self.lanes.busy, concerned)),
            self._settings.genesys_request_timeout_s,
            REVOKE_MARGIN_S,
        )
        await self._lose(leaving)
        release()

    async def _tell_forgotten(self, forgotten: Callable[[], None]) -> None:
        """Not before the settlement under way: it may still succeed, and its records must not come again."""
        await self._settler.rest()
        forgotten()

    async def _lose(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions: from here on nothing of them is sent or settled."""
        for partition in partitions:
            partition.assignment.alive = False
            partition.closing = True
            self._admission.drop(partition.assignment)
            if self.partitions.of(partition.assignment):  # else the fuse counts what came of another assignment
                partition.fuse.forget(partition.key.partition)
                del self.partitions[partition.key]
                await self._store.close(partition.key)
                log.info("let_go", partition=partition.key, offset=partition.tracker.committable)
        self._member = self._member and bool(self.partitions)  # else the group will say what this one is to have
        self._progress.made()
