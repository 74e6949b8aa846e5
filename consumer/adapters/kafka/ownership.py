"""Which partitions are ours, from their assignment until they are let go, and what is fetched of them.

Answers for: nothing is committed or passed on of a partition that is not ours; one that may have been given away
meanwhile, or whose offsets count anew, begins again only once nothing of it is under way. Touches the brokers, by the
client that it is given and by `starts`. All of it runs in the poll thread.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition as NativePartition

from consumer.adapters.kafka.connection import NO_EPOCH, native, of_native
from consumer.adapters.kafka.failures import error_of, offsets_policy
from consumer.adapters.kafka.group_offsets import GroupMember, Mark
from consumer.adapters.kafka.handoff import Handoff
from consumer.adapters.kafka.starts import Start, Starts
from consumer.errors import Rebalancing
from consumer.model import TopicPartition
from consumer.ports import Assigned, Lost, Starting

Add = Callable[[list[TopicPartition]], None]
Overtaken = Callable[[TopicPartition], None]
_log = structlog.get_logger(__name__)

_PERHAPS = "withdrawals may be among it: pause the campaigns, have the CRM send its contacts again"
"""What to do where something is gone that nobody has read."""


class Ownership:
    """The partitions of one member of the group.

    Args:
        starts: Finds where they begin.
        handoff: To the event loop.
        on_overtaken: Told on the event loop when the broker no longer has the expected offset of a partition.

    Attributes:
        partitions: Those that are ours and have begun.
        topics: Those of the group that are there, or were while this has run.
        missing: Those of which the brokers said last that there are none. May be read from any thread.
        fetched: Those of them that are assigned to the client.
        marks: Up to where those were read that have begun, also if they are ours no more; replaced, never changed.
        membership: As of the last poll; None before the first. May be read from any thread.
    """

    def __init__(self, starts: Starts, handoff: Handoff, on_overtaken: Overtaken) -> None:
        self._starts = starts
        self._handoff = handoff
        self._on_overtaken = on_overtaken
        self._consumer: Consumer
        self._doubtful: dict[TopicPartition, list[TopicPartition]] = {}  # with those that became so together
        self._paused: set[TopicPartition] = set()
        self._starting: frozenset[TopicPartition] = frozenset()  # as told last
        self._unreached: frozenset[TopicPartition] = frozenset()
        self.partitions: set[TopicPartition] = set()
        self.topics: set[str] = set()
        self.missing: frozenset[str] = frozenset()
        self.fetched: set[TopicPartition] = set()
        self.marks: Mapping[TopicPartition, Mark] = {}
        self.membership: GroupMember | None = None

    def use(self, consumer: Consumer) -> None:
        """Fetch and commit by this client from here on."""
        self._consumer = consumer

    def close(self) -> None:
        """Ask the brokers nothing more."""
        self._starts.close()

    # -- how partitions begin

    @property
    def is_starting(self) -> bool:
        """Whether of any it is not known yet where it begins."""
        return bool(self._starts)

    def take(self, partitions: Iterable[TopicPartition]) -> None:
        """These are ours; fetching starts when it is known where."""
        self._starts.add(partitions)

    def tell_idle(self) -> None:
        """A member like others, if it has nothing to do."""
        if not self.partitions and not self._starts:
            self._handoff.emit(Assigned({}, {}))

    def tell_starting(self) -> None:
        """Say what is ours and not assigned yet, or not reached: nobody would know of it, and take the rest for all."""
        starting = frozenset(self._starts.pending | self._doubtful.keys() | (self._unreached & self.partitions))
        if starting != self._starting:
            self._starting = starting
            self._handoff.emit(Starting(starting))

    def begin(self, now: float) -> None:
        """Fetch partitions of which it is known by now where; monotonic seconds.

        Raises:
            FatalError: The brokers refuse to tell, or a topic was made anew with fewer partitions.
        """
        self._begin(self._starts.poll(self._consumer, now))
        if topic_ids := self._starts.look(now):
            self.missing = frozenset(topic for topic, topic_id in topic_ids.items() if topic_id is None)
            self.topics |= topic_ids.keys() - self.missing
            self._leave_gone(self.missing)
            self._leave_former(topic_ids)

    def _begin(self, starts: Mapping[TopicPartition, Start]) -> None:
        """Fetch partitions from where they start: new ones are announced, paused."""
        rewound = {p: start for p, start in starts.items() if p in self.partitions and start.goes_back}
        for partition, start in rewound.items():
            self._rewind(partition, start)
        starts = {p: start for p, start in starts.items() if p not in rewound}
        if not starts:
            return
        announced = {p: start for p, start in starts.items() if p not in self.partitions}
        self.partitions |= starts.keys()
        self.topics.update(partition.topic for partition in starts)
        self._paused |= announced.keys()
        self.fetched |= starts.keys()
        self.marks = {**self.marks, **{p: start.mark for p, start in starts.items()}}
        self._consumer.incremental_assign([self._next(p) for p in starts])
        self._consumer.pause([native(p) for p in starts if p in self._paused])
        for partition, start in starts.items():
            self._tell_overtaken(partition, start)
        self.publish()
        if announced:
            positions = {p: start.offset for p, start in announced.items()}
            ends, topic_ids = {p: s.end for p, s in announced.items()}, {p: s.topic_id for p, s in announced.items()}
            self._handoff.emit(Assigned(positions, ends, topic_ids))
        self.tell_starting()

    def _rewind(self, partition: TopicPartition, start: Start) -> None:
        """Its offsets count anew: work under way is of other records, and a settlement of it may still succeed.

        That one would commit an offset of those, so where to begin is not for the group's offset to say.
        """
        self._tell_overtaken(partition, start)
        self.start_over([partition], partial(self._starts.add, expected=start.mark))

    def _tell_overtaken(self, partition: TopicPartition, start: Start) -> None:
        if start.expected is None or not start.misses:
            return
        told = {"partition": partition, "expected": start.expected.offset, "resumed": start.offset}
        if start.made_anew:
            remedy = f"what was not read of the former topic is gone; {_PERHAPS}"
            _log.error("source_topic_made_anew", **told, remedy=remedy)
        elif start.goes_back:
            remedy = f"what the brokers lost before it was read is gone; {_PERHAPS}; have no unclean elections"
            _log.error("source_log_cut_off", **told, remedy=remedy)
        else:
            remedy = f"what stood between is gone; {_PERHAPS}; raise the topic's retention"
            _log.error("retention_overtook_the_group", **told, remedy=remedy)
        self._handoff.call(self._on_overtaken, partition)

    def recall(self, partition: TopicPartition, settled: Mark) -> None:
        """The store knows up to where this partition was settled.

        If the group has no offset for it, and it began behind that, the records in between are lost: say so.
        """
        start = self._starts.recall(partition, settled) if partition in self.partitions else None
        if start is not None and start.offset > settled.offset:
            self._tell_overtaken(partition, start)

    def _leave_gone(self, topics: Collection[str]) -> None:
        """Give up what is under way of these: nobody can settle it, nor anything else together with it."""
        for partition in [partition for partition in self.partitions if partition.topic in topics]:
            if partition in self.fetched:
                self.find_out(partition)
            self.start_over([partition], partial(self._starts.add_gone, was=self._starts.pending[partition]))

    def _leave_former(self, topic_ids: Mapping[str, str | None]) -> None:
        """Where a topic is another one than it was, in its partitions other records have the offsets that come next."""
        for partition in list(self.fetched):
            if not self.marks[partition].is_of(topic_ids.get(partition.topic) or ""):
                self.find_out(partition)

    def find_out(self, partition: TopicPartition) -> None:
        """Ask where to go on with one that is fetched: what comes next is gone, or is not what it was, or its topic."""
        self.fetched.discard(partition)
        self._consumer.incremental_unassign([native(partition)])
        self._starts.add([partition], self.marks[partition])

    # -- how they are fetched and committed

    @property
    def reading(self) -> set[TopicPartition]:
        """Those that are fetched now."""
        return self.fetched - self._paused

    def note_unreached(self, partitions: frozenset[TopicPartition]) -> None:
        """Of these nothing can come now, and of no others: the brokers that lead them are not reached."""
        if new := partitions - self._unreached:
            remedy = "see whether this machine reaches the brokers that lead them; withdrawals may wait there"
            _log.error("partitions_not_reached", partitions=sorted(new), remedy=remedy)
        self._unreached = partitions

    def move_on(self, last: Mapping[TopicPartition, Message], ends: Mapping[TopicPartition, int]) -> None:
        """These were the last records that came of these partitions, and these the ends that were reached.

        To be told before anybody else hears of the records: they are committed with what is known by then.
        """
        moved = {key: self._behind(key, message) for key, message in last.items() if key in self.fetched}
        for key in ends.keys() & self.fetched:
            moved[key] = moved.get(key, self.marks[key])._replace(reached=ends[key])
        if moved:
            self.marks = {**self.marks, **moved}
            self.publish()

    def _behind(self, partition: TopicPartition, message: Message) -> Mark:
        epoch, offset = message.leader_epoch(), message.offset() or 0
        return self.marks[partition]._replace(offset=offset + 1, epoch=NO_EPOCH if epoch is None else epoch)

    def _next(self, partition: TopicPartition) -> NativePartition:
        """Where to fetch it: by the epoch the library has the brokers look whether the log was cut off before that."""
        mark = self.marks[partition]
        return native(partition, mark.offset, epoch=mark.epoch)

    def publish(self) -> None:
        """Let offsets be committed by a transaction as the member that this is now."""
        metadata = self._consumer.consumer_group_metadata()
        self.membership = GroupMember(metadata, frozenset(self.partitions), self.marks)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching these."""
        changed = self.partitions.intersection(partitions) - self._paused
        self._paused |= changed
        self._consumer.pause([native(partition) for partition in changed & self.fetched])

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch these again, at once: by itself the library can take a second to notice."""
        changed = self._paused.intersection(partitions)
        self._paused -= changed
        self._consumer.resume([native(partition) for partition in changed & self.fetched])
        for partition in changed & self.fetched:
            with suppress(KafkaException):  # it has just been assigned, and is about to be fetched anyway
                self._consumer.seek(self._next(partition))

    def commit(self, offsets: Sequence[NativePartition]) -> None:
        """Commit offsets of owned partitions, and of no other: a broker would accept those too.

        They bear the ids under which they were read: with the present one, of a topic that was made anew meanwhile, the
        next process would go on there at an offset of the former.

        Raises:
            TransientError: They are not committed.
            FatalError: They never will be.
        """
        if not self.partitions.issuperset(map(of_native, offsets)):
            raise Rebalancing("cannot commit offsets: partitions moved away")
        try:
            for offset in offsets:
                self._consumer.store_offsets(offsets=[offset])
            committed = self._consumer.commit(asynchronous=False) or []
        except KafkaException as failure:
            if error_of(failure).code() == KafkaError._NO_OFFSET:  # noqa: SLF001 -- public; they are committed already
                return
            raise offsets_policy(error_of(failure), "cannot commit offsets") from None
        for answer in committed:
            if answer.error is not None:
                raise offsets_policy(answer.error, "cannot commit offsets")

    # -- how they go

    def start_over(self, partitions: list[TopicPartition], add: Add | None = None) -> None:
        """Let go of these until nothing of them is under way any more; `add` is how `starts` is told of them then."""
        self.let_go(partitions)
        self._doubtful.update(dict.fromkeys(partitions, partitions))
        self.tell_starting()
        forgotten = partial(self._handoff.command, partial(self._begin_anew, partitions, add or self._starts.add))
        self._handoff.emit(Lost(partitions, forgotten))

    def _begin_anew(self, partitions: list[TopicPartition], add: Add) -> None:
        """No settlement is under way any more: they begin where that left them, or as told, if they are still ours."""
        ours = [partition for partition in partitions if self._doubtful.get(partition) is partitions]
        for partition in ours:
            del self._doubtful[partition]
        add(ours)

    def let_go(self, partitions: Collection[TopicPartition]) -> None:
        """From here on nothing of these partitions can be committed or passed on."""
        fetched = self.fetched.intersection(partitions)
        self._starts.discard(partitions)
        for partition in self._doubtful.keys() & partitions:
            del self._doubtful[partition]
        self.partitions.difference_update(partitions)
        self._paused.difference_update(partitions)
        self.fetched -= fetched
        if self.membership is not None:
            self.membership = self.membership._replace(owned=frozenset(self.partitions))
        self._consumer.incremental_unassign([native(partition) for partition in fetched])
