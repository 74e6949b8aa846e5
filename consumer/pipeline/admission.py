"""Judges works against what was delivered, lets them in among the contacts on their way, takes down how they end.

The state of a contact is what the store says, overlaid by what was decided and is not settled yet. A contact with
something under way is not judged: the work waits behind it, or takes its place where a newer one may.
"""

from collections.abc import Callable, Sequence

from consumer.core import dedupe
from consumer.core.batch import Lane, Lanes
from consumer.model import Change, Operation, Outcome, State, Verdict, Work
from consumer.pipeline.partitions import Partition, Partitions
from consumer.ports import Store


class Admission:
    """The gate between records and contacts on their way.

    Args:
        partitions: The assigned ones.
        lanes: Contacts on their way.
        store: What was delivered.
        clock: Monotonic seconds.
        decided: Called when works got their outcome.
    """

    def __init__(
        self,
        partitions: Partitions,
        lanes: Lanes,
        store: Store,
        clock: Callable[[], float],
        decided: Callable[[], None],
    ) -> None:
        self._partitions = partitions
        self._lanes = lanes
        self._store = store
        self._clock = clock
        self._decided = decided

    def admit(self, partition: Partition, works: Sequence[Work]) -> None:
        """Let in works of one partition that ask for a change, in their order, with one read of the store."""
        idle = {
            work.change.identity
            for work in works
            if work.change and work.change.identity not in partition.overlay
            and self._lanes.get(work.change.identity) is None
        }  # fmt: skip
        stored = self._stored(partition, list(idle))
        for work in works:
            if work.change is not None:
                self._admit(partition, work, work.change, stored.get(work.change.identity))
        self._decided()

    def readmit(self, works: Sequence[Work]) -> None:
        """Let in works again that waited behind another one of their contact."""
        for work in works:
            partition = self._partitions.of(work.assignment)
            if partition is not None and not partition.closing:
                self.admit(partition, [work])

    def accept(self, lane: Lane, *, applied_at: float) -> None:
        """Genesys has applied the work of a lane."""
        work, change = lane.work, lane.change
        work.outcome = work.accepted_as
        work.operation = change.operation
        work.applied_at = applied_at
        self._remember(work, change, dedupe.accepted(change, lane.base))
        self.finish(lane)

    def refuse(self, lane: Lane, code: str) -> None:
        """Genesys refuses the work of a lane for good."""
        lane.work.outcome = Outcome.UNDELIVERABLE
        lane.work.operation = lane.change.operation
        lane.work.reasons = (f"genesys:{code}",)
        lane.work.detail = "Genesys refused the contact's data"
        self.finish(lane)

    def finish(self, lane: Lane) -> None:
        """End a lane; whatever waited behind it is judged now."""
        self.readmit(self._lanes.close(lane))
        self._decided()

    def _admit(self, partition: Partition, work: Work, change: Change, stored: State | None) -> None:
        lane = self._lanes.get(change.identity)
        if lane is None:
            self._judge(work, change, partition.overlay.get(change.identity, stored))
        elif self._may_replace(lane, change):
            self._supersede(self._lanes.replace(lane, work))
        else:
            self._lanes.wait(lane, work, change)

    @staticmethod
    def _may_replace(lane: Lane, change: Change) -> bool:
        """Whether a newer change may take the place of one that is not sent: the last write wins."""
        if lane.sent or lane.waiting or Operation.SUPPRESS in {lane.change.operation, change.operation}:
            return False
        return dedupe.judge(change, dedupe.accepted(lane.change, lane.base)) is Verdict.CHANGED

    @staticmethod
    def _supersede(work: Work) -> None:
        work.outcome = Outcome.SUPERSEDED

    def _judge(self, work: Work, change: Change, base: State | None) -> None:
        verdict = dedupe.judge(change, base)
        if change.operation is Operation.SUPPRESS:
            self._judge_suppression(work, change, base, verdict)
        elif verdict is Verdict.STALE:
            work.outcome = Outcome.STALE
        elif verdict is Verdict.DUPLICATE and base is not None:
            work.outcome = Outcome.DUPLICATE
            self._remember(work, change, dedupe.advanced(change, base))
        else:
            self._lanes.open(work, change, base, self._clock())

    def _judge_suppression(self, work: Work, change: Change, base: State | None, verdict: Verdict) -> None:
        """A rejected record suppresses its contact; one that is not in Genesys is only noted."""
        if verdict is Verdict.STALE:
            work.outcome = Outcome.REJECTED
        elif verdict is Verdict.DUPLICATE and base is not None:
            work.outcome = Outcome.REJECTED
            self._remember(work, change, dedupe.advanced(change, base))
        elif base is None or base.deleted:
            work.outcome = Outcome.REJECTED
            self._remember(work, change, dedupe.noted(change, base))
        else:
            self._lanes.open(work, change, base, self._clock())

    def _remember(self, work: Work, change: Change, state: State | None) -> None:
        partition = self._partitions.of(work.assignment)
        if state is not None and partition is not None:
            work.state = partition.overlay[change.identity] = state

    def _stored(self, partition: Partition, identities: list[bytes]) -> dict[bytes, State]:
        values = self._store.read(partition.key, identities) if identities else []
        return {key: dedupe.decode_state(raw) for key, raw in zip(identities, values, strict=True) if raw is not None}
