"""How long a store takes to be rebuilt from the changelog, and how long when the disk was kept; what memory it takes.

The changelog is made as the program would have made it, of contacts that were delivered once each. The consumer is the
real command on a core of its own, its source topic is empty. The clock runs from the assignment of the first partition
until the store of the last one stands. Every thousandth contact is looked up in the stores afterwards.
"""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer

from bench import process
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.kafka.changelog import prefix_of
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import changelog_id, ensure
from consumer.core import state_bytes
from consumer.model import State, TopicPartition
from consumer.settings import Settings, load
from tests.kafka_cluster import KafkaCluster

MOMENT_MS = 1_767_225_600_000
IN_THE_QUEUE = 100_000
LOOKED_UP_EVERY = 1_000


@dataclass(frozen=True)
class Restore:
    """One changelog, restored twice.

    Attributes:
        keys: Contacts in it.
        partitions: Of the source topic, all of one consumer.
        cold_s: With an empty disk.
        cold_keys_per_s: The same, as a rate.
        warm_s: With the disk of the first time.
        peak_rss_mb: Of the consumer, the first time.
        disk_mb: What the stores take afterwards.
    """

    keys: int
    partitions: int
    cold_s: float
    cold_keys_per_s: int
    warm_s: float
    peak_rss_mb: int
    disk_mb: int


async def measure(kafka: KafkaCluster, sink: str, keys: int, partitions: int) -> Restore:
    """Make a changelog, then restore it cold and warm."""
    topic = kafka.create_topic("restore", partitions=partitions)
    with tempfile.TemporaryDirectory() as directory:
        environ = process.environ(kafka.bootstrap, topic, sink, directory)
        settings = load(environ)
        await ensure(Connection.of(settings), settings)
        _fill(kafka.bootstrap, settings.kafka_changelog_topic, topic, keys, partitions)
        cold, warm = [process.run_until_caught_up(environ, Path(directory) / "consumer.log") for _ in range(2)]
        disk = _bytes_in(Path(directory, topic))
        await _check(settings, topic, keys, partitions)
    seconds = _seconds(cold)
    return Restore(
        keys,
        partitions,
        round(seconds, 2),
        round(keys / seconds),
        round(_seconds(warm), 2),
        round(cold.peak_rss / 2**20),
        round(disk / 2**20),
    )


def _fill(bootstrap: str, changelog: str, source: str, keys: int, partitions: int) -> None:
    own = {"linger.ms": 20, "batch.size": 1_000_000, "queue.buffering.max.messages": 2 * IN_THE_QUEUE}
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, **own})
    prefixes = [prefix_of(TopicPartition(source, number)) for number in range(partitions)]
    for number in range(keys):
        identity, value = _entry(number)
        partition = number % partitions
        producer.produce(changelog, value, prefixes[partition] + identity, partition)
        if number % IN_THE_QUEUE == 0:
            producer.flush(60)
    if producer.flush(120):
        raise RuntimeError("the broker did not take the changelog")


def _entry(number: int) -> tuple[bytes, bytes]:
    """The identity of the contact with this number, and what is remembered of it."""
    identity = hashlib.sha256(number.to_bytes(8)).digest()
    state = State(hashlib.sha256(identity).digest(), 1, True, MOMENT_MS + number, number, False)
    return identity, state_bytes.encode(state, MOMENT_MS + number)


async def _check(settings: Settings, topic: str, keys: int, partitions: int) -> None:
    """Look up some contacts of each partition in the stores that the consumer left."""
    id_ = await changelog_id(Connection.of(settings), settings)
    store = RocksStore(settings.state_dir, f"{settings.kafka_group_id}/{settings.kafka_changelog_topic}/{id_}")
    for number in range(partitions):
        place = TopicPartition(topic, number)
        await store.open(place)
        entries = dict(map(_entry, range(number, keys, partitions * LOOKED_UP_EVERY)))
        if store.read(place, list(entries)) != list(entries.values()):
            raise RuntimeError(f"the store of partition {number} does not have what is in the changelog")
    await store.close_all()


def _bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _seconds(usage: process.Usage) -> float:
    return max(process.moments(usage.lines, "restored")) - usage.assigned_at
