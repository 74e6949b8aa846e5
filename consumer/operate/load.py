"""`load`: wires settings, adapters and the first fill, and prints what became of the file.

What is away at the start ends it: whoever loads is there.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import structlog
from msgspec.structs import asdict

from consumer.adapters.contact_file.opened import ContactFile
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.history import KafkaHistory
from consumer.adapters.kafka.sampling import newest_records
from consumer.adapters.kafka.topics import ensure
from consumer.adapters.schema_registry.registry import opened
from consumer.adapters.scratch import Scratch
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.adapters.worker import in_a_thread
from consumer.core.delivery import Throttle
from consumer.errors import FatalError
from consumer.first_fill.membership import JOINED_WITHIN_S
from consumer.first_fill.patience import insist
from consumer.first_fill.placement import Samples, choose, sampled
from consumer.first_fill.run import FirstFill, Summary
from consumer.first_fill.upload import Tell
from consumer.model import TopicPartition
from consumer.operate import printing
from consumer.outside import EXPORT_S, Outside, time_and_chance
from consumer.pipeline.readers import envelopes_of, form_of
from consumer.settings import Settings

REVOKE_S = 80.0
"""How long the group waits at most while an import goes on: a member that lets it wait for 90 s is put out.

It waits no longer than this process is sure of its partitions, two thirds of the session time-out.
"""

LOOK_S = 1.0

_log = structlog.get_logger(__name__)


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
        settings, topic = self._settings, self._topic()
        outside = Outside(settings, self._telemetry, self._throttle, closing)
        rows = await in_a_thread("contact-file", ContactFile, self._path, settings.genesys_attribute_columns)
        if rows.left_out:
            _log.warning("columns_left_out", columns=rows.left_out, remedy="GENESYS_ATTRIBUTE_COLUMNS names attributes")
        if rows.emptied:
            _log.warning("columns_missing", columns=rows.emptied, remedy="name them, or known contacts lose theirs")
        outside.occupy()
        key = outside.pseudonym_key()
        count = (await ensure(outside.connection, settings))[topic]
        partitioner = choose(await self._samples(outside.connection, topic, count), count, self._partitioner)
        store = await outside.store()
        await self._alone(outside.connection)
        sink = await outside.sink()  # last: it makes a list that is missing
        source = outside.source(replace(settings, kafka_group_instance_id=None), REVOKE_S)
        topics = outside.topics(source)
        await topics.open()
        scratch = Scratch(settings.state_dir)
        closing.callback(scratch.close)
        return FirstFill(
            settings=settings,
            topic=[TopicPartition(topic, number) for number in range(count)],
            source=source,
            topics=topics,
            store=store,
            scratch=scratch,
            sink=sink,
            uploads=sink.uploads(settings.genesys_upload_url),
            rows=rows,
            telemetry=self._telemetry,
            throttle=self._throttle,
            partitioner=partitioner,
            key=key,
            tell=self._tell,
            times=time_and_chance(),
        )

    def _topic(self) -> str:
        topics = self._settings.kafka_source_topics
        if len(topics) > 1:
            raise FatalError(
                f"the stream has {len(topics)} source topics: name in KAFKA_SOURCE_TOPICS, for this run, "
                "the one that has the contacts of the file"
            )
        return topics[0]

    async def _samples(self, connection: Connection, topic: str, partitions: int) -> Samples:
        """Where the contacts of the topic stand, if there is more than one place."""
        if partitions == 1:
            return []
        settings, schemas = self._settings, opened(self._settings)
        records = newest_records(connection, settings.kafka_group_id, topic)
        try:
            return await sampled(records, form_of(topic, settings), envelopes_of(settings).of_topic(topic), schemas)
        finally:
            await schemas.close()

    async def _alone(self, connection: Connection) -> None:
        """Wait until the group has no members: those that were killed are still among them for a while."""
        group, history = self._settings.kafka_group_id, KafkaHistory(connection, self._settings)
        deadline = time.monotonic() + JOINED_WITHIN_S
        while count := await insist(history.members):
            if time.monotonic() >= deadline:
                raise FatalError(f"the group {group} has members ({count}): stop the consumers of it first")
            self._tell("waiting for the group to be empty", 0, count)
            await asyncio.sleep(LOOK_S)


def print_summary(summary: Summary, output: str) -> None:
    """Print what became of the file."""
    if output == "json":
        printing.document(asdict(summary))
        return
    counts = [
        ("  settled by a run before", summary.settled_before),
        *((f"  {outcome}", count) for outcome, count in summary.outcomes.items()),
        *((f"    {reason}", count) for reason, count in summary.reasons.items()),
        ("contacts by file", summary.uploaded),
        ("contacts by request", summary.requested),
    ]
    told = [("rows", summary.rows), *(line for line in counts if line[1])]
    printing.table(("", summary.source), [(what, f"{count:,}") for what, count in told])
