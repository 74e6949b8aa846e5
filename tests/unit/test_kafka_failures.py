"""What an error of the Kafka library is taken for."""

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from consumer.adapters.kafka.failures import error_of, fatal_error, is_of_names, policy
from consumer.errors import FatalError


class Aborting:
    """A producer whose abort fails in this way."""

    def __init__(self, error: KafkaError) -> None:
        self._error = error

    def abort_transaction(self, _: float) -> None:
        raise KafkaException(self._error)


def test_a_fatal_error_is_asked_for_and_nothing_else_is_taken_for_it() -> None:
    """The abort of a transaction that is being committed is refused, which says nothing of the error that was lost."""
    lost = SystemError("a callback raised")
    fenced = KafkaError(KafkaError._FENCED, "told again", True)
    assert fatal_error(Aborting(fenced), lost).code() == KafkaError._FENCED  # type: ignore[arg-type]
    told = fatal_error(Aborting(KafkaError(KafkaError._CONFLICT)), lost)  # type: ignore[arg-type]
    assert (told.code(), told.fatal()) == (KafkaError._FATAL, True)


@pytest.mark.parametrize("names", [{"group.id": "k\u00e4"}, {"group.id": "g", "group.instance.id": "pod-1\n"}], ids=str)
def test_names_under_which_nothing_is_settled_are_known(names: dict[str, object]) -> None:
    """The library has one code for that and for a broker's answer that is garbled, which may be another next time."""
    nobody = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    consumer, producer = Consumer({**nobody, **names}), Producer({**nobody, "transactional.id": "t"})
    with pytest.raises(KafkaException) as caught:
        producer.send_offsets_to_transaction([TopicPartition("t", 0, 1)], consumer.consumer_group_metadata(), 1.0)
    consumer.close()
    assert is_of_names(error_of(caught.value))
    assert not is_of_names(KafkaError(KafkaError._BAD_MSG, "a garbled answer", False, False, True))
    assert not is_of_names(KafkaError(KafkaError._TRANSPORT))


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    ],
)
def test_what_a_missing_acl_leads_to_says_who_names_it(code: int) -> None:
    """The last line of a process has Kafka's name for it, which tells nobody what to allow."""
    assert "`genesys-consumer check` names the ACL" in str(policy(KafkaError(code), "cannot settle"))


def test_brokers_that_take_no_topic_id_beside_an_offset_end_the_process() -> None:
    """Nothing would ever be settled, and contacts would be sent all the while."""
    told = policy(KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE), "cannot settle")
    assert isinstance(told, FatalError)
    assert "offset.metadata.max.bytes" in str(told)


def test_a_static_name_that_another_process_took_is_told_once_with_the_remedy() -> None:
    """The library says it twice, and not what to do."""
    fenced = "Broker: Static consumer fenced by other consumer with same group.instance.id"
    error = KafkaError(KafkaError._FATAL, f"Fatal error: {fenced}: Fatal consumer error: {fenced}")
    told = policy(error, "the group consumer failed")
    assert isinstance(told, FatalError)
    assert str(told) == (
        f"the group consumer failed: FENCED_INSTANCE_ID: {fenced} "
        "(another instance took over: give each a KAFKA_GROUP_INSTANCE_ID of its own)"
    )
    other = policy(KafkaError(KafkaError._FATAL, "Fatal error: something else"), "the group consumer failed")
    assert str(other) == "the group consumer failed: _FATAL: Fatal error: something else"
