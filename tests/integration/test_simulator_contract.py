"""The contract suite: what a client may rely on, asked of whoever serves Genesys Cloud's API over HTTP.

It runs on the simulator, and on a real organisation where GENESYS_CONTRACT_REGION (such as us-east-1),
GENESYS_CONTRACT_CLIENT_ID and GENESYS_CONTRACT_CLIENT_SECRET say which. It makes contact lists of its own and deletes
them. Every answer, wanted or refused, is held against tests/data/genesys/contract.json: status, body and error code.
"""

import asyncio
import csv
import io
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from yarl import URL

from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault
from tests.contract import CONTRACT, closed

ENDPOINTS = {(endpoint["method"], endpoint["path"]): endpoint for endpoint in CONTRACT["endpoints"]}

LISTS = "/api/v2/outbound/contactlists"
LIST = LISTS + "/{contactListId}"
CONTACTS = LIST + "/contacts"
BULK = CONTACTS + "/bulk"
SEARCH = CONTACTS + "/search"
CONTACT = CONTACTS + "/{contactId}"
VIEWS = LISTS + "/divisionviews"
VIEW = VIEWS + "/{contactListId}"
UPDATE_LISTS = LISTS + "/bulk/update"
TIME_ZONES = LIST + "/timezonemappingpreview"
CLEAR = LIST + "/clear"
REMOVE = BULK + "/remove"
UPDATE = BULK + "/update"
JOBS = BULK + "/jobs"
JOB = JOBS + "/{jobId}"
EXPORT = LIST + "/export"
UPLOADS = LISTS + "/uploads"
IMPORT_STATUS = LIST + "/importstatus"
UPLOAD_URL = "{UploadUrlResponse.url}"

COLUMNS = ("external_id", "phone_number", "email")
PHONE = {"columnName": "phone_number", "type": "cell"}
UNKNOWN = "5f4dcc3b-5aa7-4f6b-9f65-6f1a3f0d1c2e"
REAL = ("GENESYS_CONTRACT_REGION", "GENESYS_CONTRACT_CLIENT_ID", "GENESYS_CONTRACT_CLIENT_SECRET")
NOBODY = {
    "filterType": "AND",
    "clauses": [
        {
            "filterType": "AND",
            "predicates": [
                {"column": "external_id", "columnType": "alphabetic", "operator": "EQUALS", "value": "nobody"}
            ],
        }
    ],
}
CONFIGURED = all(os.environ.get(name) for name in REAL)


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        return str(self.body["code"])


@cache
def validator(schema: str, *, strict: bool) -> Draft202012Validator:
    """A validator of one schema of the contract; strict: no property that it does not name."""
    whole = json.loads(schema) | {"$defs": CONTRACT["$defs"]}
    return Draft202012Validator(closed(whole) if strict else whole)


def check_against_contract(method: str, template: str, answer: Answer, *, strict: bool) -> None:
    """Fail unless the contract allows this status, body and error code."""
    responses = ENDPOINTS[method, template]["responses"]
    status = str(answer.status)
    response = responses.get(status) or responses.get(f"{status[0]}XX")
    if response is None and status.startswith("2"):
        response = responses.get("default")
    assert response is not None, f"{method} {template} may not answer {status}"
    if response["schema"] is None:
        assert answer.body is None
        return
    validator(json.dumps(response["schema"]), strict=strict).validate(answer.body)
    allowed = response.get("error_codes", []) + response.get("generic_error_codes", [])
    if allowed and answer.status >= 400:
        assert answer.body.get("code", answer.body.get("error")) in allowed


class Organisation:
    """An organisation as its clients see it; it checks every answer against the contract."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        login_url: str,
        api_url: str,
        client: tuple[str, str],
        *,
        strict: bool = True,
        pause_s: float = 0.05,
    ) -> None:
        self.http = http
        self.login_url = login_url
        self.api_url = api_url
        self.client = client
        self.strict = strict
        self.pause_s = pause_s
        self.token = ""
        self._made: list[str] = []

    async def authenticate(self) -> Answer:
        headers = {"Authorization": aiohttp.encode_basic_auth(*self.client)}
        answer = await self.ask_token({"grant_type": "client_credentials"}, headers)
        if answer.status == 200:
            self.token = answer.body["access_token"]
        return answer

    async def ask_token(self, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        async with self.http.post(self.login_url + "/oauth/token", data=form, headers=headers) as response:
            answer = Answer(response.status, await response.json(), response.headers)
        check_against_contract("POST", "/oauth/token", answer, strict=self.strict)
        return answer

    async def call(
        self,
        method: str,
        template: str,
        *ids: str,
        query: str = "",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        path = template
        for value in ids:
            path = re.sub(r"{\w+}", quote(value, safe=""), path, count=1)
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} | dict(headers or {})
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.request(
            method, self.api_url + path + query, data=data, headers=sent, allow_redirects=False
        ) as response:
            raw = await response.read()
            answer = Answer(response.status, json.loads(raw) if raw else None, response.headers)
        assert answer.headers["ININ-Correlation-Id"]
        check_against_contract(method, template, answer, strict=self.strict)
        return answer

    async def make_list(self, **changes: Any) -> Answer:
        definition = {
            "name": f"contract-suite-{uuid4()}",
            "columnNames": list(COLUMNS),
            "phoneColumns": [PHONE],
        }
        answer = await self.call("POST", LISTS, body=definition | changes)
        if answer.status == 200:
            self._made.append(answer.body["id"])
        return answer

    async def settled(self, *call: str, status: int = 200) -> Answer:
        """Ask again while the answer may lag behind what was written; bounded."""
        for _ in range(20):
            answer = await self.call(*call)
            if answer.status == status:
                return answer
            await asyncio.sleep(0.5)
        raise AssertionError(f"{call} did not become {status}")

    async def until(self, wanted: Callable[[Answer], bool], *call: str) -> Answer:
        """Ask again while what was begun goes on; bounded."""
        for _ in range(150):
            answer = await self.call(*call)
            if wanted(answer):
                return answer
            await asyncio.sleep(self.pause_s)
        raise AssertionError(f"{call} did not become what was wanted")

    async def upload(self, list_id: str, text: str) -> None:
        """Put a file to a URL that is got for it."""
        request = {"id": list_id, "contentType": "text/csv", "contactIdName": "external_id"}
        issued = (await self.call("POST", UPLOADS, body=request)).body
        answer = await self.put(issued["url"], issued["headers"], text)
        check_against_contract("PUT", UPLOAD_URL, answer, strict=self.strict)

    async def put(self, url: str, headers: Mapping[str, str], text: str) -> Answer:
        """Ask the file store, which knows no token and answers in XML."""
        async with self.http.put(URL(url, encoded=True), data=text.encode(), headers=headers) as response:
            return Answer(response.status, await response.text() or None, response.headers)

    async def download(self, uri: str) -> str:
        """The file behind a URI that needs the token, and may redirect to one that does not."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.http.get(URL(uri, encoded=True), headers=headers) as response:
            assert response.status == 200
            return await response.text()

    async def tidy(self) -> None:
        for list_id in self._made:
            await self.call("DELETE", LIST, list_id)


def contact(list_id: str, contact_id: str | None = None, **data: Any) -> dict[str, Any]:
    """A contact as a client writes it."""
    values = {"external_id": "crm-1", "phone_number": "+15550100001", "email": "a@example.com"} | data
    made = {"contactListId": list_id, "data": values, "callable": True}
    return made if contact_id is None else made | {"id": contact_id}


UNDER_TEST = ["simulator", "genesys"] if CONFIGURED else ["simulator"]


@asynccontextmanager
async def organisation(which: str) -> AsyncIterator[Organisation]:
    """The simulated or the real organisation, with a token."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        if which == "genesys":
            region, client_id, secret = (os.environ[name] for name in REAL)
            assert region in CONTRACT["regions"], "GENESYS_CONTRACT_REGION is no region of the contract"
            hosts = CONTRACT["regions"][region]
            real = Organisation(http, hosts["login"], hosts["api"], (client_id, secret), strict=False, pause_s=2.0)
            await real.authenticate()
            yield real
            await real.tidy()
            return
        async with Simulator(clients={"suite": "right"}, job_seconds=0.02) as simulator:
            simulated = Organisation(http, simulator.url, simulator.url, ("suite", "right"))
            await simulated.authenticate()
            yield simulated
            await simulated.tidy()


@pytest.fixture(params=UNDER_TEST)
async def org(request: pytest.FixtureRequest) -> AsyncIterator[Organisation]:
    """The organisation under test."""
    async with organisation(request.param) as made:
        yield made


@pytest.fixture
async def list_id(org: Organisation) -> str:
    """A new contact list."""
    return str((await org.make_list()).body["id"])


async def test_a_token_is_issued_for_client_credentials(org: Organisation):
    """The right client gets a bearer token with its lifetime in seconds."""
    answer = await org.authenticate()
    assert answer.status == 200
    assert answer.body["token_type"].lower() == "bearer"
    assert answer.body["expires_in"] > 0


@pytest.mark.parametrize("client", [("nobody-such", "x"), ("", "")], ids=["unknown", "none"])
async def test_another_client_gets_no_token(org: Organisation, client: tuple[str, str]):
    """A client that is not known is told invalid_client."""
    answer = await org.ask_token(
        {"grant_type": "client_credentials"}, {"Authorization": aiohttp.encode_basic_auth(*client)}
    )
    assert answer.status in {400, 401}
    assert answer.body["error"] == "invalid_client"


async def test_a_wrong_secret_gets_no_token(org: Organisation):
    """The right client with a wrong secret is told invalid_client."""
    headers = {"Authorization": aiohttp.encode_basic_auth(org.client[0], "wrong")}
    answer = await org.ask_token({"grant_type": "client_credentials"}, headers)
    assert answer.status in {400, 401}
    assert answer.body["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": ""}, "authentication.required"),
        ({"Authorization": "Bearer no-such-token"}, "bad.credentials"),
    ],
    ids=["none", "unknown"],
)
async def test_a_request_needs_a_good_token(org: Organisation, headers: Mapping[str, str], code: str):
    """Without a token, or with one that is not known, the answer is 401 and says which."""
    answer = await org.call("GET", LISTS, headers=headers)
    assert (answer.status, answer.code) == (401, code)


async def test_a_created_list_can_be_read_and_found(org: Organisation):
    """Create answers 200 with the list, and both reads return the same one."""
    made = await org.make_list()
    assert made.status == 200
    read = await org.settled("GET", LIST, made.body["id"])
    found = await org.call("GET", LISTS, query=f"?name={made.body['name']}&filterType=Equals")
    assert read.body["columnNames"] == list(COLUMNS)
    assert read.body["phoneColumns"][0]["columnName"] == "phone_number"
    assert [entity["id"] for entity in found.body["entities"]] == [made.body["id"]]


async def test_the_name_filter_is_a_prefix_unless_told(org: Organisation):
    """A list is found by the beginning of its name, and not by its end."""
    name = (await org.make_list()).body["name"]
    by_start = await org.call("GET", LISTS, query=f"?name={name[:-1]}")
    by_end = await org.call("GET", LISTS, query=f"?name={name[1:]}")
    assert [entity["name"] for entity in by_start.body["entities"]] == [name]
    assert by_end.body["entities"] == []


async def test_lists_come_in_pages(org: Organisation):
    """Three lists in pages of two: two and one, with the count of all."""
    prefix = f"contract-suite-{uuid4()}"
    for number in range(3):
        await org.make_list(name=f"{prefix}-{number}")
    first = await org.call("GET", LISTS, query=f"?name={prefix}&pageSize=2")
    second = await org.call("GET", LISTS, query=f"?name={prefix}&pageSize=2&pageNumber=2")
    names = {entity["name"] for answer in (first, second) for entity in answer.body["entities"]}
    assert (len(first.body["entities"]), len(second.body["entities"]), len(names)) == (2, 1, 3)
    assert (first.body["total"], first.body["pageCount"]) == (3, 2)


async def test_lists_can_be_asked_for_by_id(org: Organisation):
    """A repeated id parameter selects exactly those lists."""
    wanted = [(await org.make_list()).body["id"] for _ in range(2)]
    await org.make_list()
    answer = await org.call("GET", LISTS, query=f"?id={wanted[0]}&id={wanted[1]}")
    assert {entity["id"] for entity in answer.body["entities"]} == set(wanted)


@pytest.mark.parametrize("query", ["?pageSize=101", "?pageNumber=x", "?filterType=Sounds"])
async def test_an_impossible_page_or_filter_is_refused(org: Organisation, query: str):
    """A list query outside its limits is a 400."""
    assert (await org.call("GET", LISTS, query=query)).status == 400


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "name.cannot.be.blank"),
        ({"name": "n" * 65}, "name.length.exceeded"),
        ({"columnNames": []}, "no.contact.columns.defined"),
        ({"columnNames": [*COLUMNS, "email"]}, "not.unique.contact.columns"),
        ({"columnNames": [*COLUMNS, *map(str, range(48))]}, "contact.columns.limit.exceeded"),
        ({"columnNames": [*COLUMNS, "c" * 129]}, "contact.column.length.limit.exceeded"),
        ({"phoneColumns": []}, "contact.list.both.phone.email.column.empty"),
        ({"phoneColumns": [PHONE, PHONE]}, "not.unique.phone.columns"),
        (
            {"phoneColumns": [{"columnName": "absent", "type": "cell"}]},
            "contact.columns.do.not.contain.phone.number.column",
        ),
        ({"emailColumns": [{"columnName": "absent", "type": "work"}]}, "contact.columns.do.not.contain.email.column"),
        ({"zipCodeColumnName": "email"}, "cannot.have.zip.code.column.without.automatic.time.zone.mapping"),
        (
            {"columnDataTypeSpecifications": [{"columnName": "email", "columnDataType": "TEXT", "maxLength": 10}]},
            "missing.column.data.type.specification.in.contact.list",
        ),
        ({"fieldMappings": {}}, "invalid.property"),
    ],
)
async def test_a_list_that_may_not_be_is_refused(org: Organisation, changes: dict[str, Any], code: str):
    """Each rule for a new list has its own code."""
    answer = await org.make_list(**changes)
    assert (answer.status, answer.code) == (400, code)


async def test_a_list_name_is_unique(org: Organisation):
    """A second list of the same name is refused."""
    first = await org.make_list()
    second = await org.make_list(name=first.body["name"])
    assert (second.status, second.code) == (400, "duplicate.name")


async def test_a_deleted_list_is_gone(org: Organisation):
    """Delete answers 200 and the list cannot be read afterwards."""
    list_id = (await org.make_list()).body["id"]
    org._made.remove(list_id)
    assert (await org.call("DELETE", LIST, list_id)).status == 200
    assert (await org.settled("GET", LIST, list_id, status=404)).code in {
        "contact.list.not.found",
        "resource.not.found",
    }


@pytest.mark.parametrize(
    ("method", "template", "query", "body"),
    [
        ("DELETE", LIST, "", None),
        ("POST", CONTACTS, "", [contact(UNKNOWN, "a")]),
        ("DELETE", CONTACTS, "?contactIds=a", None),
        ("POST", BULK, "", ["a"]),
        ("POST", SEARCH, "", {"pageNumber": 1, "pageSize": 1}),
        ("GET", CONTACT, "", None),
        ("PUT", CONTACT, "", contact(UNKNOWN, "a")),
        ("DELETE", CONTACT, "", None),
        ("PUT", LIST, "", {"name": "x", "columnNames": ["x"]}),
        ("GET", VIEW, "", None),
        ("GET", TIME_ZONES, "", None),
        ("POST", CLEAR, "", None),
        ("POST", REMOVE, "", {"criteria": NOBODY}),
        ("POST", UPDATE, "", {"contactIds": ["a"], "contact": contact(UNKNOWN)}),
        ("GET", JOBS, "", None),
        ("GET", JOB, "", None),
        ("POST", EXPORT, "", None),
        ("GET", EXPORT, "", None),
        ("GET", IMPORT_STATUS, "", None),
        ("DELETE", LISTS, "?id=" + UNKNOWN, None),
    ],
)
async def test_nothing_can_be_done_in_a_list_that_is_not(
    org: Organisation, method: str, template: str, query: str, body: Any
):
    """Every operation in an unknown list is a 404."""
    answer = await org.call(method, template, UNKNOWN, "a", query=query, body=body)
    assert answer.status == 404


async def test_an_added_contact_keeps_the_id_it_came_with(org: Organisation, list_id: str):
    """The client's id is the contact's id, in the answer and in a read."""
    contact_id = str(uuid4())
    added = await org.call("POST", CONTACTS, list_id, body=[contact(list_id, contact_id)])
    assert added.status == 200
    assert [made["id"] for made in added.body] == [contact_id]
    read = await org.settled("GET", CONTACT, list_id, contact_id)
    assert read.body["data"]["phone_number"] == "+15550100001"
    assert read.body["callable"] is True


async def test_a_contact_without_an_id_is_given_one(org: Organisation, list_id: str):
    """Two contacts without ids get two ids."""
    added = await org.call("POST", CONTACTS, list_id, body=[contact(list_id), contact(list_id)])
    assert len({made["id"] for made in added.body}) == 2


@pytest.mark.parametrize("flags", ["", "?doNotQueue=true&priority=false&clearSystemData=true", "?doNotQueue=True"])
async def test_adding_a_known_id_replaces_the_contact(org: Organisation, list_id: str, flags: str):
    """The same id twice is one contact with the later data, whatever the flags."""
    contact_id = str(uuid4())
    await org.call("POST", CONTACTS, list_id, query=flags, body=[contact(list_id, contact_id, email="old@example.com")])
    changed = contact(list_id, contact_id, email="new@example.com") | {"callable": False}
    assert (await org.call("POST", CONTACTS, list_id, query=flags, body=[changed])).status == 200
    read = await org.settled("GET", CONTACT, list_id, contact_id)
    assert (read.body["data"]["email"], read.body["callable"]) == ("new@example.com", False)
    found = await org.call("POST", SEARCH, list_id, body={"pageNumber": 1, "pageSize": 10})
    assert [entity["id"] for entity in found.body["entities"]] == [contact_id]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data": {**dict.fromkeys(COLUMNS, "x"), "absent": "x"}}, "invalid.contact.columns"),
        ({"data": {"external_id": "x"}}, "contact.missing.columns"),
        ({"data": {}}, "contact.missing.data"),
        ({"data": dict.fromkeys(COLUMNS, "x" * 513)}, "contact.datum.length.limit.exceeded"),
        ({"data": dict.fromkeys(COLUMNS, True)}, "invalid.value"),
        ({"data": dict.fromkeys(COLUMNS, None)}, "invalid.value"),
        ({"id": "a/b"}, "invalid.contact.id"),
        ({"id": "i" * 1_000}, "contact.id.length.limit.exceeded"),
        ({"callable": "yes"}, "invalid.value"),
        ({"contactListId": UNKNOWN}, "invalid.value"),
        ({"deduplicationKey": "x"}, "invalid.property"),
    ],
)
async def test_a_contact_that_may_not_be_is_refused(
    org: Organisation, list_id: str, changes: dict[str, Any], code: str
):
    """Each rule for a contact has its own code."""
    answer = await org.call("POST", CONTACTS, list_id, body=[contact(list_id, "a") | changes])
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize("body", [b"{", {"contacts": []}, ["text"]], ids=["not json", "not bare", "not objects"])
async def test_a_body_that_is_no_array_of_contacts_is_refused(org: Organisation, list_id: str, body: Any):
    """What is not a bare array of objects is a 400."""
    assert (await org.call("POST", CONTACTS, list_id, body=body)).status == 400


async def test_only_json_is_taken(org: Organisation, list_id: str):
    """Another media type is a 415."""
    answer = await org.call("POST", CONTACTS, list_id, body=b"[]", headers={"Content-Type": "text/csv"})
    assert (answer.status, answer.code) == (415, "unsupported.media.type")


async def test_a_flag_is_true_or_false(org: Organisation, list_id: str):
    """Another value of a flag is a 400."""
    answer = await org.call("POST", CONTACTS, list_id, query="?doNotQueue=1", body=[])
    assert answer.status == 400


async def test_a_thousand_contacts_and_no_more_are_added_at_once(org: Organisation, list_id: str):
    """1000 contacts are accepted; 1001 are refused."""
    many = [contact(list_id, str(uuid4())) for _ in range(1_001)]
    refused = await org.call("POST", CONTACTS, list_id, body=many)
    added = await org.call("POST", CONTACTS, list_id, body=many[:1_000])
    assert (refused.status, refused.code) == (400, "too.many.contacts.added")
    assert {made["id"] for made in added.body} == {made["id"] for made in many[:1_000]}


async def test_a_body_over_the_platform_limit_is_refused(org: Organisation, list_id: str):
    """More than 512,000 bytes are a 413, however few the contacts."""
    wide = [contact(list_id, str(uuid4()), email="e" * 500) for _ in range(900)]
    answer = await org.call("POST", CONTACTS, list_id, body=wide)
    assert (answer.status, answer.code) == (413, "request.entity.too.large")


async def test_a_contact_can_be_replaced(org: Organisation, list_id: str):
    """PUT takes back what a read returned, changed, and a read returns the change."""
    contact_id = str(uuid4())
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, contact_id)])
    read = await org.settled("GET", CONTACT, list_id, contact_id)
    changed = read.body | {"callable": False, "data": read.body["data"] | {"email": "b@example.com"}}
    assert (await org.call("PUT", CONTACT, list_id, contact_id, body=changed)).status == 200
    again = await org.settled("GET", CONTACT, list_id, contact_id)
    assert (again.body["callable"], again.body["data"]["email"]) == (False, "b@example.com")


async def test_a_contact_that_is_not_cannot_be_replaced(org: Organisation, list_id: str):
    """PUT makes no contacts."""
    answer = await org.call("PUT", CONTACT, list_id, UNKNOWN, body=contact(list_id, UNKNOWN))
    assert answer.status in {400, 404}


async def test_a_deleted_contact_is_gone(org: Organisation, list_id: str):
    """Delete answers 200 once and 404 afterwards, and so does a read."""
    contact_id = str(uuid4())
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, contact_id)])
    await org.settled("GET", CONTACT, list_id, contact_id)
    assert (await org.call("DELETE", CONTACT, list_id, contact_id)).status == 200
    await org.settled("GET", CONTACT, list_id, contact_id, status=404)
    assert (await org.call("DELETE", CONTACT, list_id, contact_id)).status == 404


@pytest.mark.parametrize("separator", [",", "&contactIds=", "%2C"])
async def test_many_contacts_are_deleted_at_once(org: Organisation, list_id: str, separator: str):
    """250 ids in one request line, joined or repeated, are deleted; those not known are no error."""
    ids = [str(uuid4()) for _ in range(251)]
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, contact_id) for contact_id in ids[1:]])
    refused = await org.call("DELETE", CONTACTS, list_id, query="?contactIds=" + separator.join(ids))
    assert (refused.status, refused.code) == (400, "too.many.contacts.added")
    deleted = await org.call("DELETE", CONTACTS, list_id, query="?contactIds=" + separator.join(ids[:250]))
    assert deleted.status == 200
    await org.settled("GET", CONTACT, list_id, ids[1], status=404)
    assert (await org.settled("GET", CONTACT, list_id, ids[250])).status == 200


@pytest.mark.parametrize("query", ["", "?contactIds="])
async def test_deleting_nobody_is_refused(org: Organisation, list_id: str, query: str):
    """Without ids the answer is no.contacts.specified."""
    answer = await org.call("DELETE", CONTACTS, list_id, query=query)
    assert (answer.status, answer.code) == (400, "no.contacts.specified")


async def test_a_bulk_read_returns_the_contacts_there_are(org: Organisation, list_id: str):
    """Known ids come back, unknown ones are left out, and 51 are too many."""
    contact_id = str(uuid4())
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, contact_id)])
    await org.settled("GET", CONTACT, list_id, contact_id)
    read = await org.call("POST", BULK, list_id, body=[contact_id, UNKNOWN])
    refused = await org.call("POST", BULK, list_id, body=[contact_id] * 51)
    assert [found["id"] for found in read.body] == [contact_id]
    assert (refused.status, refused.code) == (400, "too.many.contacts.requested")


async def test_a_search_pages_through_all_contacts(org: Organisation, list_id: str):
    """Pages of two over three contacts return each of them once."""
    ids = {str(uuid4()) for _ in range(3)}
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, contact_id) for contact_id in ids])
    for contact_id in ids:
        await org.settled("GET", CONTACT, list_id, contact_id)
    pages = [await org.call("POST", SEARCH, list_id, body={"pageNumber": n, "pageSize": 2}) for n in (1, 2)]
    found = [entity["id"] for page in pages for entity in page.body["entities"]]
    assert len(found) == 3
    assert set(found) == ids


@pytest.mark.parametrize(
    "body", [{}, {"pageNumber": 0, "pageSize": 1}, {"pageNumber": 1, "pageSize": 101}, ["x"]], ids=str
)
async def test_a_search_needs_a_possible_page(org: Organisation, list_id: str, body: Any):
    """A search without a page, or with one outside the limits, is a 400."""
    assert (await org.call("POST", SEARCH, list_id, body=body)).status == 400


async def test_a_list_is_replaced_and_its_version_goes_up(org: Organisation, list_id: str):
    """PUT takes back what a read returned, changed."""
    read = (await org.settled("GET", LIST, list_id)).body
    put = await org.call("PUT", LIST, list_id, body=read | {"name": read["name"] + "-2"})
    again = await org.settled("GET", LIST, list_id)
    assert (put.status, put.body["name"], put.body["version"]) == (200, read["name"] + "-2", read["version"] + 1)
    assert again.body["name"] == put.body["name"]


async def test_a_list_is_not_replaced_by_what_was_read_before(org: Organisation, list_id: str):
    """The second PUT of one version is a conflict."""
    read = (await org.settled("GET", LIST, list_id)).body
    await org.call("PUT", LIST, list_id, body=read)
    second = await org.call("PUT", LIST, list_id, body=read)
    assert (second.status, second.code) == (409, "invalid.update.wrong.version")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"columnNames": [*COLUMNS, "new"]}, "cannot.update.contact.column.names"),
        ({"phoneColumns": [PHONE | {"columnName": "email"}]}, "cannot.update.phone.columns"),
        ({"emailColumns": [{"columnName": "email", "type": "Work"}]}, "cannot.update.email.columns"),
        ({"automaticTimeZoneMapping": True}, "cannot.edit.automatic.time.zone.mapping.settings"),
        (
            {"columnDataTypeSpecifications": [{"columnName": "email", "columnDataType": "TEXT", "maxLength": 9}]},
            "cannot.update.column.data.type.specifications",
        ),
        ({"name": " "}, "name.cannot.be.blank"),
        ({"name": "n" * 65}, "name.length.exceeded"),
        ({"fieldMappings": {}}, "invalid.property"),
    ],
)
async def test_a_replacement_that_may_not_be_is_refused(
    org: Organisation, list_id: str, changes: dict[str, Any], code: str
):
    """What is fixed at creation, and what no list may be, each have a code."""
    read = (await org.settled("GET", LIST, list_id)).body
    answer = await org.call("PUT", LIST, list_id, body=read | changes)
    assert (answer.status, answer.code) == (400, code)


async def test_a_replacement_cannot_take_a_name_that_is_taken(org: Organisation, list_id: str):
    """Names stay unique."""
    taken = (await org.make_list()).body["name"]
    read = (await org.settled("GET", LIST, list_id)).body
    answer = await org.call("PUT", LIST, list_id, body=read | {"name": taken})
    assert (answer.status, answer.code) == (400, "duplicate.name")


@pytest.mark.parametrize("separator", [",", "&id="])
async def test_many_lists_are_deleted_at_once(org: Organisation, separator: str):
    """Ids joined or repeated are deleted together."""
    doomed = [(await org.make_list()).body["id"] for _ in range(2)]
    assert (await org.call("DELETE", LISTS, query="?id=" + separator.join(doomed))).status == 204
    for list_id in doomed:
        org._made.remove(list_id)
        await org.settled("GET", LIST, list_id, status=404)


@pytest.mark.parametrize(("count", "code"), [(101, "too.many.deletes"), (0, "bad.request")])
async def test_too_many_lists_or_none_are_not_deleted(org: Organisation, count: int, code: str):
    """101 ids are one too many, and none are too few."""
    query = "?id=" + ",".join(map(str, range(count)))
    answer = await org.call("DELETE", LISTS, query=query)
    assert (answer.status, answer.code) == (400, code)


async def test_division_views_show_what_a_searcher_may_see(org: Organisation, list_id: str):
    """The listing and one view have the list's name and columns, and its size when asked."""
    name = (await org.settled("GET", LIST, list_id)).body["name"]
    listing = await org.call("GET", VIEWS, query=f"?name={name}&includeSize=true&includeImportStatus=true")
    one = await org.call("GET", VIEW, list_id)
    assert [(view["id"], view["size"]) for view in listing.body["entities"]] == [(list_id, 0)]
    assert (one.body["name"], one.body["columnNames"]) == (name, list(COLUMNS))


async def test_retention_of_many_lists_is_updated_at_once(org: Organisation, list_id: str):
    """Each list has a result of its own."""
    changes = {"columnNames": list(COLUMNS), "retentionType": "RetentionDays", "retentionDays": 30}
    body = {"contactListIds": [list_id, UNKNOWN], "contactList": changes}
    answer = await org.call("POST", UPDATE_LISTS, body=body)
    assert [result["success"] for result in answer.body["results"]] == [True, False]
    assert (answer.body["errorCount"], answer.body["errorIndexes"]) == (1, [1])


async def test_time_zones_are_previewed_where_they_are_mapped(org: Organisation, list_id: str):
    """A list with automatic mapping has a preview; another one is refused."""
    mapped = (await org.make_list(automaticTimeZoneMapping=True)).body["id"]
    assert (await org.settled("GET", TIME_ZONES, mapped)).body["contactListSize"] == 0
    plain = await org.call("GET", TIME_ZONES, list_id)
    assert (plain.status, plain.code) == (400, "not.automatic.time.zone.mapping")


async def test_a_cleared_list_is_empty_in_a_while(org: Organisation, list_id: str):
    """Clear answers 204, and the list's size goes to nothing."""
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, "a")])
    await org.settled("GET", CONTACT, list_id, "a")
    assert (await org.call("POST", CLEAR, list_id)).status == 204
    await org.settled("GET", CONTACT, list_id, "a", status=404)
    empty = await org.call("POST", SEARCH, list_id, body={"pageNumber": 1, "pageSize": 1})
    assert empty.body["entities"] == []


def choosing(operator: str, value: str) -> dict[str, Any]:
    """Criteria on the external id."""
    predicate = {"column": "external_id", "columnType": "alphabetic", "operator": operator, "value": value}
    return {"filterType": "AND", "clauses": [{"filterType": "AND", "predicates": [predicate]}]}


async def test_a_search_finds_and_sorts_by_columns(org: Organisation, list_id: str):
    """Criteria choose contacts, and sorts put them in order."""
    made = [contact(list_id, each, external_id=each) for each in ("ann", "alf", "bob")]
    await org.call("POST", CONTACTS, list_id, body=made)
    await org.settled("GET", CONTACT, list_id, "bob")
    sorts = [{"fieldName": "external_id", "direction": "ASC", "numeric": False}]
    body = {"pageNumber": 1, "pageSize": 9, "criteria": choosing("BEGINS_WITH", "a"), "contactSorts": sorts}
    found = await org.call("POST", SEARCH, list_id, body=body)
    assert [each["id"] for each in found.body["entities"]] == ["alf", "ann"]


@pytest.mark.parametrize(
    ("criteria", "code"),
    [
        ({"filterType": "XOR", "clauses": []}, "invalid.contact.list.filter"),
        (choosing("SOUNDS_LIKE", "x"), "invalid.contact.list.filter"),
    ],
)
async def test_criteria_that_may_not_be_are_refused_everywhere(
    org: Organisation, list_id: str, criteria: dict[str, Any], code: str
):
    """Search, bulk operations and export refuse the same filters."""
    page = {"pageNumber": 1, "pageSize": 1}
    for template, body in ((SEARCH, page), (REMOVE, {}), (UPDATE, {"contact": contact(list_id)}), (EXPORT, {})):
        answer = await org.call("POST", template, list_id, body=body | {"criteria": criteria})
        assert (answer.status, answer.code) == (400, code)


async def test_a_bulk_removal_is_a_job_that_completes(org: Organisation, list_id: str):
    """The job is told at once, found by its id and in the list, and complete when its contacts are gone."""
    made = [contact(list_id, each, external_id=each) for each in ("ann", "bob")]
    await org.call("POST", CONTACTS, list_id, body=made)
    await org.settled("GET", CONTACT, list_id, "bob")
    begun = await org.call("POST", REMOVE, list_id, body={"criteria": choosing("EQUALS", "ann")})
    assert begun.status in {200, 202}
    job_id = begun.body["id"]
    over = await org.until(lambda answer: answer.body["state"] != "InProgress", "GET", JOB, list_id, job_id)
    listing = await org.call("GET", JOBS, list_id)
    assert (over.body["state"], over.body["type"], over.body["totalRecords"]) == ("Complete", "BulkDelete", 1)
    assert [job["id"] for job in listing.body["entities"]] == [job_id]
    await org.settled("GET", CONTACT, list_id, "ann", status=404)
    assert (await org.settled("GET", CONTACT, list_id, "bob")).status == 200


async def test_a_bulk_update_is_a_job_that_completes(org: Organisation, list_id: str):
    """One contact's values are given to those that are chosen by id."""
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, each) for each in ("ann", "bob")])
    await org.settled("GET", CONTACT, list_id, "bob")
    body = {"contactIds": ["ann"], "contact": contact(list_id, email="new@example.com")}
    begun = await org.call("POST", UPDATE, list_id, body=body)
    await org.until(lambda answer: answer.body["state"] == "Complete", "GET", JOB, list_id, begun.body["id"])
    read = [await org.call("GET", CONTACT, list_id, each) for each in ("ann", "bob")]
    assert [each.body["data"]["email"] for each in read] == ["new@example.com", "a@example.com"]


async def test_an_unknown_job_is_not_found(org: Organisation, list_id: str):
    """A job that is not there is a 404."""
    answer = await org.call("GET", JOB, list_id, UNKNOWN)
    assert (answer.status, answer.code) == (404, "resource.not.found")


async def test_an_exported_file_holds_the_contacts(org: Organisation, list_id: str):
    """There is no URI before the export is ready; then it leads to a CSV file with the ids first."""
    await org.call("POST", CONTACTS, list_id, body=[contact(list_id, "ann", email='a, "b"@example.com')])
    await org.settled("GET", CONTACT, list_id, "ann")
    before = await org.call("GET", EXPORT, list_id)
    assert (before.status, before.code) == (404, "no.available.list.export.uri")
    assert (await org.call("POST", EXPORT, list_id)).status == 200
    ready = await org.until(lambda answer: answer.status == 200, "GET", EXPORT, list_id)
    text = await org.download(ready.body["uri"])
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert text.startswith("\ufeffinin-outbound-id,")
    assert (row["inin-outbound-id"], row["phone_number"], row["email"]) == (
        "ann",
        "+15550100001",
        'a, "b"@example.com',
    )


async def test_an_uploaded_file_is_imported(org: Organisation, list_id: str):
    """The status has no state once every row is there."""
    await org.upload(list_id, "phone_number,email,external_id\r\n+15550100002,b@example.com,bob\r\n")
    over = await org.until(lambda answer: answer.body["completedRecords"] == 1, "GET", IMPORT_STATUS, list_id)
    read = await org.settled("GET", CONTACT, list_id, "bob")
    assert over.body["percentComplete"] == 100
    assert (read.body["data"]["email"], read.body["callable"]) == ("b@example.com", True)


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"contentType": None}, 400), ({"signedUrlTimeoutSeconds": 0}, 400), ({"id": UNKNOWN}, 404), ({"more": 1}, 400)],
)
async def test_an_upload_that_may_not_be_gets_no_url(
    org: Organisation, list_id: str, changes: dict[str, Any], status: int
):
    """What an upload is for is checked before there is a URL."""
    body = {"id": list_id, "contentType": "text/csv", "contactIdName": "external_id"} | changes
    assert (await org.call("POST", UPLOADS, body=body)).status == status


# What only the simulator can be made to do, held against the same contract.


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("500", 500, "internal.server.error"),
        ("503", 503, "service.unavailable"),
        ("504", 504, "request.timeout"),
        ("429=7", 429, "too.many.requests.retry.after"),
        ("401", 401, "bad.credentials"),
    ],
)
async def test_a_fault_looks_like_the_real_thing(fault: str, status: int, code: str):
    """Each fault that is answered has the status, body and code that the contract knows."""
    async with Simulator() as simulator, aiohttp.ClientSession() as http:
        org = Organisation(http, simulator.url, simulator.url, ("any", "any"))
        await org.authenticate()
        simulator.faults.inject(Fault.parse(fault))
        answer = await org.call("GET", LISTS)
        assert (answer.status, answer.code) == (status, code)


async def test_a_throttled_request_is_told_when_to_come_back():
    """The 429 has Retry-After in whole seconds, says the same in its message, and has no removed header."""
    async with Simulator(requests_per_minute=1, clock=lambda: 0.0) as simulator, aiohttp.ClientSession() as http:
        org = Organisation(http, simulator.url, simulator.url, ("any", "any"))
        await org.authenticate()
        assert (await org.call("GET", LISTS)).status == 200
        answer = await org.call("GET", LISTS)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "60")
        assert answer.body == {
            "message": "Rate limit exceeded the maximum. Retry the request in [60] seconds",
            "code": CONTRACT["conventions"]["rate_limit_error_code"],
            "status": 429,
            "contextId": answer.headers["ININ-Correlation-Id"],
            "details": [],
            "errors": [],
        }
        assert not {name.lower() for name in answer.headers} & set(CONTRACT["conventions"]["removed_headers"])


NEEDED = [
    (*key, permission)
    for key, endpoint in sorted(ENDPOINTS.items())
    for permission in (endpoint["permissions"] or {}).get("any_or_all", ())
]


@pytest.mark.parametrize(("method", "template", "permission"), NEEDED, ids="{0}".format)
async def test_each_operation_needs_the_permissions_the_contract_names(method: str, template: str, permission: str):
    """With one of its permissions withheld an operation is a 403 that names it."""
    async with Simulator(withheld_permissions=[permission]) as simulator, aiohttp.ClientSession() as http:
        org = Organisation(http, simulator.url, simulator.url, ("any", "any"))
        await org.authenticate()
        answer = await org.call(method, template, UNKNOWN, "a")
        assert (answer.status, answer.code) == (403, "missing.any.permissions")
        assert permission in answer.body["message"]


@pytest.mark.parametrize("task", ["clear", "import", "export", "bulk"])
async def test_what_goes_on_in_a_list_keeps_others_away(task: str):
    """While the time stands still, what may not be done meanwhile is refused with the contract's code."""
    async with Simulator(clock=lambda: 0.0, job_seconds=1.0) as simulator, aiohttp.ClientSession() as http:
        org = Organisation(http, simulator.url, simulator.url, ("any", "any"))
        await org.authenticate()
        list_id = (await org.make_list()).body["id"]
        await org.call("POST", CONTACTS, list_id, body=[contact(list_id, "a")])
        edit = ("POST", UPDATE, {"contactIds": ["a"], "contact": contact(list_id)})
        remove = ("POST", REMOVE, {"criteria": NOBODY})
        refused: dict[str, tuple[str, list[tuple[str, str, Any]]]] = {
            "clear": (
                "contact.list.clear.in.progress",
                [("POST", CONTACTS, []), ("PUT", CONTACT, contact(list_id, "a")), edit, remove],
            ),
            "import": (
                "contact.list.import.in.progress",
                [("DELETE", LIST, None), ("POST", CLEAR, None), ("POST", EXPORT, None)],
            ),
            "export": ("contact.list.export.in.progress", [("POST", EXPORT, None)]),
            "bulk": ("contact.bulk.operation.in.progress", [edit, remove]),
        }
        await begin(org, task, list_id)
        code, operations = refused[task]
        for method, template, body in operations:
            answer = await org.call(method, template, list_id, "a", body=body)
            assert (answer.status, answer.code) == (400, code)


async def begin(org: Organisation, task: str, list_id: str) -> None:
    """Begin something that takes its time."""
    if task == "import":
        await org.upload(list_id, "external_id,phone_number,email\r\nb,,\r\n")
    elif task == "bulk":
        await org.call("POST", REMOVE, list_id, body={"criteria": NOBODY})
    else:
        await org.call("POST", {"clear": CLEAR, "export": EXPORT}[task], list_id)


async def test_of_many_lists_none_is_deleted_while_one_is_imported():
    """The conflict spares the others too."""
    async with Simulator(clock=lambda: 0.0, job_seconds=1.0) as simulator, aiohttp.ClientSession() as http:
        org = Organisation(http, simulator.url, simulator.url, ("any", "any"))
        await org.authenticate()
        ids = [(await org.make_list()).body["id"] for _ in range(2)]
        await begin(org, "import", ids[1])
        assert (await org.call("GET", IMPORT_STATUS, ids[1])).body["state"] == "IN_PROGRESS"
        answer = await org.call("DELETE", LISTS, query="?id=" + ",".join(ids))
        assert (answer.status, answer.code) == (409, "bulk.delete.conflict")
        assert len(simulator.lists()) == 2
