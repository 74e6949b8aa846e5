"""Rows of a CSV file after RFC 4180: a header, commas, quotation marks doubled within quotation marks.

Touches nothing. A row that is no CSV, or has another number of values than the header, is a row with a problem.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence

from consumer.adapters.contact_file.text import MAX_RECORD_BYTES, lines, text, too_long
from consumer.core.rows import Rows, typed
from consumer.errors import FatalError
from consumer.model import FileRow

MAX_COLUMNS = 1_000


def csv_rows(chunks: Iterable[bytes], rows: Rows) -> Iterator[FileRow]:
    """The rows of a file.

    Args:
        chunks: Of the file.
        rows: Know which columns must be there.

    Raises:
        FatalError: There is no usable header, or where a row ends cannot be told.
    """
    records = _records(chunks)
    header = _header(next(records, ""), rows)
    number = 0
    for record in records:
        if record.strip("\r\n"):
            number += 1
            yield _row(number, record, header)


def _row(number: int, record: str, header: Sequence[str]) -> FileRow:
    raw = record.rstrip("\r\n").encode()
    try:
        (values,) = csv.reader((record,), strict=True)
    except (csv.Error, ValueError):
        return FileRow(number, raw, {}, "the row is not CSV: check its quotation marks")
    if len(values) != len(header):
        return FileRow(number, raw, {}, f"the row has {len(values)} values, the header has {len(header)}")
    return FileRow(number, raw, {name: typed(name, value) for name, value in zip(header, values, strict=True)})


def _header(record: str, rows: Rows) -> list[str]:
    try:
        (names,) = csv.reader((record,), strict=True)
    except (csv.Error, ValueError):
        raise FatalError("the file has no CSV header") from None
    if len(names) > MAX_COLUMNS:
        raise FatalError(f"the header names {len(names):,} columns, {MAX_COLUMNS:,} at most can be read")
    if missing := rows.missing(names):
        raise FatalError(f"the CSV header lacks {', '.join(missing)}: it must name the fields, separated by commas")
    if doubled := rows.doubled(names):
        raise FatalError(f"the CSV header has more than one column for {', '.join(doubled)}")
    return names


def _records(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole records: a line break within quotation marks does not end one."""
    begun, parts, length, quotes = 1, list[str](), 0, 0
    for number, line in enumerate(lines(chunks), start=1):
        begun = begun if parts else number
        parts.append(text(line, number))
        length += len(line)
        quotes += line.count(b'"')
        if length > MAX_RECORD_BYTES:
            raise too_long(begun)
        if quotes % 2 == 0:
            yield "".join(parts)
            parts, length, quotes = [], 0, 0
    if parts:
        yield "".join(parts)
