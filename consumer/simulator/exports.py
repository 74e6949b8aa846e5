"""Answers for what an exported file looks like: CSV in UTF-8 with a byte order mark, made as it is read. No I/O.

Known, from what users of real exports read in them (column lists in public programs that parse such files, among them
a mapping that names every column in order): `inin-outbound-id` comes first, then the list's columns, then
`ContactCallable`, `ContactableByVoice`, `ContactableBySms`, `ContactableByEmail`, `ZipCodeAutomaticTimeZone`, then for
each phone column the nine of `_PER_PHONE`. `ContactCallable` and `Callable-X` are 1 or 0. That the file begins with a
byte order mark, and that the system's columns must go before it is imported again, is in the vendor's help pages.

Assumed: 1 and 0 for the `ContactableBy` columns too, and 1 where nothing was said; email columns have none of theirs;
what a campaign would fill in is empty; lines end in CR LF; the file holds the contacts as they were when it was asked
for.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from consumer.simulator.contacts import read_row

CHUNK_ROWS = 250
BOM = "\ufeff"
_ID = "inin-outbound-id"
_OVERALL = (
    "ContactCallable", "ContactableByVoice", "ContactableBySms", "ContactableByEmail", "ZipCodeAutomaticTimeZone",
)  # fmt: skip
_PER_PHONE = (
    "CallRecordLastAttempt", "CallRecordLastResult", "CallRecordLastAgentWrapup", "SmsLastAttempt", "SmsLastResult",
    "Callable", "ContactableByVoice", "ContactableBySms", "AutomaticTimeZone",
)  # fmt: skip
_MEDIA = {"ContactableByVoice": "Voice", "ContactableBySms": "SMS", "ContactableByEmail": "Email"}

Status = Mapping[str, Any]


def _bit(value: object) -> str:
    return "0" if value is False else "1"


class ExportedColumns:
    """The columns of an export of one list."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        phones = [column["columnName"] for column in definition["phoneColumns"]]
        self._per_column = [(kind, column) for column in phones for kind in _PER_PHONE]
        own = [f"{kind}-{column}" for kind, column in self._per_column]
        self.header = [_ID, *definition["columnNames"], *_OVERALL, *own]
        self._unknown = self._known({})

    def values(self, contact_id: str, row: bytes) -> list[str]:
        """A contact's line."""
        callable_, status, values = read_row(row)
        return [contact_id, *values, _bit(callable_), *(self._known(status) if status else self._unknown)]

    def _known(self, status: Status) -> list[str]:
        overall = [self._overall(kind, status) for kind in _OVERALL[1:]]
        return overall + [self._own(kind, column, status) for kind, column in self._per_column]

    def _overall(self, kind: str, status: Status) -> str:
        if kind not in _MEDIA:
            return ""
        medium = status.get("contactableStatus", {}).get(_MEDIA[kind]) or {}
        return _bit(medium.get("contactable"))

    def _own(self, kind: str, column: str, status: Status) -> str:
        if kind == "Callable":
            return _bit((status.get("phoneNumberStatus", {}).get(column) or {}).get("callable"))
        if kind not in _MEDIA:
            return ""
        medium = status.get("contactableStatus", {}).get(_MEDIA[kind]) or {}
        return _bit(((medium.get("columnStatus") or {}).get(column) or {}).get("contactable"))


def export(definition: Mapping[str, Any], rows: Mapping[str, bytes]) -> Iterator[bytes]:
    """The file, in chunks."""
    columns = ExportedColumns(definition)
    yield BOM.encode() + lines([columns.header])
    contacts = iter(rows.items())
    while chunk := [columns.values(contact_id, row) for contact_id, row in islice(contacts, CHUNK_ROWS)]:
        yield lines(chunk)


def lines(rows: Sequence[Sequence[str]]) -> bytes:
    """Rows as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
