"""The job in faust-streaming: an agent that takes batches, and a table on RocksDB.

Reads and writes Kafka and the table through the library; sends contacts with aiohttp.
"""

import asyncio
import weakref
from collections.abc import Sequence
from typing import Any

import faust
import orjson
from faust.serializers import codecs
from faust.streams import _current_event

from bench.peers import job
from bench.peers.posts import Posts

PARTITIONS = 4
LIBRDKAFKA_BATCH_BYTES = 1_000_000
"""What the others' client gathers for a partition at the most."""


class _Avro(codecs.Codec):
    """Confluent's wire format."""

    def _loads(self, value: bytes) -> job.Change:
        return job.decoded(value)


codecs.register("contact_change", _Avro())

task = job.Task.of_environ()
app = faust.App(
    task.group,
    broker=f"kafka://{task.bootstrap}",
    store="rocksdb://",
    datadir=str(task.state),
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    web_enabled=False,
    producer_linger=job.LINGER_MS / 1000,
    producer_max_batch_size=LIBRDKAFKA_BATCH_BYTES,
)
changes = app.topic(task.source, key_type=bytes, value_serializer="contact_change")
audit = app.topic(task.audit, key_type=bytes, value_type=bytes, value_serializer="raw")
seen = app.Table("seen", key_type=bytes, value_type=bytes, partitions=PARTITIONS)


@app.agent(changes)
async def deliver(stream: Any) -> None:
    """Offsets may be committed when the body of the loop is through."""
    posts = Posts(task)
    async for events in stream.take_events(job.AT_A_TIME, within=task.linger_s):
        records = _judged(events)
        await posts.deliver(job.latest(records))
        _remember(events, records)
        await asyncio.gather(*[await _tell(each) for each in records])


def _judged(events: Sequence[Any]) -> list[job.Judged]:
    """Each record compared with the table and with those before it in the batch."""
    records, pending = [], dict[bytes, bytes]()
    for event in events:
        _at(event)
        each = job.judged(event.message.partition, event.message.offset, event.value)
        if not each.reasons:
            if (pending.get(each.identity) or seen.get(each.identity)) == each.fingerprint:
                each.outcome = "duplicate"
            pending[each.identity] = each.fingerprint
        records.append(each)
    return records


def _remember(events: Sequence[Any], records: Sequence[job.Judged]) -> None:
    for event, each in zip(events, records, strict=True):
        if each.outcome == "delivered":
            _at(event)
            seen[each.identity] = each.fingerprint


def _at(event: Any) -> None:
    """A table finds its partition by the event at hand, which there is none of in a batch (faust-streaming#497)."""
    _current_event.set(weakref.ref(event))


async def _tell(each: job.Judged) -> Any:
    event = job.audit_event(each, task.source)
    return await audit.send(key=event["contactRef"].encode(), value=orjson.dumps(event))


if __name__ == "__main__":
    app.main()
