"""What the pipeline holds of each assigned partition. Values only; the other modules of the pipeline act on them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from consumer.core.audit import AuditEvent
from consumer.core.deleted import Deleted
from consumer.core.epochs import Epochs
from consumer.core.fuse import Fuse
from consumer.core.offsets import Tracker, size_of
from consumer.model import Assignment, ChainHead, Record, State, TopicPartition


@dataclass(eq=False, slots=True)
class Partition:
    """A partition while it is assigned to this consumer.

    Attributes:
        assignment: The ownership that its works carry.
        tracker: Its works, in order.
        end: Its end offset when it was assigned.
        topic_id: What tells its topic from others of the name; "" where that is not known.
        reached: Highest offset known to be the end since then, also past control records.
        latest: Its end as the brokers told it with what was fetched last.
        since: When it settled something last, or began to have something to do; monotonic seconds.
        overlay: States decided but not yet in the store, by identity.
        expired: Entries of its store to be forgotten with the next settlement, as they were found.
        walk_at: When it is to be looked through for such entries; monotonic seconds.
        held: Records that wait while it is blocked, put there by `hold`.
        in_hand: How many are being taken in, or were let go of meanwhile since it is about to move.
        restored: Whether the store stands.
        unrestored: Why its store could not be brought up when it was last tried, None while that goes on.
        changelog_left: Offsets of the changelog that are still to be read for that, None while that is not known.
        blocked: Whether new records have to wait: for the store, for a schema, behind held ones, or since the fuse has
            tripped.
        lacks: The schema that it waits for, once that takes long.
        held_back: Whether it waits because too much is held already.
        lacks_others: Whether a contact of it can be given up only once others are carried out, and none come.
        beyond: How often it was read on for that although it holds its share, since it last had room.
        closing: Whether it is about to move away: nothing more is taken in.
        head: End of its chain of audit events.
        exposed: Events behind it that readers may have seen although their settlement failed.
        epochs: Of its source's log, as far as its records were taken in.
        fuse: That of its topic.
        deleted: The last record that was taken in, if that is a delete.
        deletes: Such of those that are not settled, by offset.
        ends_in_delete: Whether the last settled record is known to be one; also where its settlement may have failed.
    """

    assignment: Assignment
    tracker: Tracker
    end: int
    topic_id: str = ""
    reached: int = 0
    latest: int = 0
    since: float = 0.0
    overlay: dict[bytes, State] = field(default_factory=dict)
    expired: dict[bytes, bytes] = field(default_factory=dict)
    walk_at: float = 0.0
    held: list[Record] = field(default_factory=list)
    _held_bytes: int = 0
    in_hand: int = 0
    restored: bool = False
    unrestored: str | None = None
    changelog_left: int | None = None
    blocked: bool = True
    lacks: str | None = None
    held_back: bool = False
    lacks_others: bool = False
    beyond: int = 0
    closing: bool = False
    head: ChainHead = field(default_factory=ChainHead)
    exposed: list[AuditEvent] = field(default_factory=list)
    epochs: Epochs = field(default_factory=Epochs)
    fuse: Fuse = field(default_factory=Fuse)
    deleted: Deleted | None = None
    deletes: dict[int, Deleted] = field(default_factory=dict)
    ends_in_delete: bool = False

    @property
    def key(self) -> TopicPartition:
        """Topic and number."""
        return self.assignment.partition

    def stays(self) -> bool:
        """Whether it is ours, and not about to move away."""
        return self.assignment.alive and not self.closing

    def hold(self, records: Sequence[Record], *, first: bool = False) -> None:
        """Have records wait, behind those that do or before them."""
        self._held_bytes += sum(map(size_of, records))
        at = 0 if first else len(self.held)
        self.held[at:at] = records

    def let_in(self) -> list[Record]:
        """The records that waited: they do so no more."""
        records, self.held, self._held_bytes = self.held, [], 0
        return records

    @property
    def fused(self) -> bool:
        """Whether the fuse of its topic has tripped: nothing is taken in, of this partition or of the others."""
        return self.fuse.trip is not None

    @property
    def taken_in(self) -> bool:
        """Whether everything up to the end at assignment was taken in, or as much of it as the fuse lets in.

        Of one that is about to go nobody knows: what it held has been let go of.
        """
        flows = self.stays() and not self.blocked
        return self.fused or (flows and max(self.tracker.expected, self.reached) >= self.end)

    @property
    def caught_up(self) -> bool:
        """Whether all of that is settled."""
        return self.taken_in and len(self.tracker) == 0

    @property
    def unsettled(self) -> int:
        """Records held in memory."""
        return len(self.tracker) + len(self.held) + self.in_hand

    @property
    def bytes(self) -> int:
        """Size of these."""
        return self.tracker.bytes + self._held_bytes

    @property
    def lag(self) -> int:
        """Records that are known to stand in the partition and are not settled.

        What ends a transaction has an offset too: where all that was read is settled, the end that was reached is.
        """
        settled = self.tracker.committable if self.unsettled else max(self.tracker.committable, self.reached)
        return max(0, max(self.end, self.reached, self.latest, self.tracker.expected) - settled)

    @property
    def idle(self) -> bool:
        """Whether nothing waits in it. What is not fetched until a fuse is released waits too."""
        return self.restored and not self.unsettled and not (self.fused and self.lag)

    def stalled_s(self, now: float) -> float:
        """For how long it has settled nothing, although something waits in it."""
        return 0.0 if self.idle else now - self.since

    def status(self) -> dict[str, object]:
        """What the status page shows of it."""
        return {
            "topic": self.key.topic,
            "partition": self.key.partition,
            "state": self._state,
            "settled": self.tracker.committable,
            "lag": self.lag,
            "changelog_left": 0 if self.restored else self.changelog_left,
        }

    @property
    def _state(self) -> str:
        if not self.restored:
            return "restoring"
        return "fused" if self.fused else "waiting" if self.blocked else "running"


class Partitions(dict[TopicPartition, Partition]):
    """All assigned partitions.

    Attributes:
        starting: Those of which it is not known where they go on, with the monotonic time since when: they are to be
            assigned, or are, and the brokers do not have the offset any more that is to come next, or are not reached.
    """

    def __init__(self, assigned: Mapping[TopicPartition, Partition] = MappingProxyType({})) -> None:
        super().__init__(assigned)
        self.starting: Mapping[TopicPartition, float] = {}

    def note_starting(self, keys: Collection[TopicPartition], now: float) -> None:
        """Of these it is not known where they go on, and of no others."""
        self.starting = {key: self.starting.get(key, now) for key in keys}

    def stalled(self, now: float) -> Mapping[TopicPartition, float]:
        """For how long partitions have settled nothing although something waits in them, or may do so, seconds."""
        stalled = {key: partition.stalled_s(now) for key, partition in self.items()}
        starting = {key: max(now - since, stalled.get(key, 0.0)) for key, since in self.starting.items()}
        return stalled | starting

    @property
    def waiting(self) -> str:
        """Which of them wait for a schema; "" when none does."""
        return "; ".join(f"{key} waits for schema {each.lacks}" for key, each in self.items() if each.lacks)

    @property
    def unrestored(self) -> str:
        """Which of them have no store, and why one does not; "" when all have theirs, or get it."""
        why = [f"{key} is not restored: {each.unrestored}" for key, each in self.items() if each.unrestored]
        others = f"; {len(why) - 1} other partitions neither" if why[1:] else ""
        return "".join(why[:1]) + others

    def status(self) -> list[dict[str, object]]:
        """What the status page shows of them."""
        unknown = {"settled": None, "lag": None, "changelog_left": None}
        told = {key: partition.status() for key, partition in self.items()}
        for key in sorted(self.starting):
            known = told.get(key, {"topic": key.topic, "partition": key.partition} | unknown)
            told[key] = known | {"state": "starting"}
        return list(told.values())

    def of(self, assignment: Assignment) -> Partition | None:
        """The partition of an assignment; None when that is over."""
        partition = self.get(assignment.partition)
        return partition if partition is not None and partition.assignment is assignment else None

    @property
    def unsettled(self) -> int:
        """Records held in memory."""
        return sum(partition.unsettled for partition in self.values())
