"""The life of the pipeline: what comes from the source goes to whom it concerns, and the end is orderly."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from consumer.core.audit import Auditor
from consumer.core.delivery import Breaker, Throttle
from consumer.core.envelopes.choice import Envelopes
from consumer.errors import FatalError
from consumer.model import TopicPartition
from consumer.pipeline.assignments import Assignments
from consumer.pipeline.feed import Feed
from consumer.pipeline.finish import Finisher
from consumer.pipeline.fuses import Fuses
from consumer.pipeline.intake import Intake
from consumer.pipeline.outbound import Outbound
from consumer.pipeline.partitions import Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.quarantine import Quarantine
from consumer.pipeline.readers import Readers, readers_of
from consumer.pipeline.reports import Reports
from consumer.pipeline.restore import Restorer
from consumer.pipeline.retention import Retention
from consumer.pipeline.settle import Settler
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

LONG_WAIT_S = 30.0
"""A wait that Genesys asks for is usual up to this."""

DRAIN_MARGIN_S = 4
"""What settling may take beyond the time for draining, of the 50 s that a pod is given for this and for every close."""


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
        self._dispatcher = outbound.dispatcher
        readers = readers_of(settings, envelopes, schemas, sink.contact_list_id, clock=times.clock, spawn=self._spawn)
        self._feed = self._make_feed(self._make_intake(readers, Quarantine(breadcrumbs), outbound))
        self._settler = self._make_settler(topics, auditor, reports)
        self._finisher = Finisher(self._settler, self._progress, self._spawn)
        restorer = Restorer(topics, store, sink, telemetry, times.clock)
        self._assignments = self._make_assignments(outbound, restorer)
        self._retention = self._make_retention()
        self._tasks = asyncio.TaskGroup()
        self._spawned: set[asyncio.Task[None]] = set()

    def _make_intake(self, readers: Callable[[str], Readers], quarantine: Quarantine, outbound: Outbound) -> Intake:
        return Intake(
            self._settings,
            readers=readers,
            quarantine=quarantine,
            admission=outbound.admission,
            telemetry=self._telemetry,
            contact_list_id=self._contact_list_id,
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

    def _make_assignments(self, outbound: Outbound, restorer: Restorer) -> Assignments:
        return Assignments(
            self._settings,
            partitions=self.partitions,
            source=self._source,
            store=self._store,
            fuses=self.fuses,
            outbound=outbound,
            restorer=restorer,
            feed=self._feed,
            finisher=self._finisher,
            progress=self._progress,
            spawn=self._spawn,
            clock=self._times.clock,
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
        return self._assignments.ready

    @property
    def settles(self) -> bool:
        """Whether the last settlement was made, or the one under way has not failed yet."""
        return self._settler.degraded is None

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
            self.partitions.unrestored,
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
            "reason": self.degraded or self._assignments.waits_for,
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
            FatalError: What could be settled is. The rest waits for somebody: a released fuse, the do-not-call list,
                room for new contacts, or a usable answer.
        """
        async with self._tasks:
            for work in (self._take_events, self._dispatcher.run, self._settler.run, self._feed.balance):
                self._spawn(work())
            self._spawn(self._assignments.tell_no_partitions())
            if self._settings.forgets:
                self._spawn(self._retention.run())
            await self._ended(stop, until_caught_up=until_caught_up)
            await self._drain()
            for task in self._spawned:
                task.cancel()
        for partition in self.partitions.values():  # their stores stay open: the member is to leave the group first
            partition.assignment.alive = False
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
        if len(self.lanes):
            return self._dispatcher.waits_for or "contacts are still on their way to Genesys"
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
            await self._finisher.wait_while(self._under_way, deadline_s - request_s)
        self._dispatcher.end()
        partitions = list(self.partitions.values())
        await self._finisher.finish(partitions, self._requests_under_way, min(request_s, deadline_s), DRAIN_MARGIN_S)

    def _under_way(self) -> bool:
        """Whether contacts are on their way, and not all of them in vain."""
        return len(self.lanes) > 0 and not self._dispatcher.in_vain

    def _requests_under_way(self) -> bool:
        return self.gate.in_flight > 0

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
                    self._assignments.assign(assigned)
                case Revoked(partitions, release):
                    self._assignments.revoke(partitions, release)
                case Lost(partitions, forgotten):
                    await self._assignments.lose(partitions)
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

    async def _tell_forgotten(self, forgotten: Callable[[], None]) -> None:
        """Not before the settlement under way: it may still succeed, and its records must not come again."""
        await self._settler.rest()
        forgotten()
