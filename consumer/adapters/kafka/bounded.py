"""Reads topics from where they begin, or from a moment, to the end that they have now.

Answers for: every committed record up to that end, also of a transaction that is open when the reading begins, and none
of an aborted one; in the order of the partitions, and across partitions nearly in the order of time; constant memory.
Touches the topics that it is told to read; it joins no group and commits nothing. Every call blocks.
"""

import heapq
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka.connection import Admin, Connection, native
from consumer.adapters.kafka.failures import is_beside_reading, is_hopeless, policy, reading_policy
from consumer.adapters.kafka.messages import polled
from consumer.adapters.kafka.watermarks import OFFSETS_WITHIN_S, first_since, low_and_high
from consumer.errors import FatalError, SourceUnavailable
from consumer.model import TopicPartition

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

POLL_S = 0.2
POLL_RECORDS = 1_000
SILENCE_S = 90.0
"""Longer than a transaction of a dead producer stays open."""

HELD_BYTES, HELD_RECORDS = 4_000_000, 10_000
"""A partition is not read on while so much of it waits for older records of others."""

DEFAULTS = {
    "fetch.message.max.bytes": 1_048_576,
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 8_192,
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 50,  # the end is known one empty fetch after the last record
}


class Span(NamedTuple):
    """A stretch of a partition: the first offset, and the one after the last."""

    first: int
    end: int


Spans = Mapping[TopicPartition, Span]


def spans(admin: Admin, topic: str, since_ms: int | None = None) -> dict[TopicPartition, Span]:
    """All that the partitions of a topic have now, from a moment on if one is given.

    Args:
        admin: Asked.
        topic: Must exist.
        since_ms: Milliseconds since the epoch; older records are left out.

    Raises:
        SourceUnavailable: The brokers cannot tell now.
        FatalError: There is no such topic, or it may not be read.
    """
    return admin.answer(lambda client: _spans(client, topic, since_ms), f"cannot ask where {topic} begins and ends")


def _spans(client: AdminClient, topic: str, since_ms: int | None) -> dict[TopicPartition, Span]:
    known = client.list_topics(topic, timeout=OFFSETS_WITHIN_S).topics[topic]
    partitions = [TopicPartition(topic, number) for number in known.partitions]
    if not partitions:
        raise FatalError(f"there is no topic {topic}, or it may not be described: Read on it allows both")
    low, high = low_and_high(client, partitions)
    since = {} if since_ms is None else first_since(client, partitions, since_ms)
    begin = {key: high[key] if offset < 0 else offset for key, offset in since.items()}
    return {key: Span(begin.get(key, low[key]), high[key]) for key in partitions}


class BoundedReader:
    """Reads stretches of partitions, once. Close it at the end.

    Args:
        connection: To the brokers.
        group_id: The library asks for one; nothing is joined or committed.
        wanted: What to read.
    """

    def __init__(self, connection: Connection, group_id: str, wanted: Spans) -> None:
        self._parts = {key: _Part(span) for key, span in wanted.items() if span.first < span.end}
        self._heard = time.monotonic()
        self._consumer = connection.reader(DEFAULTS, group_id)
        self._consumer.assign([native(key, part.position) for key, part in self._parts.items()])

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()

    def __iter__(self) -> Iterator[Message]:
        """The records.

        Raises:
            SourceUnavailable: The brokers do not answer, or retention removes what is being read.
            FatalError: They refuse.
        """
        return heapq.merge(*(self._of(key, part) for key, part in self._parts.items()), key=_timestamp)

    def _of(self, key: TopicPartition, part: "_Part") -> Iterator[Message]:
        while True:
            while part.waiting:
                yield part.pop()
            if part.finished:
                return
            if part.held_back:
                self._go_on(key, part)
            self._fetch()

    def _fetch(self) -> None:
        """Take what has come, of whichever partition."""
        came = polled(self._consumer, POLL_S, POLL_RECORDS)
        messages = [message for message in came if not is_beside_reading(message)]
        for message in messages:
            self._take(message)
        self._watch(heard=bool(messages))
        for key, part in self._parts.items():
            if not part.held_back and (part.finished or part.is_full):
                part.held_back = True
                self._consumer.pause([native(key)])

    def _go_on(self, key: TopicPartition, part: "_Part") -> None:
        """Fetch it again, from where it stopped: without the seek the library takes a second to notice."""
        part.held_back = False
        self._consumer.resume([native(key)])
        self._consumer.seek(native(key, part.position))

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None and not message.topic():
            raise policy(error, "cannot read")  # of the client itself
        part = self._parts[TopicPartition(message.topic() or "", message.partition() or 0)]
        if error is None:
            part.push(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            part.position = max(part.position, message.offset() or 0)  # past control records
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise SourceUnavailable("retention removed records while they were read: run it again")
        elif is_hopeless(error):
            raise reading_policy(error, message.topic() or "")

    def _watch(self, *, heard: bool) -> None:
        now = time.monotonic()
        if heard:
            self._heard = now
        elif now - self._heard > SILENCE_S:
            raise SourceUnavailable(f"no record came for {SILENCE_S:.0f} s: brokers or a hanging transaction")


class _Part:
    """What is known of a partition while it is read.

    Attributes:
        position: The next offset.
        waiting: Records that came before older ones of other partitions.
        held_back: Whether it is not fetched for now.
    """

    def __init__(self, span: Span) -> None:
        self.position, self._end = span
        self.waiting: deque[Message] = deque()
        self.held_back = False
        self._bytes = 0

    @property
    def finished(self) -> bool:
        return self.position >= self._end

    @property
    def is_full(self) -> bool:
        return self._bytes > HELD_BYTES or len(self.waiting) > HELD_RECORDS

    def push(self, message: Message) -> None:
        """Keep a record, unless it was kept before or lies beyond the end."""
        offset = message.offset() or 0
        if self.position <= offset < self._end:
            self.waiting.append(message)
            self._bytes += len(message)
        self.position = max(self.position, offset + 1)

    def pop(self) -> Message:
        message = self.waiting.popleft()
        self._bytes -= len(message)
        return message


def _timestamp(message: Message) -> int:
    return message.timestamp()[1]
