"""The producer that settles: all that one settlement holds becomes visible as one, or is not told of.

Answers for knowing whether it happened before anything else is tried. Touches the output topics and, in a transaction,
the group's offsets. Every call blocks.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition as NativePartition

from consumer.adapters.kafka import changelog
from consumer.adapters.kafka.connection import PRODUCER_DEFAULTS, Connection, another_reaches, reaches
from consumer.adapters.kafka.failures import (
    CALL_S,
    UNSAFE_NAMES,
    error_of,
    fatal_error,
    is_gone,
    is_hopeless,
    is_of_names,
    offsets_policy,
    policy,
)
from consumer.adapters.kafka.group_offsets import GroupMember
from consumer.adapters.kafka.poller import SESSION_TIMEOUT_MS
from consumer.adapters.worker import Worker
from consumer.core import dead_letters
from consumer.errors import ConsumerError, FatalError, Rebalancing, SourceUnavailable
from consumer.model import DeadLetter, Settlement, TopicPartition
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

SETTLE_WITHIN_S = 30.0
"""Time for all that comes before the commit; shorter than a transaction may last."""

DELIVERS_SHARE = 1 / 4
"""Share of the session time-out within which a settlement without a transaction is with the brokers, or never will be.

Who settles is sure of his partitions when he is asked, which may be after two thirds of the session. Whatever he wrote
after its end would stand behind what the new owner wrote. What is left of it is for heartbeats, and for the library,
which looks once a second whether a record's time is over.
"""

QUEUES_SHARE = 1 / 3
"""Share of that time in which records are handed to the library; each has the rest to be delivered."""

HANGS_AFTER_S = 15.0
"""A call that has its time limit from the socket's alone, and is not over by then, never will be."""

CONFLICT_S = 0.1
QUEUE_POLL_S = 0.1
ANY_PARTITION = -1
"""The partition is chosen by the key."""
PURGED = KafkaError._PURGE_QUEUE
"""The record did not fail by itself: the library gave it up because another one did."""

REJOINED = KafkaError.FENCED_INSTANCE_ID
"""The group knows the static member by a newer id: its own after its session ran out, or that of another process.

Which of them, only the consumer is told.
"""

RECONNECTS_WITHIN_S = 15.0
"""A request that nobody answers is given up after ten seconds, and a connection made anew."""

DEFAULTS = PRODUCER_DEFAULTS | {
    "socket.timeout.ms": 10_000,  # the only limit that send_offsets_to_transaction keeps to, if any
}
TRANSACTION_TIMEOUT_MS = 60_000

_log = structlog.get_logger(__name__)


class _HangsError(SourceUnavailable):
    """The library does not come back from a call before the commit: nothing else may be asked of this producer."""


class SettlingProducer:
    """One producer, and at most one transaction of it. One thread makes all calls.

    Args:
        connection: To the brokers.
        settings: Name the topics.
        transactional_id: Same as before after a restart of the same instance, and of no other one; None: it settles
            without transactions.
        closing: Set when waiting any longer serves nobody.

    Attributes:
        ready: Former instances are fenced.
        in_transaction: It has begun one, and neither committed nor aborted it.
    """

    def __init__(
        self, connection: Connection, settings: Settings, transactional_id: str | None, closing: threading.Event
    ) -> None:
        self._connection = connection
        self._producer = connection.producer(DEFAULTS, self._own_properties(transactional_id))
        self._settings = settings
        self._closing = closing
        self._failed: KafkaError | None = None
        self._undelivered = False  # also of what the library threw away since something else had failed
        self._positions: dict[TopicPartition, int] = {}
        self._highest_partition = -1
        self._watched = Worker("kafka-offsets")
        self.ready = False
        self.in_transaction = False

    def _delivers_within_s(self) -> float:
        """As `DELIVERS_SHARE` says; a session of the `consumer` protocol is at least as long as that by default."""
        session_ms = int(self._connection.properties.get("session.timeout.ms", SESSION_TIMEOUT_MS))
        return min(SETTLE_WITHIN_S, DELIVERS_SHARE * session_ms / 1000)

    def _own_properties(self, transactional_id: str | None) -> dict[str, object]:
        """In a transaction every failure shows in its commit; without one, only in the answer to the record."""
        if transactional_id is None:
            timeout_ms = int((1 - QUEUES_SHARE) * self._delivers_within_s() * 1000)
            return {"enable.idempotence": True, "delivery.timeout.ms": timeout_ms, "on_delivery": self._note}
        return {
            "enable.idempotence": True,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        }

    def init(self) -> None:
        """Fence former instances and end their transaction."""
        try:
            self._insist(lambda: self._producer.init_transactions(CALL_S), time.monotonic() + SETTLE_WITHIN_S)
        except KafkaException as failure:
            raise policy(error_of(failure), "cannot begin to settle") from None
        self.ready = True

    def stop(self) -> None:
        """Let go of the library's producer, and so of what it has yet to send: the next one sends that anew.

        It ends in a thread that nobody waits for, since that may never end either; so nothing else may refer to it, as
        a bound method in the traceback of an error does.
        """
        left = [self._producer]
        del self._producer
        self._watched.submit(left.clear)
        self._watched.stop()

    def transact(self, settlement: Settlement, membership: GroupMember) -> dict[TopicPartition, int]:
        """Settle in one transaction."""
        deadline = time.monotonic() + SETTLE_WITHIN_S
        try:
            self._producer.begin_transaction()
            self.in_transaction = True
            self._produce(settlement, deadline)
            self._flush(deadline)
            offsets = membership.marked(settlement.offsets)
            self._insist(lambda: self._send_offsets(offsets, membership.metadata), deadline)
            self._commit()
        except KafkaException as failure:
            raise self._give_up(error_of(failure)) from None
        except SystemError as failure:
            raise self._give_up(fatal_error(self._producer, failure)) from None
        except _HangsError:
            raise
        except SourceUnavailable:
            self._abort_quietly()
            raise
        return self._positions

    def deliver(self, settlement: Settlement) -> dict[TopicPartition, int]:
        """Settle without a transaction: all of it is with the brokers soon, or nothing more of it will be."""
        within_s = self._delivers_within_s()
        begun = time.monotonic()
        try:
            self._produce(settlement, begun + QUEUES_SHARE * within_s)
            self._flush(begun + within_s + CALL_S)
        except (KafkaException, SystemError) as failure:
            raise policy(error_of(failure), "cannot settle") from None
        if self._failed is not None:
            raise policy(self._failed, "cannot settle")
        return self._positions

    def is_cut_off(self) -> bool:
        """Whether this client alone reaches no broker, also with time to connect anew."""
        topic = self._settings.kafka_audit_topic
        return not reaches(self._producer, topic, RECONNECTS_WITHIN_S) and another_reaches(self._connection, topic)

    def _produce(self, settlement: Settlement, deadline: float) -> None:
        """Queue everything. The answers to the last records tell positions, and why others failed.

        So do those to the first ones: once a record has failed, the library takes no more of a transaction.
        """
        self._failed, self._undelivered, self._positions = None, False, {}
        audit = self._settings.kafka_audit_topic
        first, rest = settlement.audit[:1], settlement.audit[1:]
        self._send(deadline, [(audit, value, key, ANY_PARTITION, self._note) for key, value in first])
        self._send(deadline, [(audit, value, key) for key, value in rest[:-1]])
        self._send(deadline, [(audit, value, key, ANY_PARTITION, self._note) for key, value in rest[-1:]])
        for letter in settlement.dead_letters:
            self._send_dead_letter(deadline, letter)
        topic = self._settings.kafka_changelog_topic
        last = {entry[0]: number for number, entry in enumerate(settlement.changelog)}
        told = {0: self._note} | {number: self._noter(source) for source, number in last.items()}
        prefixes = {partition: changelog.prefix_of(partition) for partition in last}
        self._look_up_partitions(deadline, topic, last)
        self._send(
            deadline,
            [
                (topic, state, prefixes[source] + key, source.partition, told.get(number))
                for number, (source, key, state) in enumerate(settlement.changelog)
            ],
        )

    def _look_up_partitions(self, deadline: float, topic: str, sources: Collection[TopicPartition]) -> None:
        """The producer asks every few minutes how many partitions there are: too late for one that was just added."""
        highest = max((source.partition for source in sources), default=-1)
        if highest > self._highest_partition:
            self._ask_for(topic)
            self._highest_partition = highest
            if time.monotonic() >= deadline:
                raise SourceUnavailable("the brokers took too long to tell of the changelog")

    def _ask_for(self, topic: str) -> None:
        """Have the library learn what partitions there are. What it cannot read is the answer, and no name of ours."""
        try:
            self._producer.list_topics(topic, CALL_S)
        except KafkaException as failure:
            if is_of_names(error_of(failure)):
                raise policy(error_of(failure), "cannot settle") from None
            raise

    def _send_dead_letter(self, deadline: float, letter: DeadLetter) -> None:
        record, headers = letter.record, dead_letters.headers(letter)
        topic = self._settings.kafka_dead_letter_topic
        # Without a time it gets that of now. With the record's own, retention could delete it at once.
        self._send(deadline, [(topic, record.value, record.key, ANY_PARTITION, self._note)], headers=headers)

    def _send(self, deadline: float, records: Iterable[tuple[Any, ...]], **more: Any) -> None:
        """Queue records, each given as `Producer.produce` takes it; a full queue is waited for."""
        for record in records:
            while True:
                try:
                    self._producer.produce(*record, **more)
                except BufferError:
                    self._await_room(deadline)
                else:
                    break

    def _await_room(self, deadline: float) -> None:
        if self._closing.is_set() or time.monotonic() >= deadline:
            raise SourceUnavailable("the brokers take no more records")
        self._producer.poll(QUEUE_POLL_S)

    def _note(self, error: KafkaError | None, _: Message) -> None:
        """Answer to a record. Runs inside of the library: it must not raise."""
        if error is not None:
            self._undelivered = True
        if error is not None and error.code() != PURGED:
            self._failed = self._failed or error

    def _noter(self, source: TopicPartition) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, message: Message) -> None:
            self._note(error, message)
            if error is None:
                self._positions[source] = (message.offset() or 0) + 1

        return note

    def _flush(self, deadline: float) -> None:
        """Wait until the brokers have everything: while a commit does that, the transaction cannot be given up."""
        while self._producer.flush(CALL_S):
            if self._closing.is_set() or time.monotonic() >= deadline:
                raise SourceUnavailable("the brokers do not take what is to be settled")

    def _send_offsets(self, offsets: Sequence[NativePartition], metadata: object) -> None:
        """Make the offsets part of the transaction.

        When the coordinator's connection breaks at the wrong moment, the library waits for ever (librdkafka #5456,
        #5511), so the call is made in a thread that can be left behind.
        """
        sent = self._watched.submit(lambda: self._producer.send_offsets_to_transaction(list(offsets), metadata, CALL_S))
        try:
            sent.result(HANGS_AFTER_S)
        except TimeoutError:
            raise _HangsError("the Kafka client hangs, and is replaced") from None
        except KafkaException as failure:
            if not self._undelivered and is_gone(error_of(failure)):  # else it is the output topic that is gone
                raise offsets_policy(error_of(failure), "cannot settle") from None
            raise

    def _commit(self) -> None:
        """Commit, asking again for as long as it is not known whether it happened.

        An error that wants an abort does not say that nothing was committed; that the abort succeeds does. Past the
        time that a transaction may last a coordinator would know: who has lost the brokers for good will never hear,
        and only a new start finds out.
        """
        hopeless_at = time.monotonic() + TRANSACTION_TIMEOUT_MS / 1000
        refused: KafkaException | None = None
        while self.in_transaction:
            try:
                self._end(committing=refused is None)
            except KafkaException as failure:
                error = error_of(failure)
                if self._closing.is_set() or (error.fatal() and refused is None):
                    raise
                if error.txn_requires_abort() and refused is None:
                    refused = failure
                elif not error.retriable() or (time.monotonic() >= hopeless_at and self.is_cut_off()):
                    text = f"{error.name()}: not known whether it committed: brokers answer others, or refuse to tell"
                    raise FatalError(f"cannot settle: {text}") from None
                else:
                    _log.warning("commit_unknown", error=error.name(), remedy="asked again until it is known")
        if refused is not None:
            raise refused

    def _end(self, *, committing: bool) -> None:
        """End the transaction; no bound method is kept, see `stop`."""
        deadline = time.monotonic() + SETTLE_WITHIN_S
        if committing:
            self._insist(lambda: self._producer.commit_transaction(CALL_S), deadline)
        else:
            self._insist(lambda: self._producer.abort_transaction(CALL_S), deadline)
        self.in_transaction = False

    def _insist(self, call: Callable[[], None], deadline: float) -> None:
        """Call until it succeeds, or fails for a reason other than time."""
        while True:
            try:
                return call()
            except KafkaException as failure:
                if not error_of(failure).retriable() or self._closing.is_set() or time.monotonic() >= deadline:
                    raise
                self._closing.wait(CONFLICT_S)

    def _give_up(self, error: KafkaError) -> ConsumerError:
        """End the transaction; the error to raise for it. A failed record's own error says more than the commit's."""
        if not error.fatal():
            self._abort_quietly()
        if error.code() == REJOINED:
            return Rebalancing(f"cannot settle: {error.name()}: partitions moved away")
        if is_of_names(error):
            return FatalError(f"cannot settle: {error.name()}: {error.str()} ({UNSAFE_NAMES})")
        if not is_hopeless(error) and self._failed is not None:
            error = self._failed
        return policy(error, "cannot settle")

    def _abort_quietly(self) -> None:
        """Abort if that can be had soon.

        Raises:
            FatalError: Another instance took over: to fence it in turn would be wrong.
        """
        if not self.in_transaction:
            return
        try:
            self._insist(lambda: self._producer.abort_transaction(CALL_S), time.monotonic() + CALL_S)
            self.in_transaction = False
        except (KafkaException, SystemError) as failure:
            error = error_of(failure)
            if error.fatal() and error.code() != KafkaError.INVALID_TXN_STATE:
                raise policy(error, "cannot settle") from None
            _log.warning("abort_unfinished", error=error.name(), remedy="done by the next producer")
