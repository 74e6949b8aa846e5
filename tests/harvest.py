"""Puts a story on a real topic; brings what is left on topics, on disks and in the list to the checker."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition as Native,
)
from msgspec.structs import replace
from rocksdict import Cache, Rdict

from consumer.adapters.dedupe_store.database import CACHE_BYTES, MARKER, POSITION_KEY, rocks_options
from consumer.model import Record, TopicPartition
from tests.kafka_clients import QUIET
from tests.memory_ports import World

TRANSACTIONS_END_WITHIN_S = 60.0
"""A producer that is gone for good leaves its transaction to the brokers, which look every ten seconds."""

OURS = "dead-letter."
"""What the names of headers begin with that the program adds to a dead letter."""

COORDINATED_WITHIN_S = 60.0
"""Until a group whose coordinator died has another one."""


def produce(producer: Producer, record: Record) -> None:
    """Queue a record where it belongs; wait for room."""
    while True:
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                timestamp=record.timestamp_ms,
                headers=list(record.headers),
            )
        except BufferError:
            producer.poll(0.1)
        else:
            return


def producer(bootstrap: str) -> Producer:
    """One that takes the largest records of a story, and keeps their order while brokers die."""
    own = {"message.max.bytes": 1_100_000, "linger.ms": 20, "enable.idempotence": True}
    return Producer({"bootstrap.servers": bootstrap, **own, **QUIET})


def read(bootstrap: str, topic: str, take: Callable[[Message], None]) -> None:
    """Read a topic as a committed reader does, to its end: a transaction that is still open is waited for."""
    consumer = _reader(bootstrap, "read_committed")
    ends = _ends(bootstrap, topic)
    consumer.assign([Native(topic, number, 0) for number in ends])
    deadline = time.monotonic() + TRANSACTIONS_END_WITHIN_S
    while ends:
        assert time.monotonic() < deadline, f"{topic} is held up by a transaction that does not end: {ends}"
        for message in consumer.consume(5000, 1.0):
            error = message.error()
            if error is None:
                take(message)
                continue
            assert error.code() == KafkaError._PARTITION_EOF
            if (message.offset() or 0) >= ends.get(message.partition() or 0, 0):
                ends.pop(message.partition() or 0, None)
    consumer.close()


def _ends(bootstrap: str, topic: str) -> dict[int, int]:
    """Where the partitions end, open transactions included."""
    consumer = _reader(bootstrap, "read_uncommitted")
    ends: dict[int, int] = {}
    for number in consumer.list_topics(topic).topics[topic].partitions:
        bounds = consumer.get_watermark_offsets(Native(topic, number), 10)
        assert bounds is not None, f"no broker tells where {topic} ends"
        ends[number] = bounds[1]
    consumer.close()
    return ends


def _reader(bootstrap: str, isolation: str) -> Consumer:
    own = {"group.id": "reader", "isolation.level": isolation, "enable.partition.eof": True}
    return Consumer({"bootstrap.servers": bootstrap, **own, **QUIET})


def asking(bootstrap: str, group: str) -> Consumer:
    """A consumer that joins nothing, and may ask what the group has committed."""
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, **QUIET})


def committed(consumer: Consumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Committed offsets of the consumer's group."""
    found = consumer.committed([Native(*key) for key in partitions], 10)
    return {TopicPartition(each.topic, each.partition): each.offset for each in found}


def _committed_at_last(bootstrap: str, group: str, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Committed offsets, asked for until a coordinator answers: the last one may have just died."""
    give_up = time.monotonic() + COORDINATED_WITHIN_S
    while True:
        try:
            return committed(asking(bootstrap, group), partitions)
        except KafkaException:
            if time.monotonic() > give_up:
                raise


def harvest(
    world: World,
    *,
    bootstrap: str,
    group: str,
    audit_topic: str,
    dead_letter_topic: str,
    contacts: Mapping[str, Mapping[str, Any]],
) -> list[Message]:
    """Bring everything into the world.

    Args:
        world: Holds the source records already.
        bootstrap: Of the brokers.
        group: Whose offsets.
        audit_topic: Its name.
        dead_letter_topic: Its name.
        contacts: What the simulator shows of the list.

    Returns:
        The messages of the audit topic.
    """
    messages: list[Message] = []
    read(bootstrap, audit_topic, messages.append)
    world.audit = sorted(((m.key() or b"", m.value() or b"") for m in messages), key=_by_chain)
    read(bootstrap, dead_letter_topic, lambda message: world.dead_letters.append(letter(message, world.log)))
    world.committed = _committed_at_last(bootstrap, group, list(world.log))
    for contact in contacts.values():
        data = contact["data"]
        world.list[data["external_id"]] = {"phone": data["phone_number"], "callable": contact["callable"]}
    return messages


def changelogs(world: World, *, bootstrap: str, topic: str) -> dict[TopicPartition, list[int]]:
    """Bring what the changelog topic holds of each source partition into the world; the offsets of these entries."""
    offsets: dict[TopicPartition, list[int]] = {key: [] for key in world.log}

    def take(message: Message) -> None:
        source, _, name = (message.key() or b"").partition(b"\0")
        key = TopicPartition(source.decode(), message.partition() or 0)
        world.changelog[key].append((name, message.value()))
        offsets[key].append(message.offset() or 0)

    read(bootstrap, topic, take)
    return offsets


def stores(
    state_dir: Path, offsets: Mapping[TopicPartition, Sequence[int]]
) -> Iterator[tuple[TopicPartition, dict[bytes, bytes], int]]:
    """The stores in a state directory that no process uses any more.

    Args:
        state_dir: Of a member of the group.
        offsets: Of the entries of each changelog.

    Returns:
        The source partition of each, what it holds, and how many entries of the changelog it has seen. What the program
        would not open is left out: it makes such a store anew.
    """
    for key, known in offsets.items():
        directory = state_dir / key.topic / str(key.partition)
        db = _opened(directory / "db") if (directory / MARKER).exists() else None
        if db is not None:
            with closing(db):
                held = dict(_entries(db))
            position = int.from_bytes(held.pop(POSITION_KEY)[-8:])
            yield key, held, bisect_left(known, position)


def _opened(directory: Path) -> Rdict | None:
    try:
        return Rdict(str(directory), rocks_options(Cache(CACHE_BYTES), create=False))
    except Exception:  # noqa: BLE001 -- all that rocksdict raises
        return None


def _entries(db: Rdict) -> Iterator[tuple[bytes, bytes]]:
    cursor = db.iter()
    cursor.seek_to_first()
    while cursor.valid():
        yield bytes(cursor.key()), bytes(cursor.value())
        cursor.next()
    cursor.status()


def letter(message: Message, log: Mapping[TopicPartition, Sequence[Record]]) -> tuple[Record, str]:
    """The record that a dead letter carries, where it says that it stood, and its reason.

    Args:
        message: Of the dead letter topic.
        log: Where the place of a record is looked up: of it, a dead letter has bytes and headers only.
    """
    headers: Sequence[tuple[str, bytes]] = message.headers() or ()  # type: ignore[assignment]
    ours = {name: value.decode() for name, value in headers if name.startswith(OURS)}
    topic, partition, offset = ours["dead-letter.source"].rsplit("/", 2)
    original = log[TopicPartition(topic, int(partition))][int(offset)]
    theirs = tuple(header for header in headers if not header[0].startswith(OURS))
    record = replace(original, key=message.key(), value=message.value(), headers=theirs)
    return record, ours["dead-letter.reason"]


def _by_chain(event: tuple[bytes, bytes]) -> tuple[int, int]:
    """The audit topic has the order of its keys; the chain has that of the source."""
    body = orjson.loads(event[1])
    return (body["source"]["partition"], body["seq"]) if body["type"] == "record" else (-1, 0)
