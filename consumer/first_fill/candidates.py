"""Rows as what they may become: the stages from row to change, the same as a record's."""

from collections.abc import Sequence

from msgspec import Struct

from consumer.core import changes
from consumer.core.rows import Rows
from consumer.core.validate import validate
from consumer.errors import DecodeError, ValidationError, undecodable
from consumer.model import FROM_A_FILE, Amendment, Change, ChangeEvent, Contact, FileRow


class Candidate(Struct, eq=False):
    """A row that has been through the rules.

    Attributes:
        row: The row.
        external_id: Of the contact, None when the row does not tell.
        change: What is to be done, None when there is nothing.
        reasons: Why it is rejected; a rejected withdrawal has both a change and reasons.
        detail: What to look at, without contact data.
    """

    row: FileRow
    external_id: str | None = None
    change: Change | None = None
    reasons: Sequence[str] = ()
    detail: str = ""


class Candidates:
    """Makes candidates.

    Args:
        rows: Read the rows of the file.
        columns: Attribute source names with their columns.
        contact_list_id: Part of each fingerprint.
    """

    def __init__(self, rows: Rows, columns: Sequence[tuple[str, str]], contact_list_id: str) -> None:
        self._rows = rows
        self._columns = columns
        self._contact_list_id = contact_list_id

    def of(self, rows: Sequence[FileRow]) -> list[Candidate]:
        """A candidate for each row, in their order."""
        read = list(map(self._read, rows))
        contacts = iter(validate([event for event in read if isinstance(event, ChangeEvent)], self._columns))
        return [
            _rejected(row, event) if isinstance(event, DecodeError) else self._checked(row, event, next(contacts))
            for row, event in zip(rows, read, strict=True)
        ]

    def _read(self, row: FileRow) -> ChangeEvent | DecodeError:
        if row.problem:
            return undecodable(row.problem)
        try:
            return self._rows.event(row.fields)
        except DecodeError as error:
            return error.with_traceback(None)

    def _checked(self, row: FileRow, event: ChangeEvent, contact: Contact | Amendment | ValidationError) -> Candidate:
        change = changes.of(event, contact, FROM_A_FILE, self._contact_list_id)
        if not isinstance(contact, ValidationError):
            return Candidate(row, contact.external_id, change)
        return Candidate(row, event.named, change, contact.reasons, contact.detail)


def _rejected(row: FileRow, error: DecodeError) -> Candidate:
    return Candidate(row, reasons=error.reasons, detail=error.detail)
