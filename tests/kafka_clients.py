"""What tests of the Kafka adapters need around them: settings, records in topics, readers, a watcher of a source.

`mock_cluster` is librdkafka's own mock of a Kafka cluster: enough for a group, its offsets and the calls of a
transaction, without their isolation.
"""

import asyncio
import ctypes
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import files
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition as NativePartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from consumer import settings as consumer_settings
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.source import KafkaSource
from consumer.model import Record, Settlement, TopicPartition
from consumer.ports import Assigned, Grown, Lost, Polled, Revoked, SourceEvent, Starting
from consumer.settings import Settings
from tests.chaos.broker_proxy import BrokerProxy
from tests.kafka_cluster import KafkaCluster

WITHIN_S = 20.0
QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 100}


def environ(bootstrap: str, topic: str) -> dict[str, str]:
    """The settings that must be given, for one source topic; every other name is derived from it."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_SOURCE_TOPICS": topic,
        "KAFKA_GROUP_ID": f"{topic}-group",
        "KAFKA_AUDIT_TOPIC": f"{topic}-audit",
        "KAFKA_DEAD_LETTER_TOPIC": f"{topic}-dead-letters",
        "GENESYS_OAUTH_CLIENT_ID": "id",
        "GENESYS_OAUTH_CLIENT_SECRET": "secret",
        "GENESYS_CONTACT_LIST": "list",
    }


def settings(bootstrap: str, topic: str, **more: str) -> Settings:
    """Settings for one source topic, as `environ`."""
    return consumer_settings.load({**environ(bootstrap, topic), "GENESYS_REQUEST_TIMEOUT_S": "1", **more})


def properties(folder: Path, **values: object) -> str:
    """A properties file; `session_timeout_ms=1000` becomes `session.timeout.ms=1000`."""
    path = folder / "kafka.properties"
    path.write_text("".join(f"{name.replace('_', '.')}={value}\n" for name, value in values.items()))
    return str(path)


def produce(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | None],
    *,
    partition: int = 0,
    key: bytes | None = b"key",
    **more: Any,
) -> None:
    """Put records into one partition and wait until they are there."""
    producer = Producer({"bootstrap.servers": bootstrap, **QUIET})
    for value in values:
        producer.produce(topic, value, key, partition, **more)
        producer.poll(0)
    assert producer.flush(WITHIN_S) == 0


def transactional(bootstrap: str, name: str) -> Producer:
    """A transactional producer, ready to begin."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, **QUIET})
    producer.init_transactions(WITHIN_S)
    return producer


def read(bootstrap: str, topic: str, *, partitions: int = 1, isolation: str = "read_committed") -> list[Message]:
    """Everything in a topic up to its end, partition by partition."""
    return [m for number in range(partitions) for m in _read_partition(bootstrap, topic, number, isolation)]


def _read_partition(bootstrap: str, topic: str, partition: int, isolation: str) -> list[Message]:
    own = {"group.id": "reader", "isolation.level": isolation, "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": bootstrap, "enable.auto.commit": False, **own, **QUIET})
    consumer.assign([NativePartition(topic, partition, 0)])
    found: list[Message] = []
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        for message in consumer.consume(1000, 0.05):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                consumer.close()
                return found
    raise AssertionError(f"the end of {topic} [{partition}] did not come, only {len(found)} records")


def committed(bootstrap: str, settings: Settings, *partitions: TopicPartition) -> list[int]:
    """Committed offsets of the group; -1001 where there is none."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": settings.kafka_group_id, **QUIET})
    asked = [NativePartition(*partition) for partition in partitions]
    return [partition.offset for partition in consumer.committed(asked, WITHIN_S)]


def commit(bootstrap: str, settings: Settings, partition: TopicPartition, offset: int) -> None:
    """Commit an offset for a group without members."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": settings.kafka_group_id, **QUIET})
    consumer.commit(offsets=[NativePartition(*partition, offset)], asynchronous=False)


def forget(bootstrap: str, chosen: Settings) -> None:
    """Have the brokers forget a group, as they do when it was empty for long; who has just left may still count."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            admin.delete_consumer_groups([chosen.kafka_group_id])[chosen.kafka_group_id].result(WITHIN_S)
        except KafkaException as failure:
            if failure.args[0].code() != KafkaError.NON_EMPTY_GROUP or time.monotonic() > deadline:
                raise
        else:
            return


def delete_records(bootstrap: str, partition: TopicPartition, before: int) -> None:
    """Delete the records of a partition below an offset, as retention does."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    for future in admin.delete_records([NativePartition(*partition, before)]).values():
        future.result(WITHIN_S)


def settlement(
    offsets: Mapping[TopicPartition, int],
    *,
    audit: Sequence[tuple[bytes, bytes]] = (),
    changelog: Sequence[tuple[TopicPartition, bytes, bytes | None]] = (),
    dead_letters: Sequence[Any] = (),
) -> Settlement:
    """A settlement of what the test is about."""
    return Settlement(audit, dead_letters, changelog, dict(offsets))


def grow(bootstrap: str, topic: str, partitions: int) -> None:
    """Give a topic more partitions, and wait until the broker tells of them."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while len(admin.list_topics(timeout=WITHIN_S).topics[topic].partitions) < partitions:
        assert time.monotonic() < deadline, f"{topic} does not have its {partitions} partitions"


def delete(bootstrap: str, topic: str) -> None:
    """Delete a topic, and wait until the broker does not tell of it any more."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    admin.delete_topics([topic])[topic].result(WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while topic in admin.list_topics(timeout=WITHIN_S).topics:
        assert time.monotonic() < deadline, f"{topic} is still there"


def remake(bootstrap: str, topic: str) -> None:
    """Delete a topic of one partition, and make another one of that name."""
    delete(bootstrap, topic)
    make(bootstrap, topic)


def make(bootstrap: str, topic: str) -> None:
    """Make a topic of one partition that was deleted."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(WITHIN_S)
        except KafkaException as failure:  # the broker may not be done with the former one yet
            if failure.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
        else:
            return


class Watcher:
    """Takes the events of a source, and keeps what they tell.

    Attributes:
        records: In the order in which they came.
        ends: Ends that were reached.
        told_ends: Ends as the brokers told them.
        starting: What is owned and not assigned yet.
        positions: Of partitions that are owned, as assigned.
        assigned, revoked, lost: Those events.
        forgets: Whether what is lost counts as forgotten at once.
    """

    def __init__(self, source: KafkaSource, *, resume: bool = True) -> None:
        self.source = source
        self.records: list[Record] = []
        self.ends: dict[TopicPartition, int] = {}
        self.told_ends: dict[TopicPartition, int] = {}
        self.starting: set[TopicPartition] = set()
        self.positions: dict[TopicPartition, int] = {}
        self.assigned: list[Assigned] = []
        self.revoked: list[Revoked] = []
        self.lost: list[Lost] = []
        self.forgets = True
        self._resume = resume

    async def until(self, holds: Callable[[], object], within: float = WITHIN_S) -> None:
        """Take events until this holds."""
        async with asyncio.timeout(within):
            while not holds():
                await self.step()

    async def step(self) -> None:
        """Take one event, if one comes soon."""
        try:
            self._take(await asyncio.wait_for(self.source.next(), 0.05))
        except TimeoutError:
            return

    async def stay(self, holds: Callable[[], object], polls_for: float) -> None:
        """Take events while the source goes on polling for so many seconds, and this must hold all the time."""
        begun = self.source.last_poll
        while self.source.last_poll < begun + polls_for:
            await self.step()
            assert holds()

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    def _take(self, event: SourceEvent) -> None:
        match event:
            case Assigned(positions, _):
                self.assigned.append(event)
                self.positions |= positions
                if self._resume:
                    self.source.resume(list(positions))
            case Polled(records, ends):
                self.records += records
                self.ends |= ends
            case Grown() | Starting():
                self._note(event)
            case Revoked(partitions, _) | Lost(partitions, _):
                (self.revoked if isinstance(event, Revoked) else self.lost).append(event)  # type: ignore[arg-type]
                for partition in partitions:
                    self.positions.pop(partition, None)
                if isinstance(event, Lost) and self.forgets:
                    event.forgotten()

    def _note(self, event: Grown | Starting) -> None:
        if isinstance(event, Grown):
            self.told_ends |= event.ends
        else:
            self.starting = set(event.partitions)


@asynccontextmanager
async def watched(
    settings: Settings,
    *,
    resume: bool = True,
    revoke_timeout_s: float = WITHIN_S,
    overtaken: list[TopicPartition] | None = None,
    changelog_id: str = "",
) -> AsyncIterator[Watcher]:
    """A source with its watcher, closed at the end."""
    source = KafkaSource(
        Connection.of(settings),
        settings,
        revoke_timeout_s=revoke_timeout_s,
        on_overtaken=([] if overtaken is None else overtaken).append,
        changelog_id=changelog_id,
    )
    try:
        yield Watcher(source, resume=resume)
    finally:
        await source.close()


async def both(one: Watcher, other: Watcher, holds: Callable[[], object]) -> None:
    """Take events of two sources until this holds."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.gather(one.step(), other.step())


@contextmanager
def mock_cluster() -> Iterator[str]:
    """The addresses of a mock cluster that lives as long as the block."""
    owner = Producer({"bootstrap.servers": "unused:1", "test.mock.num.brokers": 1, **QUIET})
    brokers = owner.list_topics(timeout=WITHIN_S).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    del owner


@contextmanager
def mock_cluster_with_errors(request: int, errors: Sequence[int]) -> Iterator[str]:
    """The addresses of a mock cluster that answers the next requests of a kind (its API key) with these errors."""
    library = next(f for f in files("confluent-kafka") or [] if f.name.startswith("librdkafka-"))
    rdkafka = ctypes.CDLL(str(library.locate()))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(rdkafka, name).restype = ctypes.c_void_p
    rdkafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    problem = ctypes.create_string_buffer(512)
    owner = ctypes.c_void_p(rdkafka.rd_kafka_new(0, ctypes.c_void_p(rdkafka.rd_kafka_conf_new()), problem, 512))
    cluster = ctypes.c_void_p(rdkafka.rd_kafka_mock_cluster_new(owner, 1))
    rdkafka.rd_kafka_mock_push_request_errors(
        cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), *map(ctypes.c_int, errors)
    )
    try:
        yield rdkafka.rd_kafka_mock_cluster_bootstraps(cluster).decode()
    finally:
        rdkafka.rd_kafka_mock_cluster_destroy(cluster)
        rdkafka.rd_kafka_destroy(owner)


@asynccontextmanager
async def proxied(kafka: KafkaCluster) -> AsyncIterator[list[BrokerProxy]]:
    """Proxies before all brokers."""
    proxies = [BrokerProxy(target) for target in kafka.routes.values()]
    async with AsyncExitStack() as stack:
        for proxy, port in zip(proxies, kafka.routes, strict=True):
            await proxy.start(port)
            stack.push_async_callback(proxy.stop)
        yield proxies
