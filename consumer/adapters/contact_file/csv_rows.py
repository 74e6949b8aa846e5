"""Rows of a CSV file after RFC 4180: a header, commas, quotation marks doubled within quotation marks.

Touches nothing. A line that is no CSV, or has another number of values than the header, is a row with a problem. A row
of several lines that has one ends the file: rows that a quotation mark swallowed may be in it, withdrawals among them.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence

from consumer.adapters.contact_file.text import MAX_RECORD_BYTES, lines, text, too_long
from consumer.core.rows import Rows, typed
from consumer.errors import FatalError
from consumer.model import FileRow

MAX_COLUMNS = 1_000

# The parser's own limit, one for the whole process, would break off within a value, and what follows pass for rows.
csv.field_size_limit(MAX_RECORD_BYTES)


def csv_rows(chunks: Iterable[bytes], rows: Rows) -> Iterator[FileRow]:
    """The rows of a file.

    Args:
        chunks: Of the file.
        rows: Know which columns must be there.

    Raises:
        FatalError: There is no usable header, or where a row ends cannot be told.
    """
    taken = _Lines(chunks)
    reader = csv.reader(taken, strict=True)
    header = _header(_values(reader), rows)
    number = 0
    while not taken.ended:
        taken.begin_row()
        values = _values(reader)
        if values != []:
            number += 1
            yield _row(number, values, taken, header)


class _Lines:
    """The lines of a file for the parser, which takes another one only where a row goes on within quotation marks.

    Attributes:
        ended: The parser asked for more lines than there are.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._lines = lines(chunks)
        self._begins = 1
        self._row: list[bytes] = []
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        length = 0
        for number, line in enumerate(self._lines, start=1):
            if not self._row:
                self._begins, length = number, 0
            self._row.append(line)
            length += len(line)
            if length > MAX_RECORD_BYTES:
                raise too_long(self._begins)
            yield text(line, number)
        self.ended = True

    def begin_row(self) -> None:
        """What is taken from here on is another row."""
        self._row.clear()

    @property
    def raw(self) -> bytes:
        """The row without its end."""
        return b"".join(self._row).rstrip(b"\r\n")

    def check_end(self) -> None:
        """Refuse a row that is no good where it may have swallowed others.

        Raises:
            FatalError: It has several lines, or a quotation mark in it is never closed.
        """
        if self.ended or len(self._row) > 1:
            remedy = "close the quotation mark that one of its values begins with, double those within the value"
            raise FatalError(
                f"where the row ends that begins at line {self._begins:,} cannot be told: {remedy}, "
                "and give it as many values as the header has"
            )


def _values(reader: Iterator[list[str]]) -> list[str] | None:
    """The values of the next row: none of an empty line and at the end, None where they cannot be told."""
    try:
        return next(reader, [])
    except (csv.Error, ValueError):
        return None


def _row(number: int, values: list[str] | None, taken: _Lines, header: Sequence[str]) -> FileRow:
    if values is not None and len(values) == len(header):
        fields = {name: typed(name, value) for name, value in zip(header, values, strict=True)}
        return FileRow(number, taken.raw, fields)
    taken.check_end()
    if values is None:
        return FileRow(number, taken.raw, {}, "the row is not CSV: check its quotation marks")
    return FileRow(number, taken.raw, {}, f"the row has {len(values)} values, the header has {len(header)}")


def _header(names: list[str] | None, rows: Rows) -> list[str]:
    """The names of the columns. What is refused may be a row: of it nothing is told that could be a person's."""
    if names is None:
        raise FatalError("the file has no CSV header")
    if len(names) > MAX_COLUMNS:
        raise FatalError(f"the header names {len(names):,} columns, {MAX_COLUMNS:,} at most can be read")
    if misspelt := rows.misspelt(names):
        raise FatalError(f"the CSV header has columns with other names than fields: {', '.join(misspelt)}")
    if missing := rows.missing(names):
        raise FatalError(f"the CSV header lacks {', '.join(missing)}: it must name the fields, separated by commas")
    if places := rows.values(names):
        raise FatalError(
            f"the CSV header has values instead of names in column {', '.join(map(str, places))}: if a row stands on "
            "its line, put that on one of its own, or else rename the columns"
        )
    if doubled := rows.doubled(names):
        raise FatalError(f"the CSV header has more than one column for {', '.join(doubled)}")
    return names
