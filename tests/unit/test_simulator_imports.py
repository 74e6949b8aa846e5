"""Files on their way in and out of a list, without a socket: what is imported, when, and what an export says."""

import csv
import io
import itertools
import tracemalloc
from collections.abc import Sequence

import pytest

from consumer.simulator.contacts import Poison
from consumer.simulator.definitions import check_definition
from consumer.simulator.errors import ApiError
from consumer.simulator.exports import export
from consumer.simulator.imports import (
    MISSING_COLUMNS,
    NO_HEADER,
    NO_ID_COLUMN,
    NO_ROOM,
    NOT_A_CSV,
    RECORD_LENGTH_MAX,
    Staging,
)
from consumer.simulator.lists import ContactList, ContactLists
from consumer.simulator.tasks import Pace, Tasks

COLUMNS = ("phone", "note")


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_list(lists: ContactLists) -> ContactList:
    """A list of the columns here."""
    phone = {"columnName": "phone", "type": "cell"}
    return lists.create(check_definition({"name": "n", "columnNames": [*COLUMNS], "phoneColumns": [phone]}))


def staged(*chunks: bytes, id_column: str | None = "id", poison: Poison | None = None, trim: bool = True) -> Staging:
    """A file that has arrived whole."""
    staging = Staging(COLUMNS, id_column, poison, trim=trim, afresh=False)
    for chunk in chunks:
        staging.feed(chunk)
    staging.close()
    return staging


def imported(*chunks: bytes, trim: bool = True) -> dict[str, str]:
    """What a file makes of an empty list: notes by id."""
    lists = ContactLists()
    made = make_list(lists)
    lists.begin_import(made, staged(*chunks, trim=trim))
    lists.find(made.id)
    return {contact_id: view["data"]["note"] for contact_id, view in made.contacts.views()}


FILE = 'id,phone,extra,note\r\na,+15550100001,x,"one, ""two""\r\nthree"\r\nb,+15550100002,,nöte\r\n'.encode()
NOTES = {"a": 'one, "two"\r\nthree', "b": "nöte"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_a_file_is_read_however_it_is_cut(size: int, head: bytes):
    """Quotes, line breaks within them, letters of two bytes and a byte order mark survive any cut."""
    whole = head + FILE
    assert imported(*(whole[start : start + size] for start in range(0, len(whole), size))) == NOTES


def test_the_last_line_needs_no_line_break():
    """A file may end with its last value."""
    assert imported(FILE.rstrip()) == NOTES


@pytest.mark.parametrize(
    ("file", "failure"),
    [
        (b"id,phone\na,1\n", MISSING_COLUMNS),
        (b"phone,note\n1,x\n", NO_ID_COLUMN),
        (b"", NO_HEADER),
        (b"id,phone,note\na,1,\xff\n", NOT_A_CSV),
        (b'id,phone,note\na,1,"never closed\n', NOT_A_CSV),
        (b'id,phone,note\ngood,1,x\na,1,"x"y\n', NOT_A_CSV),
        (b'id,phone,note\na,1,"' + b"x" * (RECORD_LENGTH_MAX + 1), NOT_A_CSV),
    ],
)
def test_a_file_that_is_not_one_fails_whole(file: bytes, failure: str):
    """Nothing of it is kept, not even the rows before the fault."""
    staging = staged(file)
    assert (staging.failure, len(staging.rows), staging.total) == (failure, 0, 0)


@pytest.mark.parametrize(
    "row", ["b b,1,x", ",1,x", "b,1," + "x" * 513, "b,1", "b,1,x,y", "b,1,poison"], ids=lambda row: row[:10]
)
def test_a_row_that_breaks_a_rule_is_left_out(row: str):
    """It counts as a row of the file, and the rows around it are imported."""
    staging = staged(f"id,phone,note\na,1,x\n{row}\nc,1,x\n".encode(), poison=Poison.marked("poison"))
    assert [contact_id for contact_id, _ in staging.rows] == ["a", "c"]
    assert (staging.total, staging.failure) == (3, "")


def test_white_space_is_trimmed_if_the_list_says_so():
    """Around values, and only then."""
    file = b"id,phone,note\na,1,  x \n"
    assert (imported(file), imported(file, trim=False)) == ({"a": "x"}, {"a": "  x "})


def test_rows_without_a_column_for_the_id_get_new_ids():
    """Each row is a new contact."""
    staging = staged(b"phone,note\n1,x\n1,x\n", id_column=None)
    assert len({contact_id for contact_id, _ in staging.rows}) == 2


def test_an_import_keeps_whether_a_known_contact_is_callable():
    """Its data is replaced; a new contact is callable."""
    lists = ContactLists()
    made = make_list(lists)
    made.contacts.put("a", {"data": {"phone": "0", "note": "old"}, "callable": False}, afresh=False)
    lists.begin_import(made, staged(FILE))
    lists.find(made.id)
    views = dict(made.contacts.views())
    assert {contact_id: view["callable"] for contact_id, view in views.items()} == {"a": False, "b": True}
    assert views["a"]["data"]["note"] == NOTES["a"]
    assert lists.tally["applied"] == 2


def rows_of(count: int) -> Staging:
    """A file of so many rows."""
    return staged(b"id,phone,note\n" + b"".join(b"c%d,1,x\n" % number for number in range(count)))


def test_an_import_goes_by_the_clock():
    """Half of the time, half of the rows, state IN_PROGRESS; at the end no state and a hundred percent."""
    clock = Clock()
    lists = ContactLists(pace=Pace(clock, 1.0, rows_per_second=10))
    made = make_list(lists)
    lists.begin_import(made, rows_of(100))
    seen = []
    for now in (100.0, 102.5, 105.0, 110.0):
        clock.now = now
        status = lists.find(made.id).tasks.import_status()
        seen.append((status.get("state"), status["completedRecords"], status["percentComplete"], len(made.contacts)))
    assert seen == [
        ("IN_PROGRESS", 0, 0, 0),
        ("IN_PROGRESS", 25, 25, 25),
        ("IN_PROGRESS", 50, 50, 50),
        (None, 100, 100, 100),
    ]


def test_files_are_imported_one_after_the_other_and_after_a_clear():
    """A clear that goes on ends before the first row comes; the second file waits for the first."""
    clock = Clock()
    lists = ContactLists(pace=Pace(clock, job_seconds=10.0))
    made = make_list(lists)
    made.contacts.put("old", {"data": {"phone": "0", "note": "old"}}, afresh=False)
    made.tasks.begin_clear(made.contacts.clear)
    lists.begin_import(made, staged(b"id,phone,note\na,1,first\n"))
    lists.begin_import(made, staged(b"id,phone,note\na,1,second\n"))
    seen: list[Sequence[str]] = []
    for clock.now in (109.0, 119.0, 129.0, 131.0):
        lists.find(made.id)
        seen.append([view["data"]["note"] for _, view in made.contacts.views()])
    assert seen == [["old"], [], ["first"], ["second"]]


def test_a_failed_import_says_why():
    """The state is FAILED with the reason, and the list is as it was."""
    lists = ContactLists()
    made = make_list(lists)
    lists.begin_import(made, staged(b"id,phone\na,1\n"))
    status = lists.find(made.id).tasks.import_status()
    assert (status["state"], status["failureReason"], len(made.contacts)) == ("FAILED", MISSING_COLUMNS, 0)


def test_no_import_is_larger_than_a_list():
    """A file with more new contacts than the list has room for fails whole."""
    lists = ContactLists(per_list_max=2)
    made = make_list(lists)
    lists.begin_import(made, rows_of(3))
    status = lists.find(made.id).tasks.import_status()
    assert (status["failureReason"], len(made.contacts)) == (NO_ROOM, 0)


def test_no_import_is_larger_than_the_organisation(monkeypatch: pytest.MonkeyPatch):
    """A file with more new contacts than there is room for fails whole."""
    monkeypatch.setattr("consumer.simulator.lists.CONTACTS_MAX", 2)
    lists = ContactLists()
    made = make_list(lists)
    lists.begin_import(made, rows_of(3))
    status = lists.find(made.id).tasks.import_status()
    assert (status["failureReason"], len(made.contacts)) == (NO_ROOM, 0)


def test_what_goes_on_refuses_what_would_disturb_it():
    """Each thing that runs has the code that says so, until it is over."""
    clock = Clock()
    tasks = Tasks(Pace(clock, job_seconds=1.0))
    tasks.begin_clear(list)
    tasks.begin_import(iter(()), 0, "")
    with pytest.raises(ApiError, match="cleared"):
        tasks.refuse_while_clearing()
    with pytest.raises(ApiError, match="import"):
        tasks.refuse_while_importing()
    clock.now = 102.0
    tasks.refuse_while_clearing()
    tasks.refuse_while_importing()
    assert tasks.import_status()["percentComplete"] == 100


def exported(made: ContactList) -> tuple[bytes, list[dict[str, str]]]:
    """The file of an export, and its rows."""
    raw = b"".join(export(made.definition, made.contacts.snapshot()))
    return raw, list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))


def test_an_export_has_the_columns_of_a_real_one():
    """A byte order mark, the id, the list's columns, then what the system knows, once and for each phone column."""
    raw, _ = exported(make_list(ContactLists()))
    assert raw == (
        b"\xef\xbb\xbfinin-outbound-id,phone,note,"
        b"ContactCallable,ContactableByVoice,ContactableBySms,ContactableByEmail,ZipCodeAutomaticTimeZone,"
        b"CallRecordLastAttempt-phone,CallRecordLastResult-phone,CallRecordLastAgentWrapup-phone,SmsLastAttempt-phone,"
        b"SmsLastResult-phone,Callable-phone,ContactableByVoice-phone,ContactableBySms-phone,AutomaticTimeZone-phone\r\n"
    )


def test_an_export_tells_who_is_callable():
    """1 and 0: of the contact, of its number, and of each medium."""
    made = make_list(ContactLists())
    data = {"phone": "1", "note": 'a "b",\n'}
    status = {"Voice": {"contactable": False, "columnStatus": {"phone": {"contactable": False}}}}
    made.contacts.put("free", {"data": data}, afresh=False)
    made.contacts.put("not", {"data": data, "callable": False, "contactableStatus": status}, afresh=False)
    made.contacts.put("number", {"data": data, "phoneNumberStatus": {"phone": {"callable": False}}}, afresh=False)
    _, rows = exported(made)
    columns = (
        "inin-outbound-id",
        "ContactCallable",
        "ContactableByVoice",
        "ContactableByVoice-phone",
        "Callable-phone",
    )
    assert ["".join(f"{row[column]} " for column in columns) for row in rows] == [
        "free 1 1 1 1 ", "not 0 0 0 1 ", "number 1 1 1 0 ",
    ]  # fmt: skip
    assert all(row["note"] == data["note"] for row in rows)


def test_an_export_can_be_imported_again():
    """By its id column, as it is: what the system added is dropped."""
    made = make_list(ContactLists())
    made.contacts.put("a", {"data": {"phone": "1", "note": "ü\r\n,"}}, afresh=False)
    raw, _ = exported(made)
    staging = staged(raw, id_column="inin-outbound-id", trim=False)
    assert dict(staging.rows) == made.contacts.snapshot()


def test_no_file_is_held_whole():
    """Neither one that comes in, beyond the rows that wait, nor one that goes out."""
    chunk = b"".join(b"%d,1,%s\n" % (number, b"x" * 600) for number in range(100))
    staging = Staging(COLUMNS, "id", None, trim=True, afresh=False)
    staging.feed(b"id,phone,note\n")
    made = make_list(ContactLists())
    for number in range(5_000):
        made.contacts.put(str(number), {"data": {"phone": "1", "note": "x" * 500}}, afresh=False)
    rows = made.contacts.snapshot()
    tracemalloc.start()
    for _ in range(100):
        staging.feed(chunk)
    size = sum(len(part) for part in export(made.definition, rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (staging.total, size > 2_500_000) == (10_000, True)
    assert peak < 1_500_000


def test_an_import_that_is_over_is_complete() -> None:
    """However time passes between two looks at the clock."""
    ticks = itertools.count()
    tasks = Tasks(Pace(lambda: next(ticks) * 0.1, job_seconds=1.0, rows_per_second=1000.0))
    tasks.begin_import(iter([True]), 1, "")
    tasks.catch_up()
    while "state" in (status := tasks.import_status()):
        tasks.catch_up()
    assert status == {"totalRecords": 1, "completedRecords": 1, "percentComplete": 100}
