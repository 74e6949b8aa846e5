"""The topics: how many partitions the sources have, and the output topics, created when missing.

Answers for: output topics that fit the source topics before the first record is read, and for the exact remedy when
they cannot be had. Touches the cluster's topics.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # missing in __all__
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewPartitions, NewTopic

from consumer.adapters.kafka.connection import LETTER_MAX_BYTES, Admin, Connection
from consumer.adapters.kafka.failures import error_of, policy
from consumer.adapters.worker import in_a_thread
from consumer.errors import FatalError, SourceUnavailable, Unauthorized
from consumer.settings import Settings

# ruff: noqa: SLF001 -- the names of librdkafka's own codes begin with an underscore, and are public

TOPICS_WITHIN_S = 10.0
VISIBLE_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.1

MOCK_CLUSTER = "mockCluster"
"""How ids of librdkafka's mock clusters begin. They create no topics on request, but have any that one asks for."""

NO_ID = str(Uuid(0, 0))
"""What brokers tell of a topic that was made before they gave ids."""

OUTAGES = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
    }
)
"""Answers that do not say that a topic may not be created."""

CHECK_TELLS = "`genesys-consumer check` has the commands"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as the program needs it.

    Attributes:
        name: Of the topic.
        partitions: At least so many.
        config: What differs from the brokers' defaults.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)

    def create_command(self, bootstrap: str) -> str:
        """The command line that creates it."""
        config = "".join(f" --config {name}={value}" for name, value in self.config.items())
        return f"{_command(bootstrap)} --create --topic {self.name} --partitions {self.partitions}{config}"

    def grow_command(self, bootstrap: str) -> str:
        """The command line that adds the missing partitions."""
        return f"{_command(bootstrap)} --alter --topic {self.name} --partitions {self.partitions}"


def wanted(settings: Settings, sources: Mapping[str, int]) -> list[Wanted]:
    """The output topics that go with source topics of these partition counts."""
    most = max(sources.values())
    return [
        Wanted(settings.kafka_audit_topic, most),
        Wanted(settings.kafka_dead_letter_topic, most, {"max.message.bytes": str(LETTER_MAX_BYTES)}),
        Wanted(settings.kafka_changelog_topic, most, {"cleanup.policy": "compact"}),
    ]


async def ensure(connection: Connection, settings: Settings) -> Mapping[str, int]:
    """Create what is missing.

    Returns:
        The partition count of each source topic.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: A source topic is missing, or an output topic that may not be created; the message has the remedy.
    """
    return await in_a_thread("kafka-topics", _ensure, connection, settings)


def _ensure(connection: Connection, settings: Settings) -> Mapping[str, int]:
    with Admin(connection).asking("cannot list topics") as admin:
        return _ensured(admin, connection, settings)


def _ensured(admin: AdminClient, connection: Connection, settings: Settings) -> Mapping[str, int]:
    known = _known(admin)
    mock = _is_mock(known)
    if mock:
        asking = connection.producer({}, {})
        for name in _names(settings):
            asking.list_topics(name, timeout=TOPICS_WITHIN_S)
        known = _known(admin)
    sources = source_counts(known, settings)
    outputs = wanted(settings, sources)
    counts = _counts(known)
    _create(admin, connection, [topic for topic in outputs if topic.name not in counts])
    changelog = outputs[-1]
    if counts.get(changelog.name, changelog.partitions) < changelog.partitions:
        _grow(admin, connection, changelog)
    if changelog.name in counts and not mock:
        check_compacted(admin, connection, changelog)
    _await_visible(admin, outputs, changelog)
    return sources


async def changelog_id(connection: Connection, settings: Settings) -> str:
    """As `topic_id` of the changelog."""
    return await in_a_thread("kafka-topics", topic_id, connection, settings.kafka_changelog_topic)


def topic_id(connection: Connection, name: str) -> str:
    """What tells a topic that was seen from another one of its name; always the same where brokers give none. Blocks.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: They refuse.
    """
    with Admin(connection).asking(f"cannot describe {name}") as admin:
        if _is_mock(_known(admin)):
            return ""
        return id_of_seen(admin, name)


def id_of_seen(admin: AdminClient, name: str) -> str:
    """The id of a topic that a broker told of: one that does not know it yet is asked again for a while.

    Raises:
        KafkaException: It cannot be had.
    """
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        asked = admin.describe_topics(TopicCollection([name]), request_timeout=TOPICS_WITHIN_S)
        try:
            return str(asked[name].result().topic_id)
        except KafkaException as failure:
            if not _is_missing(failure) or time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_AGAIN_S)


def _is_missing(failure: BaseException) -> bool:
    return isinstance(failure, KafkaException) and error_of(failure).code() == KafkaError.UNKNOWN_TOPIC_OR_PART


class TopicIds:
    """Asks for the ids of topics, again and again. Every call blocks."""

    def __init__(self) -> None:
        self._there_are: bool | None = None

    def of(self, admin: AdminClient, names: Collection[str]) -> dict[str, str | None]:
        """Ids of topics, "" for all where brokers give them none; those that cannot be had are left out.

        None stands for one that there is not. A broker may not know a topic for a moment that was just made.

        Raises:
            KafkaException: None can be had, and not since there are no such topics.
        """
        if self._there_are is None:
            self._there_are = not _is_mock(_known(admin))
        if not self._there_are:
            return dict.fromkeys(names, "")
        answers = admin.describe_topics(TopicCollection(list(names)), request_timeout=TOPICS_WITHIN_S)
        failures = {name: failure for name, answer in answers.items() if (failure := answer.exception()) is not None}
        ids = {name: str(answers[name].result().topic_id) for name in answers.keys() - failures.keys()}
        for failure in failures.values():
            if not (ids or _is_missing(failure)):
                raise failure
        gone = [name for name, failure in failures.items() if _is_missing(failure)]
        return dict.fromkeys(gone) | {name: "" if told == NO_ID else told for name, told in ids.items()}


def partition_counts(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """How many partitions these topics have; those that there are not are left out. Blocks.

    Raises:
        SourceUnavailable: The brokers do not answer.
    """
    with Admin(connection).asking("cannot list topics") as admin:
        counts = _counts(_known(admin))
    return {name: counts[name] for name in names if name in counts}


def exists(connection: Connection, name: str) -> bool:
    """Whether there is a topic, also one that cannot be used now. Blocks.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: It may not be described, so that nobody can tell; the message has the remedy.
    """
    with Admin(connection).asking("cannot list topics") as admin:
        return bool(_described(admin, connection, name, "Read").topics[name].partitions)


def create(connection: Connection, topic: Wanted) -> None:
    """Create a topic unless there is one, and wait until it can be used. Blocks.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: It may not be created, or not be described; the message has the remedy.
    """
    with Admin(connection).asking("cannot list topics") as admin:
        if topic.name not in _counts(_described(admin, connection, topic.name, "Read", "Write")):
            _create(admin, connection, [topic])
            _await_visible(admin, [topic], topic)


def _is_mock(known: ClusterMetadata) -> bool:
    return str(known.cluster_id).startswith(MOCK_CLUSTER)


def _names(settings: Settings) -> list[str]:
    outputs = (settings.kafka_audit_topic, settings.kafka_dead_letter_topic, settings.kafka_changelog_topic)
    return [*settings.kafka_source_topics, *outputs]


def _known(admin: AdminClient) -> ClusterMetadata:
    return admin.list_topics(timeout=TOPICS_WITHIN_S)


def _described(admin: AdminClient, connection: Connection, name: str, *rights: str) -> ClusterMetadata:
    """What the brokers tell of a topic, to whoever may have it described."""
    known = admin.list_topics(name, timeout=TOPICS_WITHIN_S)
    error = known.topics[name].error
    if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        told = f"{name} may not be described: allow {' and '.join(rights)} on it"
        raise Unauthorized(f"{told}: {allow_command(connection.bootstrap, 'topic', name, rights)}")
    return known


def allow_command(bootstrap: str, kind: str, name: str, operations: Iterable[str]) -> str:
    """The command line that allows a user operations, as Kafka's tools call them, on something of a kind."""
    listed = " ".join(f"--operation {operation}" for operation in operations)
    return f"kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal User:… {listed} --{kind} {name}"


def _counts(known: ClusterMetadata) -> dict[str, int]:
    """Partition counts of the topics that can be used now."""
    return {
        name: len(topic.partitions)
        for name, topic in known.topics.items()
        if topic.partitions and all(partition.leader >= 0 for partition in topic.partitions.values())
    }


def source_counts(known: ClusterMetadata, settings: Settings) -> dict[str, int]:
    """How many partitions each source topic has.

    Raises:
        FatalError: The brokers do not tell of all of them.
    """
    missing = [name for name in settings.kafka_source_topics if name not in known.topics]
    if missing:
        what = f"source topics missing, or not to be described, {CHECK_TELLS}"
        raise FatalError(f"{what}: {', '.join(missing)} (KAFKA_SOURCE_TOPICS)")
    return {name: len(known.topics[name].partitions) for name in settings.kafka_source_topics}


def _create(admin: AdminClient, connection: Connection, missing: Sequence[Wanted]) -> None:
    if not missing:
        return
    new = [NewTopic(topic.name, topic.partitions, -1, config=dict(topic.config)) for topic in missing]
    refused: list[Wanted] = []
    reasons: set[str] = set()
    answers = admin.create_topics(new, request_timeout=TOPICS_WITHIN_S)
    for topic in missing:
        try:
            answers[topic.name].result()
            _log.info("topic_created", topic=topic.name, partitions=topic.partitions, config=dict(topic.config))
        except KafkaException as failure:
            if error_of(failure).code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another instance was quicker
                refused.append(topic)
                reasons.add(_reason(failure))
    if refused:
        commands = [topic.create_command(connection.bootstrap) for topic in refused]
        or_else = f"if they are there they may not be described, {CHECK_TELLS} for both; "
        raise _refused("create topics", reasons, commands, or_else)


def _grow(admin: AdminClient, connection: Connection, topic: Wanted) -> None:
    """Add changelog partitions after a source topic got more: each of these has one of its own."""
    answer = admin.create_partitions([NewPartitions(topic.name, topic.partitions)], request_timeout=TOPICS_WITHIN_S)
    try:
        answer[topic.name].result()
    except KafkaException as failure:
        if error_of(failure).code() == KafkaError.INVALID_PARTITIONS:  # another instance was quicker
            return
        command = topic.grow_command(connection.bootstrap)
        raise _refused(f"add partitions to {topic.name}", {_reason(failure)}, [command]) from None
    _log.info("partitions_added", topic=topic.name, partitions=topic.partitions)


def check_compacted(admin: AdminClient, connection: Connection, topic: Wanted) -> None:
    """Refuse a changelog that forgets: it is what the dedupe state is rebuilt from."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name)
    try:
        config = admin.describe_configs([resource], request_timeout=TOPICS_WITHIN_S)[resource].result()
    except KafkaException as failure:
        _log.warning("changelog_unchecked", topic=topic.name, error=_reason(failure))
        return
    policy_now = config["cleanup.policy"].value
    if policy_now != "compact":
        command = f"kafka-configs.sh --bootstrap-server {connection.bootstrap} --alter --entity-type topics"
        change = f"--entity-name {topic.name} --add-config cleanup.policy=compact"
        raise FatalError(f"{topic.name} has cleanup.policy={policy_now}: it must be compact\n  {command} {change}")


def _await_visible(admin: AdminClient, topics: Collection[Wanted], changelog: Wanted) -> None:
    """Wait until the brokers tell of every topic."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        counts = _counts(_known(admin))
        if all(topic.name in counts for topic in topics) and counts[changelog.name] >= changelog.partitions:
            return
        if time.monotonic() >= deadline:
            raise SourceUnavailable(
                f"topics not ready, or not to be described: {', '.join(t.name for t in topics if t.name not in counts)}"
            )
        time.sleep(LOOK_AGAIN_S)


def _reason(failure: KafkaException) -> str:
    """Why the brokers refuse.

    Raises:
        SourceUnavailable: They do not: it was no answer.
    """
    error = error_of(failure)
    if error.code() in OUTAGES:
        raise policy(error, "cannot ask for topics") from None
    return f"{error.name()}: {error.str()}"


def _refused(doing: str, reasons: Collection[str], commands: Sequence[str], or_else: str = "") -> FatalError:
    first = f"cannot {doing} ({', '.join(sorted(reasons))}); {or_else}somebody who may must run:"
    return FatalError("\n  ".join([first, *commands]))


def _command(bootstrap: str) -> str:
    return f"kafka-topics.sh --bootstrap-server {bootstrap}"
