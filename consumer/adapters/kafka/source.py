"""The group consumer as the pipeline sees it: events to await, commands that return at once.

Answers for: crossing from the event loop to the poll thread and back, with a deadline for whatever is awaited. Touches
nothing itself; the poll thread touches the brokers.
"""

import asyncio
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future

import structlog
from confluent_kafka import TopicPartition as NativePartition

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.group_offsets import GroupMember, Mark
from consumer.adapters.kafka.handoff import Handoff
from consumer.adapters.kafka.ownership import Overtaken
from consumer.adapters.kafka.poller import Poller
from consumer.adapters.worker import carry_out
from consumer.errors import Rebalancing, SourceUnavailable
from consumer.model import TopicPartition
from consumer.ports import SourceEvent
from consumer.settings import Settings

COMMIT_WITHIN_S = 10.0
CLOSE_WITHIN_S = 10.0

_log = structlog.get_logger(__name__)


class KafkaSource:
    """The `Source` that reads the topics as a member of the group. Make it on the event loop that uses it.

    Args:
        connection: To the brokers.
        settings: Topics, group, start.
        revoke_timeout_s: How long a revocation waits to be released.
        on_overtaken: Told on the event loop when retention overtook the group at a partition.
        changelog_id: That of the changelog to which the stores belong, and which has to stay; "" where it is not known.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        revoke_timeout_s: float,
        on_overtaken: Overtaken,
        changelog_id: str = "",
    ) -> None:
        self._handoff = Handoff()
        self._poller = Poller(
            connection,
            settings,
            self._handoff,
            revoke_timeout_s=revoke_timeout_s,
            on_overtaken=on_overtaken,
            changelog_id=changelog_id,
        )
        self._ended = asyncio.Event()
        threading.Thread(target=self._run, name="kafka-poll", daemon=True).start()

    @property
    def connected(self) -> bool:
        """Whether any broker answers."""
        return self._poller.reach.connected

    @property
    def missing(self) -> Collection[str]:
        """Source topics of which the brokers say that there are none."""
        return self._poller.ownership.missing

    @property
    def last_poll(self) -> float:
        """Monotonic time at which the poll thread last went round."""
        return self._poller.last_poll

    async def next(self) -> SourceEvent:
        return await self._handoff.next()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._handoff.command(lambda: self._poller.ownership.pause(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._handoff.command(lambda: self._poller.ownership.resume(partitions))

    def owns(self, partition: TopicPartition) -> bool:
        return self._poller.owns(partition)

    def recall(self, partition: TopicPartition, next_offset: int, topic_id: str) -> None:
        settled = Mark(next_offset, topic_id)
        self._handoff.command(lambda: self._poller.ownership.recall(partition, settled))

    def group_metadata(self, partitions: Collection[TopicPartition]) -> GroupMember:
        """What a transaction needs to commit offsets of these partitions. May be called from any thread.

        Raises:
            Rebalancing: They are not all owned by this consumer, or that is not sure: nothing of them may be settled.
        """
        if not self._poller.is_sure():  # asked first: whoever was not sure lets go before he is again
            raise Rebalancing("cannot commit offsets: partitions may have moved away")
        membership = self._poller.ownership.membership
        if membership is None or not membership.owned.issuperset(partitions):
            raise Rebalancing("cannot commit offsets: partitions moved away")
        return membership

    async def commit(self, offsets: Sequence[NativePartition]) -> None:
        """Commit offsets without a transaction, as `GroupMember.marked` gives them.

        Raises:
            TransientError: They may not be committed.
            FatalError: They never will be.
        """
        done: Future[None] = Future()

        self._handoff.command(lambda: carry_out(done, lambda: self._poller.ownership.commit(offsets)))
        try:
            await asyncio.wait_for(asyncio.wrap_future(done), COMMIT_WITHIN_S)
        except TimeoutError:
            raise SourceUnavailable(f"offsets not committed within {COMMIT_WITHIN_S:.0f} s") from None

    async def close(self) -> None:
        def command() -> None:
            self._poller.closing = True

        self._handoff.command(command)
        try:
            await asyncio.wait_for(self._ended.wait(), CLOSE_WITHIN_S)
        except TimeoutError:
            _log.warning("source_not_closed", seconds=CLOSE_WITHIN_S, remedy="the group notices by its session timeout")

    def _run(self) -> None:
        try:
            self._poller.run()
        finally:
            self._handoff.call(self._ended.set)
