"""How every Kafka client of the program is made: addresses, security, logging.

Answers for: properties that librdkafka does not know, and its log lines without secrets. Touches nothing; clients open
their own connections.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition as NativePartition
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka.failures import NOT_RELEASED, error_of, is_hopeless, policy
from consumer.core.seldom import Seldom
from consumer.errors import SettingsError
from consumer.model import TopicPartition
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

SECRET_WORDS = ("password", "secret", "key.pem", "keystore.pem", "jaas", "credential", "passphrase")
"""A property whose name has one of these holds a secret."""

ASKED_AGAIN_FOR_S = 15.0
"""For so long brokers that do not know something yet are asked for it: a coordinator takes time to come up."""

ASK_AGAIN_S = 0.2

REASON_WITHIN_S = 0.2
"""The library has known for long why nobody answers; to hand it over takes a moment."""

NO_EPOCH = -1
"""Where it is not known which leader wrote what stands before an offset."""

NO_ANSWER = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._TRANSPORT})
"""Errors of a question that do not say why it has no answer."""

LETTER_MAX_BYTES = 2_000_000
"""A dead letter is a record of up to the usual 1 MB, and headers."""

PRODUCER_DEFAULTS = {
    "compression.type": "lz4",
    "linger.ms": 5,
    "message.max.bytes": LETTER_MAX_BYTES,
    "queue.buffering.max.kbytes": 65_536,
}
"""Of a producer that writes them, or puts back what they hold."""

_OF_EACH_CONSUMER = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
}

T = TypeVar("T")
Client = TypeVar("Client", Consumer, Producer, AdminClient)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """What all clients have in common.

    Attributes:
        bootstrap: Addresses of the brokers.
        properties: Of the properties file.
    """

    bootstrap: str
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The connection that the settings describe."""
        return cls(settings.kafka_bootstrap_servers, settings.kafka_properties_file)

    def consumer(self, defaults: Mapping[str, object], own: Mapping[str, object]) -> Consumer:
        """A consumer, which commits nothing by itself; the properties file overrides `defaults` but never `own`."""
        return self._client(Consumer, defaults, {**_OF_EACH_CONSUMER, **own})

    def reader(self, defaults: Mapping[str, object], group_id: str, *, reset: str = "error") -> Consumer:
        """A consumer that tells where partitions end, to read them from offsets that are given.

        Args:
            defaults: As for `consumer`.
            group_id: The library asks for one; nothing is joined or committed.
            reset: What it does where an offset is not there any more, as in `auto.offset.reset`.
        """
        own = {"group.id": group_id, "auto.offset.reset": reset, "enable.partition.eof": True}
        return self.consumer(defaults, own)

    def producer(self, defaults: Mapping[str, object], own: Mapping[str, object]) -> Producer:
        """A producer; the properties file overrides `defaults` but never `own`."""
        return self._client(Producer, defaults, own)

    def admin(self, hear: Callable[[KafkaError], None] | None = None) -> AdminClient:
        """An admin client. It must outlive the futures that it returns.

        Args:
            hear: Told of errors of its connections, whenever the client is polled; None: these are logged.
        """
        own: dict[str, object] = {"allow.auto.create.topics": False}  # to ask for a topic makes none
        return self._client(AdminClient, {}, own if hear is None else {**own, "error_cb": hear})

    def without_secrets(self, text: str) -> str:
        """The text with every secret of the properties file blotted out."""
        secrets = [value for name, value in self.properties.items() if any(word in name for word in SECRET_WORDS)]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be a part of another
            text = text.replace(secret, "***")
        return text

    def _client(
        self, kind: Callable[[dict[str, Any]], Client], defaults: Mapping[str, object], own: Mapping[str, object]
    ) -> Client:
        common = {"client.id": "genesys-consumer", "enable.metrics.push": False}
        fixed = {"bootstrap.servers": self.bootstrap, "logger": ClientLog(self.without_secrets)}
        try:
            return kind({**common, **defaults, **self.properties, **own, **fixed})
        except KafkaException as failure:
            text = error_of(failure).str()
        except (TypeError, ValueError, AttributeError) as failure:  # a property that takes a function, for example
            text = str(failure)
        # Not inside the handler: the foreign error may quote a secret, and would travel along as the context of ours.
        raise SettingsError([f"KAFKA_PROPERTIES_FILE: {self.without_secrets(text)}"])


class Admin:
    """An admin client that is kept while it works.

    After a failure the next one is new: what the old one believes of brokers that came back may be what fails.

    Args:
        connection: To the brokers.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: tuple[AdminClient, _Reason] | None = None

    @contextmanager
    def client(self) -> Iterator[AdminClient]:
        """The client; it is given up when a `KafkaException` leaves the block. May be used in any thread.

        Where that would say no more than that nobody answers, one that says why leaves in its place, if it is known.
        """
        client, reason = self._kept = self._kept or self._made()
        reason.forget(client)
        try:
            yield client
        except KafkaException as failure:
            self._kept = None
            if error_of(failure).code() in NO_ANSWER and (why := reason.of(client)) is not None:
                raise KafkaException(why) from None
            raise

    @contextmanager
    def asking(self, doing: str) -> Iterator[AdminClient]:
        """As `client`, for a question that is asked once.

        Args:
            doing: How the sentence of an error begins.

        Raises:
            SourceUnavailable: The brokers do not answer, or cannot tell.
            FatalError: They refuse.
        """
        try:
            with self.client() as client:
                yield client
        except KafkaException as failure:
            raise policy(error_of(failure), doing) from None

    def answer(self, question: Callable[[AdminClient], T], doing: str) -> T:
        """The answer to a question, as `patiently` gets it."""
        return patiently(lambda: self._asked(question), doing)

    def _asked(self, question: Callable[[AdminClient], T]) -> T:
        with self.client() as client:
            return question(client)

    def _made(self) -> "tuple[AdminClient, _Reason]":
        reason = _Reason()
        return self._connection.admin(reason.hear), reason


class _Reason:
    """Why the brokers do not answer a client, as the library tells beside the questions and only when it is polled."""

    def __init__(self) -> None:
        self._heard: KafkaError | None = None

    def hear(self, error: KafkaError) -> None:
        """Take what the library tells. That all brokers are down follows each reason, and is none.

        Nor does a connection that broke take the place of one: what broke it was told at another try.
        """
        if self._heard is None or error.code() not in NO_ANSWER:
            self._heard = error if error.code() != KafkaError._ALL_BROKERS_DOWN else None

    def forget(self, client: AdminClient) -> None:
        """What was so before is no reason for what follows."""
        client.poll(0)
        self._heard = None

    def of(self, client: AdminClient) -> KafkaError | None:
        """What was told last; None when nothing was. Blocks for a moment."""
        client.poll(REASON_WITHIN_S)
        return self._heard


def patiently(question: Callable[[], T], doing: str) -> T:
    """The answer to a question, which is asked again for a while where the brokers cannot tell yet. Blocks.

    Args:
        question: Waits for its answer.
        doing: How the sentence of an error begins.

    Raises:
        SourceUnavailable: The brokers do not answer, or cannot tell.
        FatalError: They refuse.
    """
    deadline = time.monotonic() + ASKED_AGAIN_FOR_S
    while True:
        try:
            return question()
        except KafkaException as failure:
            if is_hopeless(error_of(failure)) or time.monotonic() >= deadline:
                raise policy(error_of(failure), doing) from None
            time.sleep(ASK_AGAIN_S)


def reaches(client: AdminClient | Consumer | Producer, topic: str, within_s: float) -> bool:
    """Whether brokers answer a client that asks them about a topic. Blocks for so long.

    An answer that names no broker, as those give that the controller has counted out, does not count.
    """
    try:
        return bool(client.list_topics(topic, timeout=within_s).brokers)
    except KafkaException:
        return False


def another_reaches(connection: Connection, topic: str) -> bool:
    """Whether brokers answer a client that is made for this question. Blocks until they do, or have had their time."""
    try:
        return reaches(connection.admin(), topic, ASKED_AGAIN_FOR_S)
    except SettingsError:  # no client can be made now, as while its certificate is exchanged
        return False


class ClientLog:
    """Takes librdkafka's log lines. It must never raise: that would lose the records of the call that logs."""

    def __init__(self, redact: Callable[[str], str], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._redact = redact
        self._seldom = Seldom(monotonic)

    def log(self, level: int, form: str, facility: str, client: str, text: str) -> None:
        """Pass a line on to the program's log; librdkafka calls this with five arguments."""
        if "will be ignored by this" in text:  # the one properties file serves consumers and producers alike
            return
        if facility == "TXNERR":  # the failed call tells the same
            return
        if facility == "FATAL" and NOT_RELEASED in text:  # told once, by who waits for that
            return
        if self._seldom.told((facility, client)):  # a broker that is down makes it say the same several times a second
            return
        with suppress(Exception):  # there is nowhere left to say it
            _log.log(level, "kafka_client", facility=facility, client=client, detail=self._redact(text))


def native(
    partition: TopicPartition, offset: int | None = None, metadata: str = "", epoch: int = NO_EPOCH
) -> NativePartition:
    """The partition as the library has it.

    Args:
        partition: As the program has it.
        offset: Where one is asked for.
        metadata: What is to be kept beside the offset.
        epoch: That of the leader who wrote what stands before the offset.
    """
    if offset is None:
        return NativePartition(partition.topic, partition.partition)
    return NativePartition(partition.topic, partition.partition, offset, metadata, epoch)


def of_native(partition: NativePartition) -> TopicPartition:
    """The library's partition as the program has it."""
    return TopicPartition(partition.topic, partition.partition)
