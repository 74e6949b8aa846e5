"""Sends batches to Genesys, and reads from the answers how each contact ended and when the next request may start.

Before a request is sent, each contact's assignment is checked once more, and the source is asked, which may know more
than its events have told yet; after the answer, what came back for an assignment that is over is forgotten. A request
that is blamed for its data is split until the guilty contact stands alone; so is one that comes to nothing while
others are carried out. A withdrawal is never given up: refused for its data, it is carried out as a delete.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog
from msgspec.structs import replace

from consumer.core import trace_context
from consumer.core.batch import Lanes
from consumer.core.delivery import Breaker, Gate
from consumer.core.lane import Batch, Effect, Lane
from consumer.errors import InUse, NoRoom, RefusedByGenesys, Throttled, TooLarge, TransientError, Withheld
from consumer.model import TopicPartition
from consumer.pipeline.admission import Admission
from consumer.pipeline.again import Again
from consumer.pipeline.blame import Blame, Blamed, is_under_suspicion
from consumer.pipeline.late import Late
from consumer.pipeline.partitions import Partitions
from consumer.pipeline.progress import Progress
from consumer.pipeline.put_off import PutOff
from consumer.pipeline.reports import Reports
from consumer.pipeline.requests import Answer, Requests, suppresses
from consumer.pipeline.search import Search
from consumer.pipeline.waits import for_room, for_the_list
from consumer.ports import Sink, Telemetry, TimeAndChance

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 0.05
"""How often the source is asked whether it is sure again."""


class Dispatcher:
    """The side of the pipeline that faces Genesys.

    Args:
        partitions: The assigned ones.
        lanes: Contacts on their way.
        admission: Told how they end.
        gate: Decides when a request may start.
        sink: Genesys.
        owns: Whether a partition is ours now, as far as the source knows.
        telemetry: Spans and metrics.
        reports: Keep account of batches.
        times: Clocks, and dice for jitter.
        progress: Told of each answer.
        decided: Called when works may have got their outcome.
        releases: Whether grants take numbers off the do-not-call list.
    """

    def __init__(
        self,
        *,
        partitions: Partitions,
        lanes: Lanes,
        admission: Admission,
        gate: Gate,
        sink: Sink,
        owns: Callable[[TopicPartition], bool],
        telemetry: Telemetry,
        reports: Reports,
        times: TimeAndChance,
        progress: Progress,
        decided: Callable[[], None],
        releases: bool,
    ) -> None:
        self._lanes = lanes
        self._admission = admission
        self._gate = gate
        self._owns = owns
        self._telemetry = telemetry
        self._reports = reports
        self._clock, self._now, self._dice = times.clock, times.now, times.dice
        self._progress = progress
        self._decided = decided
        self._wake = asyncio.Event()
        self._has_ended = False
        self._search, self._blame, self._late = Search(lanes), Blame(releases=releases), Late()
        self._again = Again(
            partitions=partitions,
            lanes=lanes,
            admission=admission,
            contact_list_id=sink.contact_list_id,
            clock=times.clock,
            wake=self.wake,
            withdrawal_refused=telemetry.withdrawal_refused,
        )
        self._requests = Requests(sink, self._again.number_refused)
        self._list_wait, self._room_wait = for_the_list(lanes, self.wake), for_room(lanes, self.wake)
        self._put_off = PutOff(lanes)

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    def end(self) -> None:
        """Begin no more requests."""
        self._has_ended = True

    @property
    def waits_for(self) -> str | None:
        """What some contacts wait for while others go on: the do-not-call list, room, an answer, a call's end; None."""
        waits = (self._list_wait, self._room_wait, self._again.apart, self._again.busy, self._put_off)
        return "; ".join(filter(None, (wait.reason for wait in waits))) or None

    @property
    def in_vain(self) -> bool:
        """Whether there are contacts under way, and nothing comes of any until somebody does something.

        Who may be made callable by what nobody answered is told again, when that is over.
        """
        waits, now = (self._list_wait, self._room_wait, self._again.apart, self._again.busy), self._clock()
        lanes = [lane for wait in waits for lane in wait.in_vain()]
        waiting = {id(lane) for lane in lanes if not self._late.left(lane, now)}
        return bool(waiting) and len(waiting) == len(self._lanes)

    async def run(self) -> None:
        """Send whatever is due, until cancelled."""
        async with asyncio.TaskGroup() as senders:
            while True:
                batch = self._take()
                if batch is None:
                    await self._sleep(self._delay())
                else:
                    senders.create_task(self._send(batch))

    def _delay(self) -> float | None:
        """Seconds until a request may start; None: not before something happens."""
        if self._has_ended:
            return None
        now = self._clock()
        due, wait = self._lanes.due(now, self._gate.limit), self._gate.wait(now)
        return None if due is None or wait is None else max(due - now, wait)

    async def _sleep(self, delay: float | None) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    def _take(self) -> Batch | None:
        """The next batch, if one is due and its request may start, which it then does."""
        delay = self._delay()
        if delay is None or delay > 0:
            return None
        now = self._clock()
        apart = self._list_wait.reason is not None
        batch = self._lanes.take(now, self._gate.limit, trial=self._gate.in_doubt, apart=apart)
        if batch is not None:
            self._gate.started(now)
        return batch

    async def _send(self, batch: Batch | None) -> None:
        """Deliver a batch, and then whatever is due: a task for each would have to wait for its turn."""
        while batch is not None:
            await self._deliver(batch)
            batch = self._take()

    async def _deliver(self, batch: Batch) -> None:
        """Make one request and act on its answer. Nothing of an assignment that is over is sent."""
        batch = await self._surely_owned(batch)
        if not batch.lanes:
            self._gate.abandoned()
            self._ended(batch)
            return
        batch_id = self._reports.sent(batch.lanes, batch.effect)
        started = self._clock()
        with self._telemetry.batch_span(batch.effect, batch_id, len(batch.lanes), _trace_parents(batch)) as trace_id:
            for lane in batch.lanes:
                lane.work.trace_id = trace_id
            try:
                asks = self._list_wait.asks(batch.lanes)
                answer = await self._requests.make(batch, partial(self._is_ours, batch), asks=asks)
            except TransientError as error:
                self._not_now(batch, error)
            except RefusedByGenesys as error:
                self._refused(batch, error, self._clock() - started)
            else:
                self._accepted(batch, answer, self._clock() - started)
        self._ended(batch)

    def _ended(self, batch: Batch) -> None:
        """A request has its answer, and with it works may have their outcome: told once for all of them.

        Who is doubted and does not wait for another request by now goes on.
        """
        self._lanes.relieve(batch.still_doubted())
        self._progress.made()
        self._decided()
        self.wake()

    def _not_now(self, batch: Batch, error: TransientError) -> None:
        match error:
            case Withheld():
                self._withhold(batch, error)
            case Throttled():
                self._throttled(batch, error)
            case NoRoom():
                self._no_room(batch, error)
            case _:
                self._failed(batch, error)

    async def _surely_owned(self, batch: Batch) -> Batch:
        """What is left of the batch once the source is sure of it; nothing where no request may begin any more."""
        batch = self._owned(batch)
        while not self._is_ours(batch):
            if self._has_ended:
                self._lanes.put_back(batch.lanes)
                return replace(batch, lanes=[])
            await asyncio.sleep(LOOK_AGAIN_S)
            batch = self._owned(batch)
        return batch

    def _is_ours(self, batch: Batch) -> bool:
        assignments = {lane.work.assignment for lane in batch.lanes}
        return all(assignment.alive and self._owns(assignment.partition) for assignment in assignments)

    def _owned(self, batch: Batch) -> Batch:
        """The batch without the lanes whose assignment is over; those end here."""
        for lane in batch.lanes:
            if not lane.work.assignment.alive:
                self._admission.abandon(lane)
        return replace(batch, lanes=[lane for lane in batch.lanes if lane.work.assignment.alive])

    def _accepted(self, batch: Batch, answer: Answer, seconds: float) -> None:
        self._works(part=batch.search)
        self._telemetry.batch_sent(len(batch.lanes), "success", seconds)
        if batch.search:
            self._telemetry.searched(found=False)
        self._answered(batch, answer)
        applied_at, now = self._now(), self._clock()
        self._taken(batch, answer)
        for lane in self._owned(batch).lanes:
            external_id = lane.change.contact.external_id
            if external_id in answer.unfinished:
                self._unfinished(batch, lane, applied_at)
            elif lane.change.withdrawal and (undone_s := self._late.left(lane, now)):
                self._again.confirm(lane, applied_at, undone_s)
            elif amended := answer.amended.get(external_id):
                self._admission.amend(lane, amended, applied_at=applied_at)
            else:
                self._admission.accept(lane, applied_at=applied_at)
        if blamed := batch.still_doubted():
            self._search.halve(batch.effect, blamed)

    def _taken(self, batch: Batch, answer: Answer) -> None:
        """Whoever waits for what these have got need not wait any more."""
        finished = batch.lanes
        if answer.unfinished:
            finished = [lane for lane in finished if lane.change.contact.external_id not in answer.unfinished]
        self._list_wait.taken(batch.effect, finished)
        self._room_wait.taken(batch.effect, finished)

    def _unfinished(self, batch: Batch, lane: Lane, applied_at: float) -> None:
        if batch.effect is Effect.UPSERT:
            self._again.left_out(lane)
        elif batch.effect is Effect.DELETE:
            self._again.postpone_delete(lane, applied_at, alone=batch.search)
        elif self._late.left(lane, self._clock()):
            self._again.look_again(lane)
        elif suppresses(lane) and (lane.base is None or lane.base.deleted):
            self._admission.miss(lane, applied_at=applied_at)
        else:
            self._again.missed(lane, applied_at)

    def _answered(self, batch: Batch, answer: Answer) -> None:
        """Note where Genesys did something: an amendment that makes no difference tells only that it can be asked."""
        none_done = batch.effect is Effect.UPSERT and len(answer.unfinished) == len(batch.lanes)
        none_sent = batch.effect is Effect.AMEND and not any(amended.sent for amended in answer.amended.values())
        if not (none_done or none_sent):
            self._blame.carried_out(batch)
        for lane in batch.lanes:
            if lane.tried:
                lane.answered()

    def _throttled(self, batch: Batch, error: Throttled) -> None:
        """Nothing was done, and nobody is to blame: the same request is made again, when it may."""
        now = self._clock()
        self._gate.throttled(now, error.retry_after, self._dice())
        self._made_again(batch, error, "throttled")
        batch = self._owned(batch)
        # One endpoint may be busy by itself: whatever else waits by now does not wait for it, also on trial.
        self._put_off.add(batch.lanes, error, now)
        if batch.search and batch.lanes:
            self._lanes.put_back_as_group(batch.effect, batch.lanes, batch.still_doubted())
        else:
            self._lanes.put_back(batch.lanes)
        self._again.queued(batch.lanes)

    def _failed(self, batch: Batch, error: TransientError) -> None:
        """The request may or may not have been applied: it is made again, unless a newer change takes its place.

        Others do not wait for it. Where they are carried out, it is taken apart until one contact stands alone.
        """
        now = self._clock()
        if is_under_suspicion(batch):
            self._gate.abandoned()
        else:
            self._gate.failed(now, self._dice(), error.retry_after)
        self._made_again(batch, error, "unavailable")
        self._late.unanswered(batch.lanes, now)
        blamed = self._blame.failed(batch, stopped=self._gate.breaker(now) is not Breaker.CLOSED)
        batch = self._owned(batch)
        if blamed is Blamed.NOBODY:
            self._lanes.put_behind(batch, now)
            self._again.queued(batch.lanes)
            return
        if blamed is Blamed.ONE_OF_SEVERAL:
            self._search.part_behind(batch, now)
            self._again.queued(batch.lanes)
        elif batch.lanes:
            self._again.unanswered_alone(batch.lanes[0], batch.effect, error)

    def _works(self, *, part: bool = False) -> None:
        """Genesys answered as a working service does."""
        if self._gate.breaker(self._clock()) is not Breaker.CLOSED:
            log.info("genesys_answers_again")
        self._gate.succeeded(part=part)

    def _made_again(self, batch: Batch, error: TransientError, why: str) -> None:
        self._telemetry.on_retry(why)
        log.warning("genesys_retry", operation=batch.effect, contacts=len(batch.lanes), error=str(error))

    def _withhold(self, batch: Batch, error: Withheld) -> None:
        """Who withdrew is not callable, and waits for the do-not-call list; the rest goes on."""
        if error.throttles:
            self._gate.throttled(self._clock(), error.retry_after, self._dice())
        else:
            self._works()
        self._telemetry.on_retry("throttled" if error.throttles else "unavailable")
        waiting, rest = list[Lane](), list[Lane]()
        for lane in self._owned(batch).lanes:
            (waiting if lane.change.contact.external_id in error.external_ids else rest).append(lane)
        remedy = "have the do-not-call list take numbers again; those who withdrew are not callable meanwhile"
        log.warning("withdrawals_withheld", contacts=len(waiting), error=str(error), remedy=remedy)
        if rest and batch.effect is Effect.AMEND:  # who needs the list shows once it is read: others come with the next
            self._lanes.put_back_as_group(batch.effect, rest)
        else:
            self._lanes.put_back(rest)
        if error.asked:
            self._list_wait.add(waiting, error, for_good=error.for_good)
        else:
            self._list_wait.join(waiting)
        self._again.queued([*waiting, *rest])
        self._hold_again(waiting)

    def _hold_again(self, lanes: Sequence[Lane]) -> None:
        """What nobody answered may make a contact callable although it is held: that is told again once it is over."""
        now = self._clock()
        for lane in filter(self._lanes.is_parked, lanes):
            if undone_s := self._late.left(lane, now):
                self._again.go_on(lane, undone_s)

    def _no_room(self, batch: Batch, error: NoRoom) -> None:
        """Who is new waits for room, and the rest goes on by itself: Genesys works, and takes whom it has."""
        if batch.effect is not Effect.UPSERT:
            self._failed(batch, error)  # whom it has not can be neither amended nor deleted: gone since it was read
            return
        self._works()
        self._telemetry.on_retry("unavailable")
        lanes = self._owned(batch).lanes
        new = [lane for lane in lanes if lane.change.contact.external_id in error.absent]
        known = [lane for lane in lanes if lane.change.contact.external_id not in error.absent]
        if new and known:  # with what is new among all that came meanwhile, these would be refused again
            self._lanes.put_back_as_group(batch.effect, known)
        elif known:  # one of them is not there any more
            self._search.halve(batch.effect, known)
        withdrawing = [lane for lane in new if lane.withdraws]  # before who waits is replaced by what waits behind him
        waiting = [lane for lane in new if not lane.withdraws]
        self._list_wait.taken(batch.effect, lanes)  # their numbers are on it: only then anybody is added
        self._wait_for_room(waiting, error)
        self._again.queued([*waiting, *known])
        for lane in withdrawing:
            self._again.no_room(lane, error)

    def _wait_for_room(self, lanes: Sequence[Lane], error: NoRoom) -> None:
        if lanes:
            remedy = "make room for contacts in Genesys; those that it has go on meanwhile"
            log.warning("new_contacts_wait", contacts=len(lanes), error=str(error), remedy=remedy)
            for lane in lanes:
                lane.answered()
            self._room_wait.add(lanes, error, for_good=True)

    def _refused(self, batch: Batch, error: RefusedByGenesys, seconds: float) -> None:
        """Genesys blames the data: split, or decide what becomes of the contact that was alone in the request."""
        self._works()
        self._telemetry.batch_sent(len(batch.lanes), "failure", seconds)
        alone = len(batch.lanes) == 1
        if alone or not isinstance(error, TooLarge):
            self._telemetry.searched(found=alone)
        batch = self._owned(batch)
        if not batch.lanes:
            return
        if not alone:
            self._search.split(batch, error)
            self._again.queued(batch.lanes)
        elif batch.effect is Effect.DELETE:
            self._again.delete_refused(batch.lanes[0], error.code)
        elif isinstance(error, InUse):
            self._again.in_use(batch.lanes[0])
        elif batch.lanes[0].change.withdrawal:
            self._again.by_delete(batch.lanes[0], error.code)
        else:
            self._admission.refuse(batch.lanes[0], error.code)


def _trace_parents(batch: Batch) -> list[bytes]:
    headers = [header for lane in batch.lanes for header in lane.work.record.headers]
    return [value for name, value in headers if value and name == trace_context.HEADER]
