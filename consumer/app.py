"""Wires settings, adapters and the pipeline into a running consumer: start, signals, drain, the end.

At start the outside may not be there yet: brokers, registry and Genesys are waited for, and the probes say so
meanwhile. At the end every close has its own deadline, so that Kubernetes' grace period is kept.
"""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from types import FrameType
from typing import Never, TypeVar

import structlog

from consumer.adapters import open_files
from consumer.adapters.allocator import return_large_blocks
from consumer.adapters.breadcrumbs import FileBreadcrumbs
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.health import StatusServer
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.source import KafkaSource
from consumer.adapters.kafka.topics import ensure
from consumer.adapters.schema_registry.login import is_readable
from consumer.adapters.schema_registry.registry import opened
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.adapters.telemetry.metrics import Levels
from consumer.core.delivery import Throttle
from consumer.errors import SettingsError, TransientError
from consumer.model import TopicPartition
from consumer.outside import EXPORT_S, Outside, time_and_chance
from consumer.pipeline.assignments import REVOKE_MARGIN_S
from consumer.pipeline.mapping_check import Finding, Fit, look, unmatched
from consumer.pipeline.readers import envelopes_of
from consumer.pipeline.run import Pipeline
from consumer.ports import TopicSchemas
from consumer.settings import Settings

T = TypeVar("T")

log = structlog.get_logger(__name__)

STUCK_S = 60.0
"""A poll loop that did not go round for so long is stuck: liveness fails."""

MAPPINGS_S = 20.0
"""Time for looking at the latest schemas at start."""

_RETRY_MAX_S = 30.0
_STOP = (signal.SIGTERM, signal.SIGINT)


class App:
    """One consumer process.

    Attributes:
        server: Probes, metrics and status page, once it runs.

    Raises:
        SettingsError: A mapping is wrong; from `run`, when it fits no registered schema of its topic.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._envelopes = envelopes_of(settings)
        self._telemetry = Telemetry(settings.kafka_source_topics, settings.kafka_group_id)
        self._throttle = Throttle(settings.genesys_requests_per_minute)
        self._pipeline: Pipeline | None = None
        self._source: KafkaSource | None = None
        self._starting: str | None = "reading the settings"
        self._answers: dict[str, bool | None] = {"kafka": None, "genesys": None}  # None: not asked yet
        self.server = StatusServer(
            settings.http_address,
            live=self._live,
            ready=self._ready,
            status=self.status,
            metrics=self._telemetry.render,
        )

    async def run_until_signal(self, *, until_caught_up: bool = False) -> None:
        """Run until SIGTERM or SIGINT, also one that was held back until now; a second one ends at once."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def told_to_stop(number: signal.Signals) -> None:
            log.info("stopping", signal=number.name)
            stop.set()
            for each in _STOP:
                loop.remove_signal_handler(each)
                signal.signal(each, _end_at_once)

        for number in _STOP:
            loop.add_signal_handler(number, told_to_stop, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        await self.run(stop, until_caught_up=until_caught_up)

    async def run(self, stop: asyncio.Event, *, until_caught_up: bool = False) -> None:
        """Run until told to stop, or until caught up; then drain and close.

        Raises:
            ConsumerError: What made it stop, possibly in an exception group.
        """
        return_large_blocks()
        open_files.allow_all()
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._telemetry.close, EXPORT_S)
            await self.server.start()
            closing.push_async_callback(self.server.stop)
            starting = asyncio.create_task(self._start(closing))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not starting.done():
                starting.cancel()
                with suppress(asyncio.CancelledError):
                    await starting
                return
            pipeline = await starting
            await pipeline.run(stop, until_caught_up=until_caught_up)
        log.info("stopped", **{outcome: count for outcome, count in self._telemetry.outcomes().items() if count})

    async def _start(self, closing: AsyncExitStack) -> Pipeline:
        """Reach everything outside, in the order in which it is needed."""
        settings = self._settings
        outside = Outside(settings, self._telemetry, self._throttle, closing)
        schemas = opened(settings)
        closing.push_async_callback(schemas.close)
        if is_readable(settings):
            log.warning("registry_login_readable", remedy="name SCHEMA_REGISTRY_URL by https://")
        await self._check_mappings(schemas)
        outside.occupy()
        key = outside.pseudonym_key()
        await self._reached("kafka", lambda: ensure(outside.connection, settings))
        store = await self._reached("kafka", outside.store)
        sink = await self._reached("genesys", outside.sink)  # last: it makes a list that is missing
        breadcrumbs = FileBreadcrumbs(settings.state_dir)
        closing.callback(breadcrumbs.close)
        source, topics = await self._opened(outside)
        pipeline = Pipeline(
            settings=settings,
            source=source,
            topics=topics,
            store=store,
            schemas=schemas,
            envelopes=self._envelopes,
            breadcrumbs=breadcrumbs,
            sink=sink,
            telemetry=self._telemetry,
            throttle=self._throttle,
            key=key,
            times=time_and_chance(),
        )
        self._telemetry.bind(self._levels(pipeline, store))
        self._started(pipeline, source, sink.contact_list_id)
        return pipeline

    async def _opened(self, outside: Outside) -> tuple[KafkaSource, KafkaEventTopics]:
        """The group consumer, and the output topics."""
        settings = self._settings
        source = outside.source(settings, settings.genesys_request_timeout_s + 2 * REVOKE_MARGIN_S)
        topics = outside.topics(source)
        await self._reached("kafka", topics.open)
        return source, topics

    def _started(self, pipeline: Pipeline, source: KafkaSource, contact_list_id: str) -> None:
        """Everything is there: from now on the probes ask it."""
        self._pipeline, self._source = pipeline, source
        _spare_the_garbage_collector()
        self._starting = None
        if self._settings.suppress_undecodable:
            log.warning("undecodable_records_suppress", remedy="replay their dead letters to have people called again")
        log.info("started", contact_list_id=contact_list_id, group=self._settings.kafka_group_id)

    async def _check_mappings(self, schemas: TopicSchemas) -> None:
        """Refuse mappings that can read nothing; a registry that cannot tell, or too late, holds up nobody."""
        for problem in unmatched(self._settings, self._envelopes):
            log.warning("mapping_columns_differ", problem=problem)
        if self._settings.schema_registry_url is not None:
            self._starting = "asking the registry for the latest schemas"
        try:
            async with asyncio.timeout(MAPPINGS_S):
                findings = await look(self._settings, self._envelopes, schemas)
        except TimeoutError:
            log.warning("mapping_not_checked", error=f"the registry took longer than {MAPPINGS_S:.0f} s")
            return
        for finding in findings:
            _say(finding)
        problems = [
            f"SOURCE_ENVELOPE, SOURCE_MAPPING: no schema that is registered for {finding.topic} can be read: {detail}"
            for finding in findings
            if finding.fit is Fit.UNFIT
            for detail in finding.details
        ]
        if problems:
            raise SettingsError(problems)

    async def _reached(self, what: str, reach: Callable[[], Awaitable[T]]) -> T:
        """Try until the other side is there."""
        delay = 1.0
        self._starting = f"reaching {what.capitalize()}"
        while True:
            try:
                reached = await reach()
            except TransientError as error:
                self._answers[what], self._starting = False, f"{what}: {error}"
                log.warning("waiting_for", what=what, error=str(error), retry_s=delay)
                await asyncio.sleep(error.retry_after or delay)
                delay = min(delay * 2, _RETRY_MAX_S)
            else:
                self._answers[what] = True
                return reached

    # -- what the outside may know

    def _live(self) -> Mapping[str, bool]:
        polling = self._source is None or time.monotonic() - self._source.last_poll < STUCK_S
        return {"event_loop": True, "poll_loop": polling}

    def _ready(self) -> Mapping[str, bool | None]:
        pipeline, source = self._pipeline, self._source
        if pipeline is None or source is None:
            return {"started": False, "assigned": False, **self._answers, "fuse": True, "settling": True}
        return {
            "started": True,
            "assigned": pipeline.ready,
            "kafka": source.connected,
            "genesys": pipeline.genesys_answers,
            "fuse": not pipeline.fuses.tripped,
            "settling": pipeline.settles,
        }

    def status(self) -> Mapping[str, object]:
        """What the status page shows."""
        if self._pipeline is None:
            return {"state": "starting", "reason": self._starting}
        return {
            "outcomes": self._telemetry.outcomes(),
            "slowest_withdrawal_s": round(self._telemetry.slowest_withdrawal_s, 3),
            **self._pipeline.status(),
        }

    @staticmethod
    def _levels(pipeline: Pipeline, store: RocksStore) -> Levels:
        def lag() -> Mapping[TopicPartition, int]:
            return {key: partition.lag for key, partition in pipeline.partitions.items()}

        return Levels(
            breaker_state=lambda: pipeline.breaker,
            rate_limit_remaining=lambda: pipeline.requests_allowed,
            in_flight=lambda: pipeline.gate.in_flight,
            lag=lag,
            stalled=pipeline.stalled,
            store_size=store.size,
            fuse_tripped=pipeline.fuses.levels,
        )


def _end_at_once(number: int, _: FrameType | None) -> Never:
    """End as the signal would: as process 1, the usual one in a container, the kernel keeps its own action from it."""
    os._exit(128 + number)


def _say(finding: Finding) -> None:
    """Log what may not work, and is not refused."""
    details = "; ".join(finding.details)
    if finding.fit is Fit.LACKS:
        log.warning("mapping_lacks_fields", topic=finding.topic, fields=details)
    elif finding.fit is Fit.REJECTS:
        log.warning("mapping_rejects", topic=finding.topic, problems=details)
    elif finding.fit is Fit.NOT_KNOWN:
        log.warning("mapping_not_checked", topic=finding.topic, error=details)
    if finding.granted:
        log.warning("mapping_null_grants", topic=finding.topic, problems="; ".join(finding.granted))


def _spare_the_garbage_collector() -> None:
    """Records and their works hold no cycles: looking for some among all that are held costs a tenth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
