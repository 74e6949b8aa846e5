"""Reading an exported file: in whatever parts it comes, whatever its values hold; what is damaged is said to be."""

import csv
import io

import pytest
from hypothesis import given, strategies

from consumer.adapters.genesys.export_file import MAX_RECORD_BYTES, ExportFile
from consumer.errors import ConsumerError, ContactListMismatch, SinkUnavailable
from consumer.model import ExportedContact

COLUMNS = ("external_id", "phone_number")
HEADER = ["inin-outbound-id", "phone_number", "external_id", "agent note", "ContactCallable", "Callable-phone_number"]


def written(rows: list[list[str]], header: list[str] = HEADER, line_end: str = "\r\n") -> bytes:
    """A file as Genesys writes it."""
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return text.getvalue().encode("utf-8-sig")


def read(data: bytes, size: int = 1 << 16) -> list[ExportedContact]:
    """A file that comes in parts of this size."""
    file = ExportFile(COLUMNS)
    found = [contact for at in range(0, len(data), size) for contact in file.feed(data[at : at + size])]
    return found + file.end()


def row(name: str = "a", phone: str = "+1", note: str = "", callable_: str = "1") -> list[str]:
    """A contact's record."""
    return ["id", phone, name, note, callable_, "1"]


@given(
    strategies.lists(strategies.tuples(strategies.text(), strategies.text('",\r\nä'), strategies.text())),
    strategies.integers(1, 40),
    strategies.sampled_from(["\r\n", "\n"]),
)
def test_a_file_is_read_the_same_in_whatever_parts_it_comes(
    told: list[tuple[str, str, str]], size: int, line_end: str
) -> None:
    """Line ends, quotes and commas inside of values, characters cut in the middle: all is found as it was written."""
    rows = [row(*(value.replace("\0", "") for value in each)) for each in told]
    found = read(written(rows, line_end=line_end), size)
    assert found == [ExportedContact("id", True, (name, phone)) for _, phone, name, *_ in rows]


def test_the_last_record_needs_no_line_end() -> None:
    """Some programs leave it out."""
    assert read(written([row()])[:-2]) == [ExportedContact("id", True, ("a", "+1"))]


@pytest.mark.parametrize(("said", "callable_"), [("1", True), ("0", False), ("false", False), ("", True), ("?", True)])
def test_whoever_may_be_callable_counts_as_callable(said: str, callable_: bool) -> None:
    """Only a clear no is one."""
    assert read(written([row(callable_=said)]))[0].callable is callable_


def test_the_phone_column_tells_where_the_contact_does_not() -> None:
    """Older exports have no column for the contact as a whole."""
    header = [name for name in HEADER if name != "ContactCallable"]
    assert not read(written([["id", "+1", "a", "", "0"]], header))[0].callable


@pytest.mark.parametrize("missing", ["inin-outbound-id", "external_id"])
def test_a_missing_column_is_named(missing: str) -> None:
    """The list is another one than the settings say."""
    with pytest.raises(ContactListMismatch, match=missing):
        read(written([], [name for name in HEADER if name != missing]))


def test_without_a_column_that_tells_who_is_callable_nothing_is_compared() -> None:
    """Otherwise the worst drift would not be seen."""
    with pytest.raises(ContactListMismatch, match="ContactCallable"):
        read(written([], HEADER[:4]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        written([row()]) + b"too,short\r\n",
        written([]) + b'id,+1,"a,,1,1\r\n',
        written([row()]) + b"\xff\xfe,,,,,\r\n",
        b"a" * (MAX_RECORD_BYTES + 1),
        written([]) + b'id,"' + b"\n" * (MAX_RECORD_BYTES + 1),
    ],
    ids=["empty", "short record", "open quote", "not UTF-8", "no line end", "no end of a value"],
)
def test_a_damaged_file_is_said_to_be_damaged(data: bytes) -> None:
    """It is read anew, and nothing of it is told."""
    with pytest.raises(SinkUnavailable) as raised:
        read(data)
    error: ConsumerError = raised.value
    assert error.__context__ is None
    assert "+1" not in str(error)
