"""`load`: wires settings, adapters and the first fill, and prints what became of the file.

What is away at the start ends it: whoever loads is there.
"""

import asyncio
import random
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from msgspec.structs import asdict

from consumer.adapters.contact_file.opened import ContactFile
from consumer.adapters.dedupe_store import RocksStore, instance_id, pseudonym_key
from consumer.adapters.genesys.sink import GenesysSink
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.history import KafkaHistory
from consumer.adapters.kafka.sampling import sample_keys
from consumer.adapters.kafka.source import KafkaSource
from consumer.adapters.kafka.topics import changelog_id, ensure
from consumer.adapters.scratch import Scratch
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.core.delivery import Throttle
from consumer.errors import FatalError
from consumer.first_fill.membership import JOINED_WITHIN_S
from consumer.first_fill.patience import insist
from consumer.first_fill.placement import choose
from consumer.first_fill.run import FirstFill, Summary
from consumer.first_fill.upload import Tell
from consumer.model import TopicPartition
from consumer.operate import printing
from consumer.settings import Settings

REVOKE_S = 80.0
"""How long the group waits while an import goes on: a member that lets it wait for 90 s is put out."""

EXPORT_S = 5.0
LOOK_S = 1.0


class Loading:
    """One run of `load`.

    Args:
        settings: All of them.
        path: The file.
        partitioner: What `--partitioner` says.
        tell: Told of progress.
    """

    def __init__(self, settings: Settings, path: Path, partitioner: str | None, tell: Tell) -> None:
        self._settings = settings
        self._path = path
        self._partitioner = partitioner
        self._tell = tell
        self._throttle = Throttle(settings.genesys_requests_per_minute)
        self._telemetry = Telemetry(settings.kafka_source_topics, settings.kafka_group_id)

    async def run_until_signal(self) -> Summary:
        """Load the file, or stop at SIGTERM or SIGINT.

        Raises:
            ConsumerError: What made it stop, possibly in an exception group.
        """
        loading = asyncio.create_task(self._run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, loading.cancel)
        try:
            return await loading
        except asyncio.CancelledError:
            raise FatalError("told to stop; load the same file again to go on") from None

    async def _run(self) -> Summary:
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._telemetry.close, EXPORT_S)
            fill = await self._prepared(closing)
            return await fill.run()

    async def _prepared(self, closing: AsyncExitStack) -> FirstFill:
        """Reach everything outside; the file first, since most mistakes are there."""
        settings, connection = self._settings, Connection.of(self._settings)
        topic = self._topic()
        rows = await asyncio.to_thread(ContactFile, self._path, settings.genesys_attribute_columns)
        key = settings.pseudonym_key.encode() if settings.pseudonym_key else pseudonym_key(settings.state_dir)
        sink = await self._sink()
        closing.push_async_callback(sink.close)
        closing.callback(asyncio.create_task(sink.follow_limit()).cancel)
        count = (await ensure(connection, settings))[topic]
        partitioner = choose(await sample_keys(connection, topic, count), count, self._partitioner)
        store = RocksStore(settings.state_dir, await self._identity(connection))
        closing.push_async_callback(store.close_all)
        await self._alone(connection)
        source = self._source(connection)
        closing.push_async_callback(source.close)
        topics = self._topics(connection, source)
        closing.push_async_callback(topics.close)
        await topics.open()
        return FirstFill(
            settings=settings,
            topic=[TopicPartition(topic, number) for number in range(count)],
            source=source,
            topics=topics,
            store=store,
            scratch=lambda: self._scratch(closing),
            sink=sink,
            uploads=sink.uploads(settings.genesys_upload_url),
            rows=rows,
            telemetry=self._telemetry,
            throttle=self._throttle,
            partitioner=partitioner,
            key=key,
            tell=self._tell,
            clock=asyncio.get_running_loop().time,
            now=time.time,
            dice=random.random,
        )

    def _topic(self) -> str:
        topics = self._settings.kafka_source_topics
        if len(topics) > 1:
            raise FatalError(
                f"the stream has {len(topics)} source topics: name in KAFKA_SOURCE_TOPICS, for this run, "
                "the one that has the contacts of the file"
            )
        return topics[0]

    async def _sink(self) -> GenesysSink:
        return await GenesysSink.open(
            self._settings,
            on_request=self._telemetry.on_request,
            tracer=self._telemetry.tracer,
            throttle=self._throttle,
        )

    async def _identity(self, connection: Connection) -> str:
        """What the stores belong to, as for `run`: both have the same ones."""
        settings = self._settings
        changelog = await changelog_id(connection, settings)
        return f"{settings.kafka_group_id}/{settings.kafka_changelog_topic}/{changelog}"

    async def _alone(self, connection: Connection) -> None:
        """Wait until the group has no members: those that were killed are still among them for a while."""
        group, history = self._settings.kafka_group_id, KafkaHistory(connection, self._settings)
        deadline = time.monotonic() + JOINED_WITHIN_S
        while count := await insist(history.members):
            if time.monotonic() >= deadline:
                raise FatalError(f"the group {group} has {count} members: stop the consumers of it first")
            self._tell("waiting for the group to be empty", 0, count)
            await asyncio.sleep(LOOK_S)

    def _source(self, connection: Connection) -> KafkaSource:
        return KafkaSource(
            connection,
            replace(self._settings, kafka_group_instance_id=None),
            revoke_timeout_s=REVOKE_S,
            on_overtaken=lambda partition, _, __: self._telemetry.source_overtaken(partition),
        )

    def _topics(self, connection: Connection, source: KafkaSource) -> KafkaEventTopics:
        settings = self._settings
        name = settings.kafka_group_instance_id or instance_id(settings.state_dir)
        return KafkaEventTopics(
            connection,
            settings,
            transactional_id=f"{settings.kafka_group_id}-{name}",
            group_metadata=source.group_metadata,
            commit=source.commit,
        )

    def _scratch(self, closing: AsyncExitStack) -> Scratch:
        scratch = Scratch(self._settings.state_dir)
        closing.callback(scratch.close)
        return scratch


def print_summary(summary: Summary, output: str) -> None:
    """Print what became of the file."""
    if output == "json":
        printing.document(asdict(summary))
        return
    counts = [
        ("rows", summary.rows),
        ("  settled by a run before", summary.settled_before),
        *((f"  {outcome}", count) for outcome, count in summary.outcomes.items()),
        *((f"    {reason}", count) for reason, count in summary.reasons.items()),
        ("contacts by file", summary.uploaded),
        ("contacts by request", summary.requested),
    ]
    printing.table(("", summary.source), [(what, f"{count:,}") for what, count in counts if count])
