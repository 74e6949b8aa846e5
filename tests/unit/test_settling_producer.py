"""What the producer that settles, and whoever replaces it, make of failures that no real broker shows at will."""

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.adapters.kafka import settling_producer
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.group_offsets import GroupMember
from consumer.adapters.kafka.settling_producer import SettlingProducer
from consumer.errors import FatalError, SettingsError, SourceUnavailable
from consumer.model import TopicPartition
from consumer.settings import Settings
from tests.kafka_clients import settings, settlement

PARTITION = TopicPartition("crm", 0)
MEMBERSHIP = GroupMember(None, frozenset({PARTITION}), {})
HALF = SettingsError(["KAFKA_PROPERTIES_FILE: half a certificate"])
BROKEN = KafkaError(KafkaError._TRANSPORT)
UNKNOWN = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
ATTEMPT = settlement({PARTITION: 1}, audit=[(b"k", b"v")], changelog=[(PARTITION, b"k", b"1")])


class Library:
    """A producer of the library: calls succeed, save those of which it is told how they fail.

    Attributes:
        calls: Their names, in order.
    """

    def __init__(self, failing: Mapping[str, KafkaError], undelivered: KafkaError | None = None) -> None:
        self._failing = failing
        self._undelivered = undelivered
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any, **_: object) -> int:
            self.calls.append(name)
            if name == "produce" and self._undelivered is not None and arguments[4:]:
                arguments[4](self._undelivered, None)
            if name in self._failing:
                raise KafkaException(self._failing[name])
            return 0

        return call


class Made:
    """A connection that gives these producers, one after the other, or fails.

    Attributes:
        own: The properties that the program relies on, of each producer.
    """

    def __init__(self, *producers: Library | SettingsError, **properties: str) -> None:
        self._producers = iter(producers)
        self.properties = {name.replace("_", "."): value for name, value in properties.items()}
        self.own: list[Mapping[str, object]] = []

    def producer(self, _: object, own: Mapping[str, object]) -> Library:
        """The next one."""
        self.own.append(own)
        made = next(self._producers)
        if isinstance(made, SettingsError):
            raise made
        return made

    def admin(self, *_: object) -> None:
        """None can be made now."""
        raise HALF


CHOSEN = settings("127.0.0.1:1", PARTITION.topic)


def event_topics(connection: Any, chosen: Settings = CHOSEN) -> KafkaEventTopics:
    """Those of a member that owns the partition."""
    return KafkaEventTopics(
        connection, chosen, transactional_id="t", group_metadata=lambda _: MEMBERSHIP, commit=lambda _: never()
    )


async def never() -> None:
    """Nothing is committed outside of a transaction."""
    raise AssertionError


def test_a_garbled_answer_is_not_laid_to_names() -> None:
    """The library has the same code where it refuses a name, which ends the process."""
    garbled = Library({"list_topics": KafkaError(KafkaError._BAD_MSG)})
    producer = SettlingProducer(Made(garbled), CHOSEN, "t", threading.Event())  # type: ignore[arg-type]
    with pytest.raises(SourceUnavailable, match="_BAD_MSG"):
        producer.transact(ATTEMPT, MEMBERSHIP)
    assert garbled.calls[-1] == "abort_transaction"
    assert not producer.in_transaction


def test_a_source_topic_that_is_gone_ends_nobody() -> None:
    """All records are with the brokers: it is the offsets that they do not take."""
    gone = Library({"send_offsets_to_transaction": UNKNOWN})
    with pytest.raises(SourceUnavailable, match="a source topic is gone"):
        SettlingProducer(Made(gone), CHOSEN, "t", threading.Event()).transact(ATTEMPT, MEMBERSHIP)  # type: ignore[arg-type]
    assert gone.calls[-1] == "abort_transaction"


def test_a_changelog_that_is_gone_ends_the_consumer() -> None:
    """Without its memory it would make callable who said no.

    The coordinator takes no records of it; the library throws away all of them, and says why when it sends offsets.
    """
    gone = Library({"send_offsets_to_transaction": UNKNOWN}, undelivered=KafkaError(KafkaError._PURGE_QUEUE))
    with pytest.raises(FatalError, match="UNKNOWN_TOPIC_OR_PART"):
        SettlingProducer(Made(gone), CHOSEN, "t", threading.Event()).transact(ATTEMPT, MEMBERSHIP)  # type: ignore[arg-type]


@pytest.mark.parametrize(("guarantee", "name"), [("exactly_once", "t"), ("at_least_once", None)])
async def test_what_the_library_sends_again_is_not_written_twice(guarantee: str, name: str | None) -> None:
    """Nor in another order, also without transactions: an audit event would be there twice, an older state last."""
    connection = Made(Library({}))
    topics = event_topics(connection, settings("127.0.0.1:1", PARTITION.topic, KAFKA_GUARANTEE=guarantee))
    await topics.open()
    await topics.close()
    assert [(own["enable.idempotence"], own.get("transactional.id")) for own in connection.own] == [(True, name)]


async def test_a_file_that_is_being_exchanged_is_waited_for_once_it_was_good() -> None:
    """A producer that is left behind has a successor as soon as the file is whole again."""
    lost = Library({"flush": BROKEN, "abort_transaction": BROKEN})
    good = Library({})
    topics = event_topics(Made(lost, HALF, HALF, good))
    await topics.open()
    with pytest.raises(SourceUnavailable, match="_TRANSPORT"):
        await topics.settle(ATTEMPT)
    with pytest.raises(SourceUnavailable, match="half a certificate"):
        await topics.settle(ATTEMPT)
    await topics.settle(ATTEMPT)
    await topics.close()
    assert good.calls[0] == "init_transactions"
    assert good.calls[-1] == "commit_transaction"


async def test_a_file_that_is_bad_at_start_is_a_bad_setting() -> None:
    """Nobody is exchanging it."""
    topics = event_topics(Made(HALF))
    with pytest.raises(SettingsError):
        await topics.open()
    await topics.close()


async def test_a_changelog_waits_for_a_file_that_is_being_exchanged() -> None:
    """Each partition that comes has a reader of its own, which is made then."""
    topics = event_topics(Made(Library({})))
    await topics.open()
    with pytest.raises(SourceUnavailable, match="half a certificate"):
        await anext(topics.changelog(PARTITION, 0))
    await topics.close()


class Slow(Library):
    """A producer that has no room, or whose brokers take half a minute to tell of the changelog.

    Attributes:
        waited_s: How long its calls have taken.
    """

    def __init__(self, *, full: bool = False) -> None:
        super().__init__({})
        self.waited_s = 0.0
        self._full = full

    def produce(self, *_: object, **__: object) -> None:
        """Queue a record."""
        self.calls.append("produce")
        if self._full:
            raise BufferError

    def poll(self, seconds: float) -> int:
        """Wait for room."""
        self.waited_s += seconds
        return 0

    def list_topics(self, *_: object) -> None:
        """What partitions there are."""
        self.waited_s += 30.0


@pytest.mark.parametrize(("properties", "session_s"), [({}, 45), ({"session_timeout_ms": "9000"}, 9)])
def test_without_transactions_nothing_is_written_once_somebody_else_may_own_it(
    monkeypatch: pytest.MonkeyPatch, properties: dict[str, str], session_s: float
) -> None:
    """When asked he is sure of it for a third of the session; each record has its time from when it is queued."""
    slow = Slow(full=True)
    made: Any = Made(slow, **properties)
    monkeypatch.setattr(settling_producer, "time", SimpleNamespace(monotonic=lambda: slow.waited_s))
    producer = SettlingProducer(made, CHOSEN, None, threading.Event())
    with pytest.raises(SourceUnavailable):
        producer.deliver(ATTEMPT)
    assert slow.waited_s + made.own[-1]["delivery.timeout.ms"] / 1000 < session_s / 3


def test_what_is_told_too_late_is_written_with_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a changelog that has got a partition."""
    slow = Slow()
    made: Any = Made(slow)
    monkeypatch.setattr(settling_producer, "time", SimpleNamespace(monotonic=lambda: slow.waited_s))
    producer = SettlingProducer(made, CHOSEN, None, threading.Event())
    with pytest.raises(SourceUnavailable, match="too long"):
        producer.deliver(ATTEMPT)
    assert slow.calls == ["produce"]
    producer.deliver(ATTEMPT)
    assert slow.calls == ["produce", "produce", "produce", "flush"]


def test_in_a_transaction_the_brokers_refuse_who_is_late() -> None:
    """So it has the time that it ever had."""
    made: Any = Made(Library({}))
    SettlingProducer(made, CHOSEN, "t", threading.Event())
    assert "delivery.timeout.ms" not in made.own[-1]
