"""The changes that a file cannot tell Genesys, by the requests of the stream: judged, batched, sent and retried there.

A row becomes a work of the pipeline's, which waits, is sent and gets its outcome like any other; it is not settled
here.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from consumer.errors import FatalError
from consumer.model import Record, TopicPartition, Work
from consumer.pipeline.outbound import Outbound
from consumer.pipeline.partitions import Partitions
from consumer.pipeline.progress import Progress


class Requests(Struct, eq=False):
    """Sends works, and waits for their outcomes.

    Attributes:
        partitions: All of the source topic; their stores stand.
        outbound: Takes works in, and sends them while its dispatcher runs.
        progress: Of that.
        partition_of: Where the state of an external id is.
        withheld: Why contacts were left without an outcome, None when none was.
    """

    partitions: Partitions
    outbound: Outbound
    progress: Progress
    partition_of: Callable[[str], TopicPartition]
    withheld: str | None = None

    def work(self, record: Record, external_id: str) -> Work:
        """The work of a row."""
        return Work(record, self.partitions[self.partition_of(external_id)].assignment, external_id)

    async def send(self, works: Sequence[Work]) -> None:
        """Come back when each has an outcome, however long Genesys takes.

        But for those that would wait for a do-not-call list until somebody does something: while a load owns the topic,
        nobody applies what the stream says. They are not callable, and given up for now. So is who gets no usable
        answer, if nobody else comes who could show that Genesys works.
        """
        self.outbound.lanes.draining = True  # nothing follows: what is there goes at once
        for work in works:
            self.outbound.admission.admit(self.partitions[work.assignment.partition], [work])
        self.outbound.dispatcher.wake()
        while any(work.outcome is None for work in works):
            if self.outbound.dispatcher.in_vain:
                self._give_up()
                break
            await self.progress.wait()
        for work in works:
            if work.change is not None:
                self.partitions[work.assignment.partition].overlay.pop(work.change.identity, None)

    async def end(self, within_s: float) -> None:
        """Begin no more requests; come back when none is under way, or after so many seconds."""
        self.outbound.dispatcher.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.outbound.gate.in_flight:
                    await self.progress.wait()

    def check_all_were_taken(self) -> None:
        """Refuse to go on without those that were given up: the next start sends them again.

        Raises:
            FatalError: There are some.
        """
        if self.withheld is not None:
            raise FatalError(self.withheld)

    def _give_up(self) -> None:
        self.withheld = self.outbound.dispatcher.waits_for
        for partition in self.partitions.values():
            self.outbound.admission.drop(partition.assignment)
