"""What the brokers say of topics, rights and transactions, without anything being changed.

Answers for finding, before the program runs, what would end it: topics that are missing and may not be created, a
changelog that forgets, operations that an ACL does not allow. Touches nothing: what would be created is only asked for
with `validate_only`. The one trace is an empty transactional id of its own. Every call blocks.
"""

from collections.abc import Collection
from difflib import get_close_matches
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, but not in the stubs' __all__
    AclOperation,
    AdminClient,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.failures import error_of, policy
from consumer.adapters.kafka.group_offsets import committed
from consumer.adapters.kafka.topics import (
    TOPICS_WITHIN_S,
    Wanted,
    allow_command,
    check_compacted,
    partition_counts,
    wanted,
)
from consumer.errors import FatalError, Unauthorized
from consumer.model import TopicPartition
from consumer.settings import Settings

SOURCE_RIGHTS = frozenset({AclOperation.READ})
OUTPUT_RIGHTS = frozenset({AclOperation.WRITE})
CHANGELOG_RIGHTS = frozenset({AclOperation.READ, AclOperation.WRITE})
GROUP_RIGHTS = frozenset({AclOperation.READ})
TRANSACTION_RIGHTS = frozenset({AclOperation.WRITE})
_TO_SEE = frozenset({AclOperation.DESCRIBE})
_TO_CHECK_ITS_POLICY = frozenset({AclOperation.DESCRIBE_CONFIGS})

NEAR = 0.8
"""From here on a name is taken for a slip of another one."""

_THERE = KafkaError(KafkaError.TOPIC_ALREADY_EXISTS).name()
_Rights = frozenset[AclOperation]


class Inspected(NamedTuple):
    """What was found of something.

    Attributes:
        what: Its name.
        problem: What is wrong with it, and the remedy; "" when nothing is.
        detail: What there is to say when nothing is wrong.
        asked: Whether it was looked at.
    """

    what: str
    problem: str
    detail: str = ""
    asked: bool = True


class Inspection:
    """Asks the brokers.

    Args:
        connection: To the brokers.
        settings: Topics, group and guarantee.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._admin = Admin(connection)

    def brokers(self) -> int:
        """How many brokers the cluster tells of.

        Raises:
            SourceUnavailable: None answers.
            FatalError: They refuse.
        """
        with self._admin.asking("no broker answers") as client:
            return len(client.list_topics(timeout=TOPICS_WITHIN_S).brokers)

    def topics(self) -> list[Inspected]:
        """The source topics, then the output topics."""
        settings = self._settings
        outputs = (settings.kafka_audit_topic, settings.kafka_dead_letter_topic, settings.kafka_changelog_topic)
        counts = partition_counts(self._connection, [*settings.kafka_source_topics, *outputs])
        sources = {name: counts[name] for name in settings.kafka_source_topics if name in counts}
        inspected = [self._source(name, counts.get(name)) for name in settings.kafka_source_topics]
        rights = (OUTPUT_RIGHTS, OUTPUT_RIGHTS, CHANGELOG_RIGHTS | _TO_CHECK_ITS_POLICY)
        if not sources:
            why = "not asked, since no source topic tells how many partitions it needs"
            return [*inspected, *(Inspected(name, "", why, asked=False) for name in outputs)]
        for topic, needed in zip(wanted(settings, sources), rights, strict=True):
            inspected.append(self._output(topic, counts.get(topic.name), needed))
        return inspected

    def group(self) -> Inspected:
        """Whether the group may be joined."""
        name = self._settings.kafka_group_id
        try:
            found = self._admin.answer(
                lambda client: client.describe_consumer_groups(
                    [name], include_authorized_operations=True, request_timeout=TOPICS_WITHIN_S
                )[name].result(),
                "cannot describe the group",
            )
        except Unauthorized:
            return Inspected(name, self._not_allowed("group", name, GROUP_RIGHTS | _TO_SEE))
        return Inspected(name, self._lacking("group", name, found.authorized_operations, GROUP_RIGHTS), "may be joined")

    def has_begun(self) -> bool:
        """Whether the group has committed any offset of its source topics.

        Raises:
            SourceUnavailable: The brokers do not tell.
            FatalError: They refuse.
        """
        counts = partition_counts(self._connection, self._settings.kafka_source_topics)
        partitions = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        return bool(partitions and committed(self._connection, self._settings.kafka_group_id, partitions))

    def transactions(self) -> Inspected:
        """Whether transactions work, under an id that no consumer uses."""
        name = f"{self._settings.kafka_group_id}-check"
        producer = self._connection.producer({}, {"transactional.id": name})
        try:
            producer.init_transactions(TOPICS_WITHIN_S)
        except KafkaException as failure:
            if error_of(failure).code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                ids = f"{self._settings.kafka_group_id}- --resource-pattern-type prefixed"
                return Inspected(name, self._not_allowed("transactional-id", ids, TRANSACTION_RIGHTS | _TO_SEE))
            raise policy(error_of(failure), "cannot use transactions") from None
        return Inspected(name, "", "transactional ids of the group may be used")

    def _source(self, name: str, partitions: int | None) -> Inspected:
        if partitions is None:
            command = Wanted(name, 4).create_command(self._connection.bootstrap)
            problem = f"missing, or may not be described (KAFKA_SOURCE_TOPICS){self._or_is_it(name)}"
            problem += f"; if it is missing, create it: {command}"
            return Inspected(name, f"{problem}; else allow it: {self._allow('topic', name, SOURCE_RIGHTS | _TO_SEE)}")
        return Inspected(name, self._lacks(name, SOURCE_RIGHTS), f"{partitions} partitions")

    def _or_is_it(self, name: str) -> str:
        """A topic that is there and has nearly the name."""
        with self._admin.asking("cannot list topics") as client:
            close = get_close_matches(name, client.list_topics(timeout=TOPICS_WITHIN_S).topics, 1, NEAR)
        return f", or is it {close[0]}?" if close else ""

    def _output(self, topic: Wanted, partitions: int | None, needed: _Rights) -> Inspected:
        with self._admin.client() as client:
            if partitions is None:
                refusal = _refusal(client, NewTopic(topic.name, topic.partitions, -1, config=dict(topic.config)))
                problem = self._unseen(topic, needed, refusal) if refusal else ""
                return Inspected(topic.name, problem, "missing, is created at start")
            if "cleanup.policy" in topic.config:
                try:
                    check_compacted(client, self._connection, topic)
                except FatalError as mismatch:
                    return Inspected(topic.name, str(mismatch))
                if partitions < topic.partitions:
                    return self._grown(client, topic)
        return Inspected(topic.name, self._lacks(topic.name, needed), f"{partitions} partitions")

    def _unseen(self, topic: Wanted, needed: _Rights, refusal: str) -> str:
        """What to do about a topic that is missing, or not to be described, and may not be created."""
        allow = self._allow("topic", topic.name, needed | _TO_SEE)
        if refusal == _THERE:
            return f"it is there and may not be described; run: {allow}"
        create = topic.create_command(self._connection.bootstrap)
        problem = f"missing, or may not be described, and may not be created ({refusal})"
        return f"{problem}; if it is missing, run: {create}; else allow it: {allow}"

    def _grown(self, client: AdminClient, topic: Wanted) -> Inspected:
        new = NewPartitions(topic.name, topic.partitions)
        asked = client.create_partitions([new], validate_only=True, request_timeout=TOPICS_WITHIN_S)
        try:
            asked[topic.name].result()
        except KafkaException as failure:
            command = topic.grow_command(self._connection.bootstrap)
            return Inspected(topic.name, f"too few partitions ({error_of(failure).name()}); run: {command}")
        return Inspected(topic.name, "", "too few partitions, they are added at start")

    def _lacks(self, name: str, needed: _Rights) -> str:
        found = self._admin.answer(
            lambda client: client.describe_topics(
                TopicCollection([name]), include_authorized_operations=True, request_timeout=TOPICS_WITHIN_S
            )[name].result(),
            f"cannot describe {name}",
        )
        return self._lacking("topic", name, found.authorized_operations, needed)

    def _lacking(self, kind: str, name: str, allowed: Collection[AclOperation] | None, needed: _Rights) -> str:
        """What an ACL has to allow, as a command; "" when it does, or the brokers do not tell."""
        missing = needed - set(allowed or needed)
        return self._not_allowed(kind, name, missing) if missing else ""

    def _not_allowed(self, kind: str, name: str, operations: _Rights) -> str:
        return f"the ACL does not allow {', '.join(_names(operations))}; run: {self._allow(kind, name, operations)}"

    def _allow(self, kind: str, name: str, operations: _Rights) -> str:
        return allow_command(self._connection.bootstrap, kind, name, _names(operations))


def _names(operations: _Rights) -> list[str]:
    """Operations as Kafka's tools call them."""
    return sorted(operation.name.title().replace("_", "") for operation in operations)


def _refusal(client: AdminClient, topic: NewTopic) -> str:
    """Why a topic would not be created; "" when it would."""
    asked = client.create_topics([topic], validate_only=True, request_timeout=TOPICS_WITHIN_S)
    try:
        asked[topic.topic].result()
    except KafkaException as failure:
        return error_of(failure).name()
    return ""
