"""The watch over what our client asks of Genesys: what it finds, and that a run which has it fails."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import aiohttp
import pytest
from yarl import URL

from consumer.simulator.app import Simulator
from consumer.simulator.exchange import Exchanges
from tests.contract_watch import Sent, Watch, watched_exchange

PROJECT = Path(__file__).parents[2]
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LISTS = "/api/v2/outbound/contactlists"
CONTACTS = f"{LISTS}/5f4dcc3b/contacts"
GOOD = b'[{"contactListId": "5f4dcc3b", "data": {"phone": "+15550100001"}, "callable": true}]'


def found(method: str, target: str, content_type: str = "", body: bytes | None = b"") -> list[str]:
    """What a watch says of one request."""
    watch = Watch()
    watch.look(Sent(method, URL(f"http://127.0.0.1{target}", encoded=True), content_type, body))
    return watch.take()


@pytest.mark.parametrize(
    ("method", "target", "content_type", "body"),
    [
        ("POST", "/oauth/token", FORM, b"grant_type=client_credentials"),
        ("GET", LISTS, "", b""),
        ("GET", f"{LISTS}?name=CRM%20contacts&filterType=Equals&pageSize=100&includeSize=true", "", b""),
        ("POST", f"{CONTACTS}?doNotQueue=true", JSON, GOOD),
        ("DELETE", f"{CONTACTS}?contactIds=a,b", "", b""),
        ("POST", f"{CONTACTS}/bulk", JSON, b'["a"]'),
        ("POST", CONTACTS, JSON, None),
    ],
)
def test_a_request_of_the_contract_passes(method: str, target: str, content_type: str, body: bytes | None):
    """Nothing is said of a request that the contract has; a body that nobody read is not judged."""
    assert found(method, target, content_type, body) == []


@pytest.mark.parametrize(
    ("method", "target", "content_type", "body", "why"),
    [
        ("PATCH", LISTS, JSON, b"{}", "no such endpoint"),
        ("GET", "/api/v2/outbound/contactlist", "", b"", "no such endpoint"),
        ("GET", f"{LISTS}?page=1", "", b"", "query parameter page is not known"),
        ("GET", f"{LISTS}?pageSize=many", "", b"", "pageSize has no value"),
        ("GET", f"{LISTS}?includeSize=1", "", b"", "includeSize has no value"),
        ("GET", f"{LISTS}?filterType=Sounds", "", b"", "filterType has no value"),
        ("DELETE", CONTACTS, "", b"", "contactIds is missing"),
        ("GET", LISTS, JSON, b"{}", "there is a body"),
        ("DELETE", f"{CONTACTS}?contactIds=a", "application/octet-stream", b"", "octet-stream, where no body can be"),
        ("POST", CONTACTS, "", GOOD, "content type is not given"),
        ("POST", CONTACTS, "text/csv", GOOD, "content type is text/csv"),
        ("POST", CONTACTS, JSON, b"[", "the body is no application/json"),
        ("POST", CONTACTS, JSON, b'{"contacts": []}', "wrong at $: against type"),
        ("POST", CONTACTS, JSON, GOOD.replace(b"callable", b"callabel"), "$[0]: against additionalProperties"),
        ("POST", CONTACTS, JSON, GOOD.replace(b"true", b'"true"'), "$[0].callable: against type"),
        ("POST", CONTACTS, JSON, GOOD.replace(b'"+15550100001"', b"null"), "against type"),
        ("POST", CONTACTS, JSON, b'[{"contactListId": "5f4dcc3b"}]', "$[0]: against required"),
        ("POST", "/oauth/token", FORM, b"grant_type=password", "wrong at $.grant_type: against const"),
        ("POST", "/oauth/token", FORM, b"grant_type=client_credentials&scope=outbound", "additionalProperties"),
    ],
)
def test_a_request_that_is_not_of_the_contract_is_found(
    method: str, target: str, content_type: str, body: bytes, why: str
):
    """Each way to leave the contract is told with its place, and without a value that was sent."""
    (deviation,) = found(method, target, content_type, body)
    assert why in deviation
    assert "+1555" not in deviation


@pytest.mark.parametrize("changes", [{"data": {"phone": None}}, {"id": 1}, {"callable": 1}, {"x": ""}, {"data": []}])
def test_one_wrong_contact_among_many_is_found(changes: dict[str, object]):
    """Contacts that differ in their texts alone are looked at once, and one of another kind is not overlooked."""
    contacts: list[dict[str, object]] = [
        {"id": f"c{n}", "contactListId": "5f4dcc3b", "data": {"phone": str(n)}} for n in range(1_000)
    ]
    contacts[700] |= changes
    assert found("POST", CONTACTS, JSON, json.dumps(contacts).encode()) != []
    del contacts[700]
    assert found("POST", CONTACTS, JSON, json.dumps(contacts).encode()) == []


def test_a_file_goes_only_where_an_answer_said():
    """What an answer gave as its url or uri may be asked, with any type of file; a path of one's own may not."""
    upload = {
        "method": "PUT",
        "path": "{UploadUrlResponse.url}",
        "query_params": [],
        "request_body": {"content_type": "as given in contentType", "required": True, "schema": {}},
    }
    watch = Watch([upload])
    watch.answered(b'{"url":"http://127.0.0.1/store/key-1?signature=x","uploadKey":"key-1"}')
    watch.answered(b'{"uri": "/api/v2/downloads/5f4dcc3b"}')
    host = URL("http://127.0.0.1")
    watch.look(Sent("PUT", host / "store/key-1" % {"signature": "x"}, "text/csv", b"id\r\n"))
    watch.look(Sent("GET", host / "api/v2/downloads/5f4dcc3b", "", b""))
    assert watch.take() == []
    watch.look(Sent("PUT", host / "store/key-2", "text/csv", b"id\r\n"))
    watch.look(Sent("PUT", host / "store/key-1", "", b"id\r\n"))
    assert [each.partition(": ")[2] for each in watch.take()] == [
        "the contract has no such endpoint",
        "the content type is not given",
    ]


def test_a_request_that_was_seen_where_it_was_sent_counts_once():
    """The simulator's side of a request of this process adds nothing; one of another process does."""
    watch = Watch()
    mine = Sent("GET", URL(f"http://127.0.0.1{LISTS}"), "", b"")
    watch.sent(mine)
    watch.served(mine)
    watch.served(mine._replace(url=URL(f"http://127.0.0.1{LISTS}?page=1")))
    assert watch.checked == 2
    assert watch.endpoints == {("GET", LISTS)}
    assert watch.failed == len(watch.take()) == 1


@pytest.mark.parametrize(("agent", "checked"), [("genesys-consumer/1.0", 2), ("somebody-else/1.0", 0)])
async def test_a_simulator_watches_our_client_alone(monkeypatch: pytest.MonkeyPatch, agent: str, checked: int):
    """A client in another process is known by its name; what others send is their affair."""
    watch = Watch()
    for name in ("api", "unknown"):
        monkeypatch.setattr(Exchanges, name, watched_exchange(watch, getattr(Exchanges, name).__wrapped__))
    async with (
        Simulator() as simulator,
        aiohttp.ClientSession(headers={"User-Agent": agent}) as http,
        http.get(f"{simulator.url}{LISTS}?page=1") as refused,
        http.get(f"{simulator.url}/nowhere") as unknown,
    ):
        assert (refused.status, unknown.status) == (401, 404)
    assert (watch.checked, len(watch.take())) == (checked, checked)


PLANTED = """
    import aiohttp
    import pytest
    from consumer.simulator.app import Simulator

    async def ask(simulator, target):
        headers = {"User-Agent": "genesys-consumer/1.0"}
        async with aiohttp.ClientSession(headers=headers) as http, http.get(simulator.url + target) as answer:
            return answer.status

    async def test_right():
        async with Simulator() as simulator:
            assert await ask(simulator, "/api/v2/outbound/contactlists") == 401

    async def test_wrong():
        async with Simulator() as simulator:
            assert await ask(simulator, "/api/v2/outbound/contactlists?planted=1") == 401

    @pytest.mark.off_contract
    async def test_wrong_on_purpose():
        async with Simulator() as simulator:
            assert await ask(simulator, "/api/v2/outbound/contactlists?planted=1") == 401
"""
OUTSIDE = """
    import asyncio
    import aiohttp
    import pytest
    from consumer.simulator.app import Simulator

    async def ask_wrongly():
        headers = {"User-Agent": "genesys-consumer/1.0"}
        async with Simulator() as simulator, aiohttp.ClientSession(headers=headers) as http:
            async with http.get(simulator.url + "/nowhere"):
                pass

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(session):
        asyncio.run(ask_wrongly())
"""


def run_pytest(folder: Path, arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A run of pytest of its own, with the watch, over what the folder has."""
    plugin = "from tests.contract_watch import Plugin\ndef pytest_configure(config):\n"
    plugin += "    config.pluginmanager.register(Plugin(), 'contract-watch')\n"
    outside = folder / "outside.py"
    (folder / "conftest.py").write_text(plugin + (outside.read_text() if outside.exists() else ""))
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nmarkers =\n    off_contract: on purpose\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(folder)]
    return subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_a_planted_request_fails_the_test_that_it_came_in(tmp_path: Path, arguments: list[str]):
    """Of three tests the one that sends a wrong request unasked is in error, and the summary counts it."""
    (tmp_path / "test_planted.py").write_text(dedent(PLANTED))
    run = run_pytest(tmp_path, arguments)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.findall(r"^ERROR .*::(\w+)", run.stdout, re.MULTILINE) == ["test_wrong"]
    assert "GET /api/v2/outbound/contactlists: query parameter planted is not known" in run.stdout
    assert "contract: 3 requests checked, 1 endpoints, 1 deviations" in run.stdout


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arguments", [[], ["-n", "1"]], ids=["one process", "another process"])
def test_a_planted_request_outside_of_tests_fails_the_run(tmp_path: Path, arguments: list[str]):
    """All tests pass, and yet the run fails and says why."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    assert True\n")
    (tmp_path / "outside.py").write_text(dedent(OUTSIDE))
    run = run_pytest(tmp_path, arguments)
    assert "1 passed" in run.stdout
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "outside of tests: GET /nowhere: the contract has no such endpoint" in run.stdout
