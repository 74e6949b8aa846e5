"""Fills a contact list from a file. The order of effects, and what a crash leaves, is written here and nowhere else.

1. Everything is decided (`plan`), from the file and the stores; nothing is done yet.
2. What a file cannot tell Genesys goes by request (`requests`): withdrawals first, then other changes.
3. The rest, contacts that are new and may be called, goes as one file (`upload`), whose import is followed to its end.
   Before, each partition's changelog gets a mark: whoever restores a partition with it waits until none can be under
   way (`pipeline.imports`), since it would come after what he sends. The mark goes with the last rows that are settled.
   Crash up to here: nothing is settled. The next run decides the same and sends it once more; ids are derived from the
   CRM's, so Genesys meets the same contacts.
4. The rows are settled in their order (`settle`), some thousand in a transaction: audit events, dead letters, states,
   and how far the file is settled. Crash in between: the next run leaves out what is settled, finds the states of it
   delivered, and sends the rest once more.

Withdrawals go before everything, and a contact is in one request or in the file, never in both. All the while the
whole source topic is ours (`membership`): whoever loses it stops, and the brokers refuse his transactions. Whoever lets
go of it, or is told to stop, waits for his requests first.

The stream finds the states where it will look for them, marked as a file's. A file has no place in the order of a
partition. So where versions do not tell, a withdrawal of the stream applies whatever its time, and any other change
when it happened after what the file says: the row's `occurredAt`, or else the time at which the file was last changed.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Mapping, Sequence

from msgspec import Struct

from consumer.command_ports import ContactRows, ContactUpload, Scratch
from consumer.core import changes
from consumer.core.audit import COMPLIANCE_CHECKS, AuditEvent, Auditor
from consumer.core.changes import Withdrawn
from consumer.core.delivery import Throttle
from consumer.core.offsets import Tracker
from consumer.core.partitioner import Partitioner
from consumer.core.rows import Rows
from consumer.first_fill.candidates import Candidate, Candidates
from consumer.first_fill.membership import Membership
from consumer.first_fill.plan import Choice, Plan, Result, Way
from consumer.first_fill.requests import Requests
from consumer.first_fill.settle import Load, Settled, Settling, how_far
from consumer.first_fill.upload import Tell, Upload
from consumer.model import Assignment, BatchReport, Operation, Outcome, TopicPartition, Work
from consumer.pipeline.assignments import REVOKE_MARGIN_S
from consumer.pipeline.outbound import Outbound
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.reports import BATCH_NAMESPACE, Reports
from consumer.pipeline.restore import Restorer
from consumer.ports import EventTopics, Sink, Source, Store, Telemetry, TimeAndChance
from consumer.settings import Settings

AT_ONCE = 2_000
"""Works that wait for their outcome at the same time."""


class Summary(Struct, frozen=True):
    """What became of a file.

    Attributes:
        source: What the audit calls it.
        rows: Of the file.
        settled_before: Rows that a run before this one had settled.
        outcomes: How many rows of this run ended how.
        reasons: Why rows were rejected or refused.
        uploaded: Contacts that went by file.
        requested: Contacts that went by request.
    """

    source: str
    rows: int
    settled_before: int
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    uploaded: int
    requested: int


class FirstFill:
    """One load.

    Args:
        settings: Sizes and times.
        topic: The source topic, with all its partitions.
        source: The group consumer.
        topics: The output topics.
        store: What was delivered.
        scratch: The place for what is decided.
        sink: Genesys, by request.
        uploads: Genesys, by file.
        rows: The file.
        telemetry: Spans and metrics.
        throttle: The limit of requests to Genesys.
        partitioner: How keys come to their partitions.
        key: Key of the pseudonyms.
        tell: Told of progress.
        times: Clocks, and dice for jitter.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        topic: Sequence[TopicPartition],
        source: Source,
        topics: EventTopics,
        store: Store,
        scratch: Scratch,
        sink: Sink,
        uploads: ContactUpload,
        rows: ContactRows,
        telemetry: Telemetry,
        throttle: Throttle,
        partitioner: Partitioner,
        key: bytes,
        tell: Tell,
        times: TimeAndChance,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._topics = topics
        self._store = store
        self._scratch = scratch
        self._sink = sink
        self._uploads = uploads
        self._rows = rows
        self._partitioner = partitioner
        self._tell = tell
        self._times = times
        self._auditor = Auditor(sink.contact_list_id, key)
        self._load = _load(rows, sink.contact_list_id, times.now())
        self._partitions = Partitions()
        self._reports = Reports(self._auditor, times.now)
        self._membership = Membership(source, topic, settings.kafka_group_id)
        self._restorer = Restorer(topics, store, sink, telemetry, times.clock)
        self._requests = self._make_requests(source, telemetry, throttle)

    def _make_requests(self, source: Source, telemetry: Telemetry, throttle: Throttle) -> Requests:
        progress = Progress()
        outbound = Outbound(
            self._settings,
            partitions=self._partitions,
            store=self._store,
            sink=self._sink,
            owns=source.owns,
            reports=self._reports,
            telemetry=telemetry,
            throttle=throttle,
            decided=progress.made,
            progress=progress,
            times=self._times,
        )
        return Requests(self._partitions, outbound, progress, self._partition_of)

    def _partition_of(self, external_id: str) -> TopicPartition:
        return self._topic[self._partitioner(external_id.encode(), len(self._topic))]

    async def run(self) -> Summary:
        """Load the file.

        Raises:
            ExceptionGroup: Holding the `FatalError` that made it stop.
        """
        async with asyncio.TaskGroup() as tasks:
            offsets = await self._membership.join()
            watching = tasks.create_task(self._membership.watch(self._end_requests))
            sending = tasks.create_task(self._requests.outbound.dispatcher.run())
            try:
                await self._restore(offsets)
                summary = await self._fill(offsets)
            finally:
                # Not if one of the tasks failed: partitions are lost, or let go of by now, or nobody takes answers.
                if not (sending.done() or sending.cancelling()):
                    await self._end_requests()
            watching.cancel()
            sending.cancel()
        return summary

    async def _end_requests(self) -> None:
        """Whoever owns the partitions next must not be overtaken by a request that is under way now."""
        if under_way := self._requests.outbound.gate.in_flight:
            self._tell("waiting for requests under way", 0, under_way)
        await self._requests.end(self._settings.genesys_request_timeout_s + REVOKE_MARGIN_S)

    async def _restore(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Have the stores stand."""
        for key, offset in offsets.items():
            assignment = Assignment(key)
            self._partitions[key] = Partition(assignment, Tracker(assignment, offset), offset)
        self._tell("restoring", 0, len(offsets))
        await asyncio.gather(*map(self._restorer.restore, self._partitions.values()))

    async def _fill(self, offsets: Mapping[TopicPartition, int]) -> Summary:
        """The order of effects."""
        settled = how_far(self._store, min(offsets), self._load)
        plan = self._make_plan(settled.rows)
        await self._decide(plan)
        for way in (Way.WITHDRAWAL, Way.REQUEST):
            if plan.ways[way]:
                await self._request(plan, way)
                self._requests.check_all_were_taken()
        settling = self._make_settling(plan, settled, offsets)
        batch_events = [*self._reports.events]
        if plan.ways[Way.UPLOAD]:
            await settling.mark_import()
            batch_events.append(await self._upload(plan))
        await settling.run(batch_events)
        return self._summary(plan, settling, settled.rows)

    def _make_plan(self, settled_rows: int) -> Plan:
        columns = self._settings.genesys_attribute_columns
        rows = Rows(columns, self._rows.modified_ms)
        return Plan(
            candidates=Candidates(rows, columns, self._sink.contact_list_id),
            scratch=self._scratch,
            store=self._store,
            uploads=self._uploads,
            partition_of=self._partition_of,
            contact_list_id=self._sink.contact_list_id,
            settled_rows=settled_rows,
        )

    async def _decide(self, plan: Plan) -> None:
        for chunk, rows in enumerate(self._rows.chunks()):
            plan.decide(chunk, rows)
            self._tell("reading", plan.rows, None)
            await asyncio.sleep(0)

    async def _request(self, plan: Plan, way: Way) -> None:
        """Send all changes that go this way, some at a time."""
        chosen: list[tuple[Candidate, Choice]] = []
        sent = 0
        for chunk, rows in enumerate(self._rows.chunks()):
            chosen += plan.chosen(chunk, rows, (way,))
            if len(chosen) >= AT_ONCE:
                sent += await self._send(plan, chosen)
                chosen = []
                self._tell(_PHASES[way], sent, plan.ways[way])
            await asyncio.sleep(0)
        sent += await self._send(plan, chosen)
        self._tell(_PHASES[way], sent, plan.ways[way])

    async def _send(self, plan: Plan, chosen: Sequence[tuple[Candidate, Choice]]) -> int:
        works = [self._work(candidate) for candidate, _ in chosen]
        deletes = [self._delete(candidate) for candidate, choice in chosen if _is_gone(candidate, choice)]
        await self._requests.send([*deletes, *works])
        plan.resolve(
            {
                work.change.identity: (choice, _result(work), work.state)
                for work, (_, choice) in zip(works, chosen, strict=True)
                if work.change and work.outcome
            }
        )
        return len(works)

    def _work(self, candidate: Candidate) -> Work:
        if candidate.external_id is None:
            raise AssertionError("only a contact is sent")
        work = self._requests.work(self._load.record(candidate), candidate.external_id)
        work.change, work.reasons, work.detail = candidate.change, candidate.reasons, candidate.detail
        if candidate.reasons:
            work.accepted_as = Outcome.REJECTED
        return work

    def _delete(self, candidate: Candidate) -> Work:
        """The delete whose place a rejected row took: that one says no more than who is not to be called."""
        work = self._work(candidate)
        if work.change is not None:
            work.change = changes.as_delete(work.change, self._sink.contact_list_id)
        work.part = 1  # it may be in another batch than the row's own work
        return work

    async def _upload(self, plan: Plan) -> AuditEvent:
        """Upload what goes by file; the audit event of it, as one batch."""
        started_at = self._times.now()
        upload = Upload(
            rows=self._rows,
            plan=plan,
            uploads=self._uploads,
            membership=self._membership,
            tell=self._tell,
            clock=self._times.clock,
        )
        await upload.run()
        count = upload.contacts
        report = BatchReport(self._load.batch_id, count, started_at, 0, count, upload.attempts, COMPLIANCE_CHECKS)
        return self._auditor.batch(report, self._times.now())

    def _make_settling(self, plan: Plan, settled: Settled, offsets: Mapping[TopicPartition, int]) -> Settling:
        return Settling(
            load=self._load,
            rows=self._rows,
            plan=plan,
            settled=settled,
            auditor=self._auditor,
            topics=self._topics,
            store=self._store,
            offsets=offsets,
            partition_of=self._partition_of,
            now=self._times.now,
            tell=self._tell,
        )

    def _summary(self, plan: Plan, settling: Settling, settled_before: int) -> Summary:
        return Summary(
            self._load.name,
            plan.rows,
            settled_before,
            {outcome.value: count for outcome, count in settling.outcomes.items() if count},
            settling.reasons,
            plan.ways[Way.UPLOAD],
            plan.ways[Way.WITHDRAWAL] + plan.ways[Way.REQUEST],
        )


_PHASES = {Way.WITHDRAWAL: "withdrawing", Way.REQUEST: "changing"}


def _load(rows: ContactRows, contact_list_id: str, now: float) -> Load:
    """The load of a file into a list: another file, or another list, is another one."""
    digest = hashlib.sha256(contact_list_id.encode() + rows.sha256).hexdigest()
    name = f"load-{digest[:12]}"
    return Load(name, int(now * 1000), str(uuid.uuid5(BATCH_NAMESPACE, name)))


def _is_gone(candidate: Candidate, choice: Choice) -> bool:
    """Whether a row that suppresses took the place of one that deletes."""
    suppresses = candidate.change is not None and candidate.change.operation is Operation.SUPPRESS
    return suppresses and Withdrawn.CONTACT in choice.withdrawn


def _result(work: Work) -> Result:
    if work.outcome is None:
        raise AssertionError("sent works have outcomes")
    return Result(work.outcome, work.operation, tuple(work.reasons), work.detail, work.batch_id, work.trace_id)
