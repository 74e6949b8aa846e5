"""The contacts that are new and may be called, as one file: streamed from the rows, then followed until it is imported.

The file is never anywhere but on the wire: its size is known from the plan, its lines are made as the rows are read
again. What fails for now is begun anew, as a whole; ids come with the lines, so nothing stands in the list twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from consumer.command_ports import ContactRows, ContactUpload, ImportStatus
from consumer.errors import FatalError, RefusedByGenesys, SourceUnavailable, TransientError
from consumer.first_fill.membership import Membership
from consumer.first_fill.patience import insist
from consumer.first_fill.plan import Plan, Way
from consumer.model import Contact, FileRow

LOOK_S = 0.2
LOOK_MAX_S = 2.0
LOOK_GROWTH = 1.5

UNSEEN_S = 30.0
"""So long after a file arrived it may look as if nothing had: an import that is as large as the last one, and quick."""

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
        await insist(self._send)
        try:
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
        if not self._membership.is_sure():
            raise SourceUnavailable("partitions may have moved away: no file is sent before that is known")
        self.attempts += 1
        size = len(self._uploads.header) + self._plan.upload_bytes
        try:
            await self._uploads.upload(size, self._body)
        except TransientError:
            self._membership.importing(begins=False)
            if self._broken is not None:
                raise self._broken from None
            raise
        except RefusedByGenesys as refused:
            raise FatalError(f"Genesys does not take the file: {refused.code}") from None

    async def _body(self) -> AsyncIterator[bytes]:
        """The lines of the file; why they end too soon is kept, since the HTTP library does not tell."""
        try:
            yield self._uploads.header
            sent = 0
            for chunk, rows in enumerate(self._rows.chunks()):
                lines = self._lines(chunk, rows)
                sent += len(lines)
                self._tell("uploading", sent, self.contacts)
                yield b"".join(lines)
        except Exception as error:
            self._broken = error
            raise
        self._membership.importing(begins=True)  # from here on it may have arrived, whatever the answer is

    def _lines(self, chunk: int, rows: Sequence[FileRow]) -> list[bytes]:
        chosen = self._plan.chosen(chunk, rows, (Way.UPLOAD,))
        contacts = (candidate.change.contact for candidate, _ in chosen if candidate.change)
        return [self._uploads.encode(contact) or b"" for contact in contacts if isinstance(contact, Contact)]

    async def _imported(self, before: ImportStatus) -> ImportStatus:
        """The status of our import, once it is over: seen twice, since it may not have been the last word."""
        arrived_at = self._clock()
        delay, begun, last = LOOK_S, False, before
        while True:
            status = await insist(self._uploads.import_status)
            self._tell("importing", status.completed, self.contacts)
            begun = begun or status != before or self._clock() - arrived_at > UNSEEN_S
            if begun and not status.under_way and status == last:
                return status
            last = status
            await asyncio.sleep(delay)
            delay = min(delay * LOOK_GROWTH, LOOK_MAX_S)

    def _verify(self, status: ImportStatus) -> None:
        if status.failure:
            raise FatalError(f"Genesys could not import the file: {status.failure}")
        if status.total != self.contacts or status.completed != status.total:
            raise FatalError(
                f"Genesys tells of an import of {status.completed:,} of {status.total:,} rows, but {self.contacts:,} "
                "were sent: look at the list's import status, then load the file again"
            )
