"""Files into the contact list, over sockets: both ways of the simulator, and what a file store sees of a request."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from msgspec.structs import replace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from yarl import URL

from consumer.adapters.genesys import client, uploads as module
from consumer.adapters.genesys.uploads import GenesysUploads
from consumer.columns import values_of
from consumer.command_ports import ImportStatus
from consumer.core.contact_id import contact_id
from consumer.errors import FatalError, RefusedByGenesys, SinkUnavailable, Throttled
from consumer.model import Contact
from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault
from tests.integration.test_genesys_on_the_simulator import JANE, JANES_ID, opened
from tests.refusals import refusals, refuse
from tests.waiting import eventually

ODD = replace(JANE, external_id="crm-2", phone="", attributes={"city": 'St. "Gallen",\nOst'})
WITHOUT_URLS = ["outbound:contactList:upload"]


@asynccontextmanager
async def uploads_to(simulator: Simulator) -> AsyncIterator[GenesysUploads]:
    """The way into the list `People`."""
    async with opened(simulator) as sink:
        yield sink.uploads(simulator.url)


async def send(uploads: GenesysUploads, *contacts: Contact, copies: int = 1, size: int | None = None) -> None:
    """Upload contacts; `size` is told of the file if it is not the true one."""
    lines = [uploads.encode(contact) or b"" for contact in contacts] * copies

    async def body() -> AsyncIterator[bytes]:
        yield uploads.header
        for line in lines:
            yield line

    true = len(uploads.header) + sum(map(len, lines))
    await uploads.upload(true if size is None else size, body)


def held(simulator: Simulator) -> dict[str, dict[str, str]]:
    """What the list has, by id."""
    return {id_: contact["data"] for id_, contact in simulator.contacts("People").items()}


@pytest.mark.parametrize("withheld", [[], WITHOUT_URLS], ids=["presigned", "older form"])
async def test_a_file_fills_the_list_with_the_ids_that_requests_use(withheld: list[str]) -> None:
    """By a presigned URL, or in the older form where those are refused; every value as it was."""
    async with Simulator(withheld_permissions=withheld) as simulator, uploads_to(simulator) as uploads:
        await send(uploads, JANE, ODD)
        await eventually(lambda: len(held(simulator)) == 2, within_s=5)
        assert held(simulator)[contact_id("crm-2")] == {
            "external_id": "crm-2",
            "phone_number": "",
            "email": "jane@example.com",
            "consent_flag": "true",
            "do_not_call": "false",
            "city": 'St. "Gallen",\nOst',
        }
        assert simulator.contacts("People")[contact_id("crm-1")]["callable"] is True
        asked = simulator.stats()["requests"]
        assert ("upload_form" in asked) is bool(withheld)


async def test_once_refused_urls_are_not_asked_for_again() -> None:
    """The second file goes the older way at once."""
    async with Simulator(withheld_permissions=WITHOUT_URLS) as simulator, uploads_to(simulator) as uploads:
        await send(uploads, JANE)
        await send(uploads, ODD)
        assert simulator.stats()["requests"]["get_upload_url"] == {"403": 1}


@pytest.mark.parametrize("copies", [1, 20_000])
async def test_a_file_of_many_pieces_goes_both_ways(copies: int) -> None:
    """Larger than any buffer in between: its length is told before, and it arrives whole."""
    for withheld in ([], WITHOUT_URLS):
        async with Simulator(withheld_permissions=withheld) as simulator, uploads_to(simulator) as uploads:
            await send(uploads, JANE, ODD, copies=copies)
            assert (await uploads.import_status()).total == 2 * copies


async def test_a_file_that_breaks_off_is_not_imported() -> None:
    """Fewer bytes than were told: nobody knows what came of it, and nothing did."""
    for withheld in ([], WITHOUT_URLS):
        async with Simulator(withheld_permissions=withheld) as simulator, uploads_to(simulator) as uploads:
            with pytest.raises(SinkUnavailable):
                async with asyncio.timeout(10):
                    await _broken(uploads)
            assert (await uploads.import_status()).total == 0


async def _broken(uploads: GenesysUploads) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield uploads.header
        raise FatalError("the file was changed meanwhile")

    await uploads.upload(1_000_000, body)


@pytest.mark.parametrize("operation", ["upload_file", "upload_form"])
@pytest.mark.parametrize("fault", ["lost_reply", "reset", "503", "html", "302"])
async def test_an_answer_that_says_nothing_is_tried_again(operation: str, fault: str) -> None:
    """Whatever comes instead of an answer: the file may have arrived."""
    withheld = WITHOUT_URLS if operation == "upload_form" else []
    script = [Fault.parse(f"{fault}@{operation}")]
    async with Simulator(withheld_permissions=withheld, script=script) as simulator, uploads_to(simulator) as uploads:
        with pytest.raises(SinkUnavailable):
            await send(uploads, JANE)
        await send(uploads, JANE)
        await eventually(lambda: len(held(simulator)) == 1, within_s=5)


async def test_a_receiver_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may take long, but not for ever: its time goes by its size."""
    monkeypatch.setattr(client, "SLOWEST_UPLOAD", 10_000)
    hangs = Simulator(script=[Fault.parse("hang@upload_file")])
    async with hangs as simulator, opened(simulator, GENESYS_REQUEST_TIMEOUT_S="1") as sink:
        with pytest.raises(SinkUnavailable, match="TimeoutError"):
            await send(sink.uploads(simulator.url), JANE)


@pytest.mark.off_contract
async def test_without_either_way_the_missing_permission_is_named() -> None:
    """The older form does not answer at this address: the refusal of the first way is told."""
    async with Simulator(withheld_permissions=WITHOUT_URLS) as simulator, opened(simulator) as sink:
        with pytest.raises(FatalError, match="outbound:contactList:upload"):
            await send(sink.uploads(f"{simulator.url}/nowhere"), JANE)


@pytest.mark.parametrize(
    "contact",
    [
        replace(JANE, consent=False),
        replace(JANE, do_not_call=True, consent=False),
        replace(JANE, attributes={"city": "x" * 513}),
        replace(JANE, attributes={"city": " Bern"}),
        replace(JANE, external_id="crm-1 "),
    ],
    ids=["no consent", "do not call", "too long", "white space", "white space in the id"],
)
async def test_what_a_file_cannot_say_is_not_encoded(contact: Contact) -> None:
    """A row that is imported may be called, and its values are cut and trimmed."""
    async with Simulator() as simulator, uploads_to(simulator) as uploads:
        assert uploads.encode(contact) is None


@pytest.mark.parametrize("city", ["a,b", 'St. "Gallen"', '"Gallen"', "a\nb", "a\rb", "x" * 512, ""])
async def test_a_line_says_what_it_was_made_of(city: str) -> None:
    """Each by itself: one that is not quoted spoils the line, or those behind it."""
    async with Simulator() as simulator, uploads_to(simulator) as uploads:
        contact = replace(JANE, attributes={"city": city})
        line = uploads.encode(contact)
    assert line is not None
    (read,) = csv.reader(io.StringIO(line.decode(), newline=""), strict=True)
    assert read == [JANES_ID, *values_of(contact)]


async def test_the_status_follows_an_import_and_tells_of_failure() -> None:
    """Going on, done, and failed with Genesys' word."""
    async with Simulator(job_seconds=0.3) as simulator, uploads_to(simulator) as uploads:
        assert await uploads.import_status() == (status := await uploads.import_status())
        assert (status.under_way, status.total, status.failure) == (False, 0, "")
        await send(uploads, JANE)
        assert (await uploads.import_status()).under_way
        status = await _over(uploads)
        assert (status.total, status.completed, status.failure) == (1, 1, "")
        await uploads.upload(2, _two_bytes)
        status = await _over(uploads)
        assert status.failure == "IMPORT_CONTACT_DOES_NOT_MATCH_LIST_FORMAT"


async def test_the_sink_sees_the_import_too() -> None:
    """Whoever takes over after a load that died asks there."""
    async with Simulator(job_seconds=0.3) as simulator, opened(simulator) as sink:
        assert not await sink.is_importing()
        await send(sink.uploads(simulator.url), JANE)
        assert await sink.is_importing()
        await _over(sink.uploads(simulator.url))
        assert not await sink.is_importing()


async def _over(uploads: GenesysUploads) -> ImportStatus:
    """The status once the import is over."""
    while (status := await uploads.import_status()).under_way:
        pass
    return status


async def _two_bytes() -> AsyncIterator[bytes]:
    yield b"a\n"


async def test_a_refusal_of_the_file_keeps_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the last line of the command."""
    monkeypatch.setattr(module, "_CSV", "text/plain")
    async with Simulator() as simulator, uploads_to(simulator) as uploads:
        with pytest.raises(RefusedByGenesys, match=r"invalid\.value"):
            await send(uploads, JANE)


# -- what the file store sees


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def store_of(handler: Handler) -> AsyncIterator[URL]:
    """A file store, at another address than Genesys."""
    application = web.Application()
    application.router.add_put("/{name}", handler)
    application.router.add_post("/{name}", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield URL(site.name)
    finally:
        await runner.cleanup()


@pytest.mark.off_contract
async def test_the_file_store_gets_the_headers_of_the_url_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signed headers, the length, and the URL as it was given; no token, no trace context."""
    seen: list[web.Request] = []

    async def take(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request)
        return web.Response()

    async with store_of(take) as store, Simulator() as simulator, uploads_to(simulator) as uploads:
        place = {
            "url": f"{store}/file%2Fone?X-Sig=a%2Bb",
            "headers": {"Content-Type": "text/csv", "x-amz-tagging": "a=b"},
        }
        monkeypatch.setattr(uploads._client, "call", _always(place))
        traced = NonRecordingSpan(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
        with use_span(traced):
            await send(uploads, JANE)
    (request,) = seen
    assert request.raw_path == "/file%2Fone?X-Sig=a%2Bb"
    assert (request.headers["Content-Type"], request.headers["x-amz-tagging"]) == ("text/csv", "a=b")
    assert int(request.headers["Content-Length"]) == len(await request.read())
    assert not {"authorization", "traceparent", "transfer-encoding"} & {name.lower() for name in request.headers}


@pytest.mark.off_contract
@pytest.mark.parametrize("more", [{}, {"headers": None}], ids=["none named", "null"])
async def test_a_place_may_need_no_headers(more: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes there all the same."""
    seen: list[web.Request] = []

    async def take(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request)
        return web.Response()

    async with store_of(take) as store, Simulator() as simulator, uploads_to(simulator) as uploads:
        monkeypatch.setattr(uploads._client, "call", _always({"url": f"{store}/file", **more}))
        await send(uploads, JANE)
        monkeypatch.setattr(uploads._client, "call", _always({"url": f"{store}/file", "headers": ["a"]}))
        with pytest.raises(SinkUnavailable, match="headers"):
            await send(uploads, JANE)
    assert len(seen) == 1


def _says(status: int, code: str = "AccessDenied") -> tuple[Handler, list[web.Request]]:
    """A file store that answers this to each file, in S3's words; and what it was asked."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        asked.append(request)
        return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml")

    return answer, asked


@pytest.mark.off_contract
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
async def test_a_file_that_the_store_refuses_goes_the_older_way(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and the next file too."""
    refuse, asked = _says(status)
    async with store_of(refuse) as store, Simulator() as simulator, uploads_to(simulator) as uploads:
        call = uploads._client.call
        monkeypatch.setattr(uploads._client, "call", _always({"url": f"{store}/file", "headers": {}}))
        await send(uploads, JANE)
        await send(uploads, JANE)
        monkeypatch.setattr(uploads._client, "call", call)
        await eventually(lambda: len(held(simulator)) == 1, within_s=5)
    assert len(asked) == 1


@pytest.mark.off_contract
@pytest.mark.parametrize(
    ("status", "code"), [(400, "RequestTimeout"), (408, "Timeout"), (429, "SlowDown"), (503, "SlowDown")]
)
async def test_a_store_that_cannot_now_is_tried_again(status: int, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said against the file: the next one goes there too."""
    wait, asked = _says(status, code)
    async with store_of(wait) as store, Simulator() as simulator, uploads_to(simulator) as uploads:
        monkeypatch.setattr(uploads._client, "call", _always({"url": f"{store}/file", "headers": {}}))
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match=f"status {status}"):
                await send(uploads, JANE)
    assert len(asked) == 2


@pytest.mark.off_contract
@pytest.mark.parametrize(
    ("status", "error"), [(400, FatalError), (403, FatalError), (409, FatalError), (413, RefusedByGenesys),
                          (408, SinkUnavailable), (429, Throttled), (503, SinkUnavailable)],
)  # fmt: skip
async def test_a_file_that_both_ways_refuse_ends_it(
    status: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the word of the first; what the older form cannot do now is tried again."""
    too_large, _ = _says(400, "EntityTooLarge")
    refuse, _ = _says(status)
    async with (
        store_of(too_large) as store,
        store_of(refuse) as form,
        Simulator() as simulator,
        uploads_to(simulator) as uploads,
    ):
        monkeypatch.setattr(uploads, "_form_url", form / "form")
        monkeypatch.setattr(uploads._client, "call", _always({"url": f"{store}/file", "headers": {}}))
        with pytest.raises(error) as caught:
            await send(uploads, JANE)
    says = "the file store refuses the file (status 400, EntityTooLarge)"
    assert (error is FatalError) == str(caught.value).startswith(says)


@pytest.mark.parametrize("code", refusals("GET", "/api/v2/outbound/contactlists/{contactListId}/importstatus"))
async def test_an_import_status_that_is_refused_ends_it(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No contact is to blame: the code is told, and whom to ask. So it is at a start after a load that was stopped."""
    async with Simulator() as simulator, opened(simulator) as sink:
        uploads = sink.uploads(simulator.url)
        refuse(sink._client, "get_import_status", code, monkeypatch)
        for ask in (uploads.import_status, sink.is_importing):
            with pytest.raises(FatalError, match=rf"imports into the contact list: {re.escape(code)}; ask its support"):
                await ask()


def _always(answer: object) -> Callable[..., Awaitable[object]]:
    async def call(*_: object, **__: object) -> object:
        return answer

    return call


@pytest.mark.parametrize(
    "url", ["http://store.example.org/a", "ftp://127.0.0.1/a", "/a", "", "https://[", "https://a:b/"]
)
async def test_contacts_are_not_sent_over_a_network_in_the_clear(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an answer says."""
    async with Simulator() as simulator, uploads_to(simulator) as uploads:
        monkeypatch.setattr(uploads._client, "call", _always({"url": url, "headers": {}}))
        with pytest.raises(SinkUnavailable, match="no place for a file"):
            await send(uploads, JANE)
