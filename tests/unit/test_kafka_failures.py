"""What an error of the Kafka library is taken for."""

from confluent_kafka import KafkaError, KafkaException

from consumer.adapters.kafka.failures import fatal_error


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
