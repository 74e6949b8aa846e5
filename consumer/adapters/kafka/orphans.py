"""Partitions that no member of the group has, though the group is at rest.

With the classic protocol a partition moves in two rebalances: in the first its owner is told to give it up, and when it
has, it rejoins and so begins the second. A static member that ends in between comes back under its name to what it got
in the first, without a rebalance, and nobody begins the second: the partition is nobody's until a member happens to
come or go. So a static member looks once it is back, until it has seen a group at rest in which nothing is left over.

Answers for: asking who has what. Touches the brokers, without holding up the poll thread.
"""

import math
from concurrent.futures import Future

import structlog
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException

from consumer.adapters.kafka.connection import Connection, of_native
from consumer.adapters.kafka.failures import error_of, is_hopeless
from consumer.adapters.kafka.watermarks import OFFSETS_WITHIN_S, partitions_of
from consumer.adapters.worker import Worker
from consumer.errors import SettingsError
from consumer.model import TopicPartition
from consumer.settings import Settings

LOOK_AGAIN_S = 2.0
PATIENCE_S = 5.0
"""For so long partitions may be nobody's while their owner, who lives, gives them up. Doubled with each time that to
rejoin was in vain: who decides may not know of a partition yet.
"""

_log = structlog.get_logger(__name__)


class Orphans:
    """Looks for partitions of the source topics that are nobody's.

    Args:
        connection: To the brokers.
        settings: Topics and group.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._group = settings.kafka_group_id
        self._topics = settings.kafka_source_topics
        self._worker = Worker("kafka-orphans")
        self._answer: Future[set[TopicPartition] | None] | None = None
        self._next_look = 0.0
        self._since = math.inf
        self._patience_s = PATIENCE_S
        self.finished = False

    def close(self) -> None:
        """Ask nothing more."""
        self.finished = True
        self._worker.stop()

    def poll(self, now: float) -> set[TopicPartition]:
        """Partitions for whose sake to rejoin now. Asks, and asks again, without waiting for answers."""
        if self._answer is None:
            if now >= self._next_look and not self.finished:
                self._answer = self._worker.submit(self._ask)
            return set()
        if not self._answer.done():
            return set()
        answer, self._answer = self._answer, None
        self._next_look = now + LOOK_AGAIN_S
        try:
            return self._decide(answer.result(), now)
        except KafkaException as failure:
            self._not_told(error_of(failure))
            return set()
        except SettingsError as error:  # a file that was good at start is being exchanged
            _log.warning("group_not_described", error=str(error), remedy="none needed: asked again")
            return set()

    def _not_told(self, error: KafkaError) -> None:
        if is_hopeless(error):
            self.close()
        remedy = "allow Describe of the group" if self.finished else "none needed: asked again"
        _log.warning("group_not_described", error=error.name(), remedy=remedy)

    def _decide(self, orphans: set[TopicPartition] | None, now: float) -> set[TopicPartition]:
        if not orphans:
            self._since = math.inf
            if orphans is not None:
                self.close()
            return set()
        self._since = min(self._since, now)
        if now - self._since < self._patience_s:
            return set()
        self._since = math.inf
        self._patience_s *= 2
        return orphans

    def _ask(self) -> set[TopicPartition] | None:
        """What is nobody's; None while the group is not at rest, or a broker does not know of a topic yet."""
        client = self._connection.admin()  # not kept: it would be of use for a moment, and connected for good
        asked = client.describe_consumer_groups([self._group], request_timeout=OFFSETS_WITHIN_S)
        group = asked[self._group].result()
        if group.state is not ConsumerGroupState.STABLE:
            return None
        owned = {of_native(p) for member in group.members for p in member.assignment.topic_partitions}
        there = {*partitions_of(client, self._topics)}
        return None if {partition.topic for partition in there} != {*self._topics} else there - owned
