"""Files over a loopback socket: presigned uploads, the older form, exports, and what breaks off half way."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pytest

from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault, FaultKind
from consumer.simulator.journal import Entry
from consumer.simulator.operations import Operation
from tests.waiting import eventually

LISTS = "/api/v2/outbound/contactlists"
FORM = "/uploads/v2/contactlist"
FILE = "id,phone,note\na,+15550100001,x\nb,+15550100002,ü\n".encode()


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Answer(NamedTuple):
    status: int
    raw: bytes
    headers: Any

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        """The code of an ErrorBody, or of S3's XML."""
        if self.raw.startswith(b"<?xml"):
            return self.raw.decode().partition("<Code>")[2].partition("</Code>")[0]
        return str(self.body["code"])


class Client:
    """A client with a token and a list, on a clock of its own."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession, clock: Clock) -> None:
        self.simulator = simulator
        self.http = http
        self.clock = clock
        self.token = ""
        self.list_id = ""

    async def prepare(self) -> None:
        headers = {"Authorization": aiohttp.encode_basic_auth("id", "secret")}
        form = {"grant_type": "client_credentials"}
        async with self.http.post(self.simulator.url + "/oauth/token", data=form, headers=headers) as response:
            self.token = (await response.json())["access_token"]
        body = {
            "name": "customers",
            "columnNames": ["phone", "note"],
            "phoneColumns": [{"columnName": "phone", "type": "cell"}],
        }
        self.list_id = (await self.call("POST", LISTS, body)).body["id"]

    async def call(self, method: str, path: str, body: Any = None, *, bearer: bool = True, **options: Any) -> Answer:
        url = path if path.startswith("http") else self.simulator.url + path
        if body is not None:
            options["json"] = body
        headers = ({"Authorization": f"Bearer {self.token}"} if bearer else {}) | options.pop("headers", {})
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **options) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def on_list(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.call(method, f"{LISTS}/{self.list_id}/{path}", body, **options)

    async def ticket(self, **changes: Any) -> dict[str, Any]:
        request = {"contentType": "text/csv", "id": self.list_id, "contactIdName": "id"} | changes
        return dict((await self.call("POST", LISTS + "/uploads", request)).body)

    async def put(self, ticket: dict[str, Any], data: Any = FILE, **changes: str) -> Answer:
        return await self.call("PUT", ticket["url"], data=data, headers=ticket["headers"] | changes, bearer=False)

    async def send_form(self, *fields: tuple[str, str | bytes], bearer: bool = True) -> Answer:
        form = aiohttp.FormData()
        for name, value in fields:
            form.add_field(name, value, filename="contacts.csv" if isinstance(value, bytes) else None)
        return await self.call("POST", FORM, data=form, bearer=bearer)

    async def status(self) -> Any:
        return (await self.on_list("GET", "importstatus")).body

    def notes(self) -> dict[str, str]:
        views = self.simulator.contacts(self.list_id)
        return {contact_id: view["data"]["note"] for contact_id, view in views.items()}

    def last(self) -> Entry:
        return list(self.simulator.journal)[-1]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a simulator whose clock stands still."""
    clock = Clock()
    async with (
        Simulator(journal_limit=100, clock=clock, job_seconds=1.0) as simulator,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        made = Client(simulator, http, clock)
        await made.prepare()
        yield made


async def test_a_file_is_imported_after_it_was_put(client: Client):
    """The URL takes the file; the import runs, and ends without a state at a hundred percent."""
    answer = await client.put(await client.ticket())
    assert (answer.status, answer.raw) == (200, b"")
    assert (client.last().operation, client.last().list_id, client.last().applied) == (
        "upload_file",
        client.list_id,
        True,
    )
    assert (await client.status())["state"] == "IN_PROGRESS"
    assert client.notes() == {}
    client.clock.now += 1
    assert await client.status() == {"totalRecords": 2, "completedRecords": 2, "percentComplete": 100}
    assert client.notes() == {"a": "x", "b": "ü"}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 403, "SignatureDoesNotMatch"),
        ({"x-amz-tagging": "other=1"}, 403, "SignatureDoesNotMatch"),
        ({"Authorization": "Bearer x"}, 400, "InvalidArgument"),
    ],
)
async def test_a_file_needs_the_headers_that_were_signed(
    client: Client, changes: dict[str, str], status: int, code: str
):
    """Another header, or a bearer token beside the signature, is refused as S3 does it, and nothing is imported."""
    answer = await client.put(await client.ticket(), **changes)
    assert (answer.status, answer.code, answer.headers["Content-Type"]) == (status, code, "application/xml")
    assert (await client.status())["totalRecords"] == 0


async def test_a_url_is_good_only_as_it_was_signed_and_for_a_while(client: Client):
    """Another signature or key, a missing header, and the end of its time make it worthless."""
    ticket = await client.ticket(signedUrlTimeoutSeconds=60)
    forged = ticket | {"url": ticket["url"][:-1] + "x"}
    unknown = ticket | {"url": ticket["url"].replace(ticket["uploadKey"], "f" * 32)}
    bare = ticket | {"headers": {"Content-Type": "text/csv"}}
    codes = [(await client.put(each)).code for each in (forged, unknown, bare)]
    assert codes == ["SignatureDoesNotMatch"] * 3
    client.clock.now += 60
    assert (await client.put(ticket)).code == "AccessDenied"


async def test_a_file_of_unknown_length_is_refused(client: Client):
    """S3 wants to know the length before the first byte."""

    async def chunks() -> AsyncIterator[bytes]:
        yield FILE

    answer = await client.put(await client.ticket(), chunks())
    assert (answer.status, answer.code) == (411, "MissingContentLength")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"contentType": "application/pdf"}, "invalid.value"),
        ({"signedUrlTimeoutSeconds": 604_801}, "invalid.value"),
        ({"id": None}, "invalid.value"),
        ({"contactIdName": 7}, "invalid.value"),
        ({"clearSystemData": "yes"}, "invalid.value"),
        ({"id": "no-such-list"}, "not.found"),
        ({"importTemplateId": "t"}, "bad.request"),
        ({"surprise": 1}, "invalid.property"),
    ],
)
async def test_a_url_for_what_cannot_be_imported_is_refused(client: Client, changes: dict[str, Any], code: str):
    """Each wrong property of the request has its code."""
    assert (await client.ticket(**changes))["code"] == code


async def test_system_data_is_cleared_if_the_upload_says_so(client: Client):
    """A contact that was not to be called is callable again only then."""
    contact = {"id": "a", "contactListId": client.list_id, "data": {"phone": "1", "note": ""}, "callable": False}
    await client.on_list("POST", "contacts", [contact])
    seen = []
    for clears in (False, True):
        await client.put(await client.ticket(clearSystemData=clears))
        client.clock.now += 1
        seen.append(client.simulator.contacts(client.list_id)["a"]["callable"])
    assert seen == [False, True]


FIELDS = (("fileType", "contactlist"), ("contact-id-name", "id"))


@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "among", "last"])
async def test_the_older_form_may_have_its_fields_in_any_order(client: Client, place: int):
    """The file before the fields that say what it is for, among them, or after them."""
    fields: list[tuple[str, str | bytes]] = [("id", client.list_id), *FIELDS]
    fields.insert(place, ("file", FILE))
    assert (await client.send_form(*fields)).status == 200
    client.clock.now += 1
    assert client.notes() == {"a": "x", "b": "ü"}


async def test_the_older_form_needs_a_token(client: Client):
    """As everything on the apps host."""
    answer = await client.send_form(("id", client.list_id), *FIELDS, ("file", FILE), bearer=False)
    assert (answer.status, answer.code) == (401, "authentication.required")


async def test_the_older_form_is_refused_without_what_it_needs(client: Client):
    """A list that there is, its type, and a file; and a form at all."""
    right = ("id", client.list_id)
    refusals = [
        await client.send_form(("id", "nobody"), *FIELDS, ("file", FILE)),
        await client.send_form(right, ("fileType", "photo"), FIELDS[1], ("file", FILE)),
        await client.send_form(FIELDS[0], FIELDS[1], ("file", FILE)),
        await client.send_form(right, *FIELDS, ("photo", FILE)),
        await client.send_form(right, ("fileType", "x" * 5000), ("file", FILE)),
        await client.call("POST", FORM, {"id": client.list_id}),
    ]
    assert [answer.code for answer in refusals] == [
        "contact.list.not.found", "invalid.value", "invalid.value", "bad.request", "bad.request",
        "unsupported.media.type",
    ]  # fmt: skip


async def test_rows_are_imported_although_nobody_looks(client: Client):
    """What is due is done a little at a time, so that whoever looks last does not wait for all of it."""
    await client.put(await client.ticket())
    client.clock.now += 10.0
    await eventually(lambda: client.simulator.stats()["contacts"]["applied"] == 2, within_s=10.0)


async def test_a_simulator_that_stops_leaves_nothing_running():
    """Stopped and started again it keeps up again, and is stopped as before."""
    simulator = Simulator()
    before = asyncio.all_tasks()
    for _ in range(2):
        async with simulator:
            assert asyncio.all_tasks() > before
        assert asyncio.all_tasks() == before


async def test_a_file_that_breaks_off_leaves_nothing(client: Client):
    """A connection that ends before the last byte imports none of the rows that came."""
    ticket = await client.ticket()
    url = urlsplit(ticket["url"])
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in ticket["headers"].items())
    writer.write(head.encode() + b"\r\n" + FILE)
    await writer.drain()
    await eventually(lambda: client.last().operation == "upload_file", within_s=10)
    writer.close()
    await eventually(lambda: client.last().ended is not None, within_s=10)
    client.clock.now += 10
    assert (client.last().applied, client.last().status) == (False, None)
    assert (await client.status())["totalRecords"] == 0


@pytest.mark.parametrize(("kind", "applied"), [(FaultKind.UNAVAILABLE, False), (FaultKind.TRUNCATED, True)])
async def test_faults_strike_uploads(client: Client, kind: FaultKind, applied: bool):
    """Before the import is begun, or after it."""
    ticket = await client.ticket()
    client.simulator.faults.inject(Fault(kind))
    if applied:
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.put(ticket)
    else:
        assert (await client.put(ticket)).status == 503
    client.clock.now += 1
    assert bool(client.notes()) is applied


async def export_of(client: Client, body: Any = None) -> Answer:
    """The file of an export, made and fetched."""
    assert (await client.on_list("POST", "export", body)).status == 200
    client.clock.now += 1
    answer = await client.on_list("GET", "export?download=false")
    return await fetched(client, answer.body["uri"])


async def fetched(client: Client, uri: str) -> Answer:
    """The file behind the URI of an export: with the token to where it is, without it from there."""
    answer = await client.call("GET", uri)
    assert answer.status == 302
    return await client.call("GET", answer.headers["Location"], bearer=False)


def ids_in(answer: Answer) -> list[str]:
    """The contacts of an exported file."""
    rows = csv.DictReader(io.StringIO(answer.raw.decode("utf-8-sig"), newline=""))
    return [row["inin-outbound-id"] for row in rows]


async def fill(client: Client, count: int) -> None:
    """Give the list some contacts."""
    rows = b"".join(b"c%d,1,n%d\n" % (number, number % 2) for number in range(count))
    await client.put(await client.ticket(), b"id,phone,note\n" + rows)
    client.clock.now += 1


async def test_an_export_is_there_when_it_is_ready(client: Client):
    """404 before, and while it is made; then a URI that needs the token and gives the file."""
    await fill(client, 1200)
    refusal = await client.on_list("GET", "export")
    assert (refusal.status, refusal.code) == (404, "no.available.list.export.uri")
    await client.on_list("POST", "export")
    assert (await client.on_list("GET", "export")).code == "no.available.list.export.uri"
    assert (await client.on_list("POST", "export")).code == "contact.list.export.in.progress"
    client.clock.now += 1
    uri = (await client.on_list("GET", "export")).body["uri"]
    assert (await client.call("GET", uri, bearer=False)).code == "authentication.required"
    file = await fetched(client, uri)
    assert (file.status, file.headers["Content-Type"]) == (200, "text/csv")
    assert ids_in(file) == [f"c{number}" for number in range(1200)]


async def test_an_export_holds_what_there_was_when_it_was_asked_for(client: Client):
    """A contact deleted while it is made is still in it, and one added is not."""
    await fill(client, 2)
    await client.on_list("POST", "export")
    await client.on_list("DELETE", "contacts/c0")
    client.clock.now += 1
    uri = (await client.on_list("GET", "export")).body["uri"]
    assert ids_in(await fetched(client, uri)) == ["c0", "c1"]


async def test_an_export_can_be_of_some_contacts(client: Client):
    """By id, by criteria, or by both."""
    await fill(client, 4)
    predicate = {"column": "note", "columnType": "alphabetic", "operator": "EQUALS", "value": "n1"}
    criteria = {"clauses": [{"predicates": [predicate]}]}
    ids = ["c0", "c1", "gone"]
    found = [
        ids_in(await export_of(client, body))
        for body in ({"contactIds": ids}, {"criteria": criteria}, {"contactIds": ids, "criteria": criteria})
    ]
    assert found == [["c0", "c1"], ["c1", "c3"], ["c1"]]


async def test_an_export_waits_for_an_import(client: Client):
    """Neither an export, nor a clear, nor a delete of the list goes while a file comes in."""
    await client.put(await client.ticket())
    refusals = [
        await client.on_list("POST", "export"),
        await client.on_list("POST", "clear"),
        await client.call("DELETE", f"{LISTS}/{client.list_id}"),
    ]
    assert [answer.code for answer in refusals] == ["contact.list.import.in.progress"] * 3


async def test_an_export_can_be_asked_to_redirect(client: Client):
    """With download=true the answer leads to the file."""
    await export_of(client)
    answer = await client.on_list("GET", "export?download=true")
    assert answer.status == 302
    assert ids_in(await fetched(client, answer.headers["Location"])) == []


async def test_there_is_no_download_but_of_an_export(client: Client):
    """Any other id is not found, and no file is without its signature."""
    assert (await client.call("GET", "/api/v2/downloads/nothing")).code == "not.found"
    await export_of(client)
    uri = (await client.on_list("GET", "export")).body["uri"]
    url = (await client.call("GET", uri + "?issueRedirect=false")).body["url"]
    assert (await client.call("GET", url, bearer=False)).status == 200
    forged = await client.call("GET", url[:-1] + "x", bearer=False)
    assert (forged.status, forged.code) == (403, "SignatureDoesNotMatch")


async def test_a_download_can_be_cut(client: Client):
    """A truncated one breaks off after its first chunk, and the client sees that it did."""
    await fill(client, 2000)
    client.simulator.faults.inject(Fault(FaultKind.TRUNCATED, operation=Operation.FETCH_FILE))
    with pytest.raises(aiohttp.ClientPayloadError):
        await export_of(client)


@pytest.mark.parametrize("path", ["export", "export?download=false"])
async def test_an_export_needs_both_permissions(client: Client, path: str):
    """To see contacts and to see contact lists."""
    for missing in ("outbound:contact:view", "outbound:contactList:view"):
        client.simulator.withheld_permissions.add(missing)
        answer = await client.on_list("POST" if path == "export" else "GET", path)
        client.simulator.withheld_permissions.clear()
        assert (answer.status, answer.code) == (403, "missing.any.permissions")
