"""Puts a story on a real topic; brings what is left on the topics and in the list into a `World`, for the checker."""

import time
from collections.abc import Callable, Mapping
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

from consumer.model import Record, TopicPartition
from tests.kafka_clients import QUIET
from tests.memory_ports import World

TRANSACTIONS_END_WITHIN_S = 60.0
"""A producer that is gone for good leaves its transaction to the brokers, which look every ten seconds."""

COORDINATED_WITHIN_S = 60.0
"""Until a group whose coordinator died has another one."""


def produce(producer: Producer, record: Record) -> None:
    """Queue a record where it belongs; wait for room."""
    while True:
        try:
            producer.produce(record.topic, record.value, record.key, record.partition, timestamp=record.timestamp_ms)
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

    def letter(message: Message) -> None:
        headers: dict[str, bytes] = dict(message.headers() or ())  # type: ignore[arg-type]
        topic, partition, offset = headers["dead-letter.source"].decode().rsplit("/", 2)
        original = world.log[TopicPartition(topic, int(partition))][int(offset)]
        record = replace(original, key=message.key(), value=message.value())
        world.dead_letters.append((record, headers["dead-letter.reason"].decode()))

    read(bootstrap, audit_topic, messages.append)
    world.audit = sorted(((m.key() or b"", m.value() or b"") for m in messages), key=_by_chain)
    read(bootstrap, dead_letter_topic, letter)
    world.committed = _committed_at_last(bootstrap, group, list(world.log))
    for contact in contacts.values():
        data = contact["data"]
        world.list[data["external_id"]] = {"phone": data["phone_number"], "callable": contact["callable"]}
    return messages


def _by_chain(event: tuple[bytes, bytes]) -> tuple[int, int]:
    """The audit topic has the order of its keys; the chain has that of the source."""
    body = orjson.loads(event[1])
    return (body["source"]["partition"], body["seq"]) if body["type"] == "record" else (-1, 0)
