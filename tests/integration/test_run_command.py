"""`run` as a process on real Kafka and the simulator: probes, signals, exit codes."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import ensure
from consumer.model import TopicPartition
from consumer.simulator.app import Simulator
from tests import commands
from tests.kafka_clients import committed, delete, delete_records, forget, produce, properties, settings
from tests.kafka_cluster import KafkaCluster
from tests.stories import Event
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

AGAIN_AFTER_S = 0.02
OVER_AFTER_S = 80.0
"""Less than a test may take: what pytest-timeout raises in a callback of the event loop goes no further."""

EVENTS = [Event(f"contact-{n}", 1).value() for n in range(500)]


class Consumer:
    """A running `run`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body of a page, a moment later, since many ask in a loop; status 0 while nobody answers."""
        await asyncio.sleep(AGAIN_AFTER_S)
        try:
            async with aiohttp.ClientSession() as session, session.get(self._url + path) as response:
                body = await (response.json() if response.content_type == "application/json" else response.text())
                return response.status, body
        except aiohttp.ClientError:
            return 0, None

    async def until(self, path: str, status: int) -> Any:
        """The body of a page once it has this status."""
        while True:
            found, body = await self.get(path)
            if found == status:
                return body
            assert self.process.returncode is None, await self.said()

    async def said(self) -> str:
        """Standard error, after the end."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


@asynccontextmanager
async def _running(environ: Mapping[str, str], port: int, *arguments: str) -> AsyncIterator[Consumer]:
    own = {**environ, "HTTP_ADDRESS": f"127.0.0.1:{port}"}
    running = commands.started(own, "run", *arguments, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(OVER_AFTER_S), running as process:
        yield Consumer(process, port)


async def test_a_signal_lets_it_finish_what_it_has(kafka: KafkaCluster, tmp_path: Path, unused_tcp_port: int) -> None:
    """Ready once it works; after SIGTERM what was read is delivered and settled, and the exit code is 0."""
    topic = kafka.create_topic("run")
    half_a_batch = [Event(f"another-{n}", 1).value() for n in range(50)]
    produce(kafka.bootstrap, topic, [*EVENTS, *half_a_batch])
    async with Simulator() as simulator:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path, BATCH_LINGER_MS="60000")
        async with _running(environ, unused_tcp_port) as consumer:
            await consumer.until("/readyz", 200)
            await consumer.until("/livez", 200)
            assert "genesys_consumer_records_total" in await consumer.until("/metrics", 200)
            await eventually(lambda: simulator.stats()["contacts"].get("applied") == len(EVENTS), within_s=40)
            while (await consumer.until("/status", 200))["records_held"] != len(half_a_batch):
                pass
            consumer.process.send_signal(signal.SIGTERM)
            assert await consumer.process.wait() == 0, await consumer.said()
        told = len(EVENTS) + len(half_a_batch)
        assert len(simulator.contacts("list")) == told
        assert simulator.stats()["requests"]["get_limits"] == {"200": 1}
        chosen = settings(kafka.bootstrap, topic)
        assert committed(kafka.bootstrap, chosen, TopicPartition(topic, 0)) == [told]


async def test_the_last_line_counts_how_records_ended(kafka: KafkaCluster, tmp_path: Path) -> None:
    """A run that ends by itself would say nothing of what it did."""
    topic = kafka.create_topic("run")
    produce(kafka.bootstrap, topic, [*EVENTS, b"junk"])
    async with Simulator() as simulator:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path, LOG_FORMAT="json")
        code, out, _ = await commands.ended(environ, "run", "--until-caught-up")
    last = json.loads(out.splitlines()[-1])
    assert (code, last["event"], last["delivered"], last["rejected"]) == (0, "stopped", len(EVENTS), 1)
    assert "stale" not in last


async def test_what_retention_removed_while_brokers_forgot_the_group_is_told(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """An outage of a week: the default of both. The next process has no offset, and its disk may be a new one."""
    topic = kafka.create_topic("run")
    chosen, tp = settings(kafka.bootstrap, topic), TopicPartition(topic, 0)

    async def run(disk: str) -> list[Any]:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path / disk, LOG_FORMAT="json")
        code, out, _ = await commands.ended(environ, "run", "--until-caught-up")
        assert code == 0
        return [json.loads(line) for line in out.splitlines()]

    async with Simulator() as simulator:
        produce(kafka.bootstrap, topic, EVENTS[:50])
        await run("lost")
        produce(kafka.bootstrap, topic, EVENTS[50:70])
        delete_records(kafka.bootstrap, tp, 60)
        forget(kafka.bootstrap, chosen)
        lines = await run("new")
        assert len(simulator.contacts("list")) == 60
    (lost,) = [line for line in lines if line["event"] == "retention_overtook_the_group"]
    assert (lost["level"], lost["expected"], lost["resumed"]) == ("error", 50, 60)
    (forgotten,) = [line for line in lines if line["event"] == "offsets_forgotten"]
    assert forgotten["topics"] == [topic]


async def test_a_changelog_made_anew_is_not_taken_for_the_old_one(
    kafka: KafkaCluster, tmp_path: Path, unused_tcp_port: int
) -> None:
    """Although the new one has the offset at which the store stands, the store is set aside."""
    topic = kafka.create_topic("run")
    produce(kafka.bootstrap, topic, EVENTS)
    chosen = settings(kafka.bootstrap, topic)
    async with Simulator() as simulator:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path)
        for changelog in ("old", "new"):
            if changelog == "new":
                delete(kafka.bootstrap, chosen.kafka_changelog_topic)
                await ensure(Connection.of(chosen), chosen)
                produce(kafka.bootstrap, chosen.kafka_changelog_topic, [b"of somebody else"] * 10 * len(EVENTS))
            async with _running(environ, unused_tcp_port, "--until-caught-up") as consumer:
                assert await consumer.process.wait() == 0, await consumer.said()
    assert [path.name for path in (tmp_path / topic).glob("*.set-aside-*")] == ["0.set-aside-1"]


async def test_a_missing_permission_ends_it_and_is_named(
    kafka: KafkaCluster, tmp_path: Path, unused_tcp_port: int
) -> None:
    """Exit code 1, and the last line says which permission the OAuth client lacks."""
    topic = kafka.create_topic("run")
    produce(kafka.bootstrap, topic, EVENTS[:1])
    async with Simulator(withheld_permissions=["outbound:contact:add"]) as simulator:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path)
        async with _running(environ, unused_tcp_port) as consumer:
            assert await consumer.process.wait() == 1
            assert "outbound:contact:add" in (await consumer.said()).splitlines()[-1]
        assert committed(kafka.bootstrap, settings(kafka.bootstrap, topic), TopicPartition(topic, 0)) == [-1001]


async def test_where_a_source_topic_is_missing_no_list_is_made(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Nobody has to tidy up in Genesys after a slip in the settings of Kafka."""
    (tmp_path / "contacts.csv").write_text("external_id,phone_number,consent,do_not_call\nc-1,+15550100,true,false\n")
    async with Simulator() as simulator:
        environ = commands.environ(kafka.bootstrap, "misspelt", simulator, tmp_path / "state")
        for arguments in (["run"], ["load", str(tmp_path / "contacts.csv")]):
            code, _, error = await commands.ended(environ, *arguments)
            assert (code, "misspelt (KAFKA_SOURCE_TOPICS)" in error.splitlines()[-1]) == (1, True), error
            assert simulator.lists() == []


async def test_brokers_that_are_away_are_waited_for(tmp_path: Path, unused_tcp_port_factory: Any) -> None:
    """It lives, is not ready, says for what it waits, and still ends with 0 when it is told to."""
    nobody = f"127.0.0.1:{unused_tcp_port_factory()}"
    async with Simulator() as simulator:
        environ = commands.environ(nobody, "any", simulator, tmp_path)
        async with _running(environ, unused_tcp_port_factory()) as consumer:
            await consumer.until("/livez", 200)
            while "kafka" not in str((await consumer.until("/status", 200))["reason"]):
                assert (await consumer.until("/readyz", 503))["checks"]["started"] is False
            consumer.process.send_signal(signal.SIGTERM)
            assert await consumer.process.wait() == 0, await consumer.said()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_second_process_without_partitions_is_ready_and_takes_over(
    kafka: KafkaCluster, tmp_path: Path, unused_tcp_port_factory: Any, protocol: str
) -> None:
    """One partition, two processes: both get ready, and the idle one goes on when the other is told to end."""
    topic = kafka.create_topic("run")
    async with Simulator() as simulator:
        own = {"KAFKA_PROPERTIES_FILE": properties(tmp_path, group_protocol=protocol)}
        environ = [commands.environ(kafka.bootstrap, topic, simulator, tmp_path / str(n), **own) for n in range(2)]
        async with _running(environ[0], unused_tcp_port_factory()) as busy:
            await busy.until("/readyz", 200)
            async with _running(environ[1], unused_tcp_port_factory()) as idle:
                await idle.until("/readyz", 200)
                busy.process.send_signal(signal.SIGTERM)
                assert await busy.process.wait() == 0, await busy.said()
                produce(kafka.bootstrap, topic, EVENTS[:50])
                await eventually(lambda: simulator.stats()["contacts"].get("applied") == 50, within_s=40)


async def test_a_second_process_on_one_state_directory_ends_and_the_first_goes_on(
    kafka: KafkaCluster, tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    """Under the same name it would take over the transactions of the first. A load would, too."""
    topic = kafka.create_topic("run")
    (tmp_path / "contacts.csv").write_text("externalId,phone,consent,doNotCall\n")
    async with Simulator() as simulator:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path / "state")
        async with _running(environ, unused_tcp_port_factory()) as first:
            await first.until("/readyz", 200)
            for command in (["run"], ["load", str(tmp_path / "contacts.csv")]):
                code, _, told = await commands.ended(environ, *command)
                assert (code, "STATE_DIR is used by another process" in told.splitlines()[-1]) == (1, True)
            produce(kafka.bootstrap, topic, EVENTS[:50])
            await eventually(lambda: simulator.stats()["contacts"].get("applied") == 50, within_s=20)


async def test_a_mass_of_deletes_waits_until_it_is_released(
    kafka: KafkaCluster, tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    """It is unready and says what to set. It does not wait for ever to have caught up. Once released it goes on."""
    topic = kafka.create_topic("run")
    produce(kafka.bootstrap, topic, EVENTS[:60])
    produce(kafka.bootstrap, topic, [Event(f"contact-{n}", 2, delete=True).value() for n in range(60)])
    async with Simulator() as simulator:
        environ = commands.environ(kafka.bootstrap, topic, simulator, tmp_path, FUSE_DELETES="10")
        async with _running(environ, unused_tcp_port_factory()) as consumer:
            while "FUSE_RELEASES" not in str((await consumer.until("/status", 200))["reason"]):
                assert consumer.process.returncode is None
            checks = (await consumer.until("/readyz", 503))["checks"]
            assert [name for name, holds in checks.items() if not holds] == ["fuse"]
            assert f'fuse_tripped{{topic="{topic}"}} 1.0' in await consumer.until("/metrics", 200)
            consumer.process.send_signal(signal.SIGTERM)
            assert await consumer.process.wait() == 0, await consumer.said()
        assert len(simulator.contacts("list")) >= 50
        async with _running(environ, unused_tcp_port_factory(), "--until-caught-up") as consumer:
            assert await consumer.process.wait() == 1
            told = (await consumer.said()).splitlines()[-1]
        release = told.partition("FUSE_RELEASES=")[2].partition(" ")[0]
        async with _running(
            {**environ, "FUSE_RELEASES": release}, unused_tcp_port_factory(), "--until-caught-up"
        ) as consumer:
            assert await consumer.process.wait() == 0, await consumer.said()
        assert len(simulator.contacts("list")) == 0
    assert committed(kafka.bootstrap, settings(kafka.bootstrap, topic), TopicPartition(topic, 0)) == [120]
