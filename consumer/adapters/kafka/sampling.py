"""The newest records of a topic, by which it shows how it is filled, before a first fill, and whether it can be read.

Answers for: the newest ones of each partition, and no more of them at a time than are asked for. Touches the brokers;
joins no group and commits nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import closing
from itertools import islice

from consumer.adapters.kafka.bounded import BoundedReader, Span, Spans, spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.messages import record_of
from consumer.adapters.kafka.watermarks import stable_ends
from consumer.adapters.worker import Worker
from consumer.model import Record, TopicPartition

PER_PARTITION = 200
"""The newest records of each partition: an older one may be of a time when the topic had fewer partitions."""

AT_ONCE = 500


async def newest_records(
    connection: Connection, group_id: str, topic: str, each: int = PER_PARTITION
) -> AsyncIterator[Sequence[Record]]:
    """The newest records of a topic, some at a time.

    Args:
        connection: To the brokers.
        group_id: The library asks for one; nothing is joined or committed.
        topic: Must exist.
        each: How many offsets of each partition are looked at; what ends a transaction has one, and is no record.

    Raises:
        TransientError: The brokers cannot tell now.
        FatalError: They never will.
    """
    worker, portions = Worker("kafka-sampling"), _portions(connection, group_id, topic, each)
    try:
        while some := await asyncio.wrap_future(worker.submit(lambda: next(portions, None))):
            yield some
    finally:
        worker.submit(portions.close)
        worker.stop()


def _portions(connection: Connection, group_id: str, topic: str, each: int) -> Generator[Sequence[Record], None, None]:
    with closing(BoundedReader(connection, group_id, _newest(Admin(connection), topic, each))) as reader:
        messages = iter(reader)
        while some := list(islice(messages, AT_ONCE)):
            yield [record_of(message, TopicPartition(topic, message.partition() or 0)) for message in some]


def _newest(admin: Admin, topic: str, each: int) -> Spans:
    """The last offsets of each partition, behind which a transaction may be open: nobody waits for its end."""
    wanted = spans(admin, topic)
    ends = admin.answer(lambda client: stable_ends(client, wanted), f"cannot ask where {topic} ends")
    return {key: Span(max(span.first, ends[key] - each), ends[key]) for key, span in wanted.items()}
