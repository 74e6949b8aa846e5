"""The simulator on a loopback socket: what faults look like to a client, and the view inside."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault
from consumer.simulator.journal import Entry
from consumer.simulator.operations import Operation

LISTS = "/api/v2/outbound/contactlists"
DNC_LISTS = "/api/v2/outbound/dnclists"
LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


class Answer(NamedTuple):
    status: int
    raw: bytes
    headers: Mapping[str, str]

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Client:
    """A client with a token and a list."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.http = http
        self.token = ""
        self.list_id = ""

    async def log_in(self) -> Answer:
        headers = {"Authorization": aiohttp.encode_basic_auth("id", "secret")}
        form = {"grant_type": "client_credentials"}
        async with self.http.post(self.simulator.url + "/oauth/token", data=form, headers=headers) as response:
            answer = Answer(response.status, await response.read(), response.headers)
        if answer.status == 200:
            self.token = answer.body["access_token"]
        return answer

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.http.request(method, self.simulator.url + path, json=body, headers=headers) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def make_list(self) -> None:
        phone = {"columnName": "phone", "type": "cell"}
        body = {"name": "customers", "columnNames": ["phone"], "phoneColumns": [phone]}
        self.list_id = (await self.call("POST", LISTS, body)).body["id"]

    def contacts(self, *ids: str) -> list[dict[str, Any]]:
        return [{"id": each, "contactListId": self.list_id, "data": {"phone": "+15550100001"}} for each in ids]

    async def add(self, *ids: str, query: str = "?doNotQueue=true") -> Answer:
        return await self.call("POST", f"{LISTS}/{self.list_id}/contacts{query}", self.contacts(*ids))

    def held(self) -> set[str]:
        return set(self.simulator.contacts(self.list_id))

    def last(self) -> Entry:
        return list(self.simulator.journal)[-1]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a simulator with a journal."""
    async with (
        Simulator(journal_limit=100) as simulator,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=10)) as http,
    ):
        made = Client(simulator, http)
        await made.log_in()
        await made.make_list()
        yield made


@pytest.mark.parametrize("fault", ["500", "502", "503", "504", "429", "401", "413"])
async def test_a_refused_request_is_not_applied(client: Client, fault: str):
    """A fault with a status answers with it and applies nothing."""
    client.simulator.faults.inject(Fault.parse(fault))
    assert (await client.add("a")).status == int(fault)
    assert client.held() == set()
    assert (client.last().status, client.last().applied, client.last().fault) == (int(fault), False, fault)


async def test_a_delete_may_tell_no_media_type_but_json(client: Client):
    """It has no body, and needs no type of one; the contract lists the refusal of another for it, too."""
    path = f"{client.simulator.url}{LISTS}/{client.list_id}/contacts?contactIds=a"
    await client.add("a")
    for told, status, left in (
        ("application/octet-stream", 415, {"a"}),
        ("application/json", 200, set()),
        (None, 200, set()),
    ):
        headers = {"Authorization": f"Bearer {client.token}"} | ({} if told is None else {"Content-Type": told})
        async with client.http.delete(path, headers=headers, skip_auto_headers=["Content-Type"]) as response:
            assert (response.status, client.held()) == (status, left)


async def test_the_edge_answers_in_html(client: Client):
    """A 502 has no ErrorBody."""
    client.simulator.faults.inject(Fault.parse("502"))
    answer = await client.add("a")
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.raw.startswith(b"<html>")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("clearing", "contact.list.clear.in.progress"),
        ("importing", "contact.list.import.in.progress"),
        ("bulk_job", "contact.bulk.operation.in.progress"),
        ("413", "request.entity.too.large"),
    ],
)
async def test_a_busy_list_and_a_body_too_large_have_genesys_codes(client: Client, fault: str, code: str):
    """What Genesys itself refuses has an ErrorBody with its code, and is not applied."""
    client.simulator.faults.inject(Fault.parse(fault))
    answer = await client.add("a")
    assert answer.body["code"] == code
    assert answer.status == answer.body["status"] == (413 if fault == "413" else 400)
    assert client.held() == set()


async def test_a_network_in_between_answers_in_its_own_way(client: Client):
    """A page with status 200, or a redirect to a host that is not Genesys': neither applies the request."""
    client.simulator.faults.inject(Fault.parse("html"), Fault.parse("302"))
    page = await client.add("a")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html")
    path = f"{client.simulator.url}{LISTS}/{client.list_id}"
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.delete(path, headers=headers, allow_redirects=False) as redirect:
        assert redirect.status == 302
        assert URL(redirect.headers["Location"]).host == "elsewhere.invalid"
    assert client.held() == set()
    assert client.simulator.lists() != []


async def test_a_dripping_answer_comes_byte_by_byte(client: Client):
    """A client that waits has the whole answer; one that does not has had the work done."""
    client.simulator.faults.inject(Fault.parse("drip=0.0001@get_contact"), Fault.parse("drip=30@add_contacts"))
    await gives_up(client, lambda: client.held() == {"a"})
    answer = await client.call("GET", f"{LISTS}/{client.list_id}/contacts/a")
    assert (answer.status, answer.body["id"]) == (200, "a")


async def test_an_endless_answer_goes_on_until_the_client_leaves(client: Client):
    """Megabytes come, and more; the simulator serves others meanwhile and afterwards."""
    client.simulator.faults.inject(Fault.parse("endless@add_contacts"))
    path = f"{client.simulator.url}{LISTS}/{client.list_id}/contacts"
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.post(path, json=client.contacts("a"), headers=headers) as answer:
        assert answer.status == 200
        assert len(await answer.content.readexactly(4 * 2**20)) == 4 * 2**20
        assert (await client.call("GET", LISTS)).status == 200
        answer.close()
    assert (await client.add("b")).status == 200
    assert client.held() == {"a", "b"}


async def test_a_deep_answer_is_whole_and_more_than_a_parser_takes(client: Client):
    """The body is JSON by its grammar, and the standard parser gives up on it."""
    client.simulator.faults.inject(Fault.parse("deep"))
    answer = await client.add("a")
    assert answer.status == 200
    assert answer.raw == b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(RecursionError):
        _ = answer.body


@pytest.mark.parametrize(
    ("fault", "seconds"), [("429", "1"), ("429=7", "7"), ("429=1.2", "2"), ("503=3", "3"), ("503", None)]
)
async def test_retry_after_is_what_the_fault_says(client: Client, fault: str, seconds: str | None):
    """Retry-After is whole seconds, rounded up; a 429 always has it."""
    client.simulator.faults.inject(Fault.parse(fault))
    assert (await client.add("a")).headers.get("Retry-After") == seconds


async def test_an_expired_token_stays_expired(client: Client):
    """After the fault 401 the old token is worth nothing, and a new one is."""
    client.simulator.faults.inject(Fault.parse("401"))
    assert (await client.add("a")).status == 401
    assert (await client.add("a")).status == 401
    await client.log_in()
    assert (await client.add("a")).status == 200


@pytest.mark.parametrize(("fault", "applied"), [("reset", set()), ("lost_reply", {"a"})])
async def test_a_cut_connection_tells_nothing(client: Client, fault: str, applied: set[str]):
    """Reset and lost reply look alike to a client, but only the lost reply was applied."""
    client.simulator.faults.inject(Fault.parse(fault))
    with pytest.raises(LOST):
        await client.add("a")
    assert client.held() == applied
    assert (client.last().status, client.last().applied) == (None, bool(applied))


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_truncated_answer_is_applied(client: Client, method: str):
    """The status is 200, the body is cut, and the request was applied."""
    client.simulator.faults.inject(Fault.parse("truncated"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await (client.add("a") if method == "POST" else client.call(method, f"{LISTS}/{client.list_id}"))
    assert client.last().applied
    assert client.last().status == 200


async def test_a_bad_body_is_no_json(client: Client):
    """The answer is complete and a 200, and its body cannot be parsed."""
    client.simulator.faults.inject(Fault.parse("bad_json"))
    answer = await client.add("a")
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        _ = answer.body
    assert client.held() == {"a"}


async def test_a_slow_answer_comes_after_its_work(client: Client):
    """A client that gives up a slow request finds it applied, and its journal entry ended."""
    client.simulator.faults.inject(Fault.parse("slow=30"))
    await gives_up(client, lambda: client.held() == {"a"})
    await until(lambda: client.last().ended is not None)
    assert client.last().status is None


async def test_a_slow_answer_comes_at_last(client: Client):
    """A client that waits has its answer, no sooner than the delay."""
    client.simulator.faults.inject(Fault.parse("slow=0.05"))
    started = asyncio.get_running_loop().time()
    assert (await client.add("a")).status == 200
    assert asyncio.get_running_loop().time() - started >= 0.05


async def test_a_hanging_request_lasts_until_the_client_goes(client: Client):
    """Nothing is answered and nothing applied; the entry ends with the client."""
    client.simulator.faults.inject(Fault.parse("hang"))
    await gives_up(client, lambda: client.simulator.faults.pending == 0)
    await until(lambda: client.last().ended is not None)
    assert (client.held(), client.last().status, client.last().applied) == (set(), None, False)


@pytest.mark.parametrize("fault", ["truncated", "drip=30", "endless", "deep", "bad_json"])
async def test_an_answer_without_a_body_is_struck_too(client: Client, fault: str):
    """Where Genesys answers 204 there is nothing to strike: a 200 comes instead, and is no whole JSON in time."""
    definition = {"name": "never", "dncSourceType": "rds", "contactMethod": "Phone"}
    path = f"{DNC_LISTS}/{(await client.call('POST', DNC_LISTS, definition)).body['id']}/phonenumbers"
    client.simulator.faults.inject(Fault.parse(fault))
    headers = {"Authorization": f"Bearer {client.token}"}
    patch = {"action": "Add", "phoneNumbers": ["+15550100001"]}
    async with client.http.patch(client.simulator.url + path, json=patch, headers=headers) as answer:
        assert answer.status == 200
        with pytest.raises((TimeoutError, aiohttp.ClientPayloadError, json.JSONDecodeError, RecursionError)):
            async with asyncio.timeout(0.3):
                json.loads(await answer.read())
        answer.close()
    assert client.simulator.dnc_numbers("never") == {"+15550100001"}


@pytest.mark.parametrize("fault", ["drip=5", "endless"])
async def test_stopping_ends_an_answer_that_lasts(client: Client, fault: str):
    """An answer under way is cut soon after the simulator is told to stop."""
    client.simulator.faults.inject(Fault.parse(fault))
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.get(client.simulator.url + LISTS, headers=headers) as answer:
        await answer.content.readexactly(1)
        async with asyncio.timeout(5):
            await client.simulator.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("fault", ["hang", "slow=60"])
async def test_stopping_does_not_wait_for_what_hangs(client: Client, monkeypatch: pytest.MonkeyPatch, fault: str):
    """Stop cuts hanging and slow requests, and does not leave them to the web server's patience."""
    await client.simulator.stop()
    monkeypatch.setattr("consumer.simulator.app._SHUTDOWN_TIMEOUT_S", 60)
    await client.simulator.start()
    client.simulator.faults.inject(Fault.parse(fault))
    request = asyncio.ensure_future(client.add("a"))
    await until(lambda: client.simulator.faults.pending == 0)
    async with asyncio.timeout(9):
        await client.simulator.stop()
    with pytest.raises(LOST):
        await request


async def test_an_outage_forgets_nothing(client: Client):
    """Stopped and started on the same port it is the same organisation, and the token is still good."""
    await client.add("a")
    url = client.simulator.url
    await client.simulator.stop()
    with pytest.raises(LOST):
        await client.add("b")
    await client.simulator.start(port=int(url.rpartition(":")[2]))
    assert (await client.add("b")).status == 200
    assert (client.simulator.url, client.held()) == (url, {"a", "b"})


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [("429@token", 400, "invalid_request"), ("401@token", 401, "invalid_client"), ("503@token", 503, None)],
)
async def test_the_login_host_has_faults_of_its_own(client: Client, fault: str, status: int, error: str | None):
    """Token throttling and refusal have the login host's words, an outage those of everything else."""
    client.simulator.faults.inject(Fault.parse(fault))
    answer = await client.log_in()
    assert (answer.status, answer.body.get("error")) == (status, error)
    assert answer.body.get("description", "").startswith("rate limit exceeded;") == (error == "invalid_request")


async def test_every_answer_can_be_correlated(client: Client):
    """Each answer, good, refused or of an unknown path, has its own correlation id, as does its body."""
    answers = [
        await client.add("a"),
        await client.call("GET", f"{LISTS}/absent"),
        await client.call("GET", "/api/v2/unknown"),
        await client.call("PATCH", LISTS),
        await client.log_in(),
    ]
    assert [answer.status for answer in answers] == [200, 404, 404, 404, 200]
    assert len({answer.headers["ININ-Correlation-Id"] for answer in answers}) == 5
    assert all(answer.body["contextId"] == answer.headers["ININ-Correlation-Id"] for answer in answers[1:4])


async def test_the_journal_tells_what_was_asked(client: Client):
    """An entry has the operation, the contacts, the flags as given, the status and both instants."""
    await client.add("a", "b", query="?priority=false&doNotQueue=true")
    entry = client.last()
    assert (entry.operation, entry.list_id) == (Operation.ADD_CONTACTS, client.list_id)
    assert entry.contact_ids == ("a", "b")
    assert entry.flags == {"priority": False, "doNotQueue": True}
    assert (entry.status, entry.applied, entry.fault) == (200, True, None)
    assert entry.ended is not None
    assert entry.started <= entry.ended


async def test_a_refused_request_is_in_the_journal_with_its_contacts(client: Client):
    """Contacts of a request that a fault struck are told too."""
    client.simulator.faults.inject(Fault.parse("503"))
    await client.add("a")
    assert (client.last().contact_ids, client.last().applied) == (("a",), False)


async def test_requests_in_turn_do_not_overlap_and_concurrent_ones_do(client: Client):
    """The journal finds a contact that a client has in two requests at once, and only then."""
    for _ in range(20):
        await client.add("a", "b")
    assert client.simulator.journal.overlapping_contacts() == set()
    client.simulator.faults.inject(Fault.parse("slow=0.2"))
    await asyncio.gather(client.add("a"), client.add("a", "c"))
    assert client.simulator.journal.overlapping_contacts() == {"a"}


async def test_a_long_request_line_is_taken(client: Client):
    """16 KB of query are read."""
    ids = "&".join(f"contactIds={n:060d}" for n in range(220))
    assert len(ids) > 15_000
    answer = await client.call("DELETE", f"{LISTS}/{client.list_id}/contacts?{ids}")
    assert (answer.status, answer.raw) == (200, b"")


async def test_the_largest_body_is_taken(client: Client):
    """512,000 bytes are within the limit and one more is not, with or without a length in front."""
    path = f"{client.simulator.url}{LISTS}/{client.list_id}/contacts"
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    body = json.dumps(client.contacts("a")).encode().ljust(512_000)

    async def stream() -> AsyncIterator[bytes]:
        yield body
        yield b" "

    statuses = []
    for data in (body, body + b" ", stream()):
        async with client.http.post(path, data=data, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [200, 413, 413]


async def test_the_inside_is_seen(client: Client):
    """Lists, contacts and counts are told as they are."""
    await client.add("a", "b")
    await client.add("a")
    assert [(made["name"], made["size"]) for made in client.simulator.lists()] == [("customers", 2)]
    contacts = client.simulator.contacts("customers")
    assert contacts["a"] == {"data": {"phone": "+15550100001"}, "callable": True}
    assert dict(client.simulator.applied("customers")) == {"a": 2, "b": 1}


async def test_the_inside_is_seen_from_outside(client: Client):
    """The same over HTTP, without a token, by name or id; a list there is not is a 404."""
    await client.add("a")
    client.simulator.faults.inject(Fault.parse("503"))
    await client.add("a")
    client.token = ""
    lists = (await client.call("GET", "/simulator/lists")).body
    by_name = (await client.call("GET", "/simulator/lists/customers/contacts")).body
    by_id = (await client.call("GET", f"/simulator/lists/{lists[0]['id']}/contacts")).body
    stats = (await client.call("GET", "/simulator/stats")).body
    assert by_name == by_id == {"a": {"data": {"phone": "+15550100001"}, "callable": True, "applied": 1}}
    assert stats["requests"]["add_contacts"] == {"200": 1, "503": 1}
    assert stats["faults"] == {"503": 1}
    assert stats["contacts"] == {"applied": 1, "deleted": 0, "requeued": 0}
    assert (await client.call("GET", "/simulator/lists/absent/contacts")).status == 404


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_000])
async def test_a_dump_of_any_size_is_whole(client: Client, count: int):
    """The dump is one JSON object with every contact, however many chunks it takes."""
    for start in range(0, count, 1_000):
        await client.add(*(f"c{n}" for n in range(start, min(count, start + 1_000))))
    dump = (await client.call("GET", "/simulator/lists/customers/contacts")).body
    assert dump.keys() == {f"c{n}" for n in range(count)}


async def test_what_can_be_changed_while_it_runs_has_effect(client: Client):
    """Permissions withheld and contacts in use are heeded from the next request on."""
    await client.add("a")
    client.simulator.contacts_in_use.add("a")
    assert (await client.call("DELETE", f"{LISTS}/{client.list_id}/contacts/a")).body["code"] == "contact.in.use"
    client.simulator.withheld_permissions.add("outbound:contact:add")
    assert (await client.add("b")).status == 403


async def gives_up(client: Client, once: Callable[[], bool]) -> None:
    """Add the contact `a`, and leave as soon as the condition holds, without an answer."""
    request = asyncio.ensure_future(client.add("a"))
    await until(once)
    assert not request.done()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def until(condition: Any) -> None:
    """Let others run until the condition holds; bounded."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to offer
            await asyncio.sleep(0)
