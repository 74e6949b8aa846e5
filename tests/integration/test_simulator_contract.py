"""The contract suite: what a client may rely on, asked of whoever serves Genesys Cloud's API over HTTP.

It runs on the simulator, and on a real organisation where GENESYS_CONTRACT_REGION (such as us-east-1),
GENESYS_CONTRACT_CLIENT_ID and GENESYS_CONTRACT_CLIENT_SECRET say which. It makes contact lists of its own and deletes
them. Every answer, wanted or refused, is held against tests/data/genesys/contract.json: status, body and error code.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest
from jsonschema import Draft202012Validator

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

COLUMNS = ("external_id", "phone_number", "email")
PHONE = {"columnName": "phone_number", "type": "cell"}
UNKNOWN = "5f4dcc3b-5aa7-4f6b-9f65-6f1a3f0d1c2e"
REAL = ("GENESYS_CONTRACT_REGION", "GENESYS_CONTRACT_CLIENT_ID", "GENESYS_CONTRACT_CLIENT_SECRET")
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
    ) -> None:
        self.http = http
        self.login_url = login_url
        self.api_url = api_url
        self.client = client
        self.strict = strict
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
        for placeholder, value in zip(re.findall(r"{\w+}", template), ids, strict=False):
            path = path.replace(placeholder, quote(value, safe=""))
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
            hosts = CONTRACT["regions"][region]
            real = Organisation(http, hosts["login"], hosts["api"], (client_id, secret), strict=False)
            await real.authenticate()
            yield real
            await real.tidy()
            return
        async with Simulator(clients={"suite": "right"}) as simulator:
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


def test_a_real_organisation_that_is_named_is_in_a_known_region():
    """The suite runs on a real organisation too when all its settings are there, in a region of the contract."""
    assert not CONFIGURED or os.environ["GENESYS_CONTRACT_REGION"] in CONTRACT["regions"]


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


_GUARDED = [
    (method, path, permission)
    for (method, path), endpoint in sorted(ENDPOINTS.items())
    for permission in (endpoint["permissions"] or {"any_or_all": []})["any_or_all"]
]


@pytest.mark.parametrize("guarded", _GUARDED, ids=" ".join)
async def test_each_operation_needs_the_permissions_the_contract_names(guarded: tuple[str, str, str]):
    """With one of its permissions withheld an operation is a 403 that names it."""
    method, path, permission = guarded
    async with Simulator(withheld_permissions=[permission]) as simulator, aiohttp.ClientSession() as http:
        org = Organisation(http, simulator.url, simulator.url, ("any", "any"))
        await org.authenticate()
        answer = await org.call(method, path, UNKNOWN, "a")
        assert (answer.status, answer.code) == (403, "missing.any.permissions")
        assert permission in answer.body["message"]
