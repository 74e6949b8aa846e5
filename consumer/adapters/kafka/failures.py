"""What a Kafka error means to this project: wait and try again, or stop.

Answers for: mapping librdkafka's errors to the project's, once, with texts that hold no secrets. Touches nothing.
"""

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.errors import ConsumerError, FatalError, Rebalancing, SourceUnavailable, Unauthorized

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

CALL_S = 5.0
"""How long a call of a producer may block."""

UNAUTHORIZED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""Credentials are wrong, or an ACL is missing."""

GONE = frozenset({KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART})
"""There is no such topic, or no such partition of it."""

HOPELESS = GONE | frozenset(
    {
        KafkaError._FATAL,  # also where `fatal()` is False, as with a fenced instance id
        KafkaError._FENCED,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.OFFSET_METADATA_TOO_LARGE,
        KafkaError.PRODUCER_FENCED,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.UNRELEASED_INSTANCE_ID,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
"""Trying again would give the same answer for ever."""

MISSING_ACL = "`genesys-consumer check` names the ACL"
MISSING = f"it is missing, or may not be described: {MISSING_ACL}"
CLOCK_AHEAD = "is the clock of this machine an hour or more ahead of the brokers'?"
REMEDIES = {
    KafkaError.INVALID_RECORD: CLOCK_AHEAD,
    KafkaError.INVALID_TIMESTAMP: CLOCK_AHEAD,
    KafkaError.FENCED_INSTANCE_ID: "another instance took over: give each a KAFKA_GROUP_INSTANCE_ID of its own",
    KafkaError._FENCED: "another instance took over, or brokers were away for longer than a transaction may last",
    KafkaError._UNKNOWN_TOPIC: MISSING,
    KafkaError.OFFSET_METADATA_TOO_LARGE: "raise the brokers' offset.metadata.max.bytes to 64 or more",
    KafkaError.UNKNOWN_TOPIC_OR_PART: MISSING,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: MISSING_ACL,
    KafkaError.GROUP_AUTHORIZATION_FAILED: MISSING_ACL,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: MISSING_ACL,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: MISSING_ACL,
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes, and message.max.bytes in the properties file",
}


UNSAFE_NAMES = "KAFKA_GROUP_ID, KAFKA_GROUP_INSTANCE_ID and client.id must be printable ASCII"

NOT_RELEASED = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
"""What the library says of a static name that the group still has another member of."""

FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
"""What it says of a static name that another member has taken."""

REBALANCING = frozenset(
    {
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)
"""The group has moved on, and this member has not heard of it yet."""


def error_of(failure: KafkaException | SystemError) -> KafkaError:
    """The error inside the exception.

    A fatal error that comes up while the binding calls back is the cause of a SystemError at best; any other callback
    of the same call may have swallowed it.
    """
    if isinstance(failure, SystemError):
        if not isinstance(failure.__cause__, KafkaException):
            return KafkaError(KafkaError._FATAL, "the client gave up, its log lines tell why", True)
        failure = failure.__cause__
    error = failure.args[0]
    assert isinstance(error, KafkaError)  # noqa: S101 -- the library's own contract
    return error


def fatal_error(producer: Producer, failure: SystemError) -> KafkaError:
    """The fatal error that the binding may have lost: every call of a transaction gives it again."""
    try:
        producer.abort_transaction(CALL_S)
    except KafkaException as told:
        if error_of(told).fatal():
            return error_of(told)
    return error_of(failure)


def is_hopeless(error: KafkaError) -> bool:
    """Whether going on would be wrong."""
    return error.fatal() or error.code() in HOPELESS or error.code() in UNAUTHORIZED


def is_gone(error: KafkaError) -> bool:
    """Whether a topic is gone: an output topic ends the process, a source topic keeps nobody from reading others."""
    return error.code() in GONE


def is_not_released(error: KafkaError) -> bool:
    """Whether the group still counts another member of this static name.

    The library tells that only in the text of the fatal error that it makes of it, for a consumer.
    """
    return error.code() == KafkaError._FATAL and NOT_RELEASED in error.str()


def is_of_names(error: KafkaError) -> bool:
    """Whether the library settles nothing under the names that this member has, now or ever.

    To be asked where they are sent. It says so itself, without asking a broker; of a broker's answer that is garbled,
    which has the same code, the transaction is to be aborted.
    """
    return error.code() == KafkaError._BAD_MSG and not error.txn_requires_abort()


def is_beside_reading(message: Message) -> bool:
    """Whether it is an error that keeps nobody from reading who joins no group.

    The library looks for the coordinator of its group all the same; what it tells of that has no topic.
    """
    error = message.error()
    if error is None or message.topic():
        return False
    return error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED or not is_hopeless(error)


def policy(error: KafkaError, doing: str) -> ConsumerError:
    """The project's error for one of librdkafka's, as a sentence that begins with what was tried.

    Of a static name that was taken the library tells a consumer only within the text of a fatal error, twice.
    """
    if error.code() == KafkaError._FATAL and FENCED in error.str():
        error = KafkaError(KafkaError.FENCED_INSTANCE_ID)
    return _of(error, doing, REMEDIES.get(error.code(), ""))


def offsets_policy(error: KafkaError, doing: str) -> ConsumerError:
    """As `policy`, for offsets of source topics: of one that is gone nothing is settled any more, but of others."""
    if is_gone(error):
        return SourceUnavailable(f"{doing}: {error.name()}: a source topic is gone, and let go of in a moment")
    return policy(error, doing)


def reading_policy(error: KafkaError, topic: str) -> ConsumerError:
    """As `policy`, for a topic that somebody reads beside the consumer: `check` asks for no right to do so."""
    return _of(error, f"cannot read {topic}", _beside(error, "allow Read on it"))


def writing_policy(error: KafkaError, doing: str, topic: str) -> ConsumerError:
    """As `policy`, for a topic to which somebody writes beside the consumer."""
    return _of(error, doing, _beside(error, f"allow Write on {topic}"))


def _beside(error: KafkaError, right: str) -> str:
    """The remedy, for a right that `check` does not ask for."""
    missing = error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    return right if missing else REMEDIES.get(error.code(), "")


def _of(error: KafkaError, doing: str, remedy: str) -> ConsumerError:
    text = f"{doing}: {error.name()}: {error.str()}"
    if remedy:
        text += f" ({remedy})"
    if error.code() in UNAUTHORIZED:
        return Unauthorized(text)
    if error.code() in REBALANCING:
        return Rebalancing(text)
    return FatalError(text) if is_hopeless(error) else SourceUnavailable(text)
