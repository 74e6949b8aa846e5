"""First and last offsets of partitions, asked without waiting.

Answers for: asking the brokers. An admin client must outlive the futures that are got with it.
"""

from collections.abc import Iterable
from concurrent.futures import Future

from confluent_kafka import IsolationLevel
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, but not in the stubs' __all__
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
)

from consumer.adapters.kafka.connection import native, of_native
from consumer.model import TopicPartition

ANSWER_WITHIN_S = 5.0

Answers = dict[TopicPartition, "Future[ListOffsetsResultInfo]"]


def ask_low(admin: AdminClient, partitions: Iterable[TopicPartition]) -> Answers:
    """First offsets that the partitions still have."""
    return _ask(admin, partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]


def ask_high(admin: AdminClient, partitions: Iterable[TopicPartition]) -> Answers:
    """Ends of the partitions, open transactions included."""
    return _ask(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]


def ask_stable(admin: AdminClient, partitions: Iterable[TopicPartition]) -> Answers:
    """Ends of the partitions, open transactions left out."""
    return _ask(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]


def offsets(answers: Answers) -> dict[TopicPartition, int]:
    """The offsets, waiting for them.

    Raises:
        KafkaException: One of them cannot be had.
    """
    return {partition: future.result().offset for partition, future in answers.items()}


def _ask(
    admin: AdminClient, partitions: Iterable[TopicPartition], which: OffsetSpec, isolation: IsolationLevel
) -> Answers:
    asked = {native(partition): which for partition in partitions}
    answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_WITHIN_S)
    return {of_native(partition): future for partition, future in answers.items()}
