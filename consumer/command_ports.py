"""What `load` and `reconcile` ask of the outside beside what the pipeline does, as Protocols; errors as in `ports`."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from consumer.model import Contact, ExportedContact, FileRow, Record, TopicPartition
from consumer.ports import ChangelogChunk, Sink, Sure, always


class ContactRows(Protocol):
    """A file of contacts, which can be read as often as one likes and is the same each time."""

    @property
    def modified_ms(self) -> int:
        """When it was last changed, milliseconds since the epoch, UTC."""
        ...

    @property
    def sha256(self) -> bytes:
        """Of the whole file."""
        ...

    def chunks(self) -> Iterator[list[FileRow]]:
        """All rows, some at a time: each time the same ones together.

        Raises:
            FatalError: The file is not what it was, or its rows cannot be told apart.
        """
        ...


class ImportStatus(Struct, frozen=True):
    """What Genesys says of the import of a file.

    Attributes:
        under_way: It goes on.
        failure: Why nothing of it was imported, in Genesys' word; "" when it does not say so.
        total: Rows of the file.
        completed: Rows done.
    """

    under_way: bool
    failure: str
    total: int
    completed: int


class ContactUpload(Protocol):
    """The way into the contact list by file: CSV, streamed."""

    @property
    def header(self) -> bytes:
        """The first line of the file."""
        ...

    def encode(self, contact: Contact) -> bytes | None:
        """The line of a contact; None when a file cannot say what the contact is: it goes by `Sink.upsert`."""
        ...

    async def upload(self, size: int, body: Callable[[], AsyncIterator[bytes]]) -> None:
        """Send a file of so many bytes, once. It may take long; the import begins when it has arrived.

        Raises:
            RefusedByGenesys: It is not taken.
        """
        ...

    async def import_status(self) -> ImportStatus:
        """How far the import is that goes on, or went on last."""
        ...


class Scratch(Protocol):
    """Keyed bytes that need not outlive the process."""

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        ...

    def write(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Write entries, all or nothing."""
        ...


ContactExport = Callable[[], AsyncIterator[Sequence[ExportedContact]]]
"""Reads all contacts of the list as they are after the call, some at a time.

A file that breaks off ends it with a `TransientError`: what was read then counts for nothing, and it is called again.
"""


class MendedList(Sink, Protocol):
    """The contact list, of which contacts can be deleted too whom nobody knows by more than Genesys' id."""

    async def remove(
        self, contact_ids: Sequence[str], sure: Sure = always, *, held: Collection[str] = ()
    ) -> Collection[str]:
        """Delete contacts by Genesys' own ids, as `delete` does; `sure` is that of `Sink`, and `held` that of `delete`.

        Returns:
            The ids of those that are still there.

        Raises:
            RefusedByGenesys: As in `delete`.
        """
        ...


class History(Protocol):
    """What the source topics and their changelog hold, and how far the group has come; it is never joined."""

    async def committed(self) -> Mapping[TopicPartition, int]:
        """The next offset of the group, for each partition of the source topics; 0 where it has none."""
        ...

    async def empty(self) -> Collection[TopicPartition]:
        """Partitions of the source topics in which nothing stands, nor is being written."""
        ...

    async def ends(self) -> Mapping[TopicPartition, int]:
        """The end of each partition, open transactions left out."""
        ...

    async def members(self) -> int:
        """How many consumers the group has now."""
        ...

    async def changelog_ends(self) -> Mapping[TopicPartition, int]:
        """The end of each partition of the changelog, open transactions included: whatever is settled moves one."""
        ...

    def changelog(self, partition: TopicPartition) -> AsyncIterator[ChangelogChunk]:
        """The changelog of a source partition, from its beginning to its end at the time of the call.

        Stretches may be empty, while it is waited for the brokers.
        """
        ...

    def read(self, partition: TopicPartition, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """What a partition still has of the records from `start` until before `end`, in their order."""
        ...
