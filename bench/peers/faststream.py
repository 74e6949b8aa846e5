"""The job in FastStream on its Confluent client: batches from a subscriber, and a store on RocksDB written by hand.

Reads and writes Kafka through the library, the store through rocksdict; sends contacts with aiohttp.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from confluent_kafka import Message
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaPublishMessage
from faststream.message import StreamMessage
from rocksdict import Options, Rdict, WriteBatch

from bench.peers import job
from bench.peers.posts import Posts


class _Store:
    """The fingerprint of what was delivered last, by contact."""

    def __init__(self, task: job.Task) -> None:
        self._db = Rdict(str(task.state / "seen"), Options(raw_mode=True))

    def judge(self, records: Sequence[job.Judged]) -> None:
        """Compare each record with the store and with those before it in the batch."""
        valid = [each for each in records if not each.reasons]
        identities: list[Any] = [each.identity for each in valid]
        seen: dict[bytes, Any] = dict(zip(identities, self._db.get(identities) or (), strict=True))
        for each in valid:
            if seen[each.identity] == each.fingerprint:
                each.outcome = "duplicate"
            seen[each.identity] = each.fingerprint

    def remember(self, delivered: Iterable[job.Judged]) -> None:
        batch = WriteBatch(raw_mode=True)
        for each in delivered:
            batch.put(each.identity, each.fingerprint)
        self._db.write(batch)


async def _decode(batch: StreamMessage[tuple[Message, ...]]) -> list[job.Judged]:
    return [
        job.judged(record.partition(), record.offset(), job.decoded(record.value())) for record in batch.raw_message
    ]


def _told(each: job.Judged, topic: str) -> KafkaPublishMessage:
    event = job.audit_event(each, topic)
    return KafkaPublishMessage(orjson.dumps(event), key=event["contactRef"].encode())


async def _run(task: job.Task) -> None:
    broker = KafkaBroker(
        task.bootstrap,
        allow_auto_create_topics=False,
        compression_type=job.COMPRESSION,
        linger_ms=job.LINGER_MS,
        apply_types=False,
        logger=None,
    )
    store, posts = _Store(task), Posts(task)

    @broker.subscriber(
        task.source,
        group_id=task.group,
        auto_offset_reset="earliest",
        batch=True,
        max_records=job.AT_A_TIME,
        polling_interval=task.linger_s,
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=_decode,
    )
    async def handle(records: list[job.Judged]) -> None:
        """Offsets are committed when this returns; an error brings the batch again."""
        store.judge(records)
        changed = job.latest(records)
        await posts.deliver(changed)
        store.remember(changed)
        await broker.publish_batch(*(_told(each, task.source) for each in records), topic=task.audit)

    await FastStream(broker, logger=None, after_shutdown=[posts.close]).run()


if __name__ == "__main__":
    asyncio.run(_run(job.Task.of_environ()))
