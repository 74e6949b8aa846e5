"""Wires settings, adapters and `reconcile` into the command: one comparison, from its start to its end.

Unlike a consumer it does not wait for an outside that is not there, makes no topic and no list, and joins no group. Its
scratch directory under the state directory goes with it.
"""

import secrets
import tempfile
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import TopicPartition as NativePartition
from opentelemetry.trace import NoOpTracer

from consumer.adapters.dedupe_store.files import file_errors
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.genesys.sink import GenesysSink
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.event_topics import KafkaEventTopics
from consumer.adapters.kafka.group_offsets import GroupMember
from consumer.adapters.kafka.history import KafkaHistory
from consumer.adapters.schema_registry.registry import opened
from consumer.core.audit import Auditor
from consumer.core.delivery import Gate, Throttle
from consumer.core.framing import by_topic
from consumer.errors import FatalError
from consumer.formats import KeyFormat
from consumer.model import TopicPartition
from consumer.outside import time_and_chance
from consumer.pipeline.readers import envelopes_of, form_of
from consumer.reconcile.mend import Mender
from consumer.reconcile.report import Report
from consumer.reconcile.run import Reconciliation
from consumer.reconcile.source import SourceTopics
from consumer.settings import Settings

DIGEST_KEY_BYTES = 32
ONE_AT_A_TIME = 1


class _Parts(NamedTuple):
    """What is opened for comparing, and serves mending as well."""

    throttle: Throttle
    sink: GenesysSink
    history: KafkaHistory
    source: SourceTopics


async def reconcile(settings: Settings, *, apply: bool, delete_extra: bool) -> Report:
    """Compare the contact list with what was delivered.

    Args:
        settings: As for a consumer.
        apply: Whether the list is brought into step.
        delete_extra: Whether that deletes what is too many.

    Raises:
        ConsumerError: It cannot be done, or not now.
    """
    if delete_extra and settings.forgets:
        raise FatalError(
            "--delete-extra would delete contacts that STATE_RETENTION_DAYS has forgotten: "
            "they cannot be told from those that were never delivered"
        )
    async with AsyncExitStack() as closing:
        parts = await _opened_parts(settings if apply else replace(settings, genesys_dnc_list=None), closing)
        reconciliation = _reconciliation(settings, parts, closing)
        if not apply:
            return await reconciliation.run(None)
        topics = await _opened_topics(settings, closing)
        return await reconciliation.run(_mender(settings, parts, topics, delete_extra=delete_extra))


async def _opened_parts(settings: Settings, closing: AsyncExitStack) -> _Parts:
    throttle = Throttle(settings.genesys_requests_per_minute)
    sink = await GenesysSink.open(
        settings, on_request=lambda *_: None, tracer=NoOpTracer(), throttle=throttle, create=False
    )
    closing.push_async_callback(sink.close)
    history = KafkaHistory(Connection.of(settings), settings)
    schemas = opened(settings)
    closing.push_async_callback(schemas.close)
    source = SourceTopics(
        history,
        schemas,
        form=by_topic({topic: form_of(topic, settings) for topic in settings.kafka_source_topics}),
        framed_keys=[
            topic for topic in settings.kafka_source_topics if settings.source_key.of(topic) is not KeyFormat.STRING
        ],
        envelopes=envelopes_of(settings),
        contact_list_id=sink.contact_list_id,
        columns=settings.genesys_attribute_columns,
    )
    return _Parts(throttle, sink, history, source)


def _reconciliation(settings: Settings, parts: _Parts, closing: AsyncExitStack) -> Reconciliation:
    return Reconciliation(
        history=parts.history,
        source=parts.source,
        store=_scratch(settings.state_dir, closing),
        export=parts.sink.export,
        contact_list_id=parts.sink.contact_list_id,
        attribute_columns=[column for _, column in settings.genesys_attribute_columns],
        key=secrets.token_bytes(DIGEST_KEY_BYTES),
    )


def _mender(settings: Settings, parts: _Parts, topics: KafkaEventTopics, *, delete_extra: bool) -> Mender:
    return Mender(
        sink=parts.sink,
        source=parts.source,
        history=parts.history,
        topics=topics,
        auditor=Auditor(parts.sink.contact_list_id, b""),  # batch events name nobody
        gate=Gate(parts.throttle, ONE_AT_A_TIME, settings.batch_max_records),
        group=settings.kafka_group_id,
        delete_extra=delete_extra,
        times=time_and_chance(),
    )


async def _opened_topics(settings: Settings, closing: AsyncExitStack) -> KafkaEventTopics:
    """The event topics, for single audit events, which need no transaction."""

    async def commit(_: Sequence[NativePartition]) -> None:
        """There are no offsets."""

    def metadata(_: Collection[TopicPartition]) -> GroupMember:
        return GroupMember(None, frozenset(), {})

    topics = KafkaEventTopics(
        Connection.of(settings),
        replace(settings, kafka_guarantee="at_least_once"),
        transactional_id="",
        group_metadata=metadata,
        commit=commit,
    )
    closing.push_async_callback(topics.close)
    await topics.open()
    return topics


def _scratch(state_dir: Path, closing: AsyncExitStack) -> RocksStore:
    with file_errors():
        state_dir.mkdir(parents=True, exist_ok=True)
        directory = closing.enter_context(tempfile.TemporaryDirectory(prefix=".reconcile-", dir=state_dir))
    store = RocksStore(Path(directory), "reconcile")
    closing.push_async_callback(store.close_all)
    return store
