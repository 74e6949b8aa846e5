"""Opens what `run` and `load` use alike: Genesys, Kafka, the state directory. Both are the same instance of the group.

Answers for the names by which the outside knows that instance: what it finds of a former run, it must find under the
same name in the other command. Whoever opens decides what follows when the outside is not there. The clocks and the
dice that they and `reconcile` hand on are made here too.
"""

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress

from consumer.adapters.dedupe_store.files import instance_id, occupied, pseudonym_key
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.genesys.sink import GenesysSink
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.source import KafkaSource
from consumer.adapters.kafka.topics import changelog_id
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.core.delivery import Throttle
from consumer.ports import TimeAndChance
from consumer.settings import Settings

EXPORT_S = 5.0
"""Time for the last spans at the end; what else closes brings its own deadline."""


class Outside:
    """The outside of one run; what was opened is closed with the stack, the last first.

    Args:
        settings: All of them.
        telemetry: Told of requests to Genesys, and of what retention removed.
        throttle: The limit of requests to Genesys.
        closing: The stack.

    Attributes:
        connection: To the brokers.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry, throttle: Throttle, closing: AsyncExitStack) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._throttle = throttle
        self._closing = closing
        self.connection = Connection.of(settings)
        self._changelog_id = ""

    def occupy(self) -> None:
        """Keep other processes out of the state directory: what stands there makes this process the instance it is.

        Raises:
            FatalError: One is there, or the directory cannot be used.
        """
        self._closing.enter_context(occupied(self._settings.state_dir))

    def pseudonym_key(self) -> bytes:
        """Key of the pseudonyms: that of the settings, or the state directory's own."""
        settings = self._settings
        return settings.pseudonym_key.encode() if settings.pseudonym_key else pseudonym_key(settings.state_dir)

    async def sink(self) -> GenesysSink:
        """The contact list, as `GenesysSink.open`; the limit of requests that Genesys tells is kept meanwhile."""
        sink = await GenesysSink.open(
            self._settings,
            on_request=self._telemetry.on_request,
            tracer=self._telemetry.tracer,
            throttle=self._throttle,
        )
        self._closing.push_async_callback(sink.close)
        self._closing.push_async_callback(_cancelled, asyncio.create_task(sink.follow_limit()))
        return sink

    async def store(self) -> RocksStore:
        """What was delivered; it belongs to the changelog, which must be there.

        Raises:
            TransientError: The brokers do not answer.
            FatalError: They refuse.
        """
        settings = self._settings
        self._changelog_id = await changelog_id(self.connection, settings)
        identity = f"{settings.kafka_group_id}/{settings.kafka_changelog_topic}/{self._changelog_id}"
        store = RocksStore(settings.state_dir, identity)
        self._closing.push_async_callback(store.close_all)
        return store

    def source(self, settings: Settings, revoke_timeout_s: float) -> KafkaSource:
        """The group consumer; it polls from now on, and ends the process where the changelog of the stores is another.

        Args:
            settings: Topics, group, start.
            revoke_timeout_s: How long a revocation waits to be released.
        """
        source = KafkaSource(
            self.connection,
            settings,
            revoke_timeout_s=revoke_timeout_s,
            on_overtaken=self._telemetry.source_overtaken,
            changelog_id=self._changelog_id,
        )
        self._closing.push_async_callback(source.close)
        return source

    def topics(self, source: KafkaSource) -> KafkaEventTopics:
        """The output topics, still to be opened: that ends a transaction which a former run left behind."""
        settings = self._settings
        name = settings.kafka_group_instance_id or instance_id(settings.state_dir)
        topics = KafkaEventTopics(
            self.connection,
            settings,
            transactional_id=f"{settings.kafka_group_id}-{name}",
            group_metadata=source.group_metadata,
            commit=source.commit,
        )
        self._closing.push_async_callback(topics.close)
        return topics


def time_and_chance() -> TimeAndChance:
    """The clocks of the machine, and dice. That of the event loop is the monotonic one, a call further away."""
    return TimeAndChance(time.monotonic, time.time, random.random)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """End a task that goes on for ever."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
