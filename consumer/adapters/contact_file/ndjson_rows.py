"""Rows of a file of JSON objects, one a line.

Touches nothing. A line that is no object is a row with a problem.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import orjson

from consumer.adapters.contact_file.text import lines, text
from consumer.model import FileRow


def ndjson_rows(chunks: Iterable[bytes]) -> Iterator[FileRow]:
    """The rows of a file.

    Raises:
        FatalError: A line does not end, or is not UTF-8.
    """
    number = 0
    for place, line in enumerate(lines(chunks), start=1):
        if raw := line.strip():
            number += 1
            yield _row(number, raw, place)


def _row(number: int, raw: bytes, line: int) -> FileRow:
    with suppress(orjson.JSONDecodeError):
        fields = orjson.loads(raw)
        if isinstance(fields, dict):
            return FileRow(number, raw, fields)
        return FileRow(number, raw, {}, f"line {line:,} is JSON, but no object")
    text(raw, line)  # what is not even text ends the whole
    return FileRow(number, raw, {}, f"line {line:,} is no JSON")
