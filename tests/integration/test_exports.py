"""Exports of the contact list over a socket: whole or not at all, and the token stays with the API."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web
from msgspec.structs import replace
from opentelemetry.trace import NoOpTracer

from consumer.adapters.genesys import exports
from consumer.adapters.genesys.sink import GenesysSink
from consumer.adapters.genesys.transport import Request
from consumer.columns import values_of
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.errors import FatalError, SinkUnavailable, Throttled, Unauthorized
from consumer.model import Contact, ExportedContact
from consumer.settings import load
from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault
from tests.refusals import refusals, refuse

JANE = Contact("crm-1", "+15550100001", "jane@example.com", True, False, {"city": 'Bern, "old\r\ntown"'})
JOHN = replace(JANE, external_id="crm-2", consent=False)

BUSY = {"contact.list.export.in.progress", "contact.list.import.in.progress"}

FILE = b"inin-outbound-id,external_id,phone_number,email,consent_flag,do_not_call,city,ContactCallable\r\n"


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated exports take a moment, not minutes."""
    monkeypatch.setattr(exports, "LOOK_EVERY_S", 0.02)


@asynccontextmanager
async def opened(url: str, *, create: bool = True, **more: str) -> AsyncIterator[GenesysSink]:
    """A sink on the list `People`."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "GENESYS_OAUTH_CLIENT_ID": "client",
        "GENESYS_OAUTH_CLIENT_SECRET": "secret",
        "GENESYS_CONTACT_LIST": "People",
        "GENESYS_ATTRIBUTE_COLUMNS": "city",
        "GENESYS_LOGIN_URL": url,
        "GENESYS_API_URL": url,
        **more,
    }
    sink = await GenesysSink.open(
        load(settings), on_request=lambda *_: None, tracer=NoOpTracer(), throttle=Throttle(100_000), create=create
    )
    try:
        yield sink
    finally:
        await sink.close()


async def put(sink: GenesysSink, *contacts: Contact) -> None:
    """Upsert contacts."""
    await sink.upsert([sink.encode(contact, callable_=contact.callable) for contact in contacts])


async def exported(sink: GenesysSink, begun: Callable[[], None] = lambda: None) -> dict[str, ExportedContact]:
    """The list, by external id; `begun` is called when some of it is there."""
    found = {}
    async for rows in sink.export():
        begun()
        found.update({row.values[0]: row for row in rows})
    return found


async def test_an_export_tells_what_was_sent() -> None:
    """Every managed column as it was sent, quotes and line ends included, and who may be called."""
    async with Simulator() as simulator, opened(simulator.url) as sink:
        await put(sink, JANE, JOHN)
        found = await exported(sink)
    for contact in (JANE, JOHN):
        expected = ExportedContact(contact_id(contact.external_id), contact.callable, values_of(contact))
        assert found[contact.external_id] == expected


async def test_an_older_export_is_not_taken_for_the_one_that_was_ordered() -> None:
    """The second export shows what was added after the first."""
    async with Simulator() as simulator, opened(simulator.url) as sink:
        await put(sink, JANE)
        assert (await exported(sink)).keys() == {"crm-1"}
        await put(sink, JOHN)
        assert (await exported(sink)).keys() == {"crm-1", "crm-2"}


@pytest.mark.parametrize(
    ("before", "now", "another"),
    [
        (("a", "old"), ("a", "new"), True),
        (("a", "old"), ("b", "old"), False),
        (("a", None), ("a", "new"), False),
        (("a", "old"), ("a", None), False),
        (("a", None), ("b", None), True),
        (("a", "old"), ("b", None), True),
        (("a", None), ("b", "new"), True),
    ],
)
def test_an_export_without_a_time_is_told_by_its_address(
    before: tuple[str, str | None], now: tuple[str, str | None], another: bool
) -> None:
    """Whatever else could be the older one, and the list be taken for what it was."""
    assert exports._Made(*now).is_another_than(exports._Made(*before)) is another


async def test_an_export_that_is_not_made_is_waited_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may run the command again."""
    monkeypatch.setattr(exports, "MADE_WITHIN_S", 0)
    async with Simulator() as simulator, opened(simulator.url) as sink:
        with pytest.raises(SinkUnavailable, match="made no export"):
            await exported(sink)


@pytest.mark.parametrize(
    "fault",
    ["truncated@fetch_file", "503@fetch_file", "503@get_download", "503@get_export", "lost_reply@start_export"],
)
async def test_a_file_that_does_not_come_whole_is_said_so_and_can_be_had_again(fault: str) -> None:
    """Whatever breaks on the way: nobody takes a part of the list for all of it."""
    async with Simulator() as simulator, opened(simulator.url) as sink:
        await put(sink, JANE, JOHN)
        simulator.faults.inject(Fault.parse(fault))
        with pytest.raises((SinkUnavailable, Throttled)):
            await exported(sink)
        while True:
            try:
                assert len(await exported(sink)) == 2
            except Throttled:  # the one that was ordered is still being made
                continue
            break


async def test_a_missing_permission_is_named() -> None:
    """Exports need one for the list and one for its contacts."""
    async with Simulator(withheld_permissions=["outbound:contact:view"]) as simulator, opened(simulator.url) as sink:
        with pytest.raises(Unauthorized, match="outbound:contact:view"):
            await exported(sink)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (operation, code)
        for operation, method in (("start_export", "POST"), ("get_export", "GET"))
        for code in refusals(method, "/api/v2/outbound/contactlists/{contactListId}/export")
    ],
)
async def test_an_export_that_is_refused_is_waited_for_or_ends_it(
    operation: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No contact of ours is to blame, and nothing that could be split: whatever the code, it is told."""
    async with Simulator() as simulator, opened(simulator.url) as sink:
        refuse(sink._client, operation, code, monkeypatch)
        with pytest.raises((FatalError, SinkUnavailable, Throttled), match=re.escape(code)) as caught:
            await exported(sink)
    assert isinstance(caught.value, FatalError) is (code not in {*BUSY, "internal.error"})


async def test_who_may_not_export_is_told_whom_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this program could change it."""
    async with Simulator() as simulator, opened(simulator.url) as sink:
        refuse(sink._client, "start_export", "exports.black.listed", monkeypatch)
        with pytest.raises(FatalError, match=r"refuses to export .*: exports\.black\.listed; ask its support"):
            await exported(sink)


async def test_a_list_that_does_not_exist_is_not_made() -> None:
    """Who only looks creates nothing."""
    async with Simulator() as simulator:
        with pytest.raises(FatalError, match=r"People: check GENESYS_CONTACT_LIST"):
            async with opened(simulator.url, create=False):
                pass
        assert simulator.lists() == []


async def test_contacts_are_removed_by_their_own_ids() -> None:
    """Also those that no external id leads to; who is being dialled stays, not callable."""
    async with Simulator(contacts_in_use=[contact_id("crm-2")]) as simulator, opened(simulator.url) as sink:
        await put(sink, JANE, replace(JOHN, consent=True))
        ids = [contact_id("crm-1"), contact_id("crm-2"), "unknown"]
        assert list(await sink.remove(ids)) == [contact_id("crm-2")]
        (left,) = simulator.contacts("People").values()
        assert not left["callable"]
        assert simulator.stats()["requests"]["read_contacts"] == {"200": 1}  # nobody was held before


async def test_contacts_that_show_after_their_removal_are_not_added_each_time() -> None:
    """Reads lag behind deletes: whom the first left as not callable the second removes, and the third sees gone."""
    now, ids = [0.0], [contact_id("crm-1")]
    async with (
        Simulator(faults=[Fault.parse("lag=20")], clock=lambda: now[0]) as simulator,
        opened(simulator.url) as sink,
    ):
        await put(sink, JANE)
        now[0] = 100
        assert list(await sink.remove(ids)) == ids
        assert not simulator.contacts("People")[ids[0]]["callable"]
        now[0] = 130
        assert list(await sink.remove(ids, held=ids)) == ids
        assert simulator.contacts("People") == {}
        now[0] = 160
        assert not await sink.remove(ids, held=ids)


# -- where the file is


class Storage:
    """A host of files beside the API.

    Attributes:
        requests: Heads of the requests that it got.
    """

    def __init__(self, headers: str) -> None:
        self._headers = headers
        self.requests: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A file that holds no contact, then the end of the connection."""
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n{self._headers}\r\n".encode() + FILE)
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address."""
        async with await asyncio.start_server(self.answer, "127.0.0.1", 0) as server:
            yield "http://{}:{}".format(*server.sockets[0].getsockname())


@asynccontextmanager
async def serving(handler: object, path: str = "/{any:.*}") -> AsyncIterator[str]:
    """A server on loopback, at its address."""
    application = web.Application()
    application.router.add_route("*", path, handler)  # type: ignore[arg-type]
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def api(location: str) -> object:
    """An API whose export redirects to a location."""

    async def answer(request: web.Request) -> web.Response:
        match request.method, request.path.rsplit("/", 1)[-1]:
            case "POST", "token":
                return web.json_response({"access_token": "the token", "expires_in": 3600})
            case "GET", "contactlists":
                columns = ["external_id", "phone_number", "email", "consent_flag", "do_not_call", "city"]
                found = {"id": "l", "name": "People", "columnNames": columns}
                phones = [{"columnName": "phone_number", "type": "cell"}]
                return web.json_response({"entities": [found | {"phoneColumns": phones}], "pageCount": 1})
            case "GET", "export":
                answer.asked += 1  # type: ignore[attr-defined]
                uri = f"http://{request.host}/downloads/1"
                return web.json_response({"uri": uri, "exportTimestamp": str(answer.asked)})  # type: ignore[attr-defined]
            case "POST", "export":
                return web.json_response({})
            case _:
                assert request.headers["Authorization"] == "Bearer the token"
                return web.Response(status=302, headers={"Location": location})

    answer.asked = 0  # type: ignore[attr-defined]
    return answer


@pytest.mark.off_contract
async def test_the_token_goes_to_the_api_alone() -> None:
    """Where the API redirects to is another host: a signed URL needs no token, and must not see it."""
    storage = Storage(f"Content-Length: {len(FILE)}\r\n")
    async with storage.serving() as files, serving(api(f"{files}/signed")) as url, opened(url) as sink:
        assert await exported(sink) == {}
    (request,) = storage.requests
    assert b"token" not in request
    assert b"authorization" not in request.lower()


@pytest.mark.off_contract
@pytest.mark.parametrize("redirects", [False, True])
async def test_a_page_in_place_of_the_file_is_no_file(redirects: bool) -> None:
    """It is of an edge in trouble, and the file can be had again: it is no export that lacks columns."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(status=503, text="<h1>Maintenance</h1>", content_type="text/html")

    async with serving(page) as files:
        answer = api(f"{files}/signed")

        async def at_once(request: web.Request) -> web.Response:
            return await (page if request.path.startswith("/downloads") else answer)(request)  # type: ignore[operator, no-any-return]

        async with serving(answer if redirects else at_once) as url, opened(url) as sink:
            with pytest.raises(SinkUnavailable, match="status 503"):
                await exported(sink)


async def test_a_download_from_the_api_is_a_request_like_others() -> None:
    """It counts against the same limit, and waits where Genesys asked everybody to."""
    async with Simulator() as simulator, opened(simulator.url) as sink:
        sink._client.throttle.told_to_wait(asyncio.get_running_loop().time(), 60)
        with pytest.raises(Throttled):
            async with sink._client.download(exports._DOWNLOAD, f"{simulator.url}/api/v2/downloads/1"):
                pass


@pytest.mark.off_contract
async def test_a_file_whose_end_cannot_be_told_is_not_read() -> None:
    """Without a length a connection that breaks looks like the end: half of the list would be missing."""
    storage = Storage("")
    async with storage.serving() as files, serving(api(f"{files}/signed")) as url, opened(url) as sink:
        with pytest.raises(SinkUnavailable, match="length"):
            await exported(sink)


async def _malformed_chunk(begun: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The beginning of a file; once that is read, what is no chunk; open until the reader lets go of it."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(FILE), FILE))
    await writer.drain()
    await begun.wait()
    writer.write(b"ZZZZ\r\nbroken\r\n")
    await writer.drain()
    await reader.read()
    writer.close()


@pytest.mark.off_contract
async def test_a_malformed_chunk_is_a_file_that_broke_off() -> None:
    """The HTTP library forgets such a body and its own time limit: the reader would wait for ever."""
    begun = asyncio.Event()
    async with await asyncio.start_server(partial(_malformed_chunk, begun), "127.0.0.1", 0) as files:
        location = "http://{}:{}/signed".format(*files.sockets[0].getsockname())
        async with serving(api(location)) as url, opened(url, GENESYS_REQUEST_TIMEOUT_S="1") as sink:
            with pytest.raises(SinkUnavailable, match="no whole answer"):
                async with asyncio.timeout(10):
                    await exported(sink, begun.set)


@pytest.mark.off_contract
@pytest.mark.parametrize("location", ["http://files.example.com/signed", "/relative", "ftp://127.0.0.1/x", "https:"])
async def test_contacts_come_over_tls_or_loopback_only(location: str) -> None:
    """Any other address ends the run."""
    async with serving(api(location)) as url, opened(url) as sink:
        with pytest.raises(FatalError, match="https"):
            await exported(sink)


def signing_anew(asked: list[str]) -> object:
    """An API that signs the URI of an export for each who asks; the one that was ordered comes at the fourth time."""
    answer = api("")

    async def with_another_uri(request: web.Request) -> web.Response:
        if (request.method, request.path.rsplit("/", 1)[-1]) == ("GET", "export"):
            asked.append(when := "old" if len(asked) < 3 else "new")
            uri = f"http://{request.host}/downloads/{when}?signature={len(asked)}"
            return web.json_response({"uri": uri, "exportTimestamp": when})
        if request.path.startswith("/downloads"):
            return web.Response(body=FILE + f"x,{request.path.rsplit('/', 1)[-1]},,,,,,1\r\n".encode())
        return await answer(request)  # type: ignore[operator, no-any-return]

    return with_another_uri


@pytest.mark.off_contract
async def test_an_older_export_under_another_uri_is_not_taken_either() -> None:
    """Its time tells, where there is one."""
    asked: list[str] = []
    async with serving(signing_anew(asked)) as url, opened(url) as sink:
        assert (await exported(sink)).keys() == {"new"}
    assert asked == ["old", "old", "old", "new"]


@pytest.mark.off_contract
@pytest.mark.parametrize(
    ("address", "with_token"),
    [
        ("https://api.mypurecloud.de/api/v2/downloads/1", True),
        ("https://api.mypurecloud.de:8443/api/v2/downloads/1", False),
        ("https://api.mypurecloud.com/api/v2/downloads/1", False),
        ("https://api.mypurecloud.de.example.com/api/v2/downloads/1", False),
        ("https://files.example.com/api.mypurecloud.de", False),
    ],
)
async def test_behind_a_proxy_the_regions_own_api_gets_the_token_too(
    address: str, with_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Genesys names itself, whatever `GENESYS_API_URL` is; no other host is Genesys."""
    seen: list[Request] = []

    def stream(request: Request) -> None:
        seen.append(request)
        raise SinkUnavailable("no network")

    async with Simulator() as simulator, opened(simulator.url, GENESYS_REGION="eu-central-1") as sink:
        monkeypatch.setattr(sink._client._transport, "stream", stream)
        with pytest.raises(SinkUnavailable, match="no network"):
            async with sink._client.download(exports._DOWNLOAD, address):
                pass
    assert ["Authorization" in request.headers for request in seen] == [with_token]


@pytest.mark.off_contract
async def test_a_file_in_chunks_is_read_however_that_is_spelled() -> None:
    """Names of transfer codings have no case."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(FILE), FILE))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as files:
        location = "http://{}:{}/signed".format(*files.sockets[0].getsockname())
        async with serving(api(location)) as url, opened(url) as sink:
            assert await exported(sink) == {}
