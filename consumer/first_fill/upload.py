"""The contacts that are new and may be called, as one file: streamed from the rows, then followed until it is imported.

The file is never anywhere but on the wire: its size is known from the plan, its lines are made as the rows are read
again. What fails for now is begun anew, as a whole; ids come with the lines, so nothing stands in the list twice. But
then several of its imports may follow each other: the last one is over when none has shown for as long as one can take
to.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence

from consumer.command_ports import ContactRows, ContactUpload, ImportStatus
from consumer.errors import FatalError, RefusedByGenesys, SourceUnavailable, TransientError
from consumer.first_fill.membership import Membership
from consumer.first_fill.patience import insist
from consumer.first_fill.plan import Plan, Way
from consumer.model import Contact, FileRow
from consumer.pipeline.imports import UNSEEN_S

LOOK_S = 0.2
LOOK_MAX_S = 2.0
LOOK_GROWTH = 1.5

Tell = Callable[[str, int, int | None], None]
"""Told of each step: the phase, how much of it is done, and of how much."""


class Upload:
    """One file for Genesys.

    Args:
        rows: The file that is loaded.
        plan: Which rows go.
        uploads: The way to Genesys.
        membership: Told while Genesys may import.
        tell: Told of progress.
        clock: Monotonic seconds, those of the event loop.

    Attributes:
        attempts: How often the file was sent.
    """

    def __init__(
        self,
        *,
        rows: ContactRows,
        plan: Plan,
        uploads: ContactUpload,
        membership: Membership,
        tell: Tell,
        clock: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._plan = plan
        self._uploads = uploads
        self._membership = membership
        self._tell = tell
        self._clock = clock
        self._broken: Exception | None = None
        self._is_whole = self._is_repeated = False
        self._quiet_since = math.inf
        self.attempts = 0

    @property
    def contacts(self) -> int:
        """Lines of the file, without its header."""
        return self._plan.ways[Way.UPLOAD]

    async def run(self) -> None:
        """Come back when all contacts are imported.

        Raises:
            FatalError: Genesys does not take the file, or does not import what was sent.
        """
        before = await self._idle()
        try:
            await insist(self._send)
            self._verify(await self._imported(before))
        finally:
            self._membership.importing(begins=False)

    async def _idle(self) -> ImportStatus:
        """Wait until no import is under way: its rows could come after ours, and its counts pass for ours."""
        while (status := await insist(self._uploads.import_status)).under_way:
            self._tell("waiting for another import", status.completed, status.total)
            await asyncio.sleep(LOOK_MAX_S)
        return status

    async def _send(self) -> None:
        if self._membership.is_leaving:
            return  # what may have arrived is waited for, and nothing more is sent
        self._check_sure()
        self.attempts += 1
        self._is_repeated = self._is_repeated or self._is_whole
        self._broken, self._is_whole = None, False
        size = len(self._uploads.header) + self._plan.upload_bytes
        try:
            await self._uploads.upload(size, self._body)
        except TransientError:
            if self._broken is not None:
                raise self._broken from None
            raise
        except RefusedByGenesys as refused:
            raise FatalError(f"Genesys does not take the file: {refused.code}") from None

    def _check_sure(self) -> None:
        if not self._membership.is_sure():
            raise SourceUnavailable("partitions may have moved away: no file is sent before that is known")

    async def _body(self) -> AsyncIterator[bytes]:
        """The lines of the file; why they end too soon is kept, since the HTTP library does not tell.

        Whoever may have lost his partitions breaks it off: then it is not imported.
        """
        try:
            yield self._uploads.header
            sent = 0
            for chunk, rows in enumerate(self._rows.chunks()):
                lines = self._lines(chunk, rows)
                sent += len(lines)
                self._tell("uploading", sent, self.contacts)
                self._check_sure()
                if sent == self.contacts:
                    self._may_have_arrived()
                yield b"".join(lines)
        except Exception as error:
            self._broken = error
            raise

    def _may_have_arrived(self) -> None:
        """The last bytes are about to be written: from here on Genesys may import, whatever the answer is."""
        self._is_whole = True
        self._membership.importing(begins=True)

    def _lines(self, chunk: int, rows: Sequence[FileRow]) -> list[bytes]:
        chosen = self._plan.chosen(chunk, rows, (Way.UPLOAD,))
        contacts = (candidate.change.contact for candidate, _ in chosen if candidate.change)
        return [self._uploads.encode(contact) or b"" for contact in contacts if isinstance(contact, Contact)]

    async def _imported(self, before: ImportStatus) -> ImportStatus:
        """The status of our import, once it is over: seen twice, since it may not have been the last word.

        Of a file that was sent again, what shows may be the import of the one before.
        """
        self._quiet_since = self._clock()
        delay, begun, last = LOOK_S, False, before
        while True:
            status = await insist(self._look)
            self._tell("importing", status.completed, self.contacts)
            shows = status != before and not self._is_repeated
            begun = begun or shows or self._clock() - self._quiet_since > UNSEEN_S
            if begun and not status.under_way and status == last:
                return status
            last = status
            await asyncio.sleep(delay)
            delay = min(delay * LOOK_GROWTH, LOOK_MAX_S)

    async def _look(self) -> ImportStatus:
        """What Genesys says now; what it did not tell meanwhile may have been an import."""
        try:
            status = await self._uploads.import_status()
        except TransientError:
            self._quiet_since = math.inf
            raise
        self._quiet_since = math.inf if status.under_way else min(self._quiet_since, self._clock())
        return status

    def _verify(self, status: ImportStatus) -> None:
        if status.failure:
            raise FatalError(f"Genesys could not import the file: {status.failure}")
        if status.total != self.contacts or status.completed != status.total:
            raise FatalError(
                f"Genesys tells of an import of {status.completed:,} of {status.total:,} rows, but {self.contacts:,} "
                "were sent: look at the list's import status, then load the file again"
            )
