"""The sink against a scripted server on a real socket, which checks each request against the contract."""

import asyncio
import errno
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from consumer.adapters.genesys import limits, transport
from consumer.adapters.genesys.client import NOT_TOO_LARGE_BYTES
from consumer.adapters.genesys.sink import GenesysSink
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.errors import (
    ConsumerError,
    ContactListMismatch,
    FatalError,
    InUse,
    NoneCameBack,
    NoRoom,
    RefusedByGenesys,
    SettingsError,
    SinkUnavailable,
    Throttled,
    TooLarge,
    Unauthorized,
    Withheld,
)
from consumer.model import UNCHANGED, Amendment, Contact
from consumer.ports import Amended, Sink
from consumer.settings import load

CONTRACT = orjson.loads((Path(__file__).parent.parent / "data/genesys/contract.json").read_bytes())
ENDPOINTS = {(e["method"], e["path"]): e for e in CONTRACT["endpoints"]}
LIST_ID = "0f2c7e1a-6a8e-4f0e-9a5d-2f6c3f7b1a11"
LISTS = "/api/v2/outbound/contactlists"
RATE = "client.credentials.token.rate.per.minute"
CONTACTS = f"{LISTS}/{LIST_ID}/contacts"
COLUMNS = ["external_id", "phone_number", "email", "consent_flag", "do_not_call", "city"]
CONTACT_LIST = {
    "id": LIST_ID,
    "name": "People",
    "columnNames": COLUMNS,
    "phoneColumns": [{"columnName": "phone_number", "type": "cell"}],
}
CANARIES = ["+15550100999", "canary@example.com", "Canaryville", "crm-canary-1"]
JANE = Contact("crm-canary-1", "+15550100999", "canary@example.com", True, False, {"city": "Canaryville"})
JOHN = Contact("crm-2", "+15550100002", "", False, True, {"city": ""})
WITHDRAWN = Amendment("crm-canary-1", UNCHANGED, UNCHANGED, False, UNCHANGED, {})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Seen(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


def reply(status: int, body: object, **headers: str) -> Handler:
    """An answer with a JSON body."""

    async def handle(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handle


def error(status: int, code: str, **headers: str) -> Handler:
    """An ErrorBody that quotes contact data wherever Genesys may put it."""
    quoted = " ".join(CANARIES)
    body = {
        "message": f"bad: {quoted}",
        "code": code,
        "status": status,
        "messageParams": {"value": quoted},
        "details": [{"errorCode": code, "fieldName": quoted}],
        "entityName": quoted,
    }
    return reply(status, body, ININ_Correlation_Id="3f6c-77", **headers)


def text(status: int, body: str, content_type: str = "text/html") -> Handler:
    """An answer from something that is not Genesys."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=content_type)

    return handle


async def reset(request: web.Request) -> web.Response:
    """Drop the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def truncated(request: web.Request) -> web.StreamResponse:
    """Promise more than is sent."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'[{"id": "crm-canary-1')
    assert request.transport is not None
    request.transport.close()
    return response


async def garbage(request: web.Request) -> web.Response:
    """Send what is no HTTP."""
    assert isinstance(request.transport, asyncio.Transport)
    request.transport.write(b"crm-canary-1 canary@example.com\r\n\r\n")
    request.transport.close()
    return web.Response()


async def accept(request: web.Request) -> web.StreamResponse:
    """Do what a working Genesys does."""
    body = await request.read()
    match request.method, request.path:
        case "GET", path if path == LISTS:
            return web.json_response({"entities": [CONTACT_LIST], "pageCount": 1})
        case "POST", path if path.endswith("/contacts"):
            return web.json_response(orjson.loads(body))
        case "POST", path if path.endswith("/bulk"):
            return web.json_response([])
        case "DELETE", _:
            return web.Response()
        case _:
            return web.json_response(CONTACT_LIST)


class Genesys:
    """A server that answers by script, and remembers what came and where it broke the contract."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.script: list[Handler] = []
        self.token_script: list[Handler] = []
        self.violations: list[str] = []
        self.tokens = 0
        self.closing = asyncio.Event()
        self.url = ""

    async def start(self) -> Callable[[], Awaitable[None]]:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner.cleanup

    async def hang(self, _: web.Request) -> web.Response:
        await self.closing.wait()
        return web.Response()

    @property
    def calls(self) -> list[Seen]:
        """What came after start-up, token requests left out."""
        return [seen for seen in self.seen if seen.path.startswith(CONTACTS)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        self.violations += broken_rules(self.seen[-1], request.query.keys())
        if request.path == "/oauth/token":
            self.tokens += 1
            ok = reply(200, {"access_token": f"token-{self.tokens}", "token_type": "bearer", "expires_in": 3600})
            return await (self.token_script.pop(0) if self.token_script else ok)(request)
        return await (self.script.pop(0) if self.script else accept)(request)


async def ask(sink: GenesysSink, external_id: str) -> None:
    """Make one request: what would amend a contact that Genesys does not know."""
    assert await sink.amend([replace(WITHDRAWN, external_id=external_id)]) == {}


def broken_rules(seen: Seen, query: Any) -> list[str]:
    """What the contract forbids of a request."""
    template = re.sub(r"(?<=contactlists/)[^/]+", "{contactListId}", seen.path)
    template = re.sub(r"(?<=namespaces/)[^/]+", "{namespaceName}", template)
    endpoint = ENDPOINTS.get((seen.method, template))
    if endpoint is None:
        return [f"no endpoint {seen.method} {template}"]
    known = {parameter["name"]: parameter for parameter in endpoint["query_params"]}
    problems = [f"no query parameter {name}" for name in query if name not in known]
    problems += [f"{name} is missing" for name, p in known.items() if p.get("required") and name not in query]
    problems += [
        f"{name} is no boolean"
        for name, value in seen.query.items()
        if known.get(name, {}).get("schema", {}).get("type") == "boolean" and value not in {"true", "false"}
    ]
    return problems + broken_body(seen, endpoint["request_body"])


def broken_body(seen: Seen, expected: dict[str, Any] | None) -> list[str]:
    """What the contract forbids of a body."""
    if expected is None:
        told = {"body": seen.body, "content type": "Content-Type" in seen.headers}
        return [f"a {what} where none belongs" for what, is_there in told.items() if is_there]
    if seen.headers.get("Content-Type") != expected["content_type"]:
        return [f"content type {seen.headers.get('Content-Type')}"]
    if expected["content_type"] != "application/json":
        return [] if seen.body == b"grant_type=client_credentials" else ["wrong form"]
    body = orjson.loads(seen.body)
    schema = expected["schema"] | {"$defs": CONTRACT["$defs"]}
    problems = [problem.message for problem in Draft202012Validator(schema).iter_errors(body)]
    return problems + unknown_properties(body, expected["schema"])


def unknown_properties(body: Any, schema: dict[str, Any]) -> list[str]:
    """Properties that Genesys answers with `invalid.property`, or does not let a client write."""
    reference = schema.get("$ref") or schema["items"].get("$ref")
    if reference is None:
        return []
    properties = CONTRACT["$defs"][reference.rpartition("/")[2]]["properties"]
    writable = {name for name, rule in properties.items() if not rule.get("readOnly")}
    items = body if isinstance(body, list) else [body]
    return [f"property {name}" for item in items for name in item.keys() - writable]


class Bench:
    """A sink, its server, and what was told about its requests."""

    def __init__(self, genesys: Genesys) -> None:
        self.genesys = genesys
        self.exporter = InMemorySpanExporter()
        self.requests: list[tuple[str, str]] = []
        self.now = 0.0

    async def open(self, **settings: str) -> GenesysSink:
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
            "GENESYS_OAUTH_CLIENT_ID": "client",
            "GENESYS_OAUTH_CLIENT_SECRET": "secret",
            "GENESYS_CONTACT_LIST": "People",
            "GENESYS_ATTRIBUTE_COLUMNS": "town=city",
            "GENESYS_LOGIN_URL": self.genesys.url,
            "GENESYS_API_URL": self.genesys.url,
        }
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        return await GenesysSink.open(
            load(environ | settings),
            on_request=lambda operation, status, _: self.requests.append((operation, status)),
            tracer=provider.get_tracer("test"),
            throttle=Throttle(100_000),
            monotonic=lambda: self.now,
        )

    @asynccontextmanager
    async def sink(self, **settings: str) -> AsyncIterator[GenesysSink]:
        sink = await self.open(**settings)
        try:
            yield sink
        finally:
            await sink.close()

    def spans(self) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if "oauth" not in span.name]

    def told(self, problem: BaseException) -> str:
        """All that a log line, a span or a metric could show."""
        spans = [(span.name, dict(span.attributes), span.events, span.status.description) for span in self.spans()]
        return f"{''.join(traceback.format_exception(problem))} {spans} {self.requests}"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A bench whose server has seen nothing that the contract forbids."""
    genesys = Genesys()
    stop = await genesys.start()
    yield Bench(genesys)
    genesys.closing.set()
    await stop()
    assert genesys.violations == []


def in_seconds(seconds: int) -> str:
    """An HTTP date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_upsert_sends_a_bare_array_with_every_column(bench):
    """Contacts go as strings in every column, with their derived ids, and keep their place in the dialling queue."""
    async with bench.sink() as sink:
        port: Sink = sink
        await port.upsert([port.encode(JANE, callable_=True), port.encode(JOHN, callable_=False)])
    (call,) = bench.genesys.calls
    assert (call.method, call.path, call.query) == ("POST", CONTACTS, {"doNotQueue": "true"})
    assert orjson.loads(call.body) == [
        {
            "id": contact_id("crm-canary-1"),
            "contactListId": LIST_ID,
            "callable": True,
            "data": {
                "external_id": "crm-canary-1",
                "phone_number": "+15550100999",
                "email": "canary@example.com",
                "consent_flag": "true",
                "do_not_call": "false",
                "city": "Canaryville",
            },
        },
        {
            "id": contact_id("crm-2"),
            "contactListId": LIST_ID,
            "callable": False,
            "data": {
                "external_id": "crm-2",
                "phone_number": "+15550100002",
                "email": "",
                "consent_flag": "false",
                "do_not_call": "true",
                "city": "",
            },
        },
    ]


async def test_without_a_do_not_call_list_no_number_is_looked_for(bench):
    """It would be read for nothing, and the limit of requests is the same for all."""
    async with bench.sink() as sink:
        withdrawn = replace(JANE, phone="", consent=False)
        await sink.upsert([sink.encode(withdrawn, callable_=False)], withdrawn=[withdrawn])
    assert [call.path for call in bench.genesys.calls] == [CONTACTS]


@pytest.mark.parametrize(
    "effect",
    [
        lambda sink, sure: sink.upsert([sink.encode(JANE, callable_=True)], sure),
        lambda sink, sure: sink.delete(["crm-2"], sure),
    ],
    ids=["upsert", "delete"],
)
async def test_what_is_not_sure_at_the_last_moment_is_not_sent(bench, effect):
    """The answer counts that is given when the request is written, however it was before; nothing reaches Genesys."""
    async with bench.sink() as sink:
        with pytest.raises(SinkUnavailable):
            await effect(sink, lambda: False)
        assert bench.genesys.calls == []
        await effect(sink, lambda: True)
    assert bench.genesys.calls[0].path == CONTACTS


async def test_an_amendment_that_is_not_sure_any_more_only_reads(bench):
    """What was read back is not written when the contact may be somebody else's by then."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, [{"id": contact_id(JANE.external_id), "data": {}}])]
        with pytest.raises(SinkUnavailable):
            await sink.amend([WITHDRAWN], lambda: False)
    assert [call.path for call in bench.genesys.calls] == [f"{CONTACTS}/bulk"]


async def test_delete_names_the_contacts_in_one_parameter(bench):
    """Fifty ids go comma-joined in one request, an answer without a body is success, and none is left."""
    external_ids = [f"crm-{n}" for n in range(50)]
    async with bench.sink() as sink:
        assert await sink.delete(external_ids) == set()
    call, read_back = bench.genesys.calls
    assert (call.method, call.path, call.body) == ("DELETE", CONTACTS, b"")
    assert call.query == {"contactIds": ",".join(map(contact_id, external_ids))}
    assert read_back.path == f"{CONTACTS}/bulk"


async def test_what_could_not_be_deleted_is_not_callable_any_more(bench):
    """A contact in use is still there after the delete: it goes back with its data, not callable, and is told."""
    has = {"external_id": "crm-2", "phone_number": "+1", "consent_flag": "true"}
    async with bench.sink() as sink:
        bench.genesys.script = [accept, reply(200, [{"id": contact_id("crm-2"), "callable": True, "data": has}])]
        assert await sink.delete(["crm-1", "crm-2"]) == {"crm-2"}
    *_, add = bench.genesys.calls
    assert orjson.loads(add.body) == [
        {
            "id": contact_id("crm-2"),
            "contactListId": LIST_ID,
            "callable": False,
            "data": {"email": "", "do_not_call": "", "city": ""} | has,
        }
    ]
    assert add.query == {"doNotQueue": "true"}


@pytest.mark.parametrize(
    ("held", "paths"), [((), [CONTACTS, f"{CONTACTS}/bulk", CONTACTS]), (["crm-2"], [CONTACTS, f"{CONTACTS}/bulk"])]
)
async def test_who_shows_as_not_callable_after_a_delete_is_held_unless_an_earlier_one_did_so(bench, held, paths):
    """What is read may lag behind a grant that was written just before."""
    shown = {"id": contact_id("crm-2"), "callable": False, "data": {"external_id": "crm-2"}}
    async with bench.sink() as sink:
        bench.genesys.script = [error(400, "contact.in.use"), reply(200, [shown])]
        assert await sink.delete(["crm-2"], held=held) == {"crm-2"}
    assert [call.path for call in bench.genesys.calls] == paths


async def test_a_delete_of_whom_genesys_does_not_know_is_done(bench):
    """It may say so with a 404; the others show when they are read back, and are not callable until they are gone."""
    left = {"id": contact_id("crm-2"), "callable": True, "data": {"external_id": "crm-2"}}
    async with bench.sink() as sink:
        bench.genesys.script = [error(404, "contact.not.found"), reply(200, [left])]
        assert await sink.delete(["crm-1", "crm-2"]) == {"crm-2"}
    *_, add = bench.genesys.calls
    assert orjson.loads(add.body)[0]["callable"] is False


@pytest.mark.parametrize("status", [400, 409])
async def test_of_several_that_cannot_be_deleted_since_one_is_in_use_none_is_callable(bench, status):
    """None was deleted then: whoever asked is told, to ask for fewer; and nobody waits, as for a busy list."""
    refusal = {"code": "contact.in.use", "details": [{"entityId": contact_id("crm-2")}]}
    held = [{"id": contact_id(name), "callable": True, "data": {"external_id": name}} for name in ("crm-1", "crm-2")]
    async with bench.sink() as sink:
        bench.genesys.script = [reply(status, refusal), reply(200, held)]
        with pytest.raises(RefusedByGenesys) as refused:
            await sink.delete(["crm-1", "crm-2"])
        assert refused.value.contact_ids == {contact_id("crm-2")}
        *_, add = bench.genesys.calls
        assert [(each["id"], each["callable"]) for each in orjson.loads(add.body)] == [
            (contact_id("crm-1"), False),
            (contact_id("crm-2"), False),
        ]
        assert await sink.delete(["crm-3"]) == set()


async def test_who_is_in_use_alone_is_not_callable_and_told(bench):
    """As where Genesys leaves it out and answers 200."""
    has = {"external_id": "crm-2", "phone_number": "+1", "consent_flag": "true"}
    async with bench.sink() as sink:
        held = [{"id": contact_id("crm-2"), "callable": True, "data": has}]
        bench.genesys.script = [error(400, "contact.in.use"), reply(200, held)]
        assert await sink.delete(["crm-2"]) == {"crm-2"}
    *_, add = bench.genesys.calls
    assert [(each["callable"], each["data"]["phone_number"]) for each in orjson.loads(add.body)] == [(False, "+1")]


async def test_who_is_in_use_and_does_not_show_is_not_taken_for_deleted(bench):
    """Reads may lag behind writes: it is there, and may be called."""
    async with bench.sink() as sink:
        bench.genesys.script = [error(400, "contact.in.use")]
        with pytest.raises(RefusedByGenesys, match=r"contact\.in\.use"):
            await sink.delete(["crm-2"])


@pytest.mark.parametrize("why", ["503", "cut", "silence"])
async def test_who_may_be_deleted_and_nobody_knows_is_not_callable(bench, why):
    """A delete without an answer leaves time to have nobody call what is still there; it is to be made again."""
    answers = {"503": error(503, "service.unavailable"), "cut": truncated, "silence": bench.genesys.hang}
    held = [{"id": contact_id("crm-2"), "callable": True, "data": {"external_id": "crm-2", "phone_number": "+1"}}]
    async with bench.sink(GENESYS_REQUEST_TIMEOUT_S="1") as sink:
        bench.genesys.script = [answers[why], reply(200, held)]
        with pytest.raises(SinkUnavailable):
            await sink.delete(["crm-1", "crm-2"])
        *_, add = bench.genesys.calls
        assert [(each["callable"], each["data"]["phone_number"]) for each in orjson.loads(add.body)] == [(False, "+1")]
        bench.genesys.script = [answers[why]]
        with pytest.raises(SinkUnavailable):
            await sink.delete(["crm-2"])  # reads may lag behind writes: it may be there, although it does not show


async def test_who_could_not_be_deleted_before_is_held_first_and_then_has_all_the_time(bench):
    """A delete may take longer than the half of it, or be told to wait alone, each time."""
    held = [{"id": contact_id("crm-2"), "callable": True, "data": {"external_id": "crm-2", "phone_number": "+1"}}]

    async def late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2.8)
        return await accept(request)

    async with bench.sink(GENESYS_REQUEST_TIMEOUT_S="5") as sink:
        bench.genesys.script = [reply(200, held), accept, late]
        assert await sink.delete(["crm-1", "crm-2"], tried=True) == set()
        read, add, delete, _ = bench.genesys.calls
        assert [each.method for each in (read, add, delete)] == ["POST", "POST", "DELETE"]
        assert [(each["callable"], each["data"]["phone_number"]) for each in orjson.loads(add.body)] == [(False, "+1")]


async def test_who_is_held_and_perhaps_deleted_is_left_alone(bench):
    """All the time went into the delete, and to write a contact may be to add it again."""
    held = [{"id": contact_id("crm-2"), "callable": True, "data": {"external_id": "crm-2"}}]
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, held), accept, error(503, "service.unavailable")]
        with pytest.raises(SinkUnavailable):
            await sink.delete(["crm-2"], tried=True)
    assert [each.method for each in bench.genesys.calls] == ["POST", "POST", "DELETE"]


@pytest.mark.parametrize(
    "why",
    [
        error(400, "invalid.value"),
        error(503, "service.unavailable"),
        error(429, "too.many.requests.retry.after", Retry_After="0"),
    ],
    ids=["400", "503", "429"],
)
async def test_who_cannot_be_held_first_is_deleted_all_the_same(bench, why):
    """A delete may be what becomes of a contact of which Genesys takes no change."""
    held = [{"id": contact_id("crm-2"), "callable": True, "data": {"external_id": "crm-2", "phone_number": "+1"}}]
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, held), why]
        assert await sink.delete(["crm-2"], tried=True) == set()
    assert [each.method for each in bench.genesys.calls] == ["POST", "POST", "DELETE", "POST"]


async def test_who_could_neither_be_held_first_nor_deleted_is_held_afterwards(bench):
    """Nobody knows of either: it may be there, and be called."""
    held = [{"id": contact_id("crm-2"), "callable": True, "data": {"external_id": "crm-2", "phone_number": "+1"}}]
    away = error(503, "service.unavailable")
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, held), away, away, reply(200, held)]
        with pytest.raises(SinkUnavailable):
            await sink.delete(["crm-2"], tried=True)
    *_, add = bench.genesys.calls
    assert (add.path, orjson.loads(add.body)[0]["callable"]) == (CONTACTS, False)


async def test_a_refusal_tells_whom_it_names(bench):
    """Ids in the error, its details and its inner errors."""
    body = {
        "code": "invalid.value",
        "entityId": "one",
        "details": [{"errorCode": "x", "entityId": "two"}, "odd"],
        "errors": [{"code": "x", "entityId": "three"}],
    }
    async with bench.sink() as sink:
        bench.genesys.script = [reply(400, body)]
        with pytest.raises(RefusedByGenesys) as refused:
            await ask(sink, "crm-2")
    assert refused.value.contact_ids == {"one", "two", "three"}


@pytest.mark.parametrize(("named", "limit"), [(40_000, 40_000), (32_768, 32_768), (32_767, None), (10, None)])
async def test_a_refusal_tells_how_much_is_too_much(bench, named, limit):
    """The value of the limit of a body; one so small that batches would be of one for good counts as none."""
    answer = {"code": "request.entity.too.large", "limit": {"key": "request.bytes.max", "value": named}}
    async with bench.sink() as sink:
        bench.genesys.script = [reply(413, answer), reply(413, answer)]
        with pytest.raises(TooLarge) as too_large:
            await sink.upsert([sink.encode(JOHN, callable_=False)] * 250)
        assert too_large.value.limit == limit
        with pytest.raises(SinkUnavailable, match=f"a limit of {named}"):
            await ask(sink, "crm-2")


async def test_a_body_that_keeps_to_the_limit_that_is_named_is_not_too_large(bench):
    """An answer that contradicts itself is no answer of a working service: nobody is to blame."""
    limit = {"code": "request.entity.too.large", "limit": {"key": "request.bytes.max", "value": 1000}}
    async with bench.sink() as sink:
        bench.genesys.script = [reply(413, limit)]
        with pytest.raises(SinkUnavailable, match="names a limit of 1000"):
            await ask(sink, "crm-2")
        bench.genesys.script = [reply(413, limit)]
        with pytest.raises(SinkUnavailable, match="names a limit of 1000"):
            await sink.delete(["crm-2"])  # which has no body at all


@pytest.mark.parametrize(
    "answer", [error(413, "request.entity.too.large"), text(413, "<h1>413</h1>")], ids=["Genesys", "edge"]
)
async def test_a_large_body_may_be_too_large_without_a_limit_that_is_named(bench, answer):
    """It is sent in parts then; a small one cannot be meant, or everybody would be given up one by one."""
    async with bench.sink() as sink:
        bench.genesys.script = [answer]
        with pytest.raises(TooLarge) as caught:
            await sink.upsert([sink.encode(JOHN, callable_=False)] * (NOT_TOO_LARGE_BYTES // 200))
    assert caught.value.limit is None
    assert len(bench.genesys.calls[-1].body) > NOT_TOO_LARGE_BYTES


async def test_amend_sends_back_what_genesys_has(bench):
    """Data stays as it was read but for what changed; without consent or with do-not-call nobody calls."""
    read = [
        {
            "id": contact_id(external_id),
            "contactListId": LIST_ID,
            "callable": True,
            "callRecords": {"phone_number": {"lastResult": "x"}},
            "data": {"external_id": external_id, "phone_number": "+1", "email": None, "consent_flag": "true"},
        }
        for external_id in ("crm-canary-1", "crm-2")
    ]
    blocked = replace(WITHDRAWN, consent=UNCHANGED, do_not_call=True)
    withdrawn = replace(WITHDRAWN, external_id="crm-2")
    bench.genesys.script = [accept, reply(200, read)]
    async with bench.sink() as sink:
        await sink.amend([blocked, withdrawn, replace(WITHDRAWN, external_id="crm-unknown")])
    bulk, add = bench.genesys.calls
    assert bulk.path == f"{CONTACTS}/bulk"
    assert orjson.loads(bulk.body) == [contact_id(id_) for id_ in ("crm-canary-1", "crm-2", "crm-unknown")]
    assert add.query == {"doNotQueue": "true"}
    data = {"phone_number": "+1", "email": "", "city": ""}
    assert orjson.loads(add.body) == [
        {
            "id": contact_id("crm-canary-1"),
            "contactListId": LIST_ID,
            "callable": False,
            "data": data | {"external_id": "crm-canary-1", "consent_flag": "true", "do_not_call": "true"},
        },
        {
            "id": contact_id("crm-2"),
            "contactListId": LIST_ID,
            "callable": False,
            "data": data | {"external_id": "crm-2", "consent_flag": "false", "do_not_call": "false"},
        },
    ]


HELD = {
    "external_id": "crm-2",
    "phone_number": "+15550100002",
    "email": "",
    "consent_flag": "true",
    "do_not_call": "false",
    "city": "Bern",
}
"""A contact as the program leaves it in Genesys."""

NOTHING = Amendment("crm-2", UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED, {})


async def amended(bench, held, amendment, *, callable_=True, **named):
    """What the sink tells of an amendment of a contact that Genesys has, and what it sent."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, [{"id": contact_id("crm-2"), "callable": callable_, "data": held}])]
        result = await sink.amend([amendment], **named)
    _, *adds = bench.genesys.calls
    return result["crm-2"], [body for add in adds for body in orjson.loads(add.body)]


@pytest.mark.parametrize("amendment", [replace(NOTHING, phone="+15550100002"), replace(NOTHING, consent=True)], ids=str)
async def test_what_genesys_has_already_is_not_sent_again(bench, amendment):
    """Nothing differs: one request, and the contact is told as it is."""
    told, sent = await amended(bench, HELD, amendment)
    assert sent == []
    assert told == Amended(Contact("crm-2", "+15550100002", "", True, False, {"city": "Bern"}), sent=False)


@pytest.mark.parametrize(
    ("held", "callable_", "amendment"),
    [
        (HELD, True, replace(NOTHING, phone="")),
        (HELD, True, replace(NOTHING, attributes={"city": "Basel"})),
        (HELD, False, replace(NOTHING, phone="+15550100002")),
        (HELD | {"external_id": ""}, True, NOTHING),
        (HELD | {"email": None}, False, NOTHING),
        (HELD | {"consent_flag": "false"}, False, replace(NOTHING, consent=False)),
        (HELD | {"do_not_call": "true"}, False, replace(NOTHING, do_not_call=True)),
    ],
    ids=str,
)
async def test_what_differs_or_withdraws_is_sent(bench, held, callable_, amendment):
    """A column, whether the contact is callable, its id; and a withdrawal in any case, since reads may lag."""
    told, sent = await amended(bench, held, amendment, callable_=callable_)
    assert told.sent
    assert len(sent) == 1
    assert sent[0]["callable"] is told.contact.callable
    assert sent[0]["data"]["external_id"] == "crm-2"


@pytest.mark.parametrize(
    ("consent", "do_not_call", "callable_"),
    [
        ("true", "false", True),
        ("TRUE", "FALSE", True),
        ("true", "", True),
        ("true", "true", False),
        ("true", "yes", False),
        ("true", "1", False),
        ("yes", "false", False),
        ("", "false", False),
        (None, None, False),
    ],
)
async def test_flags_that_somebody_wrote_otherwise_let_nobody_call(bench, consent, do_not_call, callable_):
    """Consent is what says true; do-not-call is all that does not say false."""
    held = HELD | {"consent_flag": consent, "do_not_call": do_not_call}
    told, (sent,) = await amended(bench, held, replace(NOTHING, phone="+15550100003"))
    assert told.contact.callable is sent["callable"] is callable_
    assert {sent["data"]["consent_flag"], sent["data"]["do_not_call"]} <= {"true", "false"}


@pytest.mark.parametrize("amendment", [replace(NOTHING, phone="+15550100003"), NOTHING], ids=["changes", "nothing"])
async def test_what_is_withheld_is_sent_as_not_callable(bench, amendment):
    """A withdrawal waits behind it; the content is as told all the same. Reads may lag: it may be callable by now."""
    told, (sent,) = await amended(bench, HELD, amendment, callable_=False, withheld={"crm-2"})
    assert (sent["callable"], sent["data"]["consent_flag"]) == (False, "true")
    assert told.contact.callable


@pytest.mark.parametrize("if_held", [(), {"crm-2"}], ids=["anybody", "if held"])
@pytest.mark.parametrize(
    ("flags", "callable_", "held"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"do_not_call": "true"}, False, False),
    ],
    ids=["held", "callable", "not callable by a flag"],
)
async def test_who_is_held_in_genesys_stays_so_if_that_is_asked_for(bench, flags, callable_, held, if_held):
    """Not callable although the flags let somebody call: so it is told, and what the flags say is not."""
    grant = replace(NOTHING, phone="+15550100003", do_not_call=False)
    told, (sent,) = await amended(bench, HELD | flags, grant, callable_=callable_, if_held=if_held)
    assert told.held is held
    assert sent["callable"] is not (held and "crm-2" in if_held)


async def test_a_read_of_whom_genesys_does_not_know_may_be_refused(bench):
    """One alone is not there then: it is deleted, or not amended. Of several the others may be: they are split."""
    not_found = error(404, "contact.not.found")
    async with bench.sink() as sink:
        bench.genesys.script = [not_found, not_found]
        assert await sink.delete(["crm-1"]) == set()
        bench.genesys.script = [not_found]
        assert await sink.amend([WITHDRAWN]) == {}
        bench.genesys.script = [accept, not_found]
        with pytest.raises(RefusedByGenesys):
            await sink.delete(["crm-1", "crm-2"])


async def test_unknown_contacts_are_not_amended(bench):
    """Nothing found means that there is nothing to write."""
    async with bench.sink() as sink:
        await sink.amend([WITHDRAWN])
    assert [call.path for call in bench.genesys.calls] == [f"{CONTACTS}/bulk"]


async def test_two_requests_share_one_time_limit(bench, monkeypatch):
    """The second request of an amendment has only the time that the first one left."""
    limits = []
    send = transport.Transport.send

    async def noted(self, request, limit_s):
        limits.append((request.endpoint.operation, limit_s))
        return await send(self, request, limit_s)

    monkeypatch.setattr(transport.Transport, "send", noted)
    read = {"id": contact_id("crm-2"), "contactListId": LIST_ID, "data": {}}
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, [read])]
        await sink.amend([replace(WITHDRAWN, external_id="crm-2")])
    (first, first_s), (second, second_s) = limits[-2:]
    assert (first, second) == ("read_contacts", "add_contacts")
    assert 0 < second_s < first_s <= 20


async def test_requests_carry_the_clients_name_and_token(bench):
    """Genesys can tell who asks; the token goes nowhere but into its header."""
    async with bench.sink() as sink:
        await ask(sink, "crm-2")
    token, *api = bench.genesys.seen
    assert token.headers["Authorization"] == "Basic Y2xpZW50OnNlY3JldA=="
    assert {seen.headers["Authorization"] for seen in api} == {"Bearer token-1"}
    assert all(seen.headers["User-Agent"].startswith("genesys-consumer/") for seen in bench.genesys.seen)


async def test_proxies_of_the_environment_are_not_used(bench, monkeypatch):
    """Where contact data goes is set in the settings alone."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with bench.sink() as sink:
        await ask(sink, "crm-2")
    assert len(bench.genesys.calls) == 1


# --- what the answers mean --------------------------------------------------------------------------------------------

MAPPING: list[tuple[str, Handler, type[ConsumerError], str]] = [
    ("data", error(400, "contact.datum.length.limit.exceeded"), RefusedByGenesys, "contact.datum.length"),
    ("no code", error(400, "+15550100999"), RefusedByGenesys, "bad.request"),
    ("small, and called too large", error(413, "request.entity.too.large"), SinkUnavailable, "no limit is named"),
    ("small, and called too large at the edge", text(413, "<h1>413</h1>"), SinkUnavailable, "no limit is named"),
    ("columns", error(400, "contact.missing.columns"), ContactListMismatch, "other columns than at start"),
    ("more columns", error(400, "invalid.contact.columns"), ContactListMismatch, "other columns than at start"),
    ("fewer columns", error(400, "contact.columns.limit.exceeded"), ContactListMismatch, "other columns than at start"),
    ("400 of a proxy", text(400, "<h1>Canaryville</h1>"), SinkUnavailable, r"status 400\)"),
    ("org is full", error(400, "contacts.per.org.limit.exceeded"), NoRoom, "contacts.per.org.limit"),
    ("black-listed", error(400, "uploads.black.listed"), SinkUnavailable, "uploads.black.listed"),
    ("clear", error(400, "contact.list.clear.in.progress"), Throttled, "clear.in.progress"),
    ("import", error(400, "contact.list.import.in.progress"), Throttled, "import.in.progress"),
    ("bulk", error(400, "contact.bulk.operation.in.progress"), Throttled, "operation.in.progress"),
    ("export", error(400, "contact.list.export.in.progress"), Throttled, "export.in.progress"),
    ("do-not-call import", error(400, "dnc.list.import.in.progress"), Throttled, "dnc.list.import.in.progress"),
    ("do-not-call export", error(400, "dnc.list.export.in.progress"), Throttled, "dnc.list.export.in.progress"),
    ("in use", error(400, "contact.in.use"), InUse, "contact.in.use"),
    ("permission", error(403, "missing.any.permissions"), Unauthorized, "outbound:contact:add"),
    ("contact", error(404, "contact.not.found"), RefusedByGenesys, "contact.not.found"),
    ("list", error(404, "contact.list.not.found"), FatalError, "GENESYS_CONTACT_LIST.*contact.list.not.found"),
    ("404 of a proxy", text(404, "nothing here"), SinkUnavailable, "status 404"),
    ("404 of a gateway", reply(404, {"message": "Canaryville"}), SinkUnavailable, r"status 404\)"),
    ("400 of a gateway", reply(400, {"message": "Canaryville", "code": 400}), SinkUnavailable, r"status 400\)"),
    ("403 of a firewall", text(403, "<h1>Canaryville</h1>"), SinkUnavailable, r"status 403\)"),
    ("403 of a gateway", reply(403, {"message": "Canaryville", "code": ""}), SinkUnavailable, r"status 403\)"),
    ("405 of a proxy", text(405, "<h1>Canaryville</h1>"), SinkUnavailable, r"status 405\)"),
    ("415 of a proxy", text(415, ""), SinkUnavailable, r"status 415\)"),
    ("501 of a proxy", text(501, "<h1>Canaryville</h1>"), SinkUnavailable, r"status 501\)"),
    ("method", error(405, "method.not.allowed"), FatalError, "status 405"),
    ("slow client", error(408, "client.timeout"), SinkUnavailable, "status 408, client.timeout"),
    ("conflict", error(409, "request.conflict"), SinkUnavailable, "request.conflict"),
    ("media type", error(415, "unsupported.media.type"), FatalError, "status 415"),
    ("throttled", error(429, "too.many.requests.retry.after", Retry_After="42"), Throttled, "status 429"),
    ("500", error(500, "internal.server.error"), SinkUnavailable, "internal.server.error, correlation id 3f6c-77"),
    ("501", error(501, "not.implemented"), FatalError, "status 501"),
    ("502", text(502, "<h1>Bad gateway</h1>"), SinkUnavailable, "status 502"),
    ("503", error(503, "service.unavailable"), SinkUnavailable, "service.unavailable"),
    ("504", error(504, "request.timeout"), SinkUnavailable, "request.timeout"),
    ("redirect", error(307, "x", Location="/elsewhere"), SinkUnavailable, "redirect.*status 307"),
    ("reset", reset, SinkUnavailable, "ServerDisconnectedError"),
    ("truncated", truncated, SinkUnavailable, "ClientPayloadError"),
    ("garbage", garbage, SinkUnavailable, "no whole answer"),
    ("HTML", text(200, "<h1>crm-canary-1</h1>"), SinkUnavailable, "not JSON"),
    ("broken JSON", text(200, '[{"id": "crm-canary-1', "application/json"), SinkUnavailable, "broken JSON"),
    ("empty", text(200, "", "application/json"), SinkUnavailable, "does not match"),
    ("no array", reply(200, {"id": "crm-canary-1"}), SinkUnavailable, "does not match"),
    ("too few", reply(200, []), NoneCameBack, "does not match"),
]


@pytest.mark.parametrize(
    ("handler", "expected", "words"), [row[1:] for row in MAPPING], ids=[row[0] for row in MAPPING]
)
async def test_answer_becomes_the_error_of_its_policy(bench, handler, expected, words):
    """Each kind of answer has one meaning, whose text helps and holds no contact data; there is no second request."""
    async with bench.sink() as sink:
        bench.genesys.script = [handler]
        with pytest.raises(ConsumerError) as caught:
            await sink.upsert([sink.encode(JANE, callable_=True)])
    assert type(caught.value) is expected
    assert re.search(words, str(caught.value))
    assert len(bench.genesys.calls) == 1
    told = bench.told(caught.value)
    assert [canary for canary in (*CANARIES, contact_id("crm-canary-1")) if canary in told] == []


async def test_busy_list_is_asked_again_after_a_few_seconds(bench):
    """Genesys does not say how long a clear takes: the caller is told five seconds."""
    async with bench.sink() as sink:
        bench.genesys.script = [error(400, "contact.list.clear.in.progress")]
        with pytest.raises(Throttled) as caught:
            await ask(sink, "crm-2")
    assert caught.value.retry_after == 5


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (429, {"Retry-After": "42"}, "", (42, 42)),
        (429, {"Retry-After": partial(in_seconds, 200)}, "", (100, 200)),
        (429, {"Retry-After": partial(in_seconds, 3600)}, "", (300, 300)),
        (503, {"Retry-After": "86400"}, "", (300, 300)),
        (429, {"Retry-After": partial(in_seconds, -3600)}, "", (0, 0)),
        (429, {}, "Rate limit exceeded the maximum. Retry the request in [17] seconds", (17, 17)),
        (429, {"Retry-After": "soon"}, "Retry the request in [17] seconds", (17, 17)),
        (429, {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, "Retry in [17] seconds", (17, 17)),
        (429, {}, "Rate limit exceeded", None),
        (503, {"Retry-After": "7"}, "", (7, 7)),
        (503, {}, "Retry the request in [17] seconds", None),
    ],
)
async def test_the_wait_that_genesys_asks_for_is_passed_on(bench, status, headers, message, wait):
    """Seconds, a date, or the number in the text of a 429; nothing when Genesys does not say, five minutes at most."""

    async def answer(_):
        told = {name: value() if callable(value) else value for name, value in headers.items()}
        return web.json_response({"message": message, "code": "x"}, status=status, headers=told)

    async with bench.sink() as sink:
        bench.genesys.script = [answer]
        with pytest.raises((Throttled, SinkUnavailable)) as caught:
            await ask(sink, "crm-2")
    asked = caught.value.retry_after
    assert asked is wait if wait is None else wait[0] <= asked <= wait[1]


@pytest.mark.parametrize(
    ("body", "permission"),
    [
        ({"message": "You are missing the following permission: outbound:contact:edit"}, "outbound:contact:edit"),
        ({"messageParams": {"permissions": "[outbound:contact:edit]"}}, "outbound:contact:edit"),
        ({"message": "no"}, "outbound:contact:delete"),
    ],
)
async def test_missing_permission_is_named(bench, body, permission):
    """The text names what Genesys says is missing, else what the request needs."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(403, body | {"code": "missing.any.permissions"})]
        with pytest.raises(Unauthorized, match=rf"permission {permission} \(status 403"):
            await sink.delete(["crm-2"])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(error(403, "missing.any.permissions"), id="not permitted"),
        pytest.param(error(404, "not.found"), id="no such namespace"),
        pytest.param(error(400, "bad.request"), id="refused"),
    ],
)
async def test_who_may_not_know_the_limit_keeps_to_the_setting(bench, answer):
    """One line says so, and Genesys is not asked again."""
    async with bench.sink() as sink:
        bench.genesys.script = [answer]
        with capture_logs() as lines:
            await sink.follow_limit()
    assert [(line["event"], line["log_level"]) for line in lines] == [("limit_not_told", "info")]
    assert not any(canary in str(lines) for canary in CANARIES)


@pytest.mark.parametrize(
    "told",
    [[{"key": RATE, "value": 0}], [{"key": RATE, "value": -1}], ["x"], [], [{"key": "x", "value": 9}]],
    ids=["none", "less", "no limit", "nothing", "another"],
)
async def test_what_is_no_limit_of_requests_is_not_kept_to(bench, told):
    """By none at all nobody could ever ask again; what holds is our own."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, {"entities": told})]
        with pytest.raises(SinkUnavailable, match="no limit of requests"):
            await limits._told(sink._client)


async def test_no_answer_ends_at_the_time_limit(bench):
    """A server that keeps silent is unavailable."""
    async with bench.sink(GENESYS_REQUEST_TIMEOUT_S="1") as sink:
        bench.genesys.script = [bench.genesys.hang]
        with pytest.raises(SinkUnavailable, match="Timeout"):
            async with asyncio.timeout(5):
                await ask(sink, "crm-2")
    assert "Timeout" in bench.requests[-1][1]


async def test_refused_connection_is_unavailable(bench):
    """Nobody listens: that passes."""
    with pytest.raises(SinkUnavailable, match=r"no whole answer from 127\.0\.0\.1:\d+: ClientConnectorError \(.+\)$"):
        await bench.open(GENESYS_LOGIN_URL="http://127.0.0.1:9")


async def test_a_password_in_a_url_is_not_told(bench):
    """What is told of it goes into logs, and so it is refused before anything is asked there."""
    with pytest.raises(SettingsError) as told:
        await bench.open(GENESYS_LOGIN_URL="http://user:secret-word@127.0.0.1:9")
    assert "GENESYS_LOGIN_URL" in str(told.value)
    assert "secret-word" not in str(told.value)


async def test_what_breaks_while_it_is_written_names_nobody(bench, monkeypatch):
    """The library's text of it has the URL, in which a delete has the ids of contacts; the system's own says enough."""

    async def broken(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, JANE.external_id)

    monkeypatch.setattr(transport._Body, "write_with_length", broken)
    async with bench.sink() as sink:
        with pytest.raises(SinkUnavailable, match=r"ClientOSError \(Broken pipe\)$") as caught:
            await sink.delete([JANE.external_id])
    assert [each for each in (*CANARIES, contact_id("crm-canary-1")) if each in bench.told(caught.value)] == []


async def test_endless_answer_is_cut_off(bench, monkeypatch):
    """An answer longer than any that Genesys gives is not kept."""
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1000)
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, ["x" * 1000])]
        with pytest.raises(SinkUnavailable, match="ClientPayloadError"):
            await sink.upsert([sink.encode(JANE, callable_=True)])


@pytest.mark.parametrize("found", [{}, [None], [{"id": contact_id("crm-stranger"), "data": {}}]])
async def test_amend_refuses_to_write_what_it_did_not_ask_for(bench, found):
    """An answer with other contacts than were asked for is not written back."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, found)]
        with pytest.raises(SinkUnavailable, match="does not match"):
            await sink.amend([WITHDRAWN])
    assert len(bench.genesys.calls) == 1


# --- the token --------------------------------------------------------------------------------------------------------


async def test_refused_token_is_renewed_once_for_everybody(bench):
    """Five callers whose token is refused share one renewal, and each repeats its request once."""
    all_here = asyncio.Event()
    waiting = []

    async def unauthorized(request):
        waiting.append(request)
        if len(waiting) == 5:
            all_here.set()
        await all_here.wait()
        return await error(401, "bad.credentials")(request)

    async with bench.sink(GENESYS_MAX_IN_FLIGHT="5") as sink:
        bench.genesys.script = [unauthorized] * 5
        await asyncio.gather(*(ask(sink, f"crm-{n}") for n in range(5)))
    assert bench.genesys.tokens == 2
    sent_with = [call.headers["Authorization"] for call in bench.genesys.calls]
    assert sent_with == ["Bearer token-1"] * 5 + ["Bearer token-2"] * 5
    resends = [span.attributes.get("http.request.resend_count") for span in bench.spans()[1:]]
    assert sorted(resends, key=str) == [1] * 5 + [None] * 5


async def test_late_refusal_of_an_old_token_does_not_renew_again(bench):
    """Who learns of the old token's refusal after its renewal takes the new one."""
    renewed = asyncio.Event()
    both_sent = asyncio.Event()

    async def early(request):
        await both_sent.wait()
        return await error(401, "bad.credentials")(request)

    async def late(request):
        both_sent.set()
        await renewed.wait()
        return await error(401, "bad.credentials")(request)

    async with bench.sink() as sink:
        bench.genesys.script = [early, late]
        first, second = (asyncio.create_task(ask(sink, id_)) for id_ in ("crm-1", "crm-2"))
        await first
        renewed.set()
        await second
    assert bench.genesys.tokens == 2


async def test_second_refusal_is_fatal(bench):
    """A new token that is refused as well means that the client may not come in."""
    async with bench.sink() as sink:
        bench.genesys.script = [error(401, "bad.credentials"), error(401, "ip.not.authorized")]
        with pytest.raises(Unauthorized, match=r"ip\.not\.authorized"):
            await ask(sink, "crm-2")
    assert len(bench.genesys.calls) == 2


async def test_a_proxy_that_refuses_twice_is_no_refusal_of_the_client(bench):
    """Without a code of Genesys' nobody knows of what the 401 tells; it may be the token, so that is renewed."""
    async with bench.sink() as sink:
        bench.genesys.script = [text(401, "<h1>log in</h1>")] * 2
        with pytest.raises(SinkUnavailable, match=r"no usable answer \(status 401\)"):
            await ask(sink, "crm-2")
        await ask(sink, "crm-2")
    assert (bench.genesys.tokens, len(bench.genesys.calls)) == (2, 3)


async def test_token_is_renewed_a_minute_before_it_expires(bench):
    """The token of an hour serves for 59 minutes, by the given clock."""
    async with bench.sink() as sink:
        bench.now = 3539.9
        await ask(sink, "crm-1")
        assert bench.genesys.tokens == 1
        bench.now = 3540.0
        await asyncio.gather(*(ask(sink, f"crm-{n}") for n in range(5)))
    assert bench.genesys.tokens == 2
    assert [call.headers["Authorization"] for call in bench.genesys.calls] == [
        "Bearer token-1",
        *["Bearer token-2"] * 5,
    ]


async def test_token_serves_until_it_expires_while_the_login_host_is_down(bench):
    """A renewal that fails is tried again every ten seconds; requests go on with the old token as long as it lives."""
    async with bench.sink() as sink:
        bench.genesys.token_script = [text(503, "down")] * 3
        for bench.now, tokens in ((3540, 2), (3549, 2), (3550, 3)):
            await ask(sink, "crm-1")
            assert bench.genesys.tokens == tokens
        bench.now = 3600
        with pytest.raises(SinkUnavailable, match="status 503"):
            await ask(sink, "crm-1")
        await ask(sink, "crm-1")
    assert bench.genesys.calls[-1].headers["Authorization"] == "Bearer token-5"


async def test_giving_up_on_a_token_leaves_it_to_the_others(bench):
    """A caller that is cancelled while it waits for the token does not take it from those who wait with it."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(_):
        asked.set()
        await answer.wait()
        return web.json_response({"access_token": "token-2"})

    async with bench.sink() as sink:
        bench.now = 3600
        bench.genesys.token_script = [slow]
        quitter, stayer = (asyncio.create_task(ask(sink, id_)) for id_ in ("crm-1", "crm-2"))
        await asked.wait()
        quitter.cancel()
        answer.set()
        await stayer
    assert [orjson.loads(call.body) for call in bench.genesys.calls] == [[contact_id("crm-2")]]


@pytest.mark.parametrize(
    ("handler", "expected", "words"),
    [
        (reply(400, {"error": "invalid_client", "description": "client not found"}), Unauthorized, "invalid_client"),
        (reply(401, {"error": "invalid_client"}), Unauthorized, "id and secret, and that the region"),
        (reply(400, {"error": "invalid_request", "description": "rate limit exceeded; wait"}), Throttled, "wait"),
        (reply(400, {"error": "invalid_request", "error_description": "Rate limit exceeded"}), Throttled, "wait"),
        (reply(400, {"error": "invalid_request", "description": "malformed"}), Unauthorized, "invalid_request"),
        (text(429, "slow down"), Throttled, "status 429"),
        (text(400, "<h1>proxy</h1>"), SinkUnavailable, "status 400"),
        (reply(403, {"message": "Forbidden"}), SinkUnavailable, "status 403"),
        (reply(401, {"message": "Unauthorized", "error": None}), SinkUnavailable, "status 401"),
        (text(503, "down"), SinkUnavailable, "status 503"),
        (reply(503, {"error": "temporarily_unavailable"}), SinkUnavailable, "status 503"),
        (reply(404, {"error": "not_found"}), SinkUnavailable, "status 404"),
        (reset, SinkUnavailable, "ServerDisconnectedError"),
        (text(200, "<h1>login</h1>"), SinkUnavailable, "not JSON"),
        (reply(200, {"token": "x"}), SinkUnavailable, "no token"),
        (reply(200, {"access_token": ""}), SinkUnavailable, "no token"),
        (reply(200, {"access_token": "", "expires_in": 3600}), SinkUnavailable, "no token"),
        (reply(200, {"access_token": "two\nlines", "expires_in": 3600}), SinkUnavailable, "ValueError"),
    ],
)
async def test_login_hosts_answer_becomes_the_error_of_its_policy(bench, handler, expected, words):
    """Wrong credentials stop the program; a login host that is busy or down does not."""
    bench.genesys.token_script = [handler]
    with pytest.raises(ConsumerError) as caught:
        await bench.open()
    assert type(caught.value) is expected
    assert re.search(words, str(caught.value))
    assert bench.genesys.tokens == 1


async def test_login_host_that_hangs_ends_the_request_in_its_own_time(bench):
    """The wait for a new token counts against the time limit of the request that needs it."""
    async with bench.sink(GENESYS_REQUEST_TIMEOUT_S="1") as sink:
        bench.genesys.script = [error(401, "bad.credentials")]
        bench.genesys.token_script = [bench.genesys.hang]
        with pytest.raises(SinkUnavailable, match="no token came within the time of the request"):
            await ask(sink, "crm-2")
    assert len(bench.genesys.calls) == 1


# --- the contact list -------------------------------------------------------------------------------------------------


def page(number: int, pages: int, *lists: object) -> Handler:
    """A page of contact lists."""
    return reply(200, {"entities": lists, "pageNumber": number, "pageCount": pages})


async def test_list_is_found_by_its_exact_name_on_any_page(bench):
    """A list whose name only begins alike is another one."""
    alike = CONTACT_LIST | {"id": "another", "name": "People of last year"}
    bench.genesys.script = [page(1, 2, alike), page(2, 2, CONTACT_LIST)]
    async with bench.sink() as sink:
        assert sink.contact_list_id == LIST_ID
    pages = [(seen.query["name"], seen.query["pageNumber"]) for seen in bench.genesys.seen[1:]]
    assert pages == [("People", "1"), ("People", "2")]


async def test_list_is_found_by_its_id(bench):
    """An id is read, not searched for."""
    async with bench.sink(GENESYS_CONTACT_LIST=LIST_ID) as sink:
        assert sink.contact_list_id == LIST_ID
    assert [seen.path for seen in bench.genesys.seen[1:]] == [f"{LISTS}/{LIST_ID}"]


async def test_unknown_id_is_fatal(bench):
    """A list that is named by its id is never created."""
    bench.genesys.script = [error(404, "contact.list.not.found")]
    with pytest.raises(FatalError, match="GENESYS_CONTACT_LIST"):
        await bench.open(GENESYS_CONTACT_LIST=LIST_ID)


async def test_refused_look_up_is_fatal(bench):
    """A look-up that Genesys blames ends the start with its code, not with a trace."""
    bench.genesys.script = [error(400, "invalid.value")]
    with pytest.raises(FatalError, match=r"look up the contact list: invalid\.value"):
        await bench.open()


async def test_missing_list_is_created(bench):
    """The new list has every column, the phone and the e-mail marked as such; a warning names it."""
    bench.genesys.script = [page(1, 0)]
    with capture_logs() as said:
        async with bench.sink() as sink:
            assert sink.contact_list_id == LIST_ID
    (told,) = [line for line in said if line["event"] == "contact_list_created"]
    assert (told["contact_list_id"], told["name"], told["log_level"]) == (LIST_ID, "People", "warning")
    created = bench.genesys.seen[-1]
    assert (created.method, created.path) == ("POST", LISTS)
    assert orjson.loads(created.body) == {
        "name": "People",
        "columnNames": COLUMNS,
        "phoneColumns": [{"columnName": "phone_number", "type": "cell"}],
        "emailColumns": [{"columnName": "email", "type": "Personal"}],
    }


async def test_a_new_list_says_what_cannot_be_changed_later(bench):
    """It has no time zones: whoever calls across zones learns of it before the list is full."""
    bench.genesys.script = [page(1, 0)]
    with capture_logs() as said:
        async with bench.sink():
            pass
    (told,) = [line for line in said if line["event"] == "contact_list_created"]
    assert "time zones" in told["remedy"]


def _typed(**types: Any) -> dict[str, Any]:
    """The contact list, with a type for each of its columns: TEXT of 512 characters unless one says otherwise."""
    text = {"columnDataType": "TEXT", "maxLength": 512}
    specified = [{"columnName": name, **text, **types.get(name, {})} for name in COLUMNS]
    return {**CONTACT_LIST, "columnDataTypeSpecifications": specified}


@pytest.mark.parametrize(
    ("types", "doubted"),
    [
        ({}, None),
        ({"city": {"maxLength": 1}, "phone_number": {"maxLength": 16}, "do_not_call": {"maxLength": 5}}, None),
        ({"city": {"columnDataType": None, "maxLength": None}}, None),
        ({"external_id": {"maxLength": 20}}, "external_id"),
        (
            {"phone_number": {"columnDataType": "NUMERIC"}, "consent_flag": {"maxLength": 4}},
            "phone_number, consent_flag",
        ),
        ({"city": {"columnDataType": "TIMESTAMP"}}, "city"),
    ],
)
async def test_a_list_whose_columns_may_not_take_what_is_sent_is_told(bench, types, doubted):
    """Contacts would be given up one by one; the warning names the columns, since types cannot be changed."""
    bench.genesys.script = [page(1, 1, _typed(**types))]
    with capture_logs() as said:
        async with bench.sink():
            pass
    told = [line["remedy"] for line in said if line["event"] == "contact_list_doubted"]
    assert [remedy.startswith(f"the columns {doubted} are") for remedy in told] == ([True] if doubted else [])


async def test_a_new_do_not_call_list_says_that_it_blocks_nobody_yet(bench):
    """It has to be assigned to campaigns by hand; a mistyped name would make one that nobody looks at."""
    made = {"id": "dnc", "name": "Nobody", "dncSourceType": "rds", "contactMethod": "Phone"}
    first, later = [page(1, 0), reply(200, made)], [page(1, 1, made)]
    bench.genesys.script = [page(1, 1, CONTACT_LIST), *first, page(1, 1, CONTACT_LIST), *later]
    for lines in (1, 0):
        with capture_logs() as said:
            async with bench.sink(GENESYS_DNC_LIST="Nobody"):
                pass
        told = [line for line in said if line["event"] == "dnc_list_created"]
        assert len(told) == lines
        for line in told:
            assert (line["dnc_list_id"], line["name"], line["log_level"]) == ("dnc", "Nobody", "warning")
            assert "assign it to the campaigns" in line["remedy"]


GONE = error(404, "contact.list.not.found")


@pytest.mark.parametrize("code", ["not.found", "resource.not.found"])
@pytest.mark.parametrize(
    ("looked_up", "expected"),
    [(accept, SinkUnavailable), (GONE, FatalError), (error(404, "resource.not.found"), FatalError),
     (error(503, "service.unavailable"), SinkUnavailable), (error(400, "invalid.value"), SinkUnavailable)],
    ids=["there", "gone", "not found", "away", "refused"],
)  # fmt: skip
async def test_what_is_not_there_need_not_be_the_list(bench, code, looked_up, expected):
    """It is looked for, once; only where it is gone the program ends."""
    for effect in ("upsert", "delete", "amend"):
        async with bench.sink() as sink:
            effects = {
                "upsert": lambda sink=sink: sink.upsert([sink.encode(JOHN, callable_=False)]),
                "delete": lambda sink=sink: sink.delete(["crm-2"]),
                "amend": lambda sink=sink: sink.amend([WITHDRAWN]),
            }
            bench.genesys.script = [error(404, code), looked_up]
            with pytest.raises(expected):
                await effects[effect]()
            assert bench.genesys.seen[-1 if effect != "delete" or expected is FatalError else -2].method == "GET"


async def test_a_list_that_was_just_made_is_not_taken_for_gone(bench, monkeypatch):
    """Reads may lag behind: for a minute it is waited for, then it is gone."""
    bench.genesys.script = [page(1, 0)]
    async with bench.sink() as sink:
        bench.genesys.script = [GONE, error(404, "not.found"), GONE]
        for _ in range(2):
            with pytest.raises(SinkUnavailable):
                await sink.upsert([sink.encode(JOHN, callable_=False)])
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(sink._client, "_new_until", {LIST_ID: loop.time()})
        bench.genesys.script = [GONE]
        with pytest.raises(FatalError):
            await sink.upsert([sink.encode(JOHN, callable_=False)])


async def test_list_that_another_consumer_created_meanwhile_is_taken(bench):
    """Of two consumers that start together one is refused the name, and finds the other's list."""
    bench.genesys.script = [page(1, 0), error(400, "duplicate.name"), page(1, 1, CONTACT_LIST)]
    with capture_logs() as said:
        async with bench.sink() as sink:
            assert sink.contact_list_id == LIST_ID
    assert "contact_list_created" not in [line["event"] for line in said]


async def test_list_that_exists_unseen_is_waited_for(bench):
    """It may show up in a moment; the text says what else may hide it."""
    bench.genesys.script = [page(1, 0), error(400, "duplicate.name"), page(1, 0)]
    with pytest.raises(SinkUnavailable, match="division"):
        await bench.open()


async def test_refused_creation_is_fatal(bench):
    """What Genesys has against the list does not pass by waiting."""
    bench.genesys.script = [page(1, 0), error(400, "name.length.exceeded")]
    with pytest.raises(FatalError, match=r"name\.length\.exceeded"):
        await bench.open()


@pytest.mark.parametrize(
    "kind",
    [
        {"dncSourceType": "rds", "contactMethod": "Email"},
        {"dncSourceType": "rds", "contactMethod": "WhatsApp"},
        {"dncSourceType": "rds"},
        {"dncSourceType": "rds_custom", "contactMethod": "Phone"},
        {"dncSourceType": "gryphon", "contactMethod": "Phone"},
    ],
    ids=str,
)
async def test_a_do_not_call_list_that_takes_no_phone_numbers_ends_the_start(bench, kind):
    """Nobody would be kept from being called by it."""
    bench.genesys.script = [page(1, 1, CONTACT_LIST), page(1, 1, {"id": "dnc", "name": "Nobody"} | kind)]
    with pytest.raises(ContactListMismatch, match="takes no phone numbers"):
        await bench.open(GENESYS_DNC_LIST="Nobody")


async def test_a_do_not_call_list_that_was_just_made_is_not_taken_for_gone(bench):
    """What takes its numbers may not have heard of it yet: it takes them in a moment."""
    made = {"id": "dnc", "name": "Nobody", "dncSourceType": "rds", "contactMethod": "Phone"}
    withdrawn = replace(JANE, consent=False)
    bench.genesys.script = [page(1, 1, CONTACT_LIST), page(1, 0), reply(200, made), error(404, "dnc.list.not.found")]
    async with bench.sink(GENESYS_DNC_LIST="Nobody") as sink:
        with pytest.raises(Withheld) as caught:
            await sink.upsert([sink.encode(withdrawn, callable_=False)], withdrawn=[withdrawn])
    assert not caught.value.for_good
    bench.genesys.violations.clear()  # of the path of that list, which the rules of this bench do not know


@pytest.mark.parametrize(
    ("code", "expected"), [("max.entity.count.reached", FatalError), ("duplicate.name", SinkUnavailable)]
)
async def test_a_do_not_call_list_that_cannot_be_made_ends_the_start_unless_another_has_just_made_it(
    bench, code, expected
):
    """The latter is there when it is looked up again."""
    bench.genesys.script = [page(1, 1, CONTACT_LIST), page(1, 0), error(400, code)]
    with pytest.raises(expected) as caught:
        await bench.open(GENESYS_DNC_LIST="Nobody")
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columnNames": COLUMNS[:-1]}, "lacks the columns city; set"),
        ({"columnNames": [*COLUMNS, "zip"]}, "has the columns zip, and"),
        ({"phoneColumns": [{"columnName": "email", "type": "cell"}]}, "phone_number is not one of its phone columns"),
        ({"phoneColumns": None}, "phone_number is not one of its phone columns"),
    ],
)
async def test_list_with_other_columns_is_refused(bench, change, words):
    """Genesys would refuse every contact, or could not dial it: better not to begin."""
    bench.genesys.script = [page(1, 1, CONTACT_LIST | change)]
    with pytest.raises(ContactListMismatch, match=words):
        await bench.open()


async def test_columns_may_stand_in_another_order(bench):
    """Only the names of columns count."""
    bench.genesys.script = [page(1, 1, CONTACT_LIST | {"columnNames": COLUMNS[::-1]})]
    async with bench.sink() as sink:
        assert sink.contact_list_id == LIST_ID


def _came_back(external_id, **more):
    return {"id": contact_id(external_id), "contactListId": LIST_ID, "data": {}, **more}


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ([_came_back("crm-canary-1", callable=True), _came_back("crm-2", callable=False)], set()),
        ([_came_back("crm-2"), _came_back("crm-canary-1")], set()),
        ([_came_back("crm-canary-1")], {"crm-2"}),
        ([_came_back("crm-2"), _came_back("crm-2")], {"crm-canary-1"}),
        ([_came_back("crm-2"), _came_back("crm-3")], {"crm-canary-1"}),
        ([_came_back("crm-canary-1"), _came_back("crm-2", callable=True)], {"crm-2"}),
        ([_came_back("crm-canary-1", callable=False), _came_back("crm-2", callable=False)], set()),
    ],
    ids=["as sent", "another order", "one fewer", "one twice", "another", "callable", "not callable"],
)
async def test_an_answer_tells_who_was_taken(bench, answer, missing):
    """Who is left out, or can be called where it was sent as not callable, was not."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, answer)]
        told = await sink.upsert([sink.encode(JANE, callable_=True), sink.encode(JOHN, callable_=False)])
    assert told == {contact_id(each) for each in missing}


async def test_who_is_not_callable_in_genesys_is_taken_and_counted(bench):
    """An agent's wrap-up or a campaign may have made him so: one line tells how many, also of one alone."""
    async with bench.sink() as sink:
        for sent in ([JANE, replace(JANE, external_id="crm-3"), JOHN], [JANE]):
            answer = [_came_back(each.external_id, callable=False) for each in sent]
            bench.genesys.script = [reply(200, answer)]
            with capture_logs() as logs:
                assert await sink.upsert([sink.encode(each, callable_=each.callable) for each in sent]) == set()
            assert [(line["event"], line["contacts"]) for line in logs] == [
                ("held_in_genesys", sum(each.callable for each in sent))
            ]


@pytest.mark.parametrize("answer", [[None, None], [{}, {}], ["x"], [{"id": 5}]])
async def test_an_answer_that_holds_no_contacts_is_unavailable(bench, answer):
    """It tells of nobody."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, answer)]
        with pytest.raises(SinkUnavailable, match="does not match"):
            await sink.upsert([sink.encode(JANE, callable_=True), sink.encode(JOHN, callable_=False)])


async def test_a_contact_that_is_nested_without_end_is_a_broken_answer(bench):
    """Its reader gives up like the one of other answers, in another way."""
    nested = '[{"id": "x", "data": ' + "[" * 100_000 + "]" * 100_000 + "}]"
    async with bench.sink() as sink:
        bench.genesys.script = [text(200, nested, "application/json")]
        with pytest.raises(SinkUnavailable, match="broken JSON"):
            await sink.upsert([sink.encode(JANE, callable_=True)])


async def test_an_amended_contact_has_to_come_back(bench):
    """Where it is left out of the answer to what was sent for it, it is not amended."""
    async with bench.sink() as sink:
        bench.genesys.script = [reply(200, [_came_back("crm-canary-1")]), reply(200, [_came_back("crm-2")])]
        with pytest.raises(SinkUnavailable, match="does not match"):
            await sink.amend([WITHDRAWN])


@pytest.mark.parametrize(
    "answer",
    [{"entities": []}, {"entities": ["x"], "pageCount": 1}, {"entities": [{"name": "People"}], "pageCount": 1}, [], {}],
)
async def test_answer_that_is_no_page_of_lists_is_unavailable(bench, answer):
    """No list is created because a search was answered with nonsense."""
    bench.genesys.script = [reply(200, answer)]
    with pytest.raises(SinkUnavailable, match="does not match"):
        await bench.open()
    assert len(bench.genesys.seen) == 2


# --- what is told -----------------------------------------------------------------------------------------------------


async def test_each_physical_request_has_a_span(bench):
    """Name, template, host, status; no ids and no query."""
    async with bench.sink() as sink:
        await ask(sink, "crm-canary-1")
        bench.genesys.script = [truncated]
        with pytest.raises(SinkUnavailable):
            await sink.upsert([sink.encode(JANE, callable_=True)])
    host, port = "127.0.0.1", int(bench.genesys.url.rpartition(":")[2])
    _, asked, cut = bench.spans()
    assert (asked.name, asked.kind) == (f"POST {LISTS}/{{contactListId}}/contacts/bulk", SpanKind.CLIENT)
    assert asked.status.status_code is StatusCode.UNSET
    assert asked.attributes == {
        "http.request.method": "POST",
        "url.template": f"{LISTS}/{{contactListId}}/contacts/bulk",
        "server.address": host,
        "server.port": port,
        "http.response.status_code": 200,
    }
    assert cut.status.status_code is StatusCode.ERROR
    assert (cut.attributes["http.response.status_code"], cut.attributes["error.type"]) == (200, "ClientPayloadError")
    assert cut.events == ()


async def test_trace_context_travels_and_baggage_does_not(bench):
    """The request names its own span as parent; what records carried as baggage stays here."""
    async with bench.sink() as sink:
        held = context.attach(baggage.set_baggage("user.email", "canary@example.com"))
        try:
            await ask(sink, "crm-2")
        finally:
            context.detach(held)
    span, headers = bench.spans()[-1], bench.genesys.calls[-1].headers
    assert headers["traceparent"].startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    assert "baggage" not in {name.lower() for name in headers}


async def test_each_physical_request_is_counted(bench):
    """Operation and status, or the error where there was no answer; a repeat counts again."""
    async with bench.sink() as sink:
        bench.genesys.script = [error(401, "bad.credentials"), accept, reset]
        await ask(sink, "crm-2")
        with pytest.raises(SinkUnavailable):
            await sink.upsert([sink.encode(JANE, callable_=True)])
    assert bench.requests == [
        ("token", "200"),
        ("list_contact_lists", "200"),
        ("read_contacts", "401"),
        ("token", "200"),
        ("read_contacts", "200"),
        ("add_contacts", "ServerDisconnectedError"),
    ]
