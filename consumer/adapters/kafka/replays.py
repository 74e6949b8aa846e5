"""Puts dead letters back on their source topics, and remembers which.

Answers for: a letter that is put back never is put back again, and none is left out, wherever a replay dies. The record
and the mark that remembers it become visible in one transaction. A replay begins by taking over its transactional id,
which ends what a former one left open and keeps that one from committing anything more; only then are the marks read.
Marks are kept in a compacted topic of their own rather than as offsets of a group: with a filter or a limit letters are
left out between those that are taken, and these must still be there for the next replay.

Without transactions (`at_least_once`) the records are flushed before the marks: a replay that dies in between leaves a
portion to be put back twice, the second time as duplicates.

Touches the source topics and the topic of the marks. Every call blocks.
"""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka.bounded import BoundedReader, spans
from consumer.adapters.kafka.connection import PRODUCER_DEFAULTS, Admin, Connection
from consumer.adapters.kafka.failures import error_of, fatal_error, policy, writing_policy
from consumer.adapters.kafka.topics import TOPICS_WITHIN_S, Wanted, create, exists, topic_id
from consumer.core.replayed import Replayed
from consumer.errors import ConsumerError, SourceUnavailable, Unauthorized
from consumer.model import Headers
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

CALL_S = 10.0
COMMIT_WITHIN_S = 60.0

TRANSACTION_TIMEOUT_MS = 15_000
"""A replay that dies holds up readers of the source topics for so long, and up to ten seconds more."""

Marks = Sequence[tuple[bytes, bytes | None]]


class Returned(NamedTuple):
    """A record that goes back to its source.

    Attributes:
        topic: The source topic.
        partition: Of it; -1 chooses by the key.
        key: As it came.
        value: As it came.
        headers: As they shall be.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def marks_topic(settings: Settings) -> Wanted:
    """The topic of the marks."""
    return Wanted(f"{settings.kafka_group_id}-dead-letters-replayed", 1, {"cleanup.policy": "compact"})


def recall(connection: Connection, settings: Settings) -> Replayed:
    """Which letters were replayed; none where the topic of the marks does not exist.

    Raises:
        SourceUnavailable: The brokers do not answer.
        Unauthorized: They refuse; where that topic may not be described, nobody can tell whether it exists.
        FatalError: There is no dead letter topic.
    """
    admin = Admin(connection)
    letters = spans(admin, settings.kafka_dead_letter_topic)
    replayed = Replayed(topic_id(connection, settings.kafka_dead_letter_topic))
    name = marks_topic(settings).name
    if exists(connection, name):
        with closing(BoundedReader(connection, settings.kafka_group_id, spans(admin, name))) as reader:
            for message in reader:
                replayed.restore(message.key() or b"", message.value())
    replayed.forget_before({key.partition: span.first for key, span in letters.items()})
    return replayed


def doubt(connection: Connection, settings: Settings) -> str:
    """Why nobody can tell what a group replayed, whose marks there are none of: it does not exist. "" if it may.

    A group id that is misspelt would have all letters go back once more.

    Raises:
        SourceUnavailable: The brokers do not answer.
        Unauthorized: The topic of the marks may not be described.
    """
    group = settings.kafka_group_id
    if _is_known(connection, group) or exists(connection, marks_topic(settings).name):
        return ""
    return (
        f"there is no group {group}, and marks of replays are kept by group: check KAFKA_GROUP_ID "
        "(one that the brokers forgot is there again once a consumer of it runs)"
    )


def _is_known(connection: Connection, group: str) -> bool:
    """Whether there is a group; where that may not be asked nothing speaks against it."""

    def ask(client: AdminClient) -> bool:
        try:
            found = client.describe_consumer_groups([group], request_timeout=TOPICS_WITHIN_S)[group].result()
        except KafkaException as failure:
            if error_of(failure).code() == KafkaError.GROUP_ID_NOT_FOUND:
                return False
            raise
        return found.state is not ConsumerGroupState.DEAD

    try:
        return Admin(connection).answer(ask, "cannot describe the group")
    except Unauthorized:
        return True


class Replays:
    """The producer of a replay.

    Args:
        connection: To the brokers.
        settings: Group and guarantee.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._exactly_once = settings.kafka_guarantee == "exactly_once"
        self._marks = marks_topic(settings)
        self._connection = connection
        own: dict[str, object] = {"enable.idempotence": True, "on_delivery": self._note}
        if self._exactly_once:
            own["transactional.id"] = f"{settings.kafka_group_id}-dead-letter-replay"
            own["transaction.timeout.ms"] = TRANSACTION_TIMEOUT_MS
        self._producer = connection.producer(PRODUCER_DEFAULTS, own)
        self._failed: KafkaError | None = None
        self._failed_topic = ""

    def open(self) -> None:
        """Make the topic of the marks if it is missing, and end whatever a former replay left open.

        Raises:
            SourceUnavailable: The brokers do not answer.
            FatalError: They refuse.
        """
        create(self._connection, self._marks)
        if self._exactly_once:
            try:
                self._producer.init_transactions(COMMIT_WITHIN_S)
            except KafkaException as failure:
                raise policy(error_of(failure), "cannot begin to replay") from None

    def put_back(self, records: Sequence[Returned], marks: Marks) -> None:
        """Make records and marks visible as one.

        Raises:
            SourceUnavailable: The brokers do not answer. Whatever happened, the next replay knows it.
            FatalError: They refuse, or another replay has begun since.
        """
        try:
            if self._exactly_once:
                self._transact(records, marks)
            else:
                self._deliver(records)
                self._deliver([self._marked(*mark) for mark in marks])
        except KafkaException as failure:
            raise self._refusal(error_of(failure), records) from None
        except SystemError as failure:
            raise policy(fatal_error(self._producer, failure), "cannot put dead letters back") from None

    def _refusal(self, error: KafkaError, records: Sequence[Returned]) -> ConsumerError:
        """What ended the records, or else the transaction, which does not tell for which of its topics."""
        topics = [self._failed_topic] if self._failed else [*sorted({each.topic for each in records}), self._marks.name]
        return writing_policy(self._failed or error, "cannot put dead letters back", ", ".join(topics))

    def _transact(self, records: Sequence[Returned], marks: Marks) -> None:
        self._producer.begin_transaction()
        try:
            self._deliver([*records, *(self._marked(*mark) for mark in marks)])
            self._commit()
        except BaseException:
            with suppress(KafkaException):  # else it ends by its time limit
                self._producer.abort_transaction(CALL_S)
            raise

    def _deliver(self, records: Sequence[Returned]) -> None:
        """Have the brokers take records: all of them, or it raises."""
        for record in records:
            self._send(record)
        if self._producer.flush(COMMIT_WITHIN_S):
            raise SourceUnavailable("the brokers do not take the records that go back")
        if self._failed is not None:
            raise KafkaException(self._failed)

    def _send(self, record: Returned) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, record.partition, headers=list(record.headers)
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _commit(self) -> None:
        """Commit, asking again while it is not known whether that happened."""
        deadline = time.monotonic() + COMMIT_WITHIN_S
        while True:
            try:
                return self._producer.commit_transaction(CALL_S)
            except KafkaException as failure:
                if not error_of(failure).retriable() or time.monotonic() >= deadline:
                    raise

    def _marked(self, key: bytes, value: bytes | None) -> Returned:
        return Returned(self._marks.name, 0, key, value, ())

    def _note(self, error: KafkaError | None, message: Message) -> None:
        """Answer to a record. Runs inside of the library: it must not raise."""
        if error is not None and error.code() != KafkaError._PURGE_QUEUE and self._failed is None:
            self._failed, self._failed_topic = error, message.topic() or ""
