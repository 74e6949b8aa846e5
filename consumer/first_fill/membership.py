"""The whole source topic, owned by one member: while a file is loaded, nobody else may work for the group.

Whoever loses a partition stops: its contacts are somebody else's now. While requests are under way, or Genesys may
import, the new owner is kept waiting as long as the group allows, since neither can be called back, and both would come
after what the new owner sends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog

from consumer.errors import FatalError
from consumer.model import TopicPartition
from consumer.ports import Assigned, Grown, Lost, Polled, Revoked, Source, Starting

log = structlog.get_logger(__name__)

JOINED_WITHIN_S = 60.0
"""A member that died without a word is one for 45 s more."""


class Membership:
    """The membership of one first fill.

    Args:
        source: The group consumer; nothing of it is ever read.
        partitions: All of the source topic.
        group: Its name, for messages.

    Attributes:
        is_leaving: Partitions are to be let go of: nothing more may begin.
    """

    def __init__(self, source: Source, partitions: Collection[TopicPartition], group: str) -> None:
        self._source = source
        self._wanted = frozenset(partitions)
        self._group = group
        self._uninterruptible = asyncio.Event()
        self._uninterruptible.set()
        self.is_leaving = False

    async def join(self) -> Mapping[TopicPartition, int]:
        """Wait until all partitions are ours.

        Returns:
            The next offset of each.

        Raises:
            FatalError: Another member has some.
        """
        positions: dict[TopicPartition, int] = {}
        try:
            async with asyncio.timeout(JOINED_WITHIN_S):
                while not positions.keys() >= self._wanted:
                    await self._take(positions)
        except TimeoutError:
            raise self._not_alone() from None
        return positions

    async def _take(self, positions: dict[TopicPartition, int]) -> None:
        match await self._source.next():
            case Assigned(assigned, _):
                positions.update(assigned)
            case Revoked(partitions, release):
                _forget(positions, partitions)
                release()
            case Lost(partitions, forgotten):
                _forget(positions, partitions)
                forgotten()
            case Polled() | Grown() | Starting():
                pass

    async def watch(self, end_requests: Callable[[], Awaitable[None]]) -> None:
        """Never come back.

        Args:
            end_requests: Comes back when no request is under way, and begins none; waited for before letting go.

        Raises:
            FatalError: A partition is not ours any more.
        """
        while True:
            match await self._source.next():
                case Revoked(_, release):
                    log.warning("load_interrupted", remedy="stop the consumers of the group, then load the file again")
                    self.is_leaving = True
                    await end_requests()
                    await self._uninterruptible.wait()
                    release()
                    raise self._not_alone()
                case Lost():
                    raise self._not_alone()
                case Assigned() | Polled() | Grown() | Starting():
                    pass

    def is_sure(self) -> bool:
        """Whether all partitions are surely ours now, and are to stay so."""
        return not self.is_leaving and all(map(self._source.owns, self._wanted))

    def importing(self, *, begins: bool) -> None:
        """Genesys may have a whole file and import it, or is done with all that it may have."""
        if begins:
            self._uninterruptible.clear()
        else:
            self._uninterruptible.set()

    def _not_alone(self) -> FatalError:
        return FatalError(f"other members of the group {self._group} have partitions: stop the consumers of it first")


def _forget(positions: dict[TopicPartition, int], partitions: Collection[TopicPartition]) -> None:
    for partition in partitions:
        positions.pop(partition, None)
