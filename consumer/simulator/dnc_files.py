"""Answers for files of do-not-call entries: CSV on its way in and on its way out. Knows no socket.

Known from the vendor's help pages: a file may have other columns besides, several columns of one kind, and a column of
expirations; one that is not spelled yyyy-MM-ddTHH:mmZ leaves its entry without an expiration. Assumed: so does one that
is over or too far ahead; a file without the columns that were named fails whole; rows of another width are left out.
What an exported file looks like is not published: here it has a column for each kind of entry, by its property of the
API, and one for the expiration.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from consumer.simulator.dnc import EXPIRATION, DncList, DncLists, EntryKind, expiration
from consumer.simulator.errors import ApiError
from consumer.simulator.exports import BOM, CHUNK_ROWS, lines
from consumer.simulator.imports import MISSING_COLUMNS, ImportFailed, StagedFile

NO_ROOM = "EXCEEDED_DNC_RECORD_LIMIT"

Columns = Mapping[EntryKind, Sequence[str]]
Entry = tuple[EntryKind, str, float | None]


def column_names(text: str) -> list[str]:
    """The columns that one string names: separated by commas, and quoted as in CSV where a name has one."""
    return [name.strip() for name in next(csv.reader([text]), [])]


class DncStaging(StagedFile):
    """The rows of one file: the entries of each.

    Args:
        columns: The file's columns with entries, by kind.
        expiration_column: The one that says when the entries of a row expire, or nothing.
        now: The time, in seconds since 1970.
    """

    def __init__(self, columns: Columns, expiration_column: str, now: float) -> None:
        super().__init__()
        self._columns = columns
        self._expiration_column = expiration_column
        self._now = now
        self._places: list[tuple[EntryKind, int]] = []
        self._expiration_place: int | None = None

    def _read_header(self, places: Mapping[str, int]) -> None:  # type: ignore[explicit-override]  # of Python 3.12
        try:
            self._places = [(kind, places[name]) for kind, names in self._columns.items() for name in names]
            self._expiration_place = places[self._expiration_column] if self._expiration_column else None
        except KeyError:
            raise ImportFailed(MISSING_COLUMNS) from None

    def _stage(self, values: list[str]) -> None:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        expires = None if self._expiration_place is None else self._expires(values[self._expiration_place].strip())
        entries = [(kind, values[place].strip(), expires) for kind, place in self._places]
        self.rows.append([entry for entry in entries if entry[1]])

    def _expires(self, text: str) -> float | None:
        try:
            return expiration(text, self._now)
        except ApiError:
            return None

    def entries(self) -> Iterator[Entry]:
        """All entries of the file."""
        return (entry for row in self.rows for entry in row)


def begin_import(lists: DncLists, dnc_list: DncList, staging: DncStaging) -> None:
    """Import a file that has arrived whole, in a while."""
    new = {(kind, value) for kind, value, _ in staging.entries() if value not in dnc_list.entries[kind]}
    try:
        lists.check_room(dnc_list, len(new))
    except ApiError:
        staging.fail(NO_ROOM)
    dnc_list.tasks.begin_import(_written(lists, dnc_list, staging), staging.total, staging.failure)


def _written(lists: DncLists, dnc_list: DncList, staging: DncStaging) -> Iterator[None]:
    """Write one row with each step; then the steps that stand for rows left out."""
    left_out = staging.total - len(staging.rows)
    while staging.rows:
        for kind, value, expires in staging.rows.popleft():
            lists.write(dnc_list, kind, [value], expires)
        yield
    yield from (None for _ in range(left_out))


def snapshot(dnc_list: DncList) -> list[Entry]:
    """The entries as they are now."""
    return [(kind, value, expires) for kind, held in dnc_list.entries.items() for value, expires in held.items()]


def export(entries: Sequence[Entry]) -> Iterator[bytes]:
    """The file, in chunks."""
    yield BOM.encode() + lines([[*EntryKind, "expirationDateTime"]])
    for start in range(0, len(entries), CHUNK_ROWS):
        yield lines(_rows(entries[start : start + CHUNK_ROWS]))


def _rows(entries: Iterable[Entry]) -> list[list[str]]:
    return [
        [*(value if kind is column else "" for column in EntryKind), "" if expires is None else _minute(expires)]
        for kind, value, expires in entries
    ]


def _minute(expires: float) -> str:
    return datetime.fromtimestamp(expires, UTC).strftime(EXPIRATION)
