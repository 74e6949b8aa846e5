"""The whole program on real Kafka, real RocksDB and the simulator: killed in the middle, then finished.

The consumer runs as its own process, the simulator outlives it in this one. What is left on the topics and in the
contact list is compared with the naive model.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Producer, TopicPartition as Native
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from consumer.model import TopicPartition
from consumer.simulator.app import Simulator
from consumer.simulator.contacts import Poison
from tests.checker import check
from tests.kafka_cluster import KafkaCluster
from tests.memory_ports import World
from tests.stories import random_story
from tests.waiting import eventually

PARTITIONS = 4
EVENTS = 50_000
POISON_CODE = "contact.datum.length.limit.exceeded"

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def _settings(kafka: KafkaCluster, topic: str, simulator: Simulator, directory: Path) -> dict[str, str]:
    properties = directory / "kafka.properties"
    properties.write_text("session.timeout.ms=6000\n# a killed member is noticed soon\n")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "GENESYS_"))},
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_GROUP_ID": topic,
        "KAFKA_SOURCE_TOPICS": topic,
        "KAFKA_AUDIT_TOPIC": f"{topic}.audit",
        "KAFKA_DEAD_LETTER_TOPIC": f"{topic}.dead-letters",
        "KAFKA_PROPERTIES_FILE": str(properties),
        "SCHEMA_UNKNOWN_TIMEOUT_S": "1",
        "GENESYS_OAUTH_CLIENT_ID": "id",
        "GENESYS_OAUTH_CLIENT_SECRET": "secret",
        "GENESYS_CONTACT_LIST": "end to end",
        "GENESYS_LOGIN_URL": simulator.url,
        "GENESYS_API_URL": simulator.url,
        "GENESYS_REQUESTS_PER_MINUTE": "100000",
        "GENESYS_REQUEST_TIMEOUT_S": "5",
        "STATE_DIR": str(directory / "state"),
        "HTTP_ADDRESS": "127.0.0.1:0",
        "LOG_LEVEL": "info",
    }


@asynccontextmanager
async def _consumer(settings: Mapping[str, str], *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumer", "run", *arguments, env=settings, stdout=sys.stderr.fileno()
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _produce(bootstrap: str, world: World) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 1_100_000, "linger.ms": 20})
    for log in world.log.values():
        for record in log:
            while True:
                try:
                    producer.produce(
                        record.topic, record.value, record.key, record.partition, timestamp=record.timestamp_ms
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
    assert producer.flush(60) == 0


def _read(bootstrap: str, topic: str, take: Callable[[bytes | None, bytes | None, dict[str, bytes]], None]) -> None:
    """Read a topic as a committed reader does, to its end."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "reader", "isolation.level": "read_committed",
        "enable.partition.eof": True,
    })  # fmt: skip
    left = len(consumer.list_topics(topic).topics[topic].partitions)
    consumer.assign([Native(topic, number, 0) for number in range(left)])
    while left:
        for message in consumer.consume(5000, 1.0):
            error = message.error()
            if error is None:
                take(message.key(), message.value(), dict(message.headers() or ()))  # type: ignore[arg-type]
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                left -= 1
    consumer.close()


def _harvest(bootstrap: str, topic: str, world: World, simulator: Simulator) -> None:
    """Bring what is on the topics and in the list into the world, for the checker."""

    def audit(key: bytes | None, value: bytes | None, _: dict[str, bytes]) -> None:
        world.audit.append((key or b"", value or b""))

    def letter(key: bytes | None, value: bytes | None, headers: dict[str, bytes]) -> None:
        _, partition, offset = headers["dead-letter.source"].decode().rsplit("/", 2)
        original = world.log[TopicPartition(topic, int(partition))][int(offset)]
        record = replace(original, key=key, value=value)
        world.dead_letters.append((record, headers["dead-letter.reason"].decode()))

    _read(bootstrap, f"{topic}.audit", audit)
    world.audit.sort(key=_by_chain)
    _read(bootstrap, f"{topic}.dead-letters", letter)
    request = ConsumerGroupTopicPartitions(topic, [Native(*key) for key in world.log])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    committed = admin.list_consumer_group_offsets([request])[topic].result().topic_partitions
    world.committed = {TopicPartition(each.topic, each.partition): each.offset for each in committed}
    for contact in simulator.contacts("end to end").values():
        data = contact["data"]
        world.list[data["external_id"]] = {"phone": data["phone_number"], "callable": contact["callable"]}


def _by_chain(event: tuple[bytes, bytes]) -> tuple[int, int]:
    """The audit topic has the order of its keys; the chain has that of the source."""
    body = orjson.loads(event[1])
    return (body["source"]["partition"], body["seq"]) if body["type"] == "record" else (-1, 0)


async def test_killed_in_the_middle_and_finished_every_offset_has_one_audit_event(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """50,000 events with every kind of bad input, kill -9 half-way, and the list is the model's."""
    topic = kafka.create_topic("end-to-end", partitions=PARTITIONS)
    story, poison = random_story(7, contacts=12_000, events=EVENTS, partitions=PARTITIONS, topic=topic)
    world = World()
    world.append(story.records())
    _produce(kafka.bootstrap, world)
    poisonous = Poison(lambda data: data["external_id"] in poison, POISON_CODE)
    async with Simulator(poison=poisonous, journal_limit=10_000) as simulator:
        settings = _settings(kafka, topic, simulator, tmp_path)
        async with _consumer(settings) as first:
            await eventually(lambda: simulator.stats()["contacts"]["applied"] >= EVENTS // 8, within_s=90)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        async with _consumer(settings, "--until-caught-up") as second, asyncio.timeout(120):
            assert await second.wait() == 0
        _harvest(kafka.bootstrap, topic, world, simulator)
        check(world, story, poison)
        assert not simulator.journal.overlapping_contacts()
        assert simulator.stats()["contacts"]["requeued"] == 0
