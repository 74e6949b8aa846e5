"""The thread that owns the consumer: it is made, polled and closed there, and every callback runs there.

Answers for: membership in the group, whether that is sure, records in order. Which partitions are ours is kept in
`ownership`. Touches the brokers. An exception that leaves a callback would make librdkafka's binding throw away the
records of that call, so none does.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from sys import intern
from typing import Any

import orjson
import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition as NativePartition,
)

from consumer.adapters.kafka.connection import Connection, of_native
from consumer.adapters.kafka.failures import UNAUTHORIZED, error_of, is_gone, is_hopeless, is_not_released, policy
from consumer.adapters.kafka.handoff import Handoff
from consumer.adapters.kafka.lease import Lease
from consumer.adapters.kafka.messages import headers_of, polled
from consumer.adapters.kafka.orphans import Orphans
from consumer.adapters.kafka.ownership import Overtaken, Ownership
from consumer.adapters.kafka.reach import Leaders, Reach
from consumer.adapters.kafka.starts import Starts
from consumer.adapters.kafka.static_name import StaticName
from consumer.core.seldom import Seldom
from consumer.errors import ConsumerError, FatalError
from consumer.model import Record, TopicPartition
from consumer.ports import Grown, Lost, Polled, Revoked
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

MAX_POLL_RECORDS = 1000
"""A partition that is to pause is read on for up to three polls, until the poll thread hears of it, and the library
hands over thousands of records of one partition in a row. Polls of 250 would cost a tenth more CPU.
"""

COMPANY_S = 0.01
"""How long the first record of a poll waits for others: each poll costs a turn of the whole pipeline.

At 200 records a second, which come one by one, that saves two fifths of the CPU.
"""

POLL_S = 0.1
POLL_WHILE_STARTING_S = 0.01
LOOK_UP_S = 0.05
"""How often a waiting thread looks whether it is still to wait."""

SURE_SHARE = 2 / 3
"""Share of the session time-out for which somebody is sure of his partitions, standing still or without an answer.

The group counts from the last heartbeat, which may have been a third of the time-out ago.
"""

SLEEP_S = 0.1
"""A machine that was suspended for less has not been: two clocks are not read in the same moment."""

LOOKS_IN_LEASE = 10
"""How often the coordinator's answers are looked at in that time."""

STEADY = "steady"
"""What the statistics say of a member, with the classic protocol."""

IDLE = "init"
"""What the statistics say of a member without partitions, with the `consumer` protocol: it calls nothing back.

They say it of a client too that the group does not let in.
"""

HEARTBEAT_MS, BROKERS_HEARTBEAT_MS = 1_000, 5_000
"""How often a member is heard: our default, and with the `consumer` protocol the brokers'."""

SESSION_TIMEOUT_MS = 45_000
"""The default; with the `consumer` protocol it is the brokers' setting, of which this is the default and the least."""

DEFAULTS = {
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": HEARTBEAT_MS,  # a member learns with its next heartbeat that partitions are to move
    # Longer than any revocation. With the `consumer` protocol it is also for how long the group waits for a member that
    # missed an answer: the library does not ask for its assignment again.
    "max.poll.interval.ms": 90_000,
    "socket.timeout.ms": 10_000,  # an answer that got lost is waited for so long, also the coordinator's address
    "queued.max.messages.kbytes": 16_384,
    "queued.min.messages": 5_000,
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 100,
    # Until then nobody has a partition that was added, nor counts its lag. A small request; by itself every 5 minutes.
    "topic.metadata.refresh.interval.ms": 30_000,
    "metadata.max.age.ms": 900_000,  # as ever: left alone it would follow, and age while brokers are away
    "partition.assignment.strategy": "cooperative-sticky",
}
OF_THE_CLASSIC_PROTOCOL = {"heartbeat.interval.ms", "session.timeout.ms", "partition.assignment.strategy"}

_log = structlog.get_logger(__name__)


class Poller:
    """Everything that happens in the poll thread.

    Args:
        connection: To the brokers.
        settings: Topics, group, start.
        handoff: To the event loop.
        revoke_timeout_s: How long a revocation waits to be released.
        on_overtaken: Told on the event loop when the broker no longer has the expected offset of a partition.
        changelog_id: As that of `Starts`.

    Attributes:
        ownership: The partitions that are ours.
        reach: Whether the brokers answer.
        last_poll: Monotonic time at which the thread last went round.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        handoff: Handoff,
        *,
        revoke_timeout_s: float,
        on_overtaken: Overtaken,
        changelog_id: str,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._handoff = handoff
        self._revoke_timeout_s = revoke_timeout_s
        self._orphans: Orphans | None = None
        session_s = _seconds(connection.properties.get("session.timeout.ms", SESSION_TIMEOUT_MS))
        by_default_ms = BROKERS_HEARTBEAT_MS if self._new_protocol else HEARTBEAT_MS
        heartbeat_s = _seconds(connection.properties.get("heartbeat.interval.ms", by_default_ms))
        self._sure_for_s = SURE_SHARE * session_s
        self._begins_within_s = _begins_within_s(session_s, heartbeat_s, settings.genesys_request_timeout_s)
        self._lease = Lease(self._sure_for_s)
        _tell_too_long_requests(settings.genesys_request_timeout_s, self._sure_for_s)
        self._errors = Seldom(time.monotonic)
        self._name = StaticName(settings.kafka_group_instance_id)
        self._consumer: Consumer
        self._has_client = False
        self.closing = False
        self.ownership = Ownership(Starts(connection, settings, changelog_id), handoff, on_overtaken)
        self.reach = Reach(connection, settings.kafka_source_topics[0])
        self._leaders = Leaders()
        self.last_poll = time.monotonic()
        self._suspended_s = _suspended_s()

    def owns(self, partition: TopicPartition) -> bool:
        """Whether the partition is ours, and surely so until a request is over that begins now.

        May be called from any thread.
        """
        if self._silent_s() >= self._begins_within_s:  # asked first: whoever was not sure lets go before he is again
            return False
        membership = self.ownership.membership
        return membership is not None and partition in membership.owned

    def is_sure(self) -> bool:
        """Whether the thread has gone round lately, and the group's coordinator has answered lately.

        May be called from any thread.
        """
        return self._silent_s() < self._sure_for_s

    def _silent_s(self) -> float:
        now = time.monotonic()
        return max(now - self.last_poll, self._lease.silent_s(now)) + self._slept_s()

    def _slept_s(self) -> float:
        """For how long the machine was suspended since that was counted last."""
        return max(0.0, _suspended_s() - self._suspended_s)

    # -- the thread

    def run(self) -> None:
        """Work until told to close."""
        try:
            self._join()
            while not self.closing:
                self._turn()
        except ConsumerError as error:
            self._handoff.emit(error)
        except KafkaException as failure:
            self._handoff.emit(FatalError(f"the group consumer failed: {error_of(failure).str()}"))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the pipeline must hear of it
            self._handoff.emit(_unexpected(error))
        finally:
            self.ownership.close()
            self.reach.close()
            if self._orphans is not None:
                self._orphans.close()
        if self._has_client:
            self._leave()

    def _leave(self) -> None:
        """Leave the group: the library may hang for ever where a client is thrown away as it is, in whatever thread.

        Also after a failure, but not before told to: what is under way is to end first.
        """
        while not self.closing:
            with suppress(KafkaException):  # a client that failed may refuse what is asked of it
                self._handoff.serve()
            self._handoff.wait(lambda: self.closing, LOOK_UP_S)
        with suppress(KafkaException):
            self._consumer.close()

    def _join(self) -> None:
        self._consumer = self._connection.consumer(self._defaults(), self._own_properties())
        self._has_client = True
        self.ownership.use(self._consumer)
        self._subscribe()

    def _join_again(self) -> None:
        """Only a new client is let in under a name that the group had not released to this one."""
        self._consumer.close()
        self._join()

    @property
    def _new_protocol(self) -> bool:
        return self._connection.properties.get("group.protocol") == "consumer"

    def _defaults(self) -> dict[str, object]:
        if self._new_protocol:
            return {name: value for name, value in DEFAULTS.items() if name not in OF_THE_CLASSIC_PROTOCOL}
        return dict(DEFAULTS)

    def _own_properties(self) -> dict[str, object]:
        instance = self._settings.kafka_group_instance_id
        return {
            "group.id": self._settings.kafka_group_id,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "error_cb": self._guarded(self._on_error),
            "on_commit": self._guarded(self._on_commit),
            "stats_cb": self._guarded(self._on_statistics),
            "statistics.interval.ms": int(self._sure_for_s * 1000 / LOOKS_IN_LEASE),
        } | ({"group.instance.id": instance} if instance else {})

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            list(self._settings.kafka_source_topics),
            on_assign=self._guarded(self._on_assign),
            on_revoke=self._guarded(self._on_revoke),
            on_lost=self._guarded(self._on_lost),
        )

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback with every exception turned into an event."""

        def call(*arguments: object) -> None:
            try:
                callback(*arguments)
            except ConsumerError as error:
                self._handoff.emit(error)
            except Exception as error:  # noqa: BLE001 -- it must not leave the callback
                self._handoff.emit(_unexpected(error))

        return call

    def _turn(self) -> None:
        self._handoff.serve()
        self.ownership.tell_starting()
        if self._name.is_due(time.monotonic()):
            self._join_again()
        if self.is_sure():
            self.ownership.begin(time.monotonic())
            self._adopt()
        self.reach.probe(self._consumer, time.monotonic())
        if self._handoff.wait_for_room(LOOK_UP_S):
            wait_s = POLL_WHILE_STARTING_S if self.ownership.is_starting else POLL_S
            self._hand_over(polled(self._consumer, wait_s, MAX_POLL_RECORDS, COMPANY_S))
            self.ownership.publish()
        self._went_round()

    def _went_round(self) -> None:
        """Take the time; whoever is not sure of his partitions any more starts over with them.

        The group may have given them away, and the library may need a moment to learn of it. If it never does, they are
        still ours.
        """
        now = time.monotonic()
        if (slept_s := self._slept_s()) > SLEEP_S:
            self._lease.slept(slept_s, now)
            self._suspended_s += slept_s  # last: until then whoever asks counts it twice, and nobody not at all
        if self.ownership.partitions and not self.is_sure():
            partitions = list(self.ownership.partitions)
            stood_still, silent = round(now - self.last_poll, 1), round(self._lease.silent_s(now), 1)
            _log.warning("ownership_unsure", partitions=partitions, stood_still_s=stood_still, no_answer_s=silent)
            self.ownership.start_over(partitions)
        self.last_poll = time.monotonic()

    def _hand_over(self, messages: Sequence[Message]) -> None:
        records: list[Record] = []
        ends: dict[TopicPartition, int] = {}
        last: dict[TopicPartition, Message] = {}
        lost: set[TopicPartition] = set()
        owned = self.ownership.partitions
        for message in messages:
            if (error := message.error()) is not None:
                self._take_error(error, message, ends, lost)
                continue
            # The library makes a topic's name anew for each message; one is enough for all that are held.
            topic, number, offset = intern(message.topic() or ""), message.partition(), message.offset()
            place: Any = (topic, number)
            if place in owned:  # not so when it was revoked while these were gathered
                moment, headers = message.timestamp()[1], headers_of(message)
                records.append(Record(topic, number, offset, moment, message.key(), message.value(), headers))  # type: ignore[arg-type]  # the stubs allow None
                last[place] = message
        self.ownership.move_on(last, ends)
        for partition in lost:
            self.ownership.find_out(partition)
        if records or ends:
            self.reach.answered()
            self._handoff.emit(Polled(records, ends))

    def _take_error(
        self, error: KafkaError, message: Message, ends: dict[TopicPartition, int], lost: set[TopicPartition]
    ) -> None:
        partition = TopicPartition(message.topic() or "", message.partition() or 0)
        if error.code() == KafkaError._PARTITION_EOF:
            if partition in self.ownership.partitions:
                ends[partition] = message.offset() or 0
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and partition in self.ownership.fetched:
            lost.add(partition)
        else:
            self._on_error(error, partition.topic)

    def _on_statistics(self, statistics: str) -> None:
        told, now = orjson.loads(statistics), time.monotonic()
        state = told["cgrp"]["join_state"]
        self._lease.observe(told, now, joining=state != STEADY and not self._new_protocol)
        if not self._lease.holds(now):
            self.reach.doubt()
        elif self._new_protocol and state == IDLE and not self._name.is_refused(now):
            self.ownership.tell_idle()
        self.ownership.note_unreached(self._leaders.unreached(told, self.ownership.reading, now))
        ends = {each: end for each, end in _ends(told["topics"]) if end >= 0 and each in self.ownership.partitions}
        if ends:
            self._handoff.emit(Grown(ends))

    def _on_error(self, error: KafkaError, topic: str = "") -> None:
        if is_not_released(error) and not self.ownership.partitions:
            self._name.refuse(time.monotonic())
        elif is_hopeless(error) and not self._lets_go(error, topic):
            self._handoff.emit(policy(error, f"the group consumer failed{f' at {topic}' if topic else ''}"))
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.reach.down()
        elif not self._errors.told(error.code()):  # of a broker that is down it comes several times a second
            _log.warning("kafka_error", error=f"{error.name()}: {error.str()}")

    def _lets_go(self, error: KafkaError, topic: str) -> bool:
        """Whether it tells that a source topic is gone that was there, which is no reason to end the others.

        Without a topic it is of a partition that was fetched.
        """
        return is_gone(error) and (not topic or topic in self.ownership.topics)

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[NativePartition]) -> None:
        """Of commits that nobody waits for: whoever begins looks whether they worked, and without an ACL none does."""
        for partition in partitions:
            told = error if partition.error is None else partition.error
            if told is not None and told.code() in UNAUTHORIZED:
                raise policy(told, f"cannot commit where {partition.topic} begins")

    # -- membership

    def _on_assign(self, _: Consumer, partitions: Sequence[NativePartition]) -> None:
        """Take note; fetching starts when it is known where. The call tells the library not to start by itself."""
        self._consumer.incremental_assign([])
        self._name.accept()
        self._lease.renew(self.last_poll)
        self.ownership.take(map(of_native, partitions))
        if self._orphans is None and self._settings.kafka_group_instance_id and not self._new_protocol:
            self._orphans = Orphans(self._connection, self._settings)
        if not partitions:
            self.ownership.tell_idle()

    def _adopt(self) -> None:
        """Have partitions that are nobody's given to somebody: a rejoin begins a rebalance."""
        if self._orphans is None or not (orphans := self._orphans.poll(time.monotonic())):
            return
        _log.warning("partitions_without_owner", partitions=sorted(orphans), remedy="none needed: rejoins for them")
        self._consumer.unsubscribe()  # to subscribe alone, to what is subscribed to, would change nothing
        self._subscribe()

    def _on_revoke(self, _: Consumer, partitions: Sequence[NativePartition]) -> None:
        self._lease.renew_if_recent(self.last_poll)
        leaving = [of_native(partition) for partition in partitions]
        try:
            if leaving and not self.closing:
                self.ownership.publish()
                self._await_release(leaving)
        finally:
            self.ownership.let_go(leaving)

    def _await_release(self, partitions: Sequence[TopicPartition]) -> None:
        """Have the pipeline settle what it can of these partitions; the group waits meanwhile.

        Also of those that have not begun: where they begin anew, requests from before may be under way.
        """
        released = threading.Event()

        def release() -> None:
            released.set()
            self._handoff.wake()

        self._handoff.emit(Revoked(partitions, release))
        begun = time.monotonic()
        while not released.is_set() and not self.closing:
            waited_s = time.monotonic() - begun
            if waited_s >= self._revoke_timeout_s or not self.is_sure():
                _log.warning("revoked_without_release", partitions=partitions, seconds=round(waited_s, 1))
                self._handoff.emit(Lost(partitions))
                return
            self.last_poll = time.monotonic()
            self._handoff.serve()
            self._handoff.wait(released.is_set, LOOK_UP_S)

    def _on_lost(self, _: Consumer, partitions: Sequence[NativePartition]) -> None:
        leaving = [of_native(partition) for partition in partitions]
        announced = [partition for partition in leaving if partition in self.ownership.partitions]
        _log.warning("partitions_lost", partitions=leaving)
        try:
            if announced:
                self._handoff.emit(Lost(announced))
        finally:
            self.ownership.let_go(leaving)


def _ends(topics: Mapping[str, Any]) -> Iterator[tuple[TopicPartition, int]]:
    """Ends of partitions in the library's statistics; negative where it knows none.

    What stands behind an open transaction counts: it is there, and cannot be read yet.
    """
    for topic, told in topics.items():
        for number, partition in told["partitions"].items():
            yield TopicPartition(topic, int(number)), partition["hi_offset"]


def _suspended_s() -> float:
    """For how long the machine has been suspended since its start, which the monotonic clock does not count."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def _seconds(milliseconds: str | int) -> float:
    return int(milliseconds) / 1000


def _begins_within_s(session_s: float, heartbeat_s: float, request_s: float) -> float:
    """For how long who stands still or hears nothing may begin requests: they are over before the session is.

    The group counts from the last heartbeat, which may have been one interval before the last answer. Never less than a
    third of the session, or nothing would ever begin: requests for which that is too long are told at start. Nor less
    than who is well may hear nothing: an answer counts with the second look after it.
    """
    longest = SURE_SHARE * session_s
    shortest = max((1 - SURE_SHARE) * session_s, heartbeat_s + 3 * longest / LOOKS_IN_LEASE)
    return min(longest, max(shortest, session_s - heartbeat_s - request_s))


def _tell_too_long_requests(request_s: int, revocation_s: float) -> None:
    """Say where a revocation, for which somebody is sure for so long at most, may end before a request does."""
    if request_s > revocation_s:
        remedy = "have GENESYS_REQUEST_TIMEOUT_S be at most two thirds of session.timeout.ms"
        _log.warning("requests_outlast_revocations", request_s=request_s, revocation_s=revocation_s, remedy=remedy)


def _unexpected(error: Exception) -> FatalError:
    fatal = FatalError(f"the poll thread failed: {type(error).__name__}")
    fatal.__cause__ = error
    return fatal
