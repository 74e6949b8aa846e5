"""The contract suite for do-not-call lists and limits; see test_simulator_contract.py.

It makes do-not-call lists of its own and deletes them.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.test_simulator_contract import UNDER_TEST, UNKNOWN, Answer, Organisation, organisation

LISTS = "/api/v2/outbound/dnclists"
LIST = LISTS + "/{dncListId}"
VIEWS = LISTS + "/divisionviews"
VIEW = VIEWS + "/{dncListId}"
PHONES = LIST + "/phonenumbers"
EMAILS = LIST + "/emailaddresses"
WHATSAPP = LIST + "/whatsappnumbers"
CUSTOM = LIST + "/customexclusioncolumns"
EXPORT = LIST + "/export"
IMPORT_STATUS = LIST + "/importstatus"
UPLOADS = LISTS + "/uploads"
LIMITS = "/api/v2/organizations/limits/namespaces/{namespaceName}"

JANE, JOHN = "+15550100001", "+15550100002"


class Lists:
    """The do-not-call lists that a test makes."""

    def __init__(self, org: Organisation) -> None:
        self.org = org
        self.made: list[str] = []

    async def make(self, **changes: Any) -> Answer:
        definition = {"name": f"contract-suite-{uuid4()}", "dncSourceType": "rds", "contactMethod": "Phone"}
        asked = {key: value for key, value in (definition | changes).items() if value is not None}
        answer = await self.org.call("POST", LISTS, body=asked)
        if answer.status == 200:
            self.made.append(answer.body["id"])
        return answer

    async def size(self, list_id: str) -> int:
        return int((await self.org.call("GET", LIST, list_id, query="?includeSize=true")).body["size"])

    async def tidy(self) -> None:
        for list_id in self.made:
            await self.org.call("DELETE", LIST, list_id)


@pytest.fixture(params=UNDER_TEST)
async def lists(request: pytest.FixtureRequest) -> AsyncIterator[Lists]:
    """The lists of the organisation under test."""
    async with organisation(request.param) as org:
        made = Lists(org)
        yield made
        await made.tidy()


@pytest.fixture
async def list_id(lists: Lists) -> str:
    """A new internal list of phone numbers."""
    return str((await lists.make()).body["id"])


def later(**ahead: float) -> str:
    """An expiration, as the API spells it."""
    return (datetime.now(UTC) + timedelta(**ahead)).strftime("%Y-%m-%dT%H:%MZ")


async def test_a_created_list_can_be_read_and_found(lists: Lists):
    """Create answers 200 with the list, and reads and views return the same one."""
    made = await lists.make()
    assert made.status == 200
    list_id, name = made.body["id"], made.body["name"]
    assert (await lists.org.call("GET", LIST, list_id, query="?includeSize=true")).body["size"] == 0
    found = await lists.org.call("GET", LISTS, query=f"?name={name}&filterType=Equals&dncSourceType=rds")
    viewed = await lists.org.call("GET", VIEWS, query=f"?id={list_id}&includeSize=true")
    assert [entity["id"] for entity in found.body["entities"] + viewed.body["entities"]] == [list_id, list_id]
    assert (await lists.org.call("GET", VIEW, list_id)).body["name"] == name


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "name.cannot.be.blank"),
        ({"name": "n" * 65}, "name.length.exceeded"),
        ({"dncSourceType": "rds_custom", "contactMethod": None}, "dnc.list.missing.custom.exclusion.column"),
        ({"deduplicationKey": "x"}, "invalid.property"),
    ],
)
async def test_a_list_that_may_not_be_is_refused(lists: Lists, changes: dict[str, Any], code: str):
    """Each rule for a new list has its own code."""
    answer = await lists.make(**changes)
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(
    "changes", [{"contactMethod": None}, {"dncSourceType": None}, {"dncSourceType": "csv"}], ids=str
)
async def test_a_list_needs_a_source_and_a_method(lists: Lists, changes: dict[str, Any]):
    """A list without them is a 400, with one of the codes there are."""
    assert (await lists.make(**changes)).status == 400


async def test_a_list_name_is_unique(lists: Lists):
    """A second list of the same name is refused."""
    first = await lists.make()
    second = await lists.make(name=first.body["name"])
    assert (second.status, second.code) == (400, "duplicate.name")


async def test_a_list_is_replaced_with_its_version(lists: Lists):
    """PUT takes back what was read, once."""
    read = (await lists.make()).body
    renamed = read | {"name": f"contract-suite-{uuid4()}"}
    assert (await lists.org.call("PUT", LIST, read["id"], body=renamed)).body["name"] == renamed["name"]
    again = await lists.org.call("PUT", LIST, read["id"], body=renamed)
    assert (again.status, again.code) == (409, "invalid.update.wrong.version")


async def test_the_source_of_a_list_stays(lists: Lists):
    """Another source is refused, and the custom column with it."""
    read = (await lists.make()).body
    other = await lists.org.call("PUT", LIST, read["id"], body=read | {"dncSourceType": "rds_custom"})
    assert (other.status, other.code) == (400, "cannot.update.dnc.list.type")


async def test_a_deleted_list_is_gone(lists: Lists, list_id: str):
    """Delete answers 200 and the list cannot be read afterwards."""
    lists.made.remove(list_id)
    assert (await lists.org.call("DELETE", LIST, list_id)).status == 200
    assert (await lists.org.settled("GET", LIST, list_id, status=404)).status == 404


@pytest.mark.parametrize("query", ["?pageSize=101", "?pageNumber=x", "?filterType=Sounds", "?includeSize=perhaps"])
@pytest.mark.parametrize("template", [LISTS, VIEWS])
async def test_an_impossible_query_is_refused(lists: Lists, template: str, query: str):
    """What is outside its limits is a 400."""
    assert (await lists.org.call("GET", template, query=query)).status == 400


async def test_a_hundred_views_and_no_more_are_asked_for(lists: Lists):
    """The hundred and first id is refused."""
    answer = await lists.org.call("GET", VIEWS, query="?" + "&".join(f"id={uuid4()}" for _ in range(101)))
    assert (answer.status, answer.code) == (400, "too.many.bulk.retrieves")


async def test_numbers_are_added_removed_and_cleared(lists: Lists, list_id: str):
    """POST and PATCH add, PATCH removes, DELETE removes what is expired or everything; all without a body."""
    assert (await lists.org.call("POST", PHONES, list_id, body=[JANE])).body is None
    add = {"action": "Add", "phoneNumbers": [JOHN], "expirationDateTime": later(days=1)}
    assert (await lists.org.call("PATCH", PHONES, list_id, body=add)).status == 204
    assert await lists.size(list_id) == 2
    remove = {"action": "Remove", "phoneNumbers": [JANE]}
    assert (await lists.org.call("PATCH", PHONES, list_id, body=remove)).status == 204
    assert (await lists.org.call("DELETE", PHONES, list_id, query="?expiredOnly=true")).status == 204
    assert await lists.size(list_id) == 1
    assert (await lists.org.call("DELETE", PHONES, list_id)).status == 204
    assert await lists.size(list_id) == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"phoneNumbers": [JANE]}, "invalid.dnc.patch.action"),
        ({"action": "Add", "phoneNumbers": []}, "invalid.dnc.patch.request"),
        ({"action": "Add", "phoneNumbers": [JANE], "expirationDateTime": "tomorrow"}, "invalid.date.value"),
        ({"action": "Remove", "phoneNumbers": [JANE] * 251}, "dnc.delete.entries.max.per.request.exceeded"),
    ],
)
async def test_a_patch_that_may_not_be_is_refused(lists: Lists, list_id: str, body: Any, code: str):
    """Each rule for a patch has its own code."""
    answer = await lists.org.call("PATCH", PHONES, list_id, body=body)
    assert (answer.status, answer.code) == (400, code)


async def test_an_expiration_is_a_time_to_come(lists: Lists, list_id: str):
    """A POST with one that is over is refused with a code of the contract."""
    answer = await lists.org.call("POST", PHONES, list_id, query=f"?expirationDateTime={later(days=-1)}", body=[JANE])
    assert (answer.status, answer.code) == (400, "invalid.date.value")


@pytest.mark.parametrize(
    ("changes", "template", "field"),
    [
        ({"contactMethod": "Email"}, EMAILS, "emailAddresses"),
        ({"contactMethod": "WhatsApp"}, WHATSAPP, "whatsAppNumbers"),
        (
            {"dncSourceType": "rds_custom", "contactMethod": None, "customExclusionColumn": "city"},
            CUSTOM,
            "customExclusionColumnEntries",
        ),
    ],
    ids=["email", "whatsapp", "custom"],
)
async def test_a_list_takes_what_it_is_for_and_no_numbers(
    lists: Lists, changes: dict[str, Any], template: str, field: str
):
    """Its own entries are added and cleared; phone numbers are a 400."""
    list_id = (await lists.make(**changes)).body["id"]
    assert (await lists.org.call("PATCH", template, list_id, body={"action": "Add", field: ["x"]})).status == 204
    assert (await lists.org.call("PATCH", template, list_id, body={"action": "Remove", field: ["x"]})).status == 204
    assert (await lists.org.call("DELETE", template, list_id)).status == 204
    numbers = {"action": "Add", "phoneNumbers": [JANE]}
    refused = await lists.org.call("PATCH", PHONES, list_id, body=numbers)
    assert (refused.status, refused.code) in {
        (400, "dnc.list.invalid.contact.method"),
        (400, "dnc.source.operation.not.supported"),
    }
    assert (await lists.org.call("POST", PHONES, list_id, body=[JANE])).status == 400
    assert (await lists.org.call("DELETE", PHONES, list_id)).status == 400


async def test_email_addresses_are_posted(lists: Lists):
    """A POST of addresses is a 204."""
    list_id = (await lists.make(contactMethod="Email")).body["id"]
    assert (await lists.org.call("POST", EMAILS, list_id, body=["a@example.com"])).status == 204


@pytest.mark.parametrize(
    ("method", "template", "body"),
    [
        ("GET", LIST, None),
        ("PUT", LIST, {"name": "x", "dncSourceType": "rds", "version": 1}),
        ("DELETE", LIST, None),
        ("GET", VIEW, None),
        ("POST", PHONES, [JANE]),
        ("PATCH", PHONES, {"action": "Add", "phoneNumbers": [JANE]}),
        ("DELETE", PHONES, None),
        ("POST", EMAILS, ["a@example.com"]),
        ("PATCH", EMAILS, {"action": "Add", "emailAddresses": ["a@example.com"]}),
        ("DELETE", EMAILS, None),
        ("PATCH", WHATSAPP, {"action": "Add", "whatsAppNumbers": [JANE]}),
        ("DELETE", WHATSAPP, None),
        ("PATCH", CUSTOM, {"action": "Add", "customExclusionColumnEntries": ["x"]}),
        ("DELETE", CUSTOM, None),
        ("POST", EXPORT, None),
        ("GET", EXPORT, None),
        ("GET", IMPORT_STATUS, None),
    ],
)
async def test_nothing_can_be_done_in_a_list_that_is_not(lists: Lists, method: str, template: str, body: Any):
    """Every operation on an unknown list is a 404 with its own code."""
    assert (await lists.org.call(method, template, UNKNOWN, body=body)).status == 404


@pytest.mark.parametrize("body", [b"{", {"phoneNumbers": [JANE]}, [1]], ids=["not json", "not bare", "not strings"])
async def test_a_body_that_is_no_array_of_strings_is_refused(lists: Lists, list_id: str, body: Any):
    """What is not a bare array of strings is a 400."""
    assert (await lists.org.call("POST", PHONES, list_id, body=body)).status == 400


async def test_only_json_is_taken(lists: Lists, list_id: str):
    """Another media type is a 415."""
    answer = await lists.org.call("POST", PHONES, list_id, body=b"[]", headers={"Content-Type": "text/csv"})
    assert (answer.status, answer.code) == (415, "unsupported.media.type")


async def test_a_list_is_exported_in_a_while(lists: Lists, list_id: str):
    """POST names the list, GET is a 404 until the file is there, and then says where."""
    assert (await lists.org.call("POST", EXPORT, list_id)).body["id"] == list_id
    exported = await lists.org.settled("GET", EXPORT, list_id)
    async with lists.org.http.get(
        exported.body["uri"], headers={"Authorization": f"Bearer {lists.org.token}"}
    ) as response:
        assert response.status == 200
        assert (await response.read()).startswith(b"\xef\xbb\xbf")


async def test_a_file_is_imported(lists: Lists, list_id: str):
    """What is put to the URL with its headers is imported; the status is complete in the end."""
    asked = {"contentType": "text/csv", "id": list_id, "phoneColumns": "phone"}
    issued = (await lists.org.call("POST", UPLOADS, body=asked)).body
    async with lists.org.http.put(issued["url"], data=f"phone\n{JANE}\n", headers=issued["headers"]) as response:
        assert response.status == 200
    await lists.org.until(lambda answer: answer.body["percentComplete"] == 100, "GET", IMPORT_STATUS, list_id)
    assert await lists.size(list_id) == 1


@pytest.mark.parametrize(
    "changes", [{"contentType": "text/html"}, {"id": UNKNOWN}, {"phoneColumns": 1}, {"contactIdName": "id"}], ids=str
)
async def test_a_url_that_may_not_be_is_refused(lists: Lists, list_id: str, changes: dict[str, Any]):
    """A wrong type, list, column or property is refused."""
    asked = {"contentType": "text/csv", "id": list_id, "phoneColumns": "phone"} | changes
    assert (await lists.org.call("POST", UPLOADS, body=asked)).status in {400, 404}


@pytest.mark.parametrize("suffix", ["", "/defaults"])
async def test_limits_are_told_by_namespace(lists: Lists, suffix: str):
    """The limits of the platform and of outbound are numbers with a key, of the namespace that was asked for."""
    platform = await lists.org.call("GET", LIMITS + suffix, "platform.api")
    assert (platform.status, {limit["namespace"] for limit in platform.body["entities"]}) == (200, {"platform.api"})
    rate = [limit for limit in platform.body["entities"] if limit["key"] == "client.credentials.token.rate.per.minute"]
    assert rate[0]["value"] > 0
    assert (await lists.org.call("GET", LIMITS + suffix, "outbound")).status == 200


async def test_an_unknown_namespace_has_no_limits(lists: Lists):
    """It is refused."""
    assert (await lists.org.call("GET", LIMITS, "no.such")).status in {400, 404}
