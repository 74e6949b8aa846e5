"""The fuses of all source topics: one that trips stops its topic in this process, and it is said how to release it."""

from collections.abc import Collection, Mapping

import structlog

from consumer.core.dead_letters import is_replayed
from consumer.core.fuse import TIMELESS_MS, WINDOW, Fuse, Trip, release
from consumer.model import FuseCause
from consumer.pipeline.partitions import Partition, Partitions
from consumer.ports import Source
from consumer.settings import Settings

_WHY = {
    FuseCause.TRUNCATE: "its table was truncated",
    FuseCause.OVERFLOW: "more changed than is told",
    FuseCause.DELETES: "more than {:,} of {:,} changes delete",
}

log = structlog.get_logger(__name__)


class Fuses:
    """The fuse of each topic.

    Args:
        settings: What is a mass of deletes, and what is released.
        partitions: The assigned ones.
        source: Where they are paused; polling goes on.
    """

    def __init__(self, settings: Settings, partitions: Partitions, source: Source) -> None:
        self._settings = settings
        self._partitions = partitions
        self._source = source
        self._fuses: dict[str, Fuse] = {}
        self._told: dict[str, str] = {}

    def of(self, topic: str) -> Fuse:
        """The fuse of a topic, the same for all its partitions."""
        if topic not in self._fuses:
            self._fuses[topic] = Fuse(self._settings.fuse_deletes, self._released(topic), is_replayed)
        return self._fuses[topic]

    @property
    def tripped(self) -> bool:
        """Whether any has tripped."""
        return bool(self._told)

    @property
    def reason(self) -> str:
        """What tripped, and how it is released; "" when none has."""
        return "; ".join(self._told.values())

    def levels(self) -> Mapping[str, int]:
        """1 for each source topic whose fuse has tripped, 0 for the others."""
        return {topic: int(topic in self._told) for topic in self._settings.kafka_source_topics}

    def heed(self, partition: Partition) -> None:
        """Records of a partition were taken: if that tripped the fuse, stop its topic, and say so."""
        topic, trip = partition.key.topic, partition.fuse.trip
        if trip is None or topic in self._told:
            return
        self._stop(topic)
        remedy = _remedy(trip, partition, self._released(topic))
        place = {"topic": topic, "partition": trip.partition, "offset": trip.offset}
        waiting = "all records of the topic, withdrawals too"
        log.error("fuse_tripped", **place, cause=trip.cause.value, waiting=waiting, remedy=remedy)
        why = _WHY[trip.cause].format(self._settings.fuse_deletes, WINDOW)
        self._told[topic] = f"{topic} stands still at {trip.partition}/{trip.offset}: {why}; {remedy}"

    def _released(self, topic: str) -> Collection[int]:
        return self._settings.fuse_releases.get(topic, ())

    def _stop(self, topic: str) -> None:
        stopped = [each for each in self._partitions.values() if each.key.topic == topic]
        for each in stopped:
            each.blocked = True
        self._source.pause([each.key for each in stopped])


def _remedy(trip: Trip, partition: Partition, released_ms: Collection[int]) -> str:
    """How to release what tripped: a mass up to the last of it that is held; records without a time all at once.

    What is released already stays so: a mass may have records with and without a time.
    """
    until_ms = max(trip.timestamp_ms, TIMELESS_MS)
    if trip.cause is FuseCause.DELETES and trip.timestamp_ms >= 0:
        until_ms = max(record.timestamp_ms for record in partition.held)
    times = {until_ms, *released_ms}
    told = [release(partition.key.topic, each) for each in (max(times), TIMELESS_MS) if each in times]
    remedy = f"if that is meant, set FUSE_RELEASES={','.join(dict.fromkeys(told))} and restart"
    if TIMELESS_MS not in times:
        return remedy
    return f"{remedy}; take it back after that: what is for 1970 is for all records without a time"
