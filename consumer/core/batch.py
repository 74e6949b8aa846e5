"""Contacts with changes under way, gathered into batches: withdrawals first, the last write wins, one at a time.

Answers for three rules: a contact is in at most one request at a time; its changes go out in their order; a withdrawal
goes ahead of every other waiting change. Touches nothing else; the clock is an argument.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from consumer.core.lane import MAX_PER_REQUEST, Batch, Effect, Lane, Queue, Works, effect_of
from consumer.model import Assignment, Change, Contact, State, TopicPartition, Work

_UPSERT = Effect.UPSERT  # bound once: to find a member in its class takes Python 3.11 longer than all else here


class _Calm(Queue):
    """Lanes that linger, with how many live."""

    records = 0


def _with(works: Works, another: Work) -> list[Work]:
    if not works:
        return [another]
    works.append(another)
    return works


class _Group(Struct, frozen=True, eq=False):
    """Contacts that are sent together and with nobody else, and those who wait for what comes of it."""

    effect: Effect
    queue: Queue
    doubted: Queue


class Encode(Protocol):
    """Encodes a contact for Genesys, callable or not."""

    def __call__(self, contact: Contact, *, callable_: bool) -> bytes: ...


class Lanes:
    """All contacts on their way, and the batches that they make.

    Args:
        max_records: Most contacts in a batch.
        max_bytes: Most bytes of encoded contacts in a batch.
        linger: Longest wait of a change that is not urgent, seconds.
        encode: Encodes contacts.
    """

    def __init__(self, max_records: int, max_bytes: int, linger: float, encode: Encode) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._linger = linger
        self._encode = encode
        self._lanes: dict[bytes, Lane] = {}
        self._urgent = {effect: Queue() for effect in Effect}
        self._calm = {effect: _Calm() for effect in Effect}
        self._groups: list[_Group] = []
        self._took_group = self._took_urgent = False
        self._parked = Queue()
        self.draining = False

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, identity: bytes) -> Lane | None:
        """The lane of a contact, None when nothing of it is under way."""
        return self._lanes.get(identity)

    def idle(self, identities: Iterable[bytes]) -> list[bytes]:
        """Those of them of which nothing is under way."""
        return [identity for identity in identities if identity not in self._lanes]

    def open(self, work: Work, change: Change, base: State | None, now: float) -> None:
        """Begin a lane for a contact that has none."""
        lane = Lane(work, change, base, now, urgent=change.withdrawal)
        self._lanes[change.identity] = lane
        self._enqueue(lane)

    def replace(self, lane: Lane, work: Work, change: Change) -> None:
        """Let a newer work take the place of the one that waits."""
        lane.superseded = _with(lane.superseded, lane.work)
        lane.work, lane.change, lane.expected = work, change, None
        lane.urgent, lane.muted, lane.misses = change.withdrawal, False, 0
        lane.answered()
        self._requeue(lane)

    def wait(self, lane: Lane, work: Work, expected: State, *, withdraws: bool) -> None:
        """Let a work wait behind its contact's lane. Before one that withdraws, nothing goes out as callable."""
        lane.waiting = _with(lane.waiting, work)
        lane.mixed |= work.assignment is not lane.work.assignment
        lane.expected = expected
        deletes = effect_of(lane.change) is Effect.DELETE
        if withdraws and not (lane.sent or lane.urgent or deletes):
            lane.urgent = lane.muted = True
            lane.answered()
            self._requeue(lane)

    def close(self, lane: Lane) -> list[Work]:
        """End a lane; the works of it that have no outcome come back, to be judged."""
        if lane.queue is not None:
            self._leave(lane)
        del self._lanes[lane.change.identity]
        if not (lane.superseded or lane.waiting):
            return []
        left, lane.superseded, lane.waiting = [*lane.superseded, *lane.waiting], (), ()
        return left

    def put_back(self, lanes: Sequence[Lane]) -> None:
        """Queue sent lanes again, in front: the request may or may not have been applied."""
        for lane in reversed(lanes):
            self._enqueue(lane, first=True)

    def put_behind(self, batch: Batch, now: float) -> None:
        """Queue sent lanes again, last: one of them may be why there was no answer, and others do not wait for it."""
        for lane in batch.lanes:
            lane.since = now
        doubted = batch.still_doubted()
        if batch.lanes and doubted:
            self.put_back_as_group(batch.effect, batch.lanes, doubted)
        else:
            self.relieve([*doubted, *batch.lanes])

    def shrink(self, max_bytes: int) -> None:
        """Make batches of fewer bytes from now on."""
        self._max_bytes = min(self._max_bytes, max_bytes)

    def put_back_as_group(self, effect: Effect, lanes: list[Lane], doubted: Sequence[Lane] = ()) -> None:
        """Queue lanes again, to be sent together and with nobody else; the doubted wait for what comes of it."""
        group = _Group(effect, Queue(lanes), Queue(doubted))
        for queue in (group.queue, group.doubted):
            for lane in queue:
                lane.queue = queue
        self._groups.append(group)

    def relieve(self, lanes: Sequence[Lane]) -> None:
        """Queue lanes again that were doubted: among all others, but last, since others may be poison among them."""
        for lane in lanes:
            lane.queue = None
            self._enqueue(lane)

    def park(self, lane: Lane) -> None:
        """Keep a sent lane back; like one that waits it can be replaced or dropped, but it is not taken."""
        lane.queue = self._parked
        lane.parkings += 1

    def is_parked(self, lane: Lane) -> bool:
        """Whether a lane is kept back."""
        return lane.queue is self._parked

    def release(self, lane: Lane) -> None:
        """Queue a parked lane again; one that has left meanwhile is left alone."""
        if lane.queue is self._parked:
            self._requeue(lane)

    def release_alone(self, lane: Lane, now: float, *, urgent: bool = False) -> None:
        """`release`, into a group of its own; unless `urgent` it takes turns with what lingers."""
        if lane.queue is self._parked:
            lane.since, lane.urgent = now, urgent
            self.put_back_as_group(effect_of(lane.change), [lane])

    def drop(self, assignment: Assignment) -> tuple[list[Lane], list[Work]]:
        """Forget everything of an assignment that is not sent: its lanes, and who waits behind others.

        Returns:
            Its lanes; and works of other assignments that these held up or that waited with who is gone, to be judged.
        """
        dropped: list[Lane] = []
        freed: list[Work] = []
        for lane in list(self._lanes.values()):
            waited = len(lane.waiting)
            if waited:
                lane.waiting = [work for work in lane.waiting if work.assignment is not assignment]
            if lane.work.assignment is assignment and not lane.sent:
                lane.superseded = ()  # of the same assignment; where the lane is sent they end with its answer
                dropped.append(lane)
                freed += self.close(lane)
            elif len(lane.waiting) < waited:  # what is expected of the contact counted who is gone
                freed += lane.waiting
                lane.waiting, lane.expected, lane.mixed = (), None, False
        if dropped:
            self._lay_ghosts()
        return dropped, freed

    def _lay_ghosts(self) -> None:
        """Take the ghosts out of the queues: behind a lane that is put back again and again, nobody meets them."""
        for queue in (*self._urgent.values(), *self._calm.values()):
            living = queue.living()
            queue.clear()
            queue.extend(living)

    def untried(self, effects: Collection[Effect]) -> bool:
        """Whether contacts wait or are sent, for one of these effects, of which no request came to nothing yet."""
        fresh = (lane for lane in self._lanes.values() if lane.failed is None and not self.is_parked(lane))
        return any(effect_of(lane.change) in effects for lane in fresh)

    @property
    def failing(self) -> bool:
        """Whether there are contacts for which a request came to nothing, beside those that are tried by themselves."""
        return any(lane.failed is not None and not lane.alone for lane in self._lanes.values())

    def put_off(self, seconds: float) -> list[Lane]:
        """Lanes that Genesys asked to wait with for at least so long, from the first time to the last."""
        asked = ((lane, lane.put_off) for lane in self._lanes.values())
        return [lane for lane, first in asked if first is not None and lane.since - first >= seconds]

    def busy(self, assignment: Assignment) -> bool:
        """Whether a request with a contact of the assignment is under way."""
        return any(lane.sent and lane.work.assignment is assignment for lane in self._lanes.values())

    def under_way(self, partitions: Collection[TopicPartition]) -> set[Assignment]:
        """The assignments of these partitions that have contacts on their way, also those that are over."""
        assignments = {lane.work.assignment for lane in self._lanes.values()}
        return {assignment for assignment in assignments if assignment.partition in partitions}

    def due(self, now: float, limit: int) -> float | None:
        """When the next batch may be taken, not before `now`; None when nothing waits."""
        self._bury_groups()
        if self._groups or any(queue.head() for queue in self._urgent.values()):
            return now
        first = self._first_calm(now, limit)
        return None if first is None else first[0]

    def _first_calm(self, now: float, limit: int) -> tuple[float, float, Effect] | None:
        """Of what lingers and is due first: when it is due, since when its longest has waited, what it is."""
        heads = [(head.since, effect) for effect, queue in self._calm.items() if (head := queue.head())]
        return min(
            ((self._calm_due(effect, since, now, limit), since, effect) for since, effect in heads), default=None
        )

    def _calm_due(self, effect: Effect, since: float, now: float, limit: int) -> float:
        queue = self._calm[effect]
        full = queue.records >= self._most(effect, limit) or self._size(queue) >= self._max_bytes
        return now if full or self.draining else max(now, since + self._linger)

    def _most(self, effect: Effect, limit: int) -> int:
        """How many contacts a batch may hold."""
        return min(limit, self._max_records, MAX_PER_REQUEST.get(effect, limit))

    def take(self, now: float, limit: int, *, trial: bool = False, apart: bool = False) -> Batch | None:
        """The next batch of at most `limit` contacts, None when none is due.

        On trial, while nobody knows whether Genesys works, those that were not tried yet go first, and apart.

        Apart, withdrawals go without others, and by turns with them: what goes with one would be kept back with it.
        """
        due = self.due(now, limit)
        if due is None or due > now:
            return None
        if trial:
            return self._trial(limit)
        group = self._next_group(now, limit, apart=apart)
        if group is not None:
            self._took_group, self._took_urgent = True, False
            return self._whole(group)
        return self._ungrouped(now, limit, apart=apart)

    def _trial(self, limit: int) -> Batch:
        """One kind of contacts: fresh ones, withdrawals first, or else those that were tried the longest time ago."""
        ungrouped = [*self._urgent.items(), *self._calm.items()]
        for _, queue in ungrouped:
            _fresh_first(queue)
        heads = [(head, effect, queue, None) for effect, queue in ungrouped if (head := queue.head())]
        grouped = [(head, each.effect, each.queue, each) for each in self._groups if (head := each.queue.head())]
        _, effect, queue, group = min([*heads, *grouped], key=lambda waiting: _trial_order(waiting[0]))
        if group is not None:
            return self._whole(group)
        return Batch(effect, self._fill([], queue, self._most(effect, limit), alike=True))

    def _whole(self, group: _Group) -> Batch:
        """The batch of a group; where it has outgrown a request, nothing can be told of those that are left."""
        self._groups.remove(group)
        lanes = self._fill([], group.queue, len(group.queue))
        if group.queue.head() is None:
            return Batch(group.effect, lanes, group.doubted, search=True)
        self.relieve([*group.queue.living(), *group.doubted.living()])
        return Batch(group.effect, lanes)

    def _ungrouped(self, now: float, limit: int, *, apart: bool) -> Batch:
        """Withdrawals, the longest wait first, with others in what room they leave; or only others."""
        waiting = [(now, head.since, effect) for effect, queue in self._urgent.items() if (head := queue.head())]
        others = self._first_calm(now, limit)
        turn_of_others = apart and self._took_urgent and others is not None and others[0] <= now
        self._took_urgent = bool(waiting) and not turn_of_others
        self._took_group &= apart and self._took_urgent
        first = min(waiting) if self._took_urgent else others
        if first is None:
            raise AssertionError("a batch is due, and nothing waits")
        effect = first[-1]
        most = self._most(effect, limit)
        lanes = self._fill([], self._urgent[effect], most, alike=True) if self._took_urgent else []
        if not (apart and lanes):
            self._fill(lanes, self._calm[effect], most, alike=lanes != [])
        return Batch(effect, lanes)

    def _bury_groups(self) -> None:
        """Forget groups that everybody left; who waited for what comes of one goes on."""
        for group in [group for group in self._groups if not group.queue.head()]:
            self._groups.remove(group)
            self.relieve(group.doubted.living())

    def _next_group(self, now: float, limit: int, *, apart: bool) -> _Group | None:
        """The group whose turn it is: after withdrawals, apart by turns with them, and so with others that are due."""
        heads = [
            (not head.urgent, head.since, n) for n, group in enumerate(self._groups) if (head := group.queue.head())
        ]
        if not heads:
            return None
        calm, since, number = min(heads)
        urgent = [head.since for queue in self._urgent.values() if (head := queue.head())]
        if urgent and (calm or min(urgent) <= since) and not (apart and self._took_urgent):
            return None
        others = self._first_calm(now, limit)
        if calm and self._took_group and others is not None and others[0] <= now:
            return None
        return self._groups[number]

    def _fill(self, lanes: list[Lane], queue: Queue, limit: int, *, alike: bool = False) -> list[Lane]:
        """Move lanes from a queue into a batch until one of its limits is met.

        Alike, those that came to nothing stay apart from those that did not: withdrawals do not wait for what is why.
        """
        size = 1 + sum(len(lane.payload) + 1 for lane in lanes)  # brackets, and commas between
        while len(lanes) < limit and (head := queue.head()):
            size += len(self._payload(head)) + 1
            if lanes and (size > self._max_bytes or (alike and head.tried is not lanes[0].tried)):
                break
            self._leave(head)
            queue.popleft()
            lanes.append(head)
        return lanes

    def _requeue(self, lane: Lane) -> None:
        """Put a waiting lane where its work belongs now; in the same queue it keeps its place."""
        before = lane.queue
        self._leave(lane)
        self._enqueue(lane, before)

    def _enqueue(self, lane: Lane, before: Queue | None = None, *, first: bool = False) -> None:
        """Put a lane where its work belongs, unless it stands there already."""
        effect = effect_of(lane.change)
        if lane.urgent:
            queue = self._urgent[effect]
        else:
            queue = calm = self._calm[effect]
            calm.records += 1
        lane.queue, lane.payload = queue, b""
        if queue is not before:
            (queue.appendleft if first else queue.append)(lane)

    def _size(self, queue: Queue) -> int:
        """Bytes that wait where contacts are too few for a batch; of a backlog, nobody asks."""
        return sum(len(self._payload(lane)) + 1 for lane in queue.living())

    def _payload(self, lane: Lane) -> bytes:
        change = lane.change
        if not lane.payload and effect_of(change) is _UPSERT:
            contact = change.whole
            lane.payload = self._encode(contact, callable_=contact.callable and not lane.muted)
        return lane.payload

    def _leave(self, lane: Lane) -> None:
        """Take a lane out of its queue, where it remains as a ghost until met."""
        if isinstance(lane.queue, _Calm):
            lane.queue.records -= 1
        lane.queue = None


def _fresh_first(queue: Queue) -> None:
    """Let those that were tried wait behind those that were not."""
    head = queue.head()
    if head is not None and head.tried:
        living = sorted(queue.living(), key=lambda lane: lane.tried)
        queue.clear()
        queue.extend(living)


def _trial_order(lane: Lane) -> tuple[bool, bool, float]:
    """Of those that were tried, a withdrawal would be tried again and again before all others."""
    return lane.tried, not (lane.tried or lane.urgent), lane.since
