"""What a consumer of the library hands over: messages, their headers, and the records that they are.

Answers for: whatever has come, waiting for more only if told to; a record whatever its headers are called. Touches the
consumer that it is given.
"""

import structlog
from confluent_kafka import Consumer, Message

from consumer.model import Headers, Record, TopicPartition

_log = structlog.get_logger(__name__)


def polled(consumer: Consumer, wait_s: float, most: int, company_s: float = 0.0) -> list[Message]:
    """At most so many messages; none when none comes within the wait.

    `poll` returns with the first one; `consume` alone would always wait for its whole time.

    Args:
        consumer: To be polled.
        wait_s: For the first one.
        most: Of them.
        company_s: How long the first one waits for others, unless so many are there.
    """
    first = consumer.poll(wait_s)
    return [] if first is None else [first, *consumer.consume(most - 1, company_s)]


def headers_of(message: Message) -> Headers:
    """The headers as they came. A name that is not UTF-8 breaks the library's conversion of all of them.

    To be asked once for a message: after such a name the library has something for them that nobody may look at.
    """
    try:
        return message.headers() or ()  # type: ignore[return-value]  # the stubs allow a dict, as producers may pass
    except (SystemError, UnicodeDecodeError):
        place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        _log.warning("headers_unreadable", **place)
        return ()


def record_of(message: Message, partition: TopicPartition) -> Record:
    """The record that a message without an error is; to be asked once, as its headers."""
    offset, moment = message.offset(), message.timestamp()[1]
    headers = headers_of(message)
    return Record(*partition, offset, moment, message.key(), message.value(), headers)  # type: ignore[arg-type]  # a record has an offset
