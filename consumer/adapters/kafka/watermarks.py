"""First and last offsets of partitions.

Answers for: asking the brokers, which takes as long as they do. An admin client that does not know who leads a
partition asks again only after three seconds when it was not connected yet; so the leaders are asked for first. Where a
broker dies meanwhile the library may tell of success and have no offset; that is a failure here, since whoever took it
for an offset would begin anew at the first one.
"""

from collections.abc import Collection
from concurrent.futures import Future

from confluent_kafka import (
    OFFSET_INVALID,
    IsolationLevel,
    KafkaError,
    KafkaException,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, but not in the stubs' __all__
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
)

from consumer.adapters.kafka.connection import Connection, native, of_native, patiently
from consumer.model import TopicPartition

ANSWER_WITHIN_S = 5.0

Offsets = dict[TopicPartition, int]
_Answers = dict[TopicPartition, "Future[ListOffsetsResultInfo]"]


def know_leaders(admin: AdminClient, partitions: Collection[TopicPartition]) -> None:
    """Have the client connected, and know who leads the partitions.

    Raises:
        KafkaException: No broker answers.
    """
    for topic in {partition.topic for partition in partitions}:
        admin.list_topics(topic, timeout=ANSWER_WITHIN_S)


def low_and_high(admin: AdminClient, partitions: Collection[TopicPartition]) -> tuple[Offsets, Offsets]:
    """First offsets that the partitions still have, and their ends, open transactions included.

    Raises:
        KafkaException: One of them cannot be had.
    """
    know_leaders(admin, partitions)
    low = _ask(admin, partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]
    high = _ask(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]
    return _offsets(low), _offsets(high)


def stable_ends(admin: AdminClient, partitions: Collection[TopicPartition]) -> Offsets:
    """Ends of the partitions, open transactions left out.

    Raises:
        KafkaException: One of them cannot be had.
    """
    return _offsets(_ask(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED))  # type: ignore[no-untyped-call]


def first_since(admin: AdminClient, partitions: Collection[TopicPartition], since_ms: int) -> Offsets:
    """Offsets of the first records that are not older; -1 where there is none.

    Raises:
        KafkaException: One of them cannot be had.
    """
    spec = OffsetSpec.for_timestamp(since_ms)
    return _offsets(_ask(admin, partitions, spec, IsolationLevel.READ_UNCOMMITTED))


def committed(connection: Connection, group_id: str, partitions: Collection[TopicPartition]) -> Offsets:
    """Committed offsets of a group; partitions without one are left out.

    A consumer asks, which joins nothing: an admin client of the library falls over a null pointer, and the process with
    it, when the group's coordinator is just moving.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: They refuse.
    """
    own = {"group.id": group_id, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
    consumer = connection.consumer({}, own)
    asked = [native(partition) for partition in partitions]
    try:
        answers = patiently(lambda: consumer.committed(asked, ANSWER_WITHIN_S), "cannot ask for the group's offsets")
    finally:
        consumer.close()
    return {of_native(each): each.offset for each in answers if each.offset >= 0}


def _ask(
    admin: AdminClient, partitions: Collection[TopicPartition], which: OffsetSpec, isolation: IsolationLevel
) -> _Answers:
    asked = {native(partition): which for partition in partitions}
    answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_WITHIN_S)
    return {of_native(partition): future for partition, future in answers.items()}


def _offsets(answers: _Answers) -> Offsets:
    offsets = {partition: future.result().offset for partition, future in answers.items()}
    if untold := [f"{topic}/{number}" for (topic, number), offset in offsets.items() if offset == OFFSET_INVALID]:
        raise KafkaException(KafkaError(KafkaError._PARTIAL, f"no offset came for {', '.join(untold)}"))  # noqa: SLF001 -- public
    return offsets
