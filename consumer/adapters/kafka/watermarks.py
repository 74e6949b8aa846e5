"""First and last offsets of partitions, and which there are.

Answers for: asking the brokers, which takes as long as they do. An admin client that does not know who leads a
partition asks again only after three seconds when it was not connected yet; so the leaders are asked for first. Where a
broker dies meanwhile the library may tell of success and have no offset; that is a failure here, since whoever took it
for an offset would begin anew at the first one.
"""

from collections.abc import Collection, Iterable
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

from consumer.adapters.kafka.connection import native, of_native
from consumer.model import TopicPartition

OFFSETS_WITHIN_S = 5.0

Offsets = dict[TopicPartition, int]
_Answers = dict[TopicPartition, "Future[ListOffsetsResultInfo]"]


def know_leaders(admin: AdminClient, partitions: Collection[TopicPartition]) -> None:
    """Have the client connected, and know who leads the partitions.

    Raises:
        KafkaException: No broker answers.
    """
    for topic in {partition.topic for partition in partitions}:
        admin.list_topics(topic, timeout=OFFSETS_WITHIN_S)


def partitions_of(admin: AdminClient, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of topics.

    Raises:
        KafkaException: No broker answers.
    """
    known = {topic: admin.list_topics(topic, timeout=OFFSETS_WITHIN_S).topics[topic] for topic in topics}
    return [TopicPartition(topic, number) for topic, metadata in known.items() for number in metadata.partitions]


def low_and_high(admin: AdminClient, partitions: Collection[TopicPartition]) -> tuple[Offsets, Offsets]:
    """First offsets that the partitions still have, and their ends, open transactions included.

    Raises:
        KafkaException: One of them cannot be had.
    """
    low, high = _ask_both(admin, partitions)
    return _offsets(low), _offsets(high)


def told_low_and_high(admin: AdminClient, partitions: Collection[TopicPartition]) -> tuple[Offsets, Offsets]:
    """As `low_and_high`, of those partitions of which they can be had now: one without a leader keeps nobody else.

    Raises:
        KafkaException: None can be had.
    """
    low, high = _ask_both(admin, partitions)
    return _told(low), _told(high)


def stable_ends(admin: AdminClient, partitions: Collection[TopicPartition]) -> Offsets:
    """Ends of the partitions, open transactions left out.

    Raises:
        KafkaException: One of them cannot be had.
    """
    return _offsets(_ask(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED))  # type: ignore[no-untyped-call]


def open_ends(admin: AdminClient, partitions: Collection[TopicPartition]) -> Offsets:
    """Ends of the partitions, open transactions included.

    Raises:
        KafkaException: One of them cannot be had.
    """
    return _offsets(_ask_open_ends(admin, partitions))


def first_since(admin: AdminClient, partitions: Collection[TopicPartition], since_ms: int) -> Offsets:
    """Offsets of the first records that are not older; -1 where there is none.

    Raises:
        KafkaException: One of them cannot be had.
    """
    spec = OffsetSpec.for_timestamp(since_ms)
    return _offsets(_ask(admin, partitions, spec, IsolationLevel.READ_UNCOMMITTED))


def _ask_both(admin: AdminClient, partitions: Collection[TopicPartition]) -> tuple[_Answers, _Answers]:
    """Ask for first offsets and for ends, one right after the other."""
    know_leaders(admin, partitions)
    low = _ask(admin, partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]
    return low, _ask_open_ends(admin, partitions)


def _ask_open_ends(admin: AdminClient, partitions: Collection[TopicPartition]) -> _Answers:
    return _ask(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]


def _ask(
    admin: AdminClient, partitions: Collection[TopicPartition], which: OffsetSpec, isolation: IsolationLevel
) -> _Answers:
    asked = {native(partition): which for partition in partitions}
    answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=OFFSETS_WITHIN_S)
    return {of_native(partition): future for partition, future in answers.items()}


def _told(answers: _Answers) -> Offsets:
    offsets: Offsets = {}
    untold: KafkaException | None = None
    for partition, future in answers.items():
        try:
            offsets |= _offsets({partition: future})
        except KafkaException as failure:
            untold = failure
    if untold is not None and not offsets:
        raise untold
    return offsets


def _offsets(answers: _Answers) -> Offsets:
    offsets = {partition: future.result().offset for partition, future in answers.items()}
    if untold := [str(partition) for partition, offset in offsets.items() if offset == OFFSET_INVALID]:
        raise KafkaException(KafkaError(KafkaError._PARTIAL, f"no offset came for {', '.join(untold)}"))  # noqa: SLF001 -- public
    return offsets
