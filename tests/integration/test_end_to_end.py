"""The whole program on real Kafka, real RocksDB and the simulator: killed in the middle, then finished.

The consumer runs as its own process, the simulator outlives it in this one. What is left on the topics and in the
contact list is compared with the naive model.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consumer.simulator.app import Simulator
from consumer.simulator.contacts import Poison
from tests import harvest
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
    producer = harvest.producer(bootstrap)
    for log in world.log.values():
        for record in log:
            harvest.produce(producer, record)
    assert producer.flush(60) == 0


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
        harvest.harvest(
            world,
            bootstrap=kafka.bootstrap,
            group=topic,
            audit_topic=f"{topic}.audit",
            dead_letter_topic=f"{topic}.dead-letters",
            contacts=simulator.contacts("end to end"),
        )
        offsets = harvest.changelogs(world, bootstrap=kafka.bootstrap, topic=f"{topic}-dedupe-changelog")
        stores = harvest.stores(tmp_path / "state", offsets)
        world.stores = {key: (entries, position) for key, entries, position in stores}
        assert world.stores.keys() == world.log.keys()
        check(world, story, poison)
        assert not simulator.journal.overlapping_contacts()
        assert simulator.stats()["contacts"]["requeued"] == 0
