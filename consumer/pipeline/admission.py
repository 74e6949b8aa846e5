"""Judges works against what was delivered, lets them in among the contacts on their way, takes down how they end.

The state of a contact is what the store says, overlaid by what was decided and is not settled yet. A contact with
something under way is not judged: the work waits behind it, or takes its place where a newer one may.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import structlog
from msgspec.structs import replace

from consumer.core import changes, dedupe, order, state_bytes
from consumer.core.batch import Lanes
from consumer.core.lane import Lane
from consumer.model import Amendment, Assignment, Change, Operation, Outcome, State, Verdict, Work
from consumer.pipeline.partitions import Partition, Partitions
from consumer.pipeline.reports import Reports
from consumer.ports import Amended, Store

log = structlog.get_logger(__name__)

# Bound once, since each record needs them: to find a member in its class takes Python 3.11 longer than a comparison.
_NEW, _CHANGED, _DUPLICATE, _STALE = Verdict
_UPSERT, _DELETE, _SUPPRESS = Operation.UPSERT, Operation.DELETE, Operation.SUPPRESS

States = Mapping[bytes, State | None]
"""What was delivered, by identity; None where nothing was."""

_NOTHING: States = {}

NOT_THERE = "genesys:contact.not.found"
"""Why a partial change cannot be delivered: it does not tell enough to make the contact."""


class Admission:
    """The gate between records and contacts on their way.

    Args:
        partitions: The assigned ones.
        lanes: Contacts on their way.
        store: What was delivered.
        reports: Told of contacts that leave their batch.
        contact_list_id: Part of each fingerprint.
        blocks: Whether there is a do-not-call list.
        forgets: Whether contacts are forgotten.
        clock: Monotonic seconds.
        decided: Called when works were let in, of which some may have their outcome.

    Attributes:
        blocks: As given.
    """

    def __init__(
        self,
        *,
        partitions: Partitions,
        lanes: Lanes,
        store: Store,
        reports: Reports,
        contact_list_id: str,
        blocks: bool,
        forgets: bool,
        clock: Callable[[], float],
        decided: Callable[[], None],
    ) -> None:
        self._partitions = partitions
        self._lanes = lanes
        self._store = store
        self._reports = reports
        self._contact_list_id = contact_list_id
        self.blocks = blocks
        self._forgets = forgets
        self._clock = clock
        self._decided = decided

    # -- in

    def admit(self, partition: Partition, works: Sequence[Work], known: States = _NOTHING) -> None:
        """Let in works of one partition that ask for a change, in their order, with one read of the store.

        Args:
            partition: Theirs.
            works: With changes, or not.
            known: What was looked up just now.
        """
        asked = {work.change.identity for work in works if work.change}
        asked |= {work.change.former for work in works if work.change and work.change.former}
        states = {**known, **self.look_up(partition, asked - known.keys())}
        for work in works:
            if work.change is not None and work.change.former is not None:
                self._rename(partition, work, work.change, states)
            if work.change is not None:
                self._admit(partition, work, work.change, states.get(work.change.identity))
        self._decided()

    def _rename(self, partition: Partition, work: Work, change: Change, states: States) -> None:
        """Have a contact that got another id not be called by it if it was not by the old one.

        Who has the old one now may be somebody else when the same change is told again: it was decided then.
        """
        current = self._to_be(partition, change.identity, states)
        if current is not None and dedupe.is_told_again(change, current):
            work.change, work.outcome = None, Outcome.DUPLICATE
            return
        former = None if change.former is None else self._to_be(partition, change.former, states)
        work.change = changes.under_new_id(change, former, self._contact_list_id)

    def look_up(self, partition: Partition, identities: Iterable[bytes]) -> States:
        """What was delivered of contacts of which nothing is under way; also what is decided and not settled yet."""
        return self._delivered(partition, self._lanes.idle(identities))

    def _delivered(self, partition: Partition, identities: Sequence[bytes]) -> States:
        known: dict[bytes, State | None] = {each: partition.overlay.get(each) for each in identities}
        asked = [each for each in identities if known[each] is None]
        values = self._store.read(partition.key, asked) if asked else []
        known.update(
            {each: state_bytes.decode(raw) for each, raw in zip(asked, values, strict=True) if raw is not None}
        )
        return known

    def _readmit(self, works: Sequence[Work]) -> None:
        """Let in works again that waited behind another one of their contact."""
        for assignment, run in groupby(works, attrgetter("assignment")):
            partition = self._partitions.of(assignment)
            if partition is not None and not partition.closing:
                self.admit(partition, list(run))

    def reconsider(self, lanes: Sequence[Lane]) -> None:
        """What waits behind lanes that are queued again may take their place now."""
        for lane in lanes:
            waiting, lane.waiting = lane.waiting, ()
            lane.expected, lane.mixed = None, False
            self._readmit(waiting)

    # -- out

    def accept(self, lane: Lane, *, applied_at: float) -> None:
        """Genesys has applied the work of a lane."""
        work = lane.work
        work.outcome = work.accepted_as
        work.operation = lane.change.operation
        if work.applied_at is None:
            work.applied_at = applied_at
        self._conclude(lane)

    def amend(self, lane: Lane, amended: Amended, *, applied_at: float) -> None:
        """Genesys has the contact of a lane as its work wants it, whether or not anything had to be sent for that."""
        base = dedupe.as_held(lane.base, self._contact_list_id) if amended.held else lane.base
        lane.become(changes.merged(lane.change, amended.contact, base, self._contact_list_id, blind=lane.blind))
        if amended.sent:
            self.accept(lane, applied_at=applied_at)
        else:
            lane.work.outcome = Outcome.DUPLICATE
            self._conclude(lane)

    def miss(self, lane: Lane, *, applied_at: float) -> None:
        """Genesys does not have the contact of a lane; a number that it blocks is on the do-not-call list."""
        work, change = lane.work, lane.change
        self._not_there(work, change, lane.base)
        if not change.withdrawal:
            self._give_up(lane)
        delivered = lane.base is not None and not lane.base.deleted
        if change.operation is _SUPPRESS and (delivered or self._blocks_number(change)):
            work.operation, work.applied_at = change.operation, applied_at
        self._end(lane, accepted=change.withdrawal)

    def refuse(self, lane: Lane, code: str, detail: str = "Genesys refused the contact's data") -> None:
        """Genesys does not do the work of a lane, for good."""
        work, change = lane.work, lane.change
        work.outcome = Outcome.UNDELIVERABLE
        work.operation = change.operation
        work.reasons = (f"genesys:{code}",)
        work.detail = detail
        self._give_up(lane)
        self._end(lane, accepted=False)

    def abandon(self, lane: Lane) -> None:
        """The partition of a lane is somebody else's now; what the lane held up of others is judged again."""
        self._reports.abandoned(lane)
        self._readmit(self._lanes.close(lane))

    def drop(self, assignment: Assignment) -> None:
        """Forget everything of an assignment that is not sent."""
        lanes, freed = self._lanes.drop(assignment)
        for lane in lanes:
            self._reports.abandoned(lane)
        self._readmit(freed)

    def _give_up(self, lane: Lane) -> None:
        """Nobody knows what is there: an earlier request may have been applied, also one of a process that died."""
        state = dedupe.given_up(lane.change, lane.base, self._contact_list_id)
        self._remember(lane.work, lane.change, replace(state, blocked=state.blocked and not lane.superseded))

    def _conclude(self, lane: Lane) -> None:
        """Genesys has what the work of a lane asks for."""
        self._remember(lane.work, lane.change, dedupe.accepted(lane.change, lane.beneath, blocks=self.blocks))
        self._end(lane, accepted=True)

    def _end(self, lane: Lane, *, accepted: bool) -> None:
        """End a lane, and with it what it superseded; whatever waited behind it is judged now."""
        for work in lane.superseded:
            self._supersede(work)
        lane.superseded = ()
        self._reports.answered(lane, accepted=accepted)
        if left := self._lanes.close(lane):
            self._readmit(left)

    def _supersede(self, work: Work) -> None:
        """End a work whose place another one took.

        Where it is settled before that one, and that one comes again, its version was told, and nobody knows what is
        there.
        """
        rejected = work.accepted_as is Outcome.REJECTED  # its record is bad, whatever took its place
        work.outcome = Outcome.REJECTED if rejected else Outcome.SUPERSEDED
        if work.expected is not None:
            work.state = dedupe.forgotten(work.expected, self._contact_list_id)

    # -- judging

    def _to_be(self, partition: Partition, identity: bytes, stored: States) -> State | None:
        """The state of a contact once everything of it that is under way is accepted."""
        lane = self._lanes.get(identity)
        if lane is None:
            return partition.overlay.get(identity, stored.get(identity))
        return _expected(lane)

    def _admit(self, partition: Partition, work: Work, change: Change, stored: State | None) -> None:
        lane = self._lanes.get(change.identity)
        if lane is None:
            self._judge(work, change, partition.overlay.get(change.identity, stored))
        elif lane.work.assignment is work.assignment and not lane.mixed:
            self._join(lane, work, change)
        else:
            self._follow(partition, lane, work, change)

    def _follow(self, partition: Partition, lane: Lane, work: Work, change: Change) -> None:
        """Wait behind works of another partition: their offsets and states say nothing of what is known in this one."""
        known = self._delivered(partition, [change.identity])[change.identity]
        change = _behind(work, change, _expected(lane))
        self._wait(lane, work, *dedupe.judged(change, known, self._contact_list_id))

    def _join(self, lane: Lane, work: Work, change: Change) -> None:
        """Take the place of a lane's work that is not sent, the last write wins, or wait behind it."""
        before = _expected(lane)
        change, verdict = dedupe.judged(change, before, self._contact_list_id)
        if verdict is _CHANGED and self._may_be_replaced(lane, change):
            change = _behind(work, change, before)
            lane.work.expected = before
            self._lanes.replace(lane, work, change)
        else:
            self._wait(lane, work, change, verdict)

    def _wait(self, lane: Lane, work: Work, change: Change, verdict: Verdict) -> None:
        """Wait to be judged, as it would be now; before a withdrawal that applies, nothing goes out as callable."""
        expected = _once_accepted(change, _expected(lane), verdict)
        withdraws = change.withdrawal and verdict in {_NEW, _CHANGED}
        self._lanes.wait(lane, work, expected, withdraws=withdraws)

    def _may_be_replaced(self, lane: Lane, change: Change) -> bool:
        in_the_way = lane.sent or lane.waiting or lane.change.operation is _SUPPRESS
        return not (in_the_way or isinstance(change.contact, Amendment) or self._loses_a_number(lane, change))

    def _loses_a_number(self, lane: Lane, change: Change) -> bool:
        """Whether the number of a withdrawal would never be on the do-not-call list if a change took its place.

        Where a request with it came to nothing it gives way: it may be why, and somebody may be called meanwhile. While
        it waits for that list, nobody is.
        """
        if not (self.blocks and lane.change.withdrawal) or lane.change.operation is not _UPSERT:
            return False
        if lane.tried or lane.misses or lane.work.applied_at is not None:
            return False
        return change.operation is _DELETE or change.contact.phone != lane.change.contact.phone

    def _judge(self, work: Work, change: Change, base: State | None) -> None:
        change, verdict = dedupe.judged(change, base, self._contact_list_id)
        if base is not None and verdict is _CHANGED and order.goes_back(change, base):
            remedy = "it applies; if the source counts anew, grants stay stale: see a failover in the operating guide"
            log.warning("source_order_went_back", record=str(work.record.position), remedy=remedy)
        if change.operation is _SUPPRESS:
            self._judge_suppression(work, change, base, verdict)
        elif verdict is _STALE:
            work.outcome = Outcome.STALE
            if self._forgets:  # not before what it turned away is gone from the topic
                self._remember(work, change, base)
        elif verdict is _DUPLICATE and base is not None:
            work.outcome = Outcome.DUPLICATE
            self._remember(work, change, dedupe.advanced(change, base))
        elif isinstance(change.contact, Amendment) and dedupe.is_deleted_by_us(base, self._contact_list_id):
            self._not_there(work, change, base)
        else:
            self._lanes.open(work, change, base, self._clock())

    def _judge_suppression(self, work: Work, change: Change, base: State | None, verdict: Verdict) -> None:
        """A rejected record suppresses its contact, and one that we deleted is noted.

        Genesys is asked for everybody else: another partition, topic or group may have delivered who is not known here,
        and since then also who was only noted.
        A number that it names goes on the do-not-call list in any case: nobody knows whether the last was the same.
        """
        blocks = self._blocks_number(change)
        if verdict is _STALE:
            work.outcome = Outcome.REJECTED
        elif verdict is _DUPLICATE and base is not None and not blocks:
            work.outcome = Outcome.REJECTED
            self._remember(work, change, dedupe.advanced(change, base))
        elif dedupe.is_deleted_by_us(base, self._contact_list_id) and not blocks:
            self._not_there(work, change, base)
        else:
            self._lanes.open(work, change, base, self._clock())

    def _blocks_number(self, change: Change) -> bool:
        """Whether a suppression puts the number that its record names on the do-not-call list."""
        return self.blocks and change.number != ""

    def _not_there(self, work: Work, change: Change, base: State | None) -> None:
        """Nobody can call a contact that is not in Genesys: a withdrawal is noted, whatever else has to come whole."""
        if change.withdrawal:
            work.outcome = work.accepted_as
            self._remember(work, change, dedupe.noted(change, base))
        else:
            work.outcome = Outcome.UNDELIVERABLE
            work.reasons = (NOT_THERE,)
            work.detail = "the event tells only what changed, of a contact that Genesys does not have: send it whole"

    def _remember(self, work: Work, change: Change, state: State | None) -> None:
        partition = self._partitions.of(work.assignment)
        if state is not None and partition is not None:
            work.state = partition.overlay[change.identity] = state


def _expected(lane: Lane) -> State:
    """The state of a contact once its lane's work, and all that waits behind it, is accepted."""
    return lane.expected or dedupe.accepted(lane.change, lane.beneath)


def _behind(work: Work, change: Change, before: State) -> Change:
    """The change of a work, which remembers if it deletes who is not callable by what was under way then."""
    if change.operation is _DELETE and before.callable is False:
        change = work.change = replace(change, withdrew=True)
    return change


def _once_accepted(change: Change, before: State, verdict: Verdict) -> State:
    """The state of a contact once a change that waits has been judged."""
    if verdict is _STALE:
        return before
    if verdict is _DUPLICATE:
        return dedupe.advanced(change, before) or before
    return dedupe.accepted(change, before)
