"""Answers for a CSV file on its way in: rows are read as bytes arrive, and wait apart until the file is whole.

Touches nothing. Never more than one record of the file is held as text; a row that may be imported is held as the
contact it will become. Which rows Genesys leaves out, and how it counts them, is not published. Assumed: a row with an
id or a value that no contact may have is left out and counts as handled; of two rows with one id the later one stands;
a file without the list's columns, that is not UTF-8, or that is not CSV fails whole.
"""

import codecs
import csv
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from consumer.simulator.contacts import VALUE_LENGTH_MAX, Contacts, Poison, check_id, new_row
from consumer.simulator.errors import ApiError

RECORD_LENGTH_MAX = 1_000_000
"""Characters of one record; a quote that is never closed must not swallow the file."""

# Words that the official SDK's `event_message` lists; which of them stands for which fault is assumed.
NO_HEADER: Final = "IMPORT_FAILED_TO_READ_HEADERS"
NOT_A_CSV: Final = "IMPORT_COULD_NOT_PARSE_AN_ENTRY"
NO_ID_COLUMN: Final = "IMPORT_MISSING_CUSTOM_ID"
MISSING_COLUMNS: Final = "IMPORT_CONTACT_DOES_NOT_MATCH_LIST_FORMAT"
NO_ROOM: Final = "EXCEEDED_CONTACT_LIMIT"


class ImportFailed(Exception):
    """Nothing of the file is imported; the text says why."""


class _Records:
    """Cuts text into whole CSV records: a line break within quotes does not end one."""

    def __init__(self) -> None:
        self._open = ""
        self._quotes = 0

    def feed(self, text: str) -> Iterator[str]:
        """The records that this text completes."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._take(line + "\n")
            if self._quotes % 2 == 0:
                record, self._open, self._quotes = self._open, "", 0
                yield record
        self._take(rest)

    def _take(self, text: str) -> None:
        self._open += text
        self._quotes += text.count('"')
        if len(self._open) > RECORD_LENGTH_MAX:
            raise ImportFailed(NOT_A_CSV)

    def close(self) -> Iterator[str]:
        """The last record, when no line break ended it."""
        if self._quotes % 2:
            raise ImportFailed(NOT_A_CSV)
        if self._open:
            yield self._open


class StagedFile(ABC):
    """The rows of one file.

    Attributes:
        rows: What may be imported.
        total: How many rows the file has.
        failure: Why nothing of it may be imported, or nothing.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._records = _Records()
        self._width: int | None = None
        self.rows: deque[Any] = deque()
        self.total = 0
        self.failure = ""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._attempt(data, last=False)

    def close(self) -> None:
        """The file is whole."""
        self._attempt(b"", last=True)
        if not self.failure and self._width is None:
            self.fail(NO_HEADER)

    def _attempt(self, data: bytes, *, last: bool) -> None:
        if self.failure:
            return
        try:
            self._read(self._records.feed(self._decoder.decode(data, final=last)))
            if last:
                self._read(self._records.close())
        except ImportFailed as error:
            self.fail(str(error))
        except (UnicodeDecodeError, csv.Error):
            self.fail(NOT_A_CSV)

    def fail(self, reason: str) -> None:
        """Import nothing of it, for a reason."""
        self.failure, self.total = reason, 0
        self.rows.clear()

    def _read(self, records: Iterator[str]) -> None:
        for values in csv.reader(records, strict=True):
            if self._width is None:
                self._read_header({name: place for place, name in enumerate(values)})
                self._width = len(values)
            elif values:
                self.total += 1
                if len(values) == self._width:
                    self._stage(values)

    @abstractmethod
    def _read_header(self, places: Mapping[str, int]) -> None:
        """Find the columns, by the places that they have in the file."""

    @abstractmethod
    def _stage(self, values: list[str]) -> None:
        """Keep what may be imported of a row."""


class Staging(StagedFile):
    """The rows of one file for a contact list: ids, and contacts as they are kept."""

    def __init__(
        self, columns: Sequence[str], id_column: str | None, poison: Poison | None, *, trim: bool, afresh: bool
    ) -> None:
        """Describe the list.

        Args:
            columns: Its columns.
            id_column: The file's column with the contact id; None gives every row a new id.
            poison: Contacts that are refused.
            trim: Whether white space around a value is dropped.
            afresh: Whether what is known of a contact besides its data is forgotten.
        """
        super().__init__()
        self._columns = columns
        self._id_column = id_column
        self._poison = poison
        self._trim = trim
        self._afresh = afresh
        self._places: list[int] = []
        self._id_place: int | None = None

    def _read_header(self, places: Mapping[str, int]) -> None:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        if not places.keys() >= set(self._columns):
            raise ImportFailed(MISSING_COLUMNS)
        if self._id_column is not None and self._id_column not in places:
            raise ImportFailed(NO_ID_COLUMN)
        self._places = [places[column] for column in self._columns]
        self._id_place = None if self._id_column is None else places[self._id_column]

    def _stage(self, values: list[str]) -> None:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        kept = [values[place] for place in self._places]
        if self._trim:
            kept = [value.strip() for value in kept]
        contact_id = str(uuid4()) if self._id_place is None else values[self._id_place].strip()
        if self._allowed(contact_id, kept):
            self.rows.append((contact_id, new_row(kept)))

    def _allowed(self, contact_id: str, values: Sequence[str]) -> bool:
        if max(map(len, values)) > VALUE_LENGTH_MAX:
            return False
        try:
            check_id(contact_id)
            if self._poison is not None:
                self._poison.check(dict(zip(self._columns, values, strict=True)))
        except ApiError:
            return False
        return True

    def applied_to(self, contacts: Contacts) -> Iterator[bool]:
        """Write the rows into a list, one with each step; then the steps that stand for those left out."""
        left_out = self.total - len(self.rows)
        while self.rows:
            contact_id, row = self.rows.popleft()
            contacts.load(contact_id, row, afresh=self._afresh)
            yield True
        yield from (False for _ in range(left_out))
