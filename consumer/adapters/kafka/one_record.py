"""Reads a single record of a topic, for whoever wants to look at it.

Answers for: the record at an offset, or why there is none. Touches the topic; it joins no group and commits nothing.
"""

from confluent_kafka import KafkaException, Message

from consumer.adapters.kafka.connection import Connection, native
from consumer.adapters.kafka.failures import error_of, policy
from consumer.errors import FatalError, SourceUnavailable
from consumer.model import Record, TopicPartition

WAIT_S = 15.0


def read_one(connection: Connection, partition: TopicPartition, offset: int) -> Record:
    """The record at an offset.

    Raises:
        FatalError: There is none, no longer or not yet.
        TransientError: The brokers cannot tell now.
    """
    consumer = connection.consumer(
        {}, {"group.id": "genesys-consumer-look", "enable.auto.commit": False, "auto.offset.reset": "error"}
    )
    try:
        consumer.assign([native(partition, offset)])
        message = consumer.poll(WAIT_S)
    except KafkaException as failure:
        raise policy(error_of(failure), "cannot read the record") from None
    finally:
        consumer.close()
    if message is None:
        raise SourceUnavailable(f"no record came within {WAIT_S:.0f} s: is {offset} the end, do the brokers answer?")
    return _record(message, partition, offset)


def _record(message: Message, partition: TopicPartition, offset: int) -> Record:
    error = message.error()
    if error is not None:
        raise policy(error, "cannot read the record")
    if message.offset() != offset:
        raise FatalError(f"there is no record at {offset}; the next one is at {message.offset()}")
    _, moment = message.timestamp()
    headers = message.headers() or ()
    return Record(*partition, offset, moment, message.key(), message.value(), headers)  # type: ignore[arg-type]  # the stubs allow str
