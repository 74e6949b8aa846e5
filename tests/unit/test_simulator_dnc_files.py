"""Files of do-not-call entries: uploads as they are read and imported, exports as they are made; no socket."""

import csv
import io
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from consumer.simulator.api import Call, Done
from consumer.simulator.dnc import DncList, DncLists, EntryKind, check_dnc_definition
from consumer.simulator.dnc_api import DncApi
from consumer.simulator.dnc_files import DncStaging, begin_import, column_names, export, snapshot
from consumer.simulator.dnc_jobs import DncJobs
from consumer.simulator.errors import ApiError
from consumer.simulator.exports import CHUNK_ROWS
from consumer.simulator.imports import MISSING_COLUMNS, NOT_A_CSV
from consumer.simulator.lists import ContactLists
from consumer.simulator.operations import Operation
from consumer.simulator.tasks import Pace
from consumer.simulator.uploads import Uploads

PHONES, EMAILS = EntryKind.PHONE_NUMBERS, EntryKind.EMAIL_ADDRESSES
JANE, JOHN, JIM = "+15550100001", "+15550100002", "+15550100003"
JUNE_1 = 1_780_272_000.0  # 2026-06-01T00:00Z
ORIGIN = "http://127.0.0.1:1"


class Bench:
    """An organisation with one internal list; a record takes a second."""

    def __init__(self, **limits: Any) -> None:
        self.now = 0.0
        self.lists = DncLists(lambda: JUNE_1, pace=Pace(lambda: self.now, 1.0, rows_per_second=1.0), **limits)
        self.uploads = Uploads(ContactLists(), None, lambda: self.now)
        self.jobs = DncJobs(self.lists, self.uploads)
        self.list = self.make()

    def make(self, name: str = "never", **changes: Any) -> DncList:
        definition = {"name": name, "dncSourceType": "rds", "contactMethod": "Phone"} | changes
        return self.lists.create(check_dnc_definition(definition))

    def do(self, operation: Operation, body: Any = None, at: DncList | None = None, **query: str) -> Done:
        values = {name: [value] for name, value in query.items()}
        list_id = (self.list if at is None else at).id
        return self.jobs.actions[operation](Call(list_id, query=values, origin=ORIGIN, body=json.dumps(body).encode()))

    def ask(self, operation: Operation, body: Any = None) -> Any:
        return json.loads(self.do(operation, body).body)

    def refusal(self, operation: Operation, body: Any = None, at: DncList | None = None) -> str:
        with pytest.raises(ApiError) as refused:
            self.do(operation, body, at)
        return refused.value.code

    def import_(self, text: str, expiration_column: str = "") -> None:
        staging = DncStaging({PHONES: ["phone"]}, expiration_column, JUNE_1)
        staging.feed(text.encode())
        staging.close()
        begin_import(self.lists, self.list, staging)

    def held(self) -> dict[str, float | None]:
        return self.lists.look_up("never").entries[PHONES]

    def status(self) -> Any:
        return self.ask(Operation.GET_DNC_IMPORT_STATUS)


def request(bench: Bench, **changes: Any) -> dict[str, Any]:
    """A request for a URL; None leaves a property out."""
    made = {"contentType": "text/csv", "id": bench.list.id, "phoneColumns": "phone"} | changes
    return {field: value for field, value in made.items() if value is not None}


def test_a_file_is_imported_row_by_row():
    """A row a second; the status tells how far it is, and has no state when it is done."""
    bench = Bench()
    bench.import_(f"phone,name\n{JANE},Jane\n{JOHN},John\n")
    assert (bench.held(), bench.status()["state"]) == ({}, "IN_PROGRESS")
    bench.now = 1.0
    assert bench.held() == {JANE: None}
    assert (bench.status()["completedRecords"], bench.status()["percentComplete"]) == (1, 50)
    bench.now = 2.0
    assert bench.held() == {JANE: None, JOHN: None}
    assert bench.status() == {"totalRecords": 2, "completedRecords": 2, "percentComplete": 100}


def test_a_list_shows_its_import():
    """The status of the import is in the list for those who ask for it."""
    bench = Bench()
    bench.import_(f"phone\n{JANE}\n")
    assert bench.list.body(with_size=False, with_import_status=True)["importStatus"]["state"] == "IN_PROGRESS"
    assert "importStatus" in bench.list.view(with_size=False, with_import_status=True)
    assert "importStatus" not in bench.list.body(with_size=True)


def test_rows_have_several_columns_and_one_expiration():
    """Each column of a row is an entry, empty ones are none, and all of a row expire together."""
    staging = DncStaging({PHONES: ["home", "cell"], EMAILS: ["mail"]}, "until", JUNE_1)
    staging.feed(f"home,until,cell,mail\n{JANE},2026-06-01T01:00Z,{JOHN},a@example.com\n{JIM},,,\n".encode())
    staging.close()
    hour = JUNE_1 + 3_600
    assert [*staging.entries()] == [
        (PHONES, JANE, hour), (PHONES, JOHN, hour), (EMAILS, "a@example.com", hour), (PHONES, JIM, None),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["soon", "2026-05-31T00:00Z", "2027-06-01T00:00Z"])
def test_a_wrong_expiration_leaves_the_entry_without_one(text: str):
    """The number is imported all the same: better for ever than not at all."""
    bench = Bench()
    bench.import_(f"phone,until\n{JANE},{text}\n", "until")
    bench.now = 1.0
    assert bench.held() == {JANE: None}


@pytest.mark.parametrize(
    ("text", "expiration_column", "reason"),
    [
        ("number\n1\n", "", MISSING_COLUMNS),
        ("phone\n1\n", "until", MISSING_COLUMNS),
        ('phone\n"1\n', "", NOT_A_CSV),
    ],
)
def test_a_file_that_is_wrong_fails_whole(text: str, expiration_column: str, reason: str):
    """Without its columns, or without an end of its quotes, nothing of it is imported, and the status says why."""
    bench = Bench()
    bench.import_(text, expiration_column)
    bench.now = 1.0
    assert (bench.held(), bench.status()) == (
        {},
        {"state": "FAILED", "totalRecords": 0, "completedRecords": 0, "percentComplete": 100, "failureReason": reason},
    )


def test_a_row_of_another_width_counts_and_is_left_out():
    """It is among the total and not among the entries."""
    bench = Bench()
    bench.import_(f"phone,name\n{JANE}\n{JOHN},John\n")
    bench.now = 2.0
    assert bench.held() == {JOHN: None}
    assert bench.status()["completedRecords"] == 2


def test_a_file_that_there_is_no_room_for_fails():
    """What is in the list already needs no room; one entry too many fails all."""
    bench = Bench(per_list_max=2)
    bench.lists.add(bench.list, PHONES, [JANE], None)
    bench.import_(f"phone\n{JANE}\n{JOHN}\n")
    bench.now = 2.0
    assert bench.held().keys() == {JANE, JOHN}
    bench.import_(f"phone\n{JIM}\n")
    bench.now = 4.0
    assert bench.held().keys() == {JANE, JOHN}
    assert bench.status()["failureReason"] == "EXCEEDED_DNC_RECORD_LIMIT"


def test_a_url_leads_to_the_list():
    """What is put to the URL is imported; the ticket tells the headers."""
    bench = Bench()
    issued = bench.ask(Operation.GET_DNC_UPLOAD_URL, request(bench, expirationDateTimeColumn="until"))
    url = urlsplit(issued["url"])
    signature = parse_qs(url.query)["X-Amz-Signature"][0]
    ticket = bench.uploads.presented(issued["uploadKey"], signature, issued["headers"] | {"Content-Length": "1"})
    incoming = ticket.open()
    incoming.staging.feed(f"until,phone\n2026-06-01T01:00Z,{JANE}\n".encode())
    incoming.arrive()
    bench.now = 1.0
    assert (incoming.list_id, bench.held()) == (bench.list.id, {JANE: JUNE_1 + 3_600})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"contentType": "text/plain"}, "invalid.value"),
        ({"id": None}, "invalid.value"),
        ({"id": "absent"}, "not.found"),
        ({"phoneColumns": None}, "bad.request"),
        ({"phoneColumns": ["phone"]}, "invalid.value"),
        ({"emailColumns": "mail"}, "bad.request"),
        ({"signedUrlTimeoutSeconds": 604_801}, "invalid.value"),
        ({"contactIdName": "id"}, "invalid.property"),
    ],
)
def test_a_url_that_may_not_be_is_refused(changes: dict[str, Any], code: str):
    """What is wrong with a request for a URL has its code."""
    bench = Bench()
    assert bench.refusal(Operation.GET_DNC_UPLOAD_URL, request(bench, **changes)) == code


@pytest.mark.parametrize(
    ("text", "names"), [("home, cell", ["home", "cell"]), ('"a, b",c', ["a, b", "c"]), ("phone", ["phone"])]
)
def test_columns_are_named_in_one_string(text: str, names: list[str]):
    """They are separated by commas, and quoted where they have one."""
    assert column_names(text) == names


def test_an_export_is_made_in_a_while():
    """There is none until its time is over; it holds what the list held when it was asked for."""
    bench = Bench(per_list_max=10)
    bench.lists.add(bench.list, PHONES, [JANE], JUNE_1 + 60)
    bench.do(Operation.START_DNC_EXPORT)
    bench.lists.add(bench.list, PHONES, [JOHN], None)
    assert bench.refusal(Operation.GET_DNC_EXPORT) == "no.available.list.export.uri"
    assert bench.refusal(Operation.START_DNC_EXPORT) == "dnc.list.export.in.progress"
    bench.now = 1.0
    told = bench.ask(Operation.GET_DNC_EXPORT)
    assert told["exportTimestamp"] == "2026-06-01T00:00:00.000Z"
    elsewhere = bench.do(Operation.GET_DNC_EXPORT, download="true")
    assert (elsewhere.status, elsewhere.location) == (302, told["uri"])
    assert bench.list.tasks.export is not None
    text = b"".join(bench.list.tasks.export.chunks()).decode("utf-8-sig")
    assert [*csv.DictReader(io.StringIO(text))] == [
        {
            "phoneNumbers": JANE, "emailAddresses": "", "whatsAppNumbers": "", "customExclusionColumnEntries": "",
            "expirationDateTime": "2026-06-01T00:01Z",
        }
    ]  # fmt: skip


def test_nothing_else_goes_on_during_an_import():
    """Neither an export nor the deletion of entries begins."""
    bench = Bench()
    bench.import_(f"phone\n{JANE}\n")
    assert bench.refusal(Operation.START_DNC_EXPORT) == "dnc.list.import.in.progress"
    clear = DncApi(bench.lists).actions[Operation.DELETE_DNC_PHONE_NUMBERS]
    with pytest.raises(ApiError) as refused:
        clear(Call(bench.list.id))
    assert refused.value.code == "dnc.list.import.in.progress"
    bench.now = 1.0
    assert clear(Call(bench.list.id)).dnc_entries == (JANE,)


def test_a_vendors_list_is_not_exported():
    """What it holds is the vendor's."""
    bench = Bench()
    vendor = bench.make("vendor", dncSourceType="gryphon", licenseId="license")
    assert bench.refusal(Operation.START_DNC_EXPORT, at=vendor) == "unexportable.dnc.list.type"


def test_a_long_export_comes_in_chunks():
    """One entry more than two chunks hold is in a third one, and every entry is in one, after the header."""
    bench = Bench()
    numbers = [f"+1555{n:07d}" for n in range(2 * CHUNK_ROWS + 1)]
    bench.lists.add(bench.list, PHONES, numbers, None)
    chunks = [*export(snapshot(bench.list))]
    assert len(chunks) == 4
    assert [line.split(",")[0] for line in b"".join(chunks).decode().splitlines()[1:]] == numbers
