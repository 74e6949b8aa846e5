"""The official SDK's calls on contact lists, contacts, uploads and exports, unmodified, on the simulator.

How the SDK is pointed at it stands in tests/official_sdk.py. The simulator's clock is the test's: what takes time goes
on until the test says that the time is over. The SDK has no call that puts a file to a URL or fetches one from it;
urllib3, which it brings, does that as Genesys' own examples do.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from PureCloudPlatformClientV2 import (
    ApiClient,
    ContactBulkEditRequest,
    ContactBulkSearchCriteria,
    ContactBulkSearchParameters,
    ContactList,
    ContactListFilterClause,
    ContactListFilterPredicate,
    ContactListFilterRange,
    ContactListingRequest,
    ContactListsBulkEditRequest,
    ContactListUploadUrlRequest,
    ContactPhoneNumberColumn,
    ContactsExportRequest,
    ContactSort,
    DialerContact,
    EmailColumn,
    OutboundApi,
    UploadUrlResponse,
    WritableDialerContact,
)
from PureCloudPlatformClientV2.rest import ApiException

from tests.official_sdk import OfficialSdk, official_sdk, refusal

UNKNOWN = "5f4dcc3b-5aa7-4f6b-9f65-6f1a3f0d1c2e"
COLUMNS = ["external_id", "phone_number", "email"]
CSV_HEAD = "external_id,phone_number,email\r\n"
HOUR_S = 3_600.0


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(model: type, **fields: Any) -> Any:
    """A model of the SDK with these fields."""
    body = model()
    for name, value in fields.items():
        assert name in body.attribute_map
        setattr(body, name, value)
    return body


def phone_column(name: str = "phone_number") -> ContactPhoneNumberColumn:
    """A phone column."""
    return made(ContactPhoneNumberColumn, column_name=name, type="cell")


def list_definition(**changes: Any) -> ContactList:
    """A contact list as a client writes it."""
    fields = {"name": f"sdk-{uuid4()}", "column_names": COLUMNS, "phone_columns": [phone_column()]}
    return made(ContactList, **(fields | changes))


def criteria(*predicates: ContactListFilterPredicate, either: bool = False) -> ContactBulkSearchCriteria:
    """Criteria of one clause."""
    clause = made(ContactListFilterClause, filter_type="OR" if either else "AND", predicates=list(predicates))
    return made(ContactBulkSearchCriteria, filter_type="AND", clauses=[clause])


def predicate(operator: str, value: str | None = None, column: str = "email", **more: Any) -> Any:
    """A condition on a column."""
    fields = {"column": column, "column_type": "alphabetic", "operator": operator, "value": value}
    return made(ContactListFilterPredicate, **(fields | more))


class Desk:
    """What a user of the SDK has at hand: an API with a token, and a contact list of their own."""

    def __init__(self, sdk: OfficialSdk, clock: Clock, http: urllib3.PoolManager) -> None:
        self.sdk = sdk
        self.api = sdk.outbound
        self.http = http
        self.clock = clock
        self.list_id = str(self.make_list().id)

    def pass_time(self) -> None:
        self.clock.now += HOUR_S

    def make_list(self, **changes: Any) -> ContactList:
        return self.api.post_outbound_contactlists(list_definition(**changes))

    def contact(self, contact_id: str | None = None, **changes: Any) -> WritableDialerContact:
        data = {"external_id": contact_id or "", "phone_number": "+15550100001", "email": f"{contact_id}@example.com"}
        fields = {"id": contact_id, "contact_list_id": self.list_id, "data": data, "callable": True}
        return made(WritableDialerContact, **(fields | changes))

    def add(self, *ids: str, **flags: bool) -> list[DialerContact]:
        return list(self.api.post_outbound_contactlist_contacts(self.list_id, [*map(self.contact, ids)], **flags))

    def held(self) -> set[str]:
        return set(self.sdk.simulator.contacts(self.list_id))

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.sdk.client.access_token}"}

    def search(self, **fields: Any) -> list[str]:
        request = made(ContactListingRequest, **({"page_number": 1, "page_size": 50} | fields))
        found = self.api.post_outbound_contactlist_contacts_search(self.list_id, request)
        return [each.id for each in found.entities]

    def upload_url(self, **changes: Any) -> UploadUrlResponse:
        fields = {"id": self.list_id, "content_type": "text/csv", "contact_id_name": "external_id"}
        request = made(ContactListUploadUrlRequest, **(fields | changes))
        return self.api.post_outbound_contactlists_uploads(request)

    def put(self, url: str, headers: dict[str, str], text: str) -> urllib3.BaseHTTPResponse:
        return self.http.request("PUT", url, body=text.encode(), headers=headers)

    def upload(self, text: str, **changes: Any) -> None:
        issued = self.upload_url(**changes)
        assert self.put(issued.url, issued.headers, text).status == 200

    def send_form(self, text: str, headers: dict[str, str], **changes: str) -> urllib3.BaseHTTPResponse:
        fields = {"id": self.list_id, "fileType": "contactlist", "contact-id-name": "external_id"} | changes
        form: dict[str, Any] = {**fields, "file": ("contacts.csv", text.encode(), "text/csv")}
        return self.http.request(
            "POST", f"{self.sdk.simulator.url}/uploads/v2/contactlist", fields=form, headers=headers
        )

    def fetch(self, uri: str) -> str:
        """The file behind an export's URI, which may be a redirect away; the token goes no further than the API."""
        answer = self.http.request("GET", uri, headers=self.bearer(), redirect=False)
        while answer.status in {302, 303, 307}:
            answer = self.http.request("GET", answer.headers["Location"], headers=self.bearer(), redirect=False)
        assert answer.status == 200
        return answer.data.decode()

    def exported(self, request: ContactsExportRequest | None = None) -> list[dict[str, str]]:
        options = {} if request is None else {"body": request}
        self.api.post_outbound_contactlist_export(self.list_id, **options)
        self.pass_time()
        text = self.fetch(self.api.get_outbound_contactlist_export(self.list_id, download="false").uri)
        return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


@pytest.fixture(scope="module")
def organisation() -> Iterator[tuple[OfficialSdk, Clock]]:
    """One simulator for all tests here, on a clock that the tests own."""
    clock = Clock()
    with official_sdk(clock=clock, token_lifetime_s=10**9, job_seconds=60) as sdk:
        yield sdk, clock


@pytest.fixture
def desk(organisation: tuple[OfficialSdk, Clock]) -> Iterator[Desk]:
    """A contact list of the test's own, deleted with the others it made."""
    with urllib3.PoolManager(retries=False) as http:
        made = Desk(*organisation, http)
        yield made
        made.pass_time()
        for contact_list in made.sdk.simulator.lists():
            made.api.delete_outbound_contactlist(contact_list["id"])


def test_the_sdk_gets_its_token(desk: Desk):
    """Client credentials give a token that the API takes."""
    assert desk.sdk.client.access_token
    assert desk.api.get_outbound_contactlist(desk.list_id).id == desk.list_id


def test_the_sdk_tells_of_a_client_without_a_secret(desk: Desk):
    """A token that is refused is an ApiException with the login host's body."""
    with pytest.raises(ApiException) as refused:
        ApiClient(host=desk.sdk.simulator.url).get_client_credentials_token("sdk", "")
    assert (refused.value.status, json.loads(refused.value.body)["error"]) == (400, "invalid_client")


def test_the_sdk_without_a_good_token_is_told(desk: Desk):
    """A token that nobody issued is a 401 with its code."""
    client = ApiClient(host=desk.sdk.simulator.url)
    client.access_token = "no-such-token"  # noqa: S105 - a token that is none
    assert refusal(OutboundApi(client).get_outbound_contactlists) == (401, "bad.credentials")


def test_the_sdk_without_a_permission_is_told_which(desk: Desk):
    """A withheld permission is a 403, and its message names it."""
    desk.sdk.simulator.withheld_permissions.add("outbound:contactList:view")
    try:
        with pytest.raises(ApiException) as refused:
            desk.api.get_outbound_contactlist(desk.list_id)
    finally:
        desk.sdk.simulator.withheld_permissions.clear()
    body = json.loads(refused.value.body)
    assert (refused.value.status, body["code"]) == (403, "missing.any.permissions")
    assert "outbound:contactList:view" in body["message"]


def test_a_created_list_is_the_one_that_is_read(desk: Desk):
    """What a client set comes back from the create and from a read, with what Genesys adds."""
    created = desk.make_list(email_columns=[made(EmailColumn, column_name="email", type="Personal")])
    read = desk.api.get_outbound_contactlist(created.id)
    assert read.to_dict() == created.to_dict()
    assert (read.column_names, read.phone_columns[0].column_name, read.version) == (COLUMNS, "phone_number", 1)
    assert read.email_columns[0].type == "Personal"
    assert read.date_created is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "name.cannot.be.blank"),
        ({"name": "n" * 65}, "name.length.exceeded"),
        ({"column_names": []}, "no.contact.columns.defined"),
        ({"column_names": [*COLUMNS, *map(str, range(48))]}, "contact.columns.limit.exceeded"),
        ({"column_names": [*COLUMNS, "c" * 129]}, "contact.column.length.limit.exceeded"),
        ({"column_names": [*COLUMNS, "email"]}, "not.unique.contact.columns"),
        ({"phone_columns": []}, "contact.list.both.phone.email.column.empty"),
        ({"phone_columns": [phone_column("absent")]}, "contact.columns.do.not.contain.phone.number.column"),
        ({"phone_columns": [phone_column(), phone_column()]}, "not.unique.phone.columns"),
    ],
)
def test_a_list_that_may_not_be_is_refused(desk: Desk, changes: dict[str, Any], code: str):
    """Each rule for a new list reaches the SDK's user with its code."""
    assert refusal(desk.api.post_outbound_contactlists, list_definition(**changes)) == (400, code)


def test_a_list_name_is_taken_once(desk: Desk):
    """A second list of a name is refused."""
    taken = list_definition(name=desk.make_list().name)
    assert refusal(desk.api.post_outbound_contactlists, taken) == (400, "duplicate.name")


def test_an_unknown_list_is_not_found(desk: Desk):
    """A read of a list that is not there is a 404."""
    assert refusal(desk.api.get_outbound_contactlist, UNKNOWN) == (404, "contact.list.not.found")


@pytest.mark.parametrize(
    ("filter_type", "pattern", "found"),
    [
        ("Prefix", "find-", ["find-1", "find-2"]),
        ("BeginsWith", "find-1", ["find-1"]),
        ("EndsWith", "-2", ["find-2"]),
        ("Contains", "ind", ["find-1", "find-2"]),
        ("Equals", "find-2", ["find-2"]),
        ("Equals", "find", []),
        ("RegEx", "^f.*1$", ["find-1"]),
    ],
)
def test_lists_are_found_by_name(desk: Desk, filter_type: str, pattern: str, found: list[str]):
    """Each way to compare names finds what it should."""
    for name in ("find-1", "find-2"):
        desk.make_list(name=name)
    listing = desk.api.get_outbound_contactlists(name=pattern, filter_type=filter_type, sort_by="name")
    assert [each.name for each in listing.entities] == found


def test_lists_come_in_pages(desk: Desk):
    """Three lists in pages of two, with the counts of all, sorted downwards."""
    for number in range(3):
        desk.make_list(name=f"page-{number}")
    ask = {"name": "page-", "page_size": 2, "sort_by": "name", "sort_order": "descending"}
    pages = [desk.api.get_outbound_contactlists(page_number=number, **ask) for number in (1, 2)]
    assert [[each.name for each in page.entities] for page in pages] == [["page-2", "page-1"], ["page-0"]]
    assert (pages[0].total, pages[0].page_count, pages[1].page_number) == (3, 2, 2)


def test_lists_are_found_by_their_ids(desk: Desk):
    """Ids that the SDK joins with commas are read apart."""
    ids = [desk.make_list().id for _ in range(2)]
    assert {each.id for each in desk.api.get_outbound_contactlists(id=ids).entities} == set(ids)


def test_too_many_ids_of_lists_are_refused(desk: Desk):
    """101 ids are one too many."""
    many = [str(number) for number in range(101)]
    assert refusal(desk.api.get_outbound_contactlists, id=many) == (400, "too.many.bulk.retrieves")


def test_size_and_import_status_are_told_when_asked(desk: Desk):
    """A list says how many contacts it has, and how its import stands, only to whoever asks."""
    desk.add("a", "b")
    desk.upload(CSV_HEAD + "c,,\r\n")
    plain = desk.api.get_outbound_contactlist(desk.list_id)
    asked = desk.api.get_outbound_contactlist(desk.list_id, include_size=True, include_import_status=True)
    assert (plain.size, plain.import_status) == (None, None)
    assert (asked.size, asked.import_status.state) == (2, "IN_PROGRESS")


def test_what_was_read_is_put_back_changed(desk: Desk):
    """PUT takes the list that was read, changed, and its version goes up."""
    read = desk.api.get_outbound_contactlist(desk.list_id)
    read.name = "renamed"
    put = desk.api.put_outbound_contactlist(desk.list_id, read)
    assert (put.name, put.version, put.column_names) == ("renamed", 2, COLUMNS)
    assert desk.api.get_outbound_contactlist(desk.list_id).name == "renamed"


def test_a_put_of_an_old_version_is_a_conflict(desk: Desk):
    """Of two who read the same version the second to write is refused."""
    first = desk.api.get_outbound_contactlist(desk.list_id)
    second = desk.api.get_outbound_contactlist(desk.list_id)
    desk.api.put_outbound_contactlist(desk.list_id, first)
    answer = refusal(desk.api.put_outbound_contactlist, desk.list_id, second)
    assert answer == (409, "invalid.update.wrong.version")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("column_names", [*COLUMNS, "new"], "cannot.update.contact.column.names"),
        ("phone_columns", [phone_column("external_id")], "cannot.update.phone.columns"),
        ("email_columns", [made(EmailColumn, column_name="email", type="Work")], "cannot.update.email.columns"),
        ("automatic_time_zone_mapping", True, "cannot.edit.automatic.time.zone.mapping.settings"),
        ("name", "", "name.cannot.be.blank"),
    ],
)
def test_what_is_fixed_at_creation_cannot_be_put(desk: Desk, field: str, value: Any, code: str):
    """Columns and their types stay as they were made; each has its code, and nothing changes."""
    read = desk.api.get_outbound_contactlist(desk.list_id)
    setattr(read, field, value)
    assert refusal(desk.api.put_outbound_contactlist, desk.list_id, read) == (400, code)
    assert desk.api.get_outbound_contactlist(desk.list_id).version == 1


def test_a_put_cannot_take_another_lists_name(desk: Desk):
    """Names stay unique."""
    read = desk.api.get_outbound_contactlist(desk.list_id)
    read.name = desk.make_list().name
    assert refusal(desk.api.put_outbound_contactlist, desk.list_id, read) == (400, "duplicate.name")


def test_an_unknown_list_cannot_be_put(desk: Desk):
    """PUT makes no lists."""
    answer = refusal(desk.api.put_outbound_contactlist, UNKNOWN, list_definition())
    assert answer == (404, "resource.not.found")


def test_a_deleted_list_is_gone(desk: Desk):
    """After the delete a read is a 404."""
    doomed = desk.make_list().id
    desk.api.delete_outbound_contactlist(doomed)
    assert refusal(desk.api.get_outbound_contactlist, doomed) == (404, "contact.list.not.found")


def test_many_lists_are_deleted_at_once(desk: Desk):
    """Ids that the SDK joins with commas are deleted together, and no other list."""
    doomed = [desk.make_list().id for _ in range(2)]
    desk.api.delete_outbound_contactlists(doomed)
    assert [each["id"] for each in desk.sdk.simulator.lists()] == [desk.list_id]


def test_too_many_lists_are_not_deleted_at_once(desk: Desk):
    """101 ids are one too many."""
    many = [str(number) for number in range(101)]
    assert refusal(desk.api.delete_outbound_contactlists, many) == (400, "too.many.deletes")


def test_of_many_lists_none_is_deleted_while_one_is_imported(desk: Desk):
    """A conflict with one list spares the others too."""
    other = desk.make_list().id
    desk.upload(CSV_HEAD + "a,,\r\n")
    answer = refusal(desk.api.delete_outbound_contactlists, [other, desk.list_id])
    assert answer == (409, "bulk.delete.conflict")
    assert len(desk.sdk.simulator.lists()) == 2


def test_division_views_show_lists_without_their_settings(desk: Desk):
    """The listing of views and one view tell the columns, and the size to whoever asks."""
    desk.add("a")
    name = desk.api.get_outbound_contactlist(desk.list_id).name
    listing = desk.api.get_outbound_contactlists_divisionviews(name=name, filter_type="Equals", include_size=True)
    one = desk.api.get_outbound_contactlists_divisionview(desk.list_id)
    assert [(each.id, each.size, each.column_names) for each in listing.entities] == [(desk.list_id, 1, COLUMNS)]
    assert (one.name, one.size, one.division.name) == (name, None, "Home")


def test_an_unknown_division_view_is_not_found(desk: Desk):
    """A view of a list that is not there is a 404."""
    assert refusal(desk.api.get_outbound_contactlists_divisionview, UNKNOWN) == (404, "contact.list.not.found")


def test_retention_of_many_lists_is_updated_at_once(desk: Desk):
    """Each list answers for itself: one that is there has changed, one that is not is told."""
    changes = made(ContactList, retention_type="RetentionDays", retention_days=30, column_names=COLUMNS)
    request = made(ContactListsBulkEditRequest, contact_list_ids=[desk.list_id, UNKNOWN], contact_list=changes)
    answer = desk.api.post_outbound_contactlists_bulk_update(request)
    assert [result.success for result in answer.results] == [True, False]
    assert (answer.error_count, answer.error_indexes) == (1, [1])
    assert desk.api.get_outbound_contactlist(desk.list_id).retention_days == 30


def test_time_zones_are_previewed_where_they_are_mapped(desk: Desk):
    """A list with automatic mapping has a preview; another one is refused."""
    mapped = desk.make_list(automatic_time_zone_mapping=True)
    preview = desk.api.get_outbound_contactlist_timezonemappingpreview(mapped.id)
    plain = refusal(desk.api.get_outbound_contactlist_timezonemappingpreview, desk.list_id)
    assert (preview.contact_list.id, preview.contact_list_size) == (mapped.id, 0)
    assert plain == (400, "not.automatic.time.zone.mapping")


def test_an_added_contact_keeps_its_id(desk: Desk):
    """The client's id, the data and callable come back."""
    added = desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact("a", callable=False)])
    read = desk.api.get_outbound_contactlist_contact(desk.list_id, "a")
    assert [each.id for each in added] == ["a"]
    assert (read.data["email"], read.callable) == ("a@example.com", False)


def test_contacts_without_ids_are_given_ids(desk: Desk):
    """Two contacts without ids are two contacts."""
    added = desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact(), desk.contact()])
    assert desk.held() == {each.id for each in added}
    assert len(desk.held()) == 2


def test_a_known_id_is_updated_whatever_the_flags(desk: Desk):
    """The flags in the SDK's spelling are taken, and the id is one contact with the later data."""
    desk.add("a")
    data = {"external_id": "a", "phone_number": "", "email": "later@example.com"}
    flags = {"priority": False, "clear_system_data": True, "do_not_queue": True}
    desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact("a", data=data)], **flags)
    assert desk.api.get_outbound_contactlist_contact(desk.list_id, "a").data == data
    assert desk.held() == {"a"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data": {**dict.fromkeys(COLUMNS, "x"), "absent": "x"}}, "invalid.contact.columns"),
        ({"data": {"external_id": "x"}}, "contact.missing.columns"),
        ({"data": {}}, "contact.missing.data"),
        ({"data": dict.fromkeys(COLUMNS, "x" * 513)}, "contact.datum.length.limit.exceeded"),
        ({"id": "a b"}, "invalid.contact.id"),
        ({"id": "i" * 101}, "contact.id.length.limit.exceeded"),
        ({"contact_list_id": UNKNOWN}, "invalid.value"),
    ],
)
def test_a_contact_that_may_not_be_is_refused(desk: Desk, changes: dict[str, Any], code: str):
    """Each rule for a contact reaches the SDK's user with its code, and of its request nothing is added."""
    batch = [desk.contact("good"), desk.contact("a", **changes)]
    assert refusal(desk.api.post_outbound_contactlist_contacts, desk.list_id, batch) == (400, code)
    assert desk.held() == set()


def test_a_thousand_contacts_are_the_most_at_once(desk: Desk):
    """1001 are refused, 1000 are added."""
    many = [desk.contact(f"c-{number}") for number in range(1_001)]
    answer = refusal(desk.api.post_outbound_contactlist_contacts, desk.list_id, many)
    assert answer == (400, "too.many.contacts.added")
    assert len(desk.api.post_outbound_contactlist_contacts(desk.list_id, many[1:])) == 1_000


def test_a_body_over_the_platforms_limit_is_refused(desk: Desk):
    """More than 512,000 bytes are a 413 that tells the limit."""
    wide = dict.fromkeys(COLUMNS, "x" * 500)
    with pytest.raises(ApiException) as refused:
        desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact(data=wide)] * 400)
    body = json.loads(refused.value.body)
    assert (refused.value.status, body["code"], body["limit"]["value"]) == (413, "request.entity.too.large", 512_000)


def test_a_bulk_read_returns_those_there_are(desk: Desk):
    """Known ids come back; unknown ones are left out; 51 are too many."""
    desk.add("a", "b")
    read = desk.api.post_outbound_contactlist_contacts_bulk(desk.list_id, ["b", "nobody", "a"])
    assert [each.id for each in read] == ["b", "a"]
    answer = refusal(desk.api.post_outbound_contactlist_contacts_bulk, desk.list_id, ["a"] * 51)
    assert answer == (400, "too.many.contacts.requested")


def test_a_contact_is_put_back_changed(desk: Desk):
    """PUT takes what a read returned."""
    desk.add("a")
    read = desk.api.get_outbound_contactlist_contact(desk.list_id, "a")
    read.callable = False
    assert desk.api.put_outbound_contactlist_contact(desk.list_id, "a", read).callable is False
    assert desk.api.get_outbound_contactlist_contact(desk.list_id, "a").callable is False


def test_a_contact_that_is_not_there_is_told(desk: Desk):
    """Read, replacement and delete each have their code for it."""
    contact = made(DialerContact, contact_list_id=desk.list_id, data=dict.fromkeys(COLUMNS, ""))
    where = (desk.list_id, "nobody")
    assert refusal(desk.api.get_outbound_contactlist_contact, *where) == (404, "resource.not.found")
    assert refusal(desk.api.put_outbound_contactlist_contact, *where, contact) == (400, "contact.does.not.exist")
    assert refusal(desk.api.delete_outbound_contactlist_contact, *where) == (404, "contact.not.found")


def test_a_contact_is_deleted(desk: Desk):
    """It is gone, and the others stay."""
    desk.add("a", "b")
    desk.api.delete_outbound_contactlist_contact(desk.list_id, "a")
    assert desk.held() == {"b"}


def test_a_contact_in_use_is_not_deleted(desk: Desk):
    """What a campaign uses cannot be deleted alone, and is left out among others."""
    desk.add("a", "b")
    desk.sdk.simulator.contacts_in_use.add("a")
    try:
        alone = refusal(desk.api.delete_outbound_contactlist_contact, desk.list_id, "a")
        desk.api.delete_outbound_contactlist_contacts(desk.list_id, ["a", "b"])
    finally:
        desk.sdk.simulator.contacts_in_use.clear()
    assert alone == (400, "contact.in.use")
    assert desk.held() == {"a"}


def test_contacts_are_deleted_together(desk: Desk):
    """Ids that the SDK joins with commas are deleted; 251 are too many."""
    desk.add("a", "b", "c")
    desk.api.delete_outbound_contactlist_contacts(desk.list_id, ["a", "b", "nobody"])
    many = [str(number) for number in range(251)]
    answer = refusal(desk.api.delete_outbound_contactlist_contacts, desk.list_id, many)
    assert desk.held() == {"c"}
    assert answer == (400, "too.many.contacts.added")


def test_a_search_pages_through_all_contacts(desk: Desk):
    """Pages of two return each of three contacts once."""
    desk.add("a", "b", "c")
    found = [desk.search(page_number=number, page_size=2) for number in (1, 2)]
    assert found == [["a", "b"], ["c"]]


def test_a_search_sorts(desk: Desk):
    """Contacts come in the order of a column, downwards if asked."""
    desk.add("b", "a", "c")
    sort = made(ContactSort, field_name="external_id", direction="DESC", numeric=False)
    assert desk.search(contact_sorts=[sort]) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (criteria(predicate("EQUALS", "ann@example.com")), ["ann"]),
        (criteria(predicate("EQUALS", "ann@example.com", inverted=True)), ["bob", "cy"]),
        (criteria(predicate("CONTAINS", "b@")), ["bob"]),
        (criteria(predicate("BEGINS_WITH", "c")), ["cy"]),
        (criteria(predicate("ENDS_WITH", ".com"), predicate("BEGINS_WITH", "a")), ["ann"]),
        (criteria(predicate("BEGINS_WITH", "b"), predicate("BEGINS_WITH", "a"), either=True), ["ann", "bob"]),
        (criteria(predicate("GREATER_THAN", "b")), ["bob", "cy"]),
        (
            criteria(predicate("IN", column="external_id", range=made(ContactListFilterRange, in_set=["ann", "cy"]))),
            ["ann", "cy"],
        ),
    ],
)
def test_a_search_finds_by_criteria(desk: Desk, wanted: ContactBulkSearchCriteria, found: list[str]):
    """Each way to compare finds what it should."""
    desk.add("ann", "bob", "cy")
    assert desk.search(criteria=wanted) == found


def test_criteria_of_no_column_are_refused(desk: Desk):
    """A column that the list does not have is an invalid filter."""
    request = made(
        ContactListingRequest, page_number=1, page_size=1, criteria=criteria(predicate("EQUALS", "x", "absent"))
    )
    answer = refusal(desk.api.post_outbound_contactlist_contacts_search, desk.list_id, request)
    assert answer == (400, "invalid.contact.list.filter")


def test_a_clear_empties_the_list_in_a_while(desk: Desk):
    """Until it is over contacts are there and cannot be written; then the list is empty and takes contacts again."""
    desk.add("a")
    desk.api.post_outbound_contactlist_clear(desk.list_id)
    busy = (400, "contact.list.clear.in.progress")
    assert desk.held() == {"a"}
    assert refusal(desk.api.post_outbound_contactlist_contacts, desk.list_id, [desk.contact("b")]) == busy
    replacement = made(DialerContact, contact_list_id=desk.list_id, data=dict.fromkeys(COLUMNS, ""))
    assert refusal(desk.api.put_outbound_contactlist_contact, desk.list_id, "a", replacement) == busy
    removal = made(ContactBulkSearchParameters, criteria=criteria(predicate("CONTAINS", "a")))
    assert refusal(desk.api.post_outbound_contactlist_contacts_bulk_remove, desk.list_id, removal) == busy
    desk.pass_time()
    assert desk.held() == set()
    assert [each.id for each in desk.add("b")] == ["b"]


def test_a_bulk_removal_removes_those_that_match(desk: Desk):
    """The job is in progress and then complete, with its counts; only who matches is gone."""
    desk.add("ann", "bob")
    removal = made(ContactBulkSearchParameters, criteria=criteria(predicate("BEGINS_WITH", "a")))
    job = desk.api.post_outbound_contactlist_contacts_bulk_remove(desk.list_id, removal)
    assert (job.state, job.type, job.total_records, job.completed_records) == ("InProgress", "BulkDelete", 1, 0)
    desk.pass_time()
    over = desk.api.get_outbound_contactlist_contacts_bulk_job(desk.list_id, job.id)
    assert (over.state, over.completed_records, over.percent_complete) == ("Complete", 1, 100)
    assert desk.held() == {"bob"}


@pytest.mark.parametrize(
    "chosen", [{"contact_ids": ["bob"]}, {"criteria": criteria(predicate("BEGINS_WITH", "b"))}], ids=["ids", "criteria"]
)
def test_a_bulk_update_changes_those_that_are_chosen(desk: Desk, chosen: dict[str, Any]):
    """One patch changes every chosen contact, in the columns that it names, and no other contact."""
    desk.add("ann", "bob")
    patch = made(DialerContact, contact_list_id=desk.list_id, data={"email": "new@example.com"}, callable=False)
    request = made(ContactBulkEditRequest, contact=patch, **chosen)
    job = desk.api.post_outbound_contactlist_contacts_bulk_update(desk.list_id, request)
    desk.pass_time()
    views = desk.sdk.simulator.contacts(desk.list_id)
    assert job.type == "BulkEdit"
    assert {each: (view["data"]["email"], view["callable"]) for each, view in views.items()} == {
        "ann": ("ann@example.com", True),
        "bob": ("new@example.com", False),
    }
    assert views["bob"]["data"]["phone_number"] == "+15550100001"


def test_one_bulk_operation_at_a_time(desk: Desk):
    """A second one waits for the first; both are listed, the latest first."""
    desk.add("ann")
    remove = desk.api.post_outbound_contactlist_contacts_bulk_remove
    removal = made(ContactBulkSearchParameters, criteria=criteria(predicate("BEGINS_WITH", "x")))
    first = remove(desk.list_id, removal)
    assert refusal(remove, desk.list_id, removal) == (400, "contact.bulk.operation.in.progress")
    desk.pass_time()
    second = remove(desk.list_id, removal)
    jobs = desk.api.get_outbound_contactlist_contacts_bulk_jobs(desk.list_id)
    assert [job.id for job in jobs.entities] == [second.id, first.id]


def test_a_bulk_operation_needs_a_choice(desk: Desk):
    """Without criteria or ids nobody is removed or updated, and an unknown filter is told."""
    removal, update = made(ContactBulkSearchParameters), made(ContactBulkEditRequest)
    stored = made(ContactBulkSearchParameters, contact_list_filter_id=UNKNOWN)
    remove = desk.api.post_outbound_contactlist_contacts_bulk_remove
    assert refusal(remove, desk.list_id, removal) == (400, "invalid.contact.list.filter")
    assert refusal(remove, desk.list_id, stored) == (404, "resource.not.found")
    answer = refusal(desk.api.post_outbound_contactlist_contacts_bulk_update, desk.list_id, update)
    assert answer == (400, "invalid.update")


def test_an_unknown_job_is_not_found(desk: Desk):
    """A job that is not there is a 404."""
    answer = refusal(desk.api.get_outbound_contactlist_contacts_bulk_job, desk.list_id, UNKNOWN)
    assert answer == (404, "resource.not.found")


def test_a_file_that_is_uploaded_is_imported(desk: Desk):
    """The status counts rows, and has no state at the end; new contacts are callable, a known one stays as it was."""
    desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact("a", callable=False)])
    desk.upload('extra,email,external_id,phone_number\r\n1,"a, b",a,+15550100002\r\n2,b@example.com,b,+15550100003\r\n')
    running = desk.api.get_outbound_contactlist_importstatus(desk.list_id)
    desk.pass_time()
    over = desk.api.get_outbound_contactlist_importstatus(desk.list_id)
    views = desk.sdk.simulator.contacts(desk.list_id)
    assert (running.state, running.total_records, running.completed_records) == ("IN_PROGRESS", 2, 0)
    assert (over.state, over.completed_records, over.percent_complete) == (None, 2, 100)
    assert {each: (view["data"]["email"], view["callable"]) for each, view in views.items()} == {
        "a": ("a, b", False),
        "b": ("b@example.com", True),
    }


def test_an_upload_may_forget_what_is_known_besides(desk: Desk):
    """With clearSystemData a contact that was not callable is so again."""
    desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact("a", callable=False)])
    desk.upload(CSV_HEAD + "a,,\r\n", clear_system_data=True)
    desk.pass_time()
    assert desk.sdk.simulator.contacts(desk.list_id)["a"]["callable"] is True


def test_a_file_without_the_lists_columns_is_not_imported(desk: Desk):
    """The import fails and says why; the list stays as it was."""
    desk.add("a")
    desk.upload("external_id,phone_number\r\nb,\r\n")
    desk.pass_time()
    status = desk.api.get_outbound_contactlist_importstatus(desk.list_id)
    assert status.state == "FAILED"
    assert re.fullmatch(r"[A-Z_]+", status.failure_reason)
    assert desk.held() == {"a"}


def test_rows_that_break_the_rules_are_left_out(desk: Desk):
    """A value that is too long and an id that may not be are left out, and the rest is imported."""
    desk.upload(CSV_HEAD + f"a,,{'x' * 513}\r\nb c,,\r\nd,,\r\n")
    desk.pass_time()
    assert desk.held() == {"d"}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"id": UNKNOWN}, (404, "not.found")),
        ({"content_type": "text/plain"}, (400, "invalid.value")),
        ({"signed_url_timeout_seconds": 604_801}, (400, "invalid.value")),
    ],
)
def test_an_upload_that_may_not_be_gets_no_url(desk: Desk, changes: dict[str, Any], answer: tuple[int, str]):
    """List, type and time of an upload are checked before there is a URL."""
    assert refusal(desk.upload_url, **changes) == answer


def test_the_file_store_refuses_what_was_not_signed(desk: Desk):
    """A wrong signature, a missing header and a URL that is over are S3's 403; none is imported."""
    issued = desk.upload_url(signed_url_timeout_seconds=60)
    text = CSV_HEAD + "a,,\r\n"
    forged = re.sub(r"(Signature=)\w+", r"\1" + "0" * 64, issued.url)
    answers = [desk.put(forged, issued.headers, text), desk.put(issued.url, {"Content-Type": "text/csv"}, text)]
    desk.pass_time()
    answers.append(desk.put(issued.url, issued.headers, text))
    codes = [re.findall(rb"<Code>(\w+)</Code>", answer.data) for answer in answers]
    assert [answer.status for answer in answers] == [403, 403, 403]
    assert codes == [[b"SignatureDoesNotMatch"], [b"SignatureDoesNotMatch"], [b"AccessDenied"]]
    assert desk.held() == set()


def test_the_file_store_wants_a_length(desk: Desk):
    """A chunked PUT is S3's 411."""
    issued = desk.upload_url()
    chunks = iter([CSV_HEAD.encode(), b"a,,\r\n"])
    answer = desk.http.request("PUT", issued.url, body=chunks, headers=issued.headers, chunked=True)
    assert answer.status == 411
    assert b"<Code>MissingContentLength</Code>" in answer.data


def test_the_older_form_is_imported_too(desk: Desk):
    """The apps host's form with the SDK's token imports a file."""
    answer = desk.send_form("\ufeff" + CSV_HEAD + "a,,\r\n", desk.bearer())
    desk.pass_time()
    assert answer.status == 200
    assert desk.held() == {"a"}


def test_the_older_form_needs_the_token(desk: Desk):
    """Without a token the form is a 401."""
    assert desk.send_form(CSV_HEAD, {}).status == 401


def test_an_import_keeps_others_away(desk: Desk):
    """While a file is imported its list is not deleted, cleared or exported."""
    desk.upload(CSV_HEAD + "a,,\r\n")
    busy = (400, "contact.list.import.in.progress")
    assert refusal(desk.api.delete_outbound_contactlist, desk.list_id) == busy
    assert refusal(desk.api.post_outbound_contactlist_clear, desk.list_id) == busy
    assert refusal(desk.api.post_outbound_contactlist_export, desk.list_id) == busy


def test_a_list_without_imports_has_a_status_too(desk: Desk):
    """Nothing was imported: no state and no rows."""
    status = desk.api.get_outbound_contactlist_importstatus(desk.list_id)
    assert (status.state, status.total_records, status.completed_records) == (None, 0, 0)


def test_an_export_is_ready_in_a_while(desk: Desk):
    """There is no URI before it was asked for and while it is made; a second export has to wait."""
    ask, get = desk.api.post_outbound_contactlist_export, desk.api.get_outbound_contactlist_export
    none = (404, "no.available.list.export.uri")
    assert refusal(get, desk.list_id) == none
    ask(desk.list_id)
    assert refusal(get, desk.list_id) == none
    assert refusal(ask, desk.list_id) == (400, "contact.list.export.in.progress")
    desk.pass_time()
    ready = get(desk.list_id)
    assert ready.uri.startswith(desk.sdk.simulator.url)
    assert ready.export_timestamp is not None


def test_an_export_holds_every_contact(desk: Desk):
    """Ids come first, then the list's columns, then the system's, among them whether the contact is callable."""
    desk.add("a")
    desk.api.post_outbound_contactlist_contacts(desk.list_id, [desk.contact("b", callable=False)])
    rows = desk.exported()
    assert list(rows[0])[:4] == ["inin-outbound-id", *COLUMNS]
    assert {"ContactCallable", "Callable-phone_number", "CallRecordLastAttempt-phone_number"} <= rows[0].keys()
    assert [(row["inin-outbound-id"], row["email"]) for row in rows] == [
        ("a", "a@example.com"),
        ("b", "b@example.com"),
    ]
    assert rows[0]["ContactCallable"] != rows[1]["ContactCallable"]


def test_an_export_shows_the_list_as_it_was_asked_for(desk: Desk):
    """What is written while the export is made is not in it."""
    desk.add("a")
    desk.api.post_outbound_contactlist_export(desk.list_id)
    desk.add("b")
    desk.pass_time()
    text = desk.fetch(desk.api.get_outbound_contactlist_export(desk.list_id).uri)
    assert [line.partition(",")[0] for line in text.splitlines()[1:]] == ["a"]


@pytest.mark.parametrize(
    "chosen", [{"contact_ids": ["bob"]}, {"criteria": criteria(predicate("BEGINS_WITH", "b"))}], ids=["ids", "criteria"]
)
def test_an_export_may_be_of_a_part(desk: Desk, chosen: dict[str, Any]):
    """Ids and criteria choose who is exported."""
    desk.add("ann", "bob")
    rows = desk.exported(made(ContactsExportRequest, **chosen))
    assert [row["inin-outbound-id"] for row in rows] == ["bob"]


def test_an_exported_file_needs_the_token(desk: Desk):
    """The URI alone gives nobody the contacts."""
    desk.add("a")
    desk.exported()
    uri = desk.api.get_outbound_contactlist_export(desk.list_id).uri
    assert desk.http.request("GET", uri, redirect=False).status == 401


def test_an_export_is_redirected_to_when_asked(desk: Desk):
    """With download=true the answer is a redirect to the file."""
    desk.add("a")
    desk.exported()
    path = f"/api/v2/outbound/contactlists/{desk.list_id}/export?download=true"
    answer = desk.http.request("GET", desk.sdk.simulator.url + path, headers=desk.bearer(), redirect=False)
    assert answer.status in {302, 303}
    assert desk.fetch(answer.headers["Location"]).startswith("\ufeffinin-outbound-id,")


def test_what_was_exported_can_be_imported_again(desk: Desk):
    """An export's file, BOM and system columns included, goes into another list."""
    desk.add("a", "b")
    desk.exported()
    text = desk.fetch(desk.api.get_outbound_contactlist_export(desk.list_id).uri)
    other = str(desk.make_list().id)
    desk.upload(text, id=other, contact_id_name="inin-outbound-id")
    desk.pass_time()
    copied, original = desk.sdk.simulator.contacts(other), desk.sdk.simulator.contacts(desk.list_id)
    assert copied == original
