"""What an exported file says: CSV with a byte order mark, Genesys' columns beside the list's own. Touches nothing.

The file is read as it streams in, so that its length does not matter; a record of it has a limit.
"""

import csv
import io
from collections.abc import Callable, Sequence
from operator import itemgetter

from consumer.columns import PHONE
from consumer.errors import ContactListMismatch, SinkUnavailable
from consumer.model import ExportedContact

MAX_RECORD_BYTES = 2**20
"""Fifty columns of 512 characters take a tenth of it."""

ID_COLUMN = "inin-outbound-id"
"""What Genesys calls the id of a contact in files: no column of a list is called so."""

_CALLABLE = ("ContactCallable", f"Callable-{PHONE}")
"""Whether a contact may be dialled, as a whole or else by its phone column."""

_NOT_CALLABLE = frozenset({"0", "false"})
"""What else stands there is taken as callable: nobody may be missed who would be called."""


class ExportFile:
    """One file.

    Args:
        columns: The managed columns, in the order in which their values are wanted.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._rest = b""
        self._parse: Callable[[Sequence[str]], ExportedContact] | None = None

    def feed(self, part: bytes) -> list[ExportedContact]:
        """The contacts that are complete with this part of the file.

        Raises:
            SinkUnavailable: It is no such file, or damaged.
            ContactListMismatch: A managed column is missing.
        """
        end = _end_of_records(self._rest, part)
        records = self._rest + part[:end] if end else b""
        self._rest = part[end:] if end else self._rest + part
        if len(self._rest) > MAX_RECORD_BYTES:
            raise SinkUnavailable("the export has a record without end")
        return self._contacts(records)

    def end(self) -> list[ExportedContact]:
        """The last contact, where no line end follows it.

        Raises:
            SinkUnavailable: The file has not even a header, or ends inside of a value.
        """
        contacts = self._contacts(self._rest)
        if self._parse is None:
            raise SinkUnavailable("the export is empty")
        return contacts

    def _contacts(self, records: bytes) -> list[ExportedContact]:
        if not records:
            return []
        try:
            rows = list(csv.reader(io.StringIO(records.decode("utf-8-sig"), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error):
            rows = None
        # Not inside the handler: the foreign error quotes the data, and would travel along as the context of ours.
        if rows is None:
            raise SinkUnavailable("the export is not CSV in UTF-8")
        if self._parse is None:
            self._parse = _parser(rows.pop(0), self._columns)
        return list(map(self._parse, rows))


def _end_of_records(rest: bytes, part: bytes) -> int:
    """Where in a part the last complete record ends: behind a line end with an even number of quotes before it.

    Args:
        rest: What came before the part, the beginning of a record.
        part: What came last.
    """
    inside = (rest.count(b'"') + part.count(b'"')) % 2
    end = len(part)
    while (line_end := part.rfind(b"\n", 0, end)) >= 0:
        inside ^= part.count(b'"', line_end, end) % 2
        if not inside:
            return line_end + 1
        end = line_end
    return 0


def _parser(header: Sequence[str], columns: Sequence[str]) -> Callable[[Sequence[str]], ExportedContact]:
    """What makes a contact of a row under this header."""
    callable_ = next((name for name in _CALLABLE if name in header), _CALLABLE[0])
    missing = [name for name in (ID_COLUMN, callable_, *columns) if name not in header]
    if missing:
        raise ContactListMismatch(f"the export of the contact list lacks the columns {', '.join(missing)}")
    id_at = header.index(ID_COLUMN)
    callable_at = len(header) - 1 - header[::-1].index(callable_)  # Genesys' own columns come last
    values: Callable[[Sequence[str]], tuple[str, ...]] = itemgetter(*map(header.index, columns))

    def parse(row: Sequence[str]) -> ExportedContact:
        if len(row) != len(header):
            raise SinkUnavailable(f"the export has a record of {len(row)} values under {len(header)} columns")
        return ExportedContact(row[id_at], row[callable_at].lower() not in _NOT_CALLABLE, values(row))

    return parse
