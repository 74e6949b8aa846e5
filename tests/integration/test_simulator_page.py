"""The simulator's page: what a person sees in a browser, and what the page may not do."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault
from tests.browser import cells, seen_in_browser

LISTS = "/api/v2/outbound/contactlists"
DNC_LISTS = "/api/v2/outbound/dnclists"
MARKUP = "<img src=x onerror=document.title=1>"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """An organisation with a contact list of a contact, a do-not-call list of a number, and a fault that struck."""
    async with Simulator() as simulator, aiohttp.ClientSession(simulator.url) as http:
        form = {"grant_type": "client_credentials"}
        basic = {"Authorization": aiohttp.encode_basic_auth("id", "secret")}
        async with http.post("/oauth/token", data=form, headers=basic) as answer:
            http.headers["Authorization"] = f"Bearer {(await answer.json())['access_token']}"

        async def post(path: str, body: Any) -> Any:
            async with http.post(path, json=body) as answer:
                return await answer.json() if answer.content_length else None

        phone = {"columnName": "phone", "type": "cell"}
        made = await post(LISTS, {"name": MARKUP, "columnNames": ["phone"], "phoneColumns": [phone]})
        contact = {"id": "c1", "contactListId": made["id"], "data": {"phone": "+15550100001"}}
        await post(f"{LISTS}/{made['id']}/contacts", [contact, contact | {"id": "c2"}])
        dnc = await post(DNC_LISTS, {"name": "never", "dncSourceType": "rds", "contactMethod": "Phone"})
        await post(f"{DNC_LISTS}/{dnc['id']}/phonenumbers", ["+15550100009"])
        simulator.faults.inject(Fault.parse("503"))
        await post(LISTS, {})
        yield simulator


async def get(simulator: Simulator, path: str) -> aiohttp.ClientResponse:
    """An answer, read whole."""
    async with aiohttp.ClientSession() as http, http.get(simulator.url + path) as answer:
        await answer.read()
        return answer


@pytest.mark.parametrize("path", ["/", "/simulator"])
async def test_the_page_is_all_it_needs(simulator: Simulator, path: str):
    """The page names no other host, and its policy lets nothing but its own script and style run."""
    answer = await get(simulator, path)
    page = await answer.text()
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert "http" not in page
    assert "//" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


async def test_as_many_contacts_are_told_as_are_wanted(simulator: Simulator):
    """With a limit the first contacts come alone; a limit that is none is a 400."""
    (made,) = simulator.lists()
    path = f"/simulator/lists/{made['id']}/contacts?limit="
    assert (await (await get(simulator, path + "1")).json()).keys() == {"c1"}
    assert (await (await get(simulator, path + "9")).json()).keys() == {"c1", "c2"}
    assert (await get(simulator, path + "x")).status == 400


async def test_the_page_shows_the_organisation(simulator: Simulator, tmp_path: Path):
    """Lists with their sizes, requests by status and struck faults are seen; stored markup is text and nothing runs."""
    (made,) = simulator.lists()
    document = await seen_in_browser(f"{simulator.url}/#lists/{made['id']}", tmp_path)
    assert "<title>Genesys Cloud, simulated</title>" in document
    assert "<img" not in document
    seen = cells(document)
    assert "&lt;img src=x" in seen
    assert "never 1 rds" in seen
    assert "id callable written phone c1 yes 1 +15550100001 c2" in seen
    assert "create_contact_list 200: 1, 503: 1" in seen
    assert "Faults that struck kind requests 503 1" in seen


async def test_the_page_shows_who_is_not_to_be_called(simulator: Simulator, tmp_path: Path):
    """The entries of a do-not-call list are shown on demand."""
    (dnc,) = await (await get(simulator, "/simulator/dnc-lists")).json()
    seen = cells(await seen_in_browser(f"{simulator.url}/simulator#dnc-lists/{dnc['id']}", tmp_path))
    assert "entry +15550100009" in seen
