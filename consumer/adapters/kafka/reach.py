"""Whether the brokers answer the group's consumer, and whether it has lost them for good.

After an answer that names no broker, as brokers give that the controller has counted out, the library may forget all of
them and never look for them again (librdkafka #5301). It does not tell; but another client, made anew, reaches them.

Answers for: noticing both, with little delay for the poll thread, and single brokers that are away while others answer.
Touches the brokers.
"""

import math
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import Consumer

from consumer.adapters.kafka.connection import Connection, another_reaches, reaches
from consumer.adapters.worker import Worker
from consumer.errors import FatalError
from consumer.model import TopicPartition

PROBE_EVERY_S = 5.0
PROBE_S = 1.0

LOST_AFTER_S = 120.0
"""For so long others reach the brokers before it counts: by itself the library takes up to ten seconds to reconnect,
and longer where a properties file lets it.
"""

UNREACHED_AFTER_S = 30.0
"""A broker that is restarted is back sooner, or its partitions are led by another one by then."""

UP, LOGICAL = "UP", "logical"
"""What the statistics say of a connection that is good, and of one that leads to a broker of which there is another."""

NOBODY = -1
"""From whom a partition is fetched of which no leader is known."""

_log = structlog.get_logger(__name__)


class Reach:
    """Asks the brokers while they seem not to answer: a quiet topic would never tell.

    Args:
        connection: To the brokers.
        topic: Asked about.

    Attributes:
        connected: Whether any broker answers the consumer.
    """

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection = connection
        self._topic = topic
        self._doubted = True
        self._told = False
        self._next_probe = -math.inf
        self._worker = Worker("kafka-reach")
        self._others: Future[bool] | None = None
        self._others_since = math.inf
        self.connected = False

    def answered(self) -> None:
        """Something came from the brokers."""
        if self._told:
            _log.info("brokers_answer_again")
            self._told = False
        self.connected, self._doubted = True, False
        self._others_since = math.inf

    def close(self) -> None:
        """Ask nothing more."""
        self._worker.stop()

    def down(self) -> None:
        """The library says that no broker answers, and may say so again."""
        if not self._told:
            _log.warning("brokers_down", remedy="reconnects by itself")
            self._told = True
        self._is_away()

    def _is_away(self) -> None:
        self.connected, self._doubted = False, True

    def doubt(self) -> None:
        """No broker has answered for a while, and the library may not say so."""
        self._doubted = True

    def probe(self, consumer: Consumer, now: float) -> None:
        """Find out, if in doubt. Blocks for a moment.

        Raises:
            FatalError: The brokers answer others, and will not answer this consumer again.
        """
        if not self._doubted or now < self._next_probe:
            return
        self._next_probe = now + PROBE_EVERY_S
        if reaches(consumer, self._topic, PROBE_S):
            self.answered()
            return
        self._is_away()
        self._ask_others(now)
        if now - self._others_since >= LOST_AFTER_S:
            raise FatalError("the group consumer has lost the brokers, which answer others, for good")

    def _ask_others(self, now: float) -> None:
        """Take the last answer, and ask for the next one. No answer yet is none: others get theirs within moments."""
        if self._others is not None and not self._others.done():
            self._others_since = math.inf
            return
        if self._others is not None:
            self._others_since = min(self._others_since, now) if self._others.result() else math.inf
        self._others = self._worker.submit(lambda: another_reaches(self._connection, self._topic))


class Leaders:
    """Whether those brokers are reached from which partitions are fetched.

    One may be away for this consumer alone, and stay the leader: the library tries again and again, and tells of no
    partition that it stands still. Touches nothing.
    """

    def __init__(self) -> None:
        self._away_since: dict[TopicPartition, float] = {}

    def unreached(
        self, statistics: Mapping[str, Any], wanted: Collection[TopicPartition], now: float
    ) -> frozenset[TopicPartition]:
        """Those of the partitions whose broker has been away for long, or that have none.

        Args:
            statistics: As the library gives them.
            wanted: Partitions that are to be fetched now.
            now: Monotonic seconds.
        """
        brokers = statistics["brokers"].values()
        up = {broker["nodeid"] for broker in brokers if broker["state"] == UP and broker["source"] != LOGICAL}
        away = [partition for partition in wanted if _broker_of(statistics, partition) not in up - {NOBODY}]
        self._away_since = {partition: self._away_since.get(partition, now) for partition in away}
        return frozenset(key for key, since in self._away_since.items() if now - since >= UNREACHED_AFTER_S)


def _broker_of(statistics: Mapping[str, Any], partition: TopicPartition) -> int:
    partitions = statistics["topics"].get(partition.topic, {}).get("partitions", {})
    broker: int = partitions.get(str(partition.partition), {}).get("broker", NOBODY)
    return broker
